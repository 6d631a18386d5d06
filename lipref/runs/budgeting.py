"""Measured budgets become numbers of epochs: timed where that is missing, then fixed in the folder of the runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from lipref.bench import cost, measurements
from lipref.bench.measurements import FOLDER, CostPlan
from lipref.data import Shape
from lipref.errors import LiprefError
from lipref.layers import resolve
from lipref.runs import budgets
from lipref.runs.budgets import Pace
from lipref.runs.plans import Plan
from lipref.runs.records import NotDone, make_folder
from lipref.training.speed import options_of


def settle(
    plan: Plan,
    shape: Shape,
    on_task: Callable[[int, int, str, str], None] | None = None,
    say: Callable[[str], None] = print,
) -> Plan:
    """The plan with every number of epochs that its measured budget is worth; any other plan as it is.

    The training step of each layer at each size is timed on this machine, with the threads and options (`Speed`) that a
    run will have, unless its measurement lies in ``plan.out`` already. What comes out is written to ``budget.json``
    there and holds from then on: a command that is given again goes on with the same numbers of epochs, also where the
    machine is another.

    Args:
        plan: Of which the budget may be measured.
        shape: Of the pictures.
        on_task: As of `lipref.bench.measurements.run`.
        say: Called with a line for each network that is left out because it does not fit into memory.

    Raises:
        LiprefError: a budget shorter than one epoch, a network that cannot be timed or does not fit into memory (unless
            the plan is partial).
    """
    if not budgets.is_measured(plan.budget):
        return plan
    make_folder(plan.out)
    known = {each.question: each for each in budgets.read(plan.out)}
    missing = [task for task in plan.tasks() if _question(plan, shape, task) not in known]
    with _threads(plan.threads):
        records, failures = measurements.run(_costs(plan, shape, missing), on_task) if missing else ([], [])
    found = {(record["config"]["size"], record["config"]["layer"]): record for record in records}
    lost = []
    for size, layer in missing:
        record = found.get((size, resolve(layer).label))
        if record is None:
            continue  # its line is among the failures
        if record["train_seconds"] is None:
            lost.append((size, layer, f"{layer} {size} does not fit into the memory of this machine; leave it out"))
            continue
        try:
            each = _pace(plan, shape, (size, layer), record)
            known[each.question] = each
        except LiprefError as error:
            failures.append(f"{layer} {size}: {error}")
    budgets.write(plan.out, list(known.values()))
    if not plan.partial:
        failures += [reason for *_, reason in lost]
    if failures:
        raise LiprefError("; ".join(failures))
    for *_, reason in lost:
        say(f"left out: {reason}")
    plan = replace(plan, left_out=(*plan.left_out, *lost))
    if not plan.tasks():
        raise LiprefError(lost[0][-1])
    return replace(plan, paces=tuple(known[_question(plan, shape, task)] for task in plan.tasks()))


def foresee(plan: Plan, shape: Shape) -> tuple[Plan, set[tuple[str, str]]]:
    """What `settle` would answer by what is on disk already; nothing is written or measured.

    Returns:
        The plan with the epochs that are known, and the pairs of size and label of those that are fixed for good.
    """
    if not budgets.is_measured(plan.budget):
        return plan, set()
    known = {each.question: each for each in budgets.read(plan.out)}
    paces, fixed = [], set()
    for task in plan.tasks():
        each = known.get(_question(plan, shape, task))
        if each is not None:
            fixed.add((each.size, each.layer))
        else:
            record = timed(plan, shape, task, plan.threads)
            each = _pace(plan, shape, task, record) if record and record["train_seconds"] else None
        paces += [each] if each is not None else []
    return replace(plan, paces=tuple(paces)), fixed


def timed(plan: Plan, shape: Shape, task: tuple[str, str], threads: int) -> dict | None:
    """The measurement of one size and layer in ``plan.out``, made here with so many threads; None without one."""
    size, layer = task
    spec = resolve(layer)
    with _threads(threads):
        config = measurements.configure(_costs(plan, shape, [task]), spec, size)
        try:
            return cost.execute(config, spec, plan.out / FOLDER, device=plan.device, read_only=True)
        except NotDone:
            return None


def images_of(plan: Plan, shape: Shape) -> int:
    """Training images in one epoch."""
    return shape.train_images if plan.limit_train is None else plan.limit_train


def _costs(plan: Plan, shape: Shape, tasks: list[tuple[str, str]]) -> CostPlan:
    left_out = {(size, layer) for size in plan.sizes for layer in plan.layers} - set(tasks)
    return CostPlan(
        sizes=plan.sizes, layers=plan.layers, shape=shape, batch_size=plan.settings.batch_size, out=plan.out,
        device=plan.device, speed=plan.settings.speed, without=frozenset(left_out),
    )  # fmt: skip


def _question(plan: Plan, shape: Shape, task: tuple[str, str]) -> tuple:
    return _make(plan, shape, task, epochs=1, step_seconds=1.0, origin="").question


def _pace(plan: Plan, shape: Shape, task: tuple[str, str], record: dict) -> Pace:
    seconds, config = record["train_seconds"]["median"], record["config"]
    images = images_of(plan, shape)
    epochs = budgets.epochs_in(budgets.seconds_of(plan.budget), seconds, images, plan.settings.batch_size)
    threads = "" if config["device"] == "cuda" else f", threads: {config['threads']}"
    origin = f"measured on {config['machine']}{threads} ({FOLDER}, {record['digest'][:10]})"
    return _make(plan, shape, task, epochs=epochs, step_seconds=seconds, origin=origin)


def _make(plan: Plan, shape: Shape, task: tuple[str, str], **answer) -> Pace:
    spec = resolve(task[1])
    return Pace(
        budget=plan.budget, layer=spec.label, layer_sha256=spec.source_sha256, size=task[0],
        images=images_of(plan, shape), batch_size=plan.settings.batch_size, image_size=shape.image_size,
        device=plan.device.split(":")[0], speed=options_of({"speed": plan.settings.speed.as_dict()}), **answer,
    )  # fmt: skip


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
