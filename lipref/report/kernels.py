"""Notebooks on kernels of this very interpreter: run them, in threads, and stop all of them together.

papermill executes; around it, what it leaves open. It takes the kernel that the user's Jupyter calls python3, which may
be another environment; it reports a cell that ended a killed kernel as completed; it knows one notebook at a time.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import textwrap
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, TypeVar

from lipref.errors import LiprefError
from lipref.extras import require

T = TypeVar("T")
NAME = "python3"
START_SECONDS = 60  # a kernel starts in two seconds, on a busy machine in thirty
STARTS = 3  # its ports were free when they were chosen, not always when it takes them; then it never answers
UNREADY = ("Kernel didn't respond", "Kernel died before replying")  # jupyter_client; no cell has run then
OUTPUT_SECONDS = 60  # how long a finished cell may take to hand over its last output


class Stopped(Exception):
    """The kernel was stopped because its caller was interrupted; there is no result, and no error to report."""


class Kernels:
    """The kernels that run at the moment; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._managers: list[Any] = []
        self.stopped = False

    def add(self, manager: Any) -> None:
        """Watch a kernel that has just started; one that starts after `stop` is killed at once."""
        with self._lock:
            self._managers.append(manager)
            if self.stopped:
                _kill(manager)

    def stop(self) -> None:
        """Kill every kernel and what it started; later ones too."""
        with self._lock:
            self.stopped = True
            for manager in self._managers:
                _kill(manager)

    def manager_class(self) -> type:
        """A kernel manager for nbclient, whose kernels run in this interpreter's environment and are watched here."""
        manager = require("jupyter_client.manager")
        spec = require("jupyter_client.kernelspec").KernelSpec(**require("ipykernel.kernelspec").get_kernel_dict())
        spec.argv.insert(1, "-Xfrozen_modules=off")  # else the kernel's debugger prints a warning
        spec.argv.append("--log-level=CRITICAL")  # being stopped while idle is no error; those of cells are outputs
        encrypted = require("zmq").has("curve")
        kernels = self

        class Manager(manager.AsyncKernelManager):
            kernel_spec = spec

            async def start_kernel(self, **keywords: Any) -> None:
                if kernels.stopped:
                    raise Stopped
                if encrypted and self.has_trait("transport_encryption"):
                    self.transport_encryption = "auto"  # else newer kernels print a warning
                await super().start_kernel(**keywords)
                kernels.add(self)

        return Manager


def _kill(manager: Any) -> None:
    provisioner = manager.provisioner
    process = getattr(provisioner, "process", None)
    if process is None or process.poll() is not None:
        return
    with contextlib.suppress(ProcessLookupError):  # it ended by itself in this very moment
        if provisioner.pgid and hasattr(os, "killpg"):
            os.killpg(provisioner.pgid, signal.SIGKILL)
        else:
            process.kill()


def run(
    kernels: Kernels,
    source: Path,
    target: Path,
    parameters: dict[str, Any],
    *,
    timeout: int | None = None,
    on_cell: Callable[[int, int], None] | None = None,
) -> str | None:
    """Execute a notebook in the working folder of this process.

    To be called in a thread without an event loop, as `in_threads` does.

    Args:
        kernels: Where its kernel is watched.
        source: The notebook, with a cell tagged ``parameters``.
        target: Where papermill saves the executed notebook, after every cell and also when one fails.
        parameters: Written into a cell after the tagged one.
        timeout: Seconds that one cell may take; None: no limit.
        on_cell: Called with the numbers of executed and of all code cells, in that thread.

    Returns:
        None, or one line that says where and why it failed.

    Raises:
        Stopped: by `Kernels.stop`.
    """
    papermill = require("papermill")
    # It inspects the parameters line by line, to no use here, and reports each line that it does not understand.
    logging.getLogger("papermill.translators").setLevel(logging.ERROR)
    raised = require("papermill.exceptions").PapermillExecutionError
    died, late = (getattr(require("nbclient.exceptions"), name) for name in ("DeadKernelError", "CellTimeoutError"))
    ensure_event_loop = require("jupyter_core.utils").ensure_event_loop
    cells = [cell for cell in require("nbformat").read(source, as_version=4).cells if runs(cell)]
    total, done = len(cells) + bool(parameters), 0

    def executed(**_: Any) -> None:
        nonlocal done
        done += 1
        if on_cell is not None:
            on_cell(done, total)

    def place() -> str:
        return f"cell In [{min(done + 1, total)}]"

    def execute() -> None:
        papermill.execute_notebook(
            _literal(source),
            _literal(target),
            parameters,
            kernel_name=NAME,
            language="python",
            progress_bar=False,
            start_timeout=START_SECONDS,
            execution_timeout=timeout,
            iopub_timeout=OUTPUT_SECONDS,
            coalesce_streams=True,
            record_timing=False,
            kernel_manager_class=kernels.manager_class(),
            on_cell_executed=executed,
            resources={"metadata": {"path": os.getcwd()}},  # papermill's cwd would move the whole process
        )

    try:
        for left in reversed(range(STARTS)):
            try:
                execute()
                break
            except RuntimeError as error:
                if done or not left or kernels.stopped or not str(error).startswith(UNREADY):
                    raise
    except LiprefError:
        raise
    except Exception as error:
        if kernels.stopped:
            raise Stopped from None
        if isinstance(error, raised):
            where = f"cell In [{error.exec_count}]" if error.exec_count else place()
            return f"{where} raised {error.ename}: {one_line(error.evalue)}"
        if isinstance(error, died):
            return f"{place()} ended the kernel: killed, or out of memory"
        if isinstance(error, late):
            return f"{place()} took longer than {timeout} s"
        return f"{place()}: {type(error).__name__}: {one_line(error)}"
    finally:
        ensure_event_loop().close()
    return None


def runs(cell: Any) -> bool:
    """Whether a cell of a notebook has something to execute."""
    return cell.cell_type == "code" and bool(cell.source.strip())


def _literal(path: Path) -> str:
    """A path that papermill, which formats paths with parameters, leaves as it is."""
    return str(path).replace("{", "{{").replace("}", "}}")


def one_line(text: object) -> str:
    """Any message in one line of at most 300 characters."""
    return textwrap.shorten(str(text), 300, placeholder=" ...")


def in_threads(tasks: Sequence[Callable[[Kernels], T]], workers: int) -> Iterator[tuple[int, T | LiprefError]]:
    """Call the tasks, each with the common `Kernels`, in threads of their own.

    An interrupt, and leaving the iterator, kills all kernels, waits for the threads, and goes on upward.

    Yields:
        The number of a task and its result, or the LiprefError that it raised, as they end.

    Raises:
        LiprefError: ``workers`` is not positive.
    """
    if workers < 1:
        raise LiprefError(f"workers is {workers}: give 1 or more")
    kernels = Kernels()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="notebook")
    try:
        futures = {pool.submit(task, kernels): number for number, task in enumerate(tasks)}
        for future in as_completed(futures):
            error = future.exception()
            if isinstance(error, LiprefError):
                yield futures[future], error
            else:
                yield futures[future], future.result()
    finally:
        kernels.stop()
        pool.shutdown(wait=True, cancel_futures=True)
