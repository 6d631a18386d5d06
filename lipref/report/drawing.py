"""Notebooks' files without a kernel: a notebook's cells as one script."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from lipref.errors import LiprefError
from lipref.report.execute import damaged, publish
from lipref.report.items import Item
from lipref.report.kernels import one_line, runs
from lipref.report.parameters import check, read_notebook
from lipref.runs.records import make_folder
from lipref.runs.sweeps import why_broken

WORKERS = 4  # processes at the most


def draw(item: Item, out: Path, given: Mapping[str, object] | None = None) -> tuple[Path, ...]:
    """Write the files of ``item`` into ``out`` by running the cells of its notebook here, one after the other.

    Much quicker than `execute` for many notebooks, since everything is imported once; but a cell that ends the process
    ends it all, and no executed notebook is kept. What is printed is dropped.

    Returns:
        The files.

    Raises:
        LiprefError: wrong parameters, a cell that fails, or a file that is missing or damaged. ``out`` is unchanged
            then.
    """
    given = check(item.notebook, dict(given or {}))
    staging = make_folder(Path(out)) / f".{item.name}.{uuid.uuid4().hex}.tmp"
    staging.mkdir()
    names = {"__name__": f"notebook_{item.name}"}
    try:
        for number, cell in enumerate(read_notebook(item.notebook).cells):
            if not runs(cell):
                continue
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    exec(compile(cell.source, f"{item.notebook.name}, cell {number}", "exec"), names)
            except Exception as error:
                what = f"{type(error).__name__}: {one_line(error)}"
                raise LiprefError(f"{item.notebook.name}: cell {cell.id} raised {what}") from error
            if "parameters" in cell.metadata.get("tags", []):
                names |= given | {"out": str(staging)}
        reason = damaged(staging, item.outputs)
        if reason is not None:
            raise LiprefError(f"{item.notebook.name}: {reason}")
        return publish(staging, Path(out))
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def draw_all(
    items: Sequence[Item], out: Path, given: Mapping[str, object] | None = None, workers: int = WORKERS
) -> Iterator[tuple[Item, LiprefError | None]]:
    """`draw` every item, each with its error or None as it ends, in several processes where there are several items.

    Each process imports torch and matplotlib once, which takes some seconds and 0.5 GB.
    """
    workers = min(workers, len(items), os.cpu_count() or 1)
    if workers < 2:
        for item in items:
            yield item, _drawn(item, out, given)
        return
    # Not forked: torch's threads would not survive it.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        jobs = {pool.submit(_drawn, item, out, given): item for item in items}
        processes = list(pool._processes.values())
        try:
            for job in as_completed(jobs):
                yield jobs[job], job.result()
        except BrokenProcessPool as error:
            raise LiprefError(why_broken(pool, processes)) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _drawn(item: Item, out: Path, given: Mapping[str, object] | None) -> LiprefError | None:
    try:
        draw(item, out, given)
    except LiprefError as error:
        return error
    return None
