"""Many runs: what is done is read, what is missing is done, on as many processes as asked for."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace

import torch

from lipref.data import ImageData
from lipref.errors import LiprefError
from lipref.layers import resolve
from lipref.runs import budgets, recipes
from lipref.runs.experiment import NotDone, configure, execute
from lipref.runs.plans import Plan
from lipref.training import Progress


@dataclass(frozen=True)
class Step:
    """A message to the display: where the run of ``task`` is. ``share`` is the part of the task that is done."""

    task: tuple[str, str]
    what: str
    share: float
    progress: Progress | None = None


Listener = Callable[[Step], None]


def run_task(
    plan: Plan, task: tuple[str, str], data: ImageData, listener: Listener, read_only: bool = False
) -> list[dict]:
    """The search, if the layer's recipe needs one, and then one run per seed. Returns the final runs' records.

    A run that diverges at a searched learning rate is repeated at a third of it, at most `recipes.RETRIES` times; the
    diverged ones are among the records. Their notes are this plan's, also where the run was first made for another one:
    ``hyperparameters`` (where the recipe comes from), ``recipe`` (before any retry), ``retry`` and ``budget`` (the
    paper's hours or a measured time, with the step time behind it, or None). The files keep those of their making.
    """
    size, layer = task
    spec, device = resolve(layer), torch.device(plan.device)
    recipe = plan.recipe_of(data.name, size, spec.label)
    shared = plan.settings_of(data.name, size, spec.label)
    search = plan.search_of(data.name, size, spec.label)
    candidates = search.count if recipe is None else 0
    total = candidates * search.epochs + len(plan.seeds) * shared.epochs
    done = 0

    def callback(what: str, epochs: int) -> Callable[[Progress], None]:
        def on_progress(progress: Progress) -> None:
            share = (done + epochs * progress.step / progress.total_steps) / total
            listener(Step(task, what, share, progress))

        return on_progress

    if recipe is None:

        def on_candidate(index: int, learning_rate: float) -> Callable[[Progress], None]:
            nonlocal done
            done = index * search.epochs
            return callback(f"search lr {learning_rate:.3g}", search.epochs)

        recipe = recipes.search(
            data, spec, size, search, plan.settings.batch_size, plan.out / "search", device=device,
            schedule=plan.settings.schedule, ema=plan.settings.ema, speed=plan.settings.speed,
            checkpoint_seconds=plan.checkpoint_seconds, on_candidate=on_candidate, read_only=read_only,
        )  # fmt: skip
        done = candidates * search.epochs
    records = []
    start = {"learning_rate": recipe.learning_rate, "weight_decay": recipe.weight_decay}
    budget = {"budget": plan.budget, **_pace(plan, data.name, size, spec.label)}
    for seed in plan.seeds:
        tried = recipe
        for retry in range(recipes.RETRIES + 1):
            settings = replace(recipes.with_recipe(shared, tried), seed=seed)
            notes = {"hyperparameters": tried.source, "retry": retry, **budget, "recipe": start}
            record = execute(
                configure(data, spec, size, settings, device), data, spec, plan.out, device=device,
                checkpoint_seconds=plan.checkpoint_seconds, on_progress=callback(f"seed {seed}", shared.epochs),
                notes=notes, read_only=read_only,
            )  # fmt: skip
            records.append(record | {"notes": record["notes"] | notes})
            if record["status"] == "done" or tried.source not in recipes.SEARCHED:
                break
            tried = recipes.smaller(tried)  # the search's short runs could not see it
        done += shared.epochs
    listener(Step(task, "done", 1.0))
    return records


def _pace(plan: Plan, dataset: str, size: str, label: str) -> dict:
    """The step time behind a budget, and where it comes from; nothing where epochs were given."""
    if plan.budget is None:
        return {}
    pace = plan.pace(size, label)
    seconds = budgets.paper_step(dataset, size, label) if pace is None else pace.step_seconds
    return {"step_seconds": seconds, "step_from": budgets.PAPER if pace is None else pace.origin}


def run(plan: Plan, listener: Listener) -> Iterator[tuple[tuple[str, str], list[dict] | LiprefError]]:
    """Do all tasks; yields each task with its records, or with the error that it ended in, as it ends.

    What is done already is read first, here. A task that fails does not stop the others. With ``plan.jobs > 1`` every
    task runs in a process of its own, with an equal share of the threads, whatever is left to do; those processes end
    with this one, however it ends.
    """
    data = plan.load()
    missing = []
    for task in plan.tasks():
        try:
            yield task, _guarded(plan, task, data, listener, read_only=True)
        except NotDone:
            missing.append(task)
        except LiprefError as error:
            yield task, error
    if not missing:
        return
    if plan.jobs == 1:
        for task in missing:
            try:
                yield task, _guarded(plan, task, data, listener)
            except LiprefError as error:
                yield task, error
        return
    context = multiprocessing.get_context("spawn")
    messages = context.Queue()
    jobs = min(plan.jobs, len(missing))
    pool = ProcessPoolExecutor(jobs, context, initializer=_enter, initargs=(messages, plan.threads, os.getpid()))
    try:
        waiting: dict[Future, tuple[str, str]] = {pool.submit(_work, plan, task): task for task in missing}
        processes = list(pool._processes.values())
        while waiting:
            finished, _ = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
            _drain(messages, listener)
            for future in finished:
                task = waiting.pop(future)
                try:
                    yield task, future.result()
                except BrokenProcessPool:
                    yield task, LiprefError(why_broken(pool, processes))
                except LiprefError as error:
                    yield task, error
        _drain(messages, listener)
    except BaseException:
        for process in list((pool._processes or {}).values()):
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        messages.close()


def why_broken(pool: ProcessPoolExecutor, processes: Iterable[multiprocessing.Process]) -> str:
    """Why a pool of these spawned processes broke, in one line with the remedy."""
    pool.shutdown()  # waits for their ends
    # What a process raises before its first task ends it with 1; the system kills by a signal, a negative number.
    if any(process.exitcode == 1 for process in processes):
        return (
            "a process ended as it started: each imports the script that calls this anew, so the call has to stand "
            "below if __name__ == '__main__': there; or use one process"
        )
    return "a process was killed (out of memory?): call again, perhaps with fewer processes (--jobs 1)"


def _guarded(plan: Plan, task: tuple[str, str], data: ImageData, listener: Listener, read_only: bool = False) -> list:
    """`run_task`, any failure of which is a `LiprefError`: it ends this task, not the others."""
    try:
        return run_task(plan, task, data, listener, read_only)
    except (LiprefError, NotDone):
        raise
    except Exception as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise LiprefError(f"{what}; finished runs are kept, the same command goes on") from error


def _drain(messages: multiprocessing.Queue, listener: Listener) -> None:
    while True:
        try:
            listener(messages.get_nowait())
        except queue.Empty:
            return


_messages: multiprocessing.Queue | None = None


def _enter(messages: multiprocessing.Queue, threads: int, parent: int) -> None:
    """Set a worker process up: it ends when its parent does, and leaves Ctrl-C to it."""
    global _messages
    _messages = messages
    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)  # whoever starts the command again must not find us at work


def _work(plan: Plan, task: tuple[str, str]) -> list[dict]:
    last = 0.0

    def send(step: Step) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last > 0.1 or step.progress is None:
            last = now
            _messages.put(step)

    return _guarded(plan, task, plan.load(), send)
