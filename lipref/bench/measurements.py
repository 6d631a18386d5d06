"""Many measurements of cost, in rounds, one network after the other: each has the machine to itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from lipref.bench import cost
from lipref.data import Shape
from lipref.errors import LiprefError
from lipref.layers import LayerSpec, resolve
from lipref.nets import convnet
from lipref.runs.plans import COSTLY_FIRST
from lipref.runs.records import NotDone, newest, of_one_source, place
from lipref.training.speed import Speed

FOLDER = "cost"  # below the folder of the runs


@dataclass(frozen=True, kw_only=True)
class CostPlan:
    """Every layer at every size, on random pictures of one shape. Records go to ``out / "cost"``."""

    sizes: tuple[str, ...]
    layers: tuple[str, ...]
    shape: Shape
    batch_size: int
    out: Path
    device: str = "cpu"
    repeats: int = 10
    rounds: int = 3
    speed: Speed | None = None  # options of the training step; None: the usual ones of the device
    quantities: tuple[str, ...] | None = None  # what is measured; None: everything
    without: frozenset[tuple[str, str]] = frozenset()  # pairs of size and layer that are not measured

    def tasks(self) -> list[tuple[str, str]]:
        """Pairs of size and layer: small networks first, and among them the quick layers."""
        rank = {name: place for place, name in enumerate(reversed(COSTLY_FIRST))}
        pairs = [(size, layer) for size in self.sizes for layer in self.layers if (size, layer) not in self.without]
        return sorted(pairs, key=lambda pair: (self.sizes.index(pair[0]), rank.get(pair[1], len(rank))))


def check(plan: CostPlan) -> None:
    """Build every network once, so that what does not fit is refused before anything is measured."""
    for size, layer in plan.tasks():
        spec = resolve(layer)
        configure(plan, spec, size)
        with torch.random.fork_rng(devices=[]), torch.device("meta" if spec.builtin else "cpu"):
            convnet(size, spec, plan.shape.num_classes, plan.shape.channels, plan.shape.image_size)


def configure(plan: CostPlan, spec: LayerSpec, size: str) -> cost.CostConfig:
    """The configuration of one measurement of the plan, made here."""
    return cost.configure(
        spec, size, image_size=plan.shape.image_size, channels=plan.shape.channels, num_classes=plan.shape.num_classes,
        batch_size=plan.batch_size, device=torch.device(plan.device), repeats=plan.repeats,
        rounds=plan.rounds, speed=plan.speed, quantities=plan.quantities,
    )  # fmt: skip


def run(plan: CostPlan, on_task: Callable[[int, int, str, str], None] | None = None) -> tuple[list[dict], list[str]]:
    """Measure what is missing. Returns the records, and a line for each measurement that failed.

    In rounds: all networks once, then all a second time, so that a machine that slows down for a while does so for all
    of them. A finished round is kept; a process that is killed loses the one at hand.

    ``on_task(done, total, size, layer)`` is called before each round of each network; they count rounds.
    """
    tasks, device, root = plan.tasks(), torch.device(plan.device), plan.out / FOLDER
    rounds = min(plan.rounds, plan.repeats)
    records: dict[tuple[str, str], dict] = {}
    failures: dict[tuple[str, str], str] = {}

    def attempt(task: tuple[str, str], done: int, number: int | None) -> None:
        """Round ``number`` of the task, or with None what is finished already; the last round ends it."""
        size, layer = task
        if task in records or task in failures:
            return
        if on_task is not None and number is not None:
            on_task(done, rounds * len(tasks), size, layer)
        try:
            spec = resolve(layer)
            config = configure(plan, spec, size)
            if number is not None:
                cost.execute_round(config, spec, root, number, device=device)
            if number is None or number == rounds - 1:
                records[task] = cost.execute(config, spec, root, device=device, read_only=number is None)
        except NotDone:
            pass
        except LiprefError as error:
            failures[task] = f"{layer} {size}: {error}"

    for number in (None, *range(rounds)):
        for place_, task in enumerate(tasks):
            attempt(task, (number or 0) * len(tasks) + place_, number)
    return [records[task] for task in tasks if task in records], [failures[task] for task in tasks if task in failures]


def circumstances(record: dict) -> dict:
    """What two measurements have to share to be compared: pictures, batch, device, machine, threads, library, torch.

    Not the threads on the host where a GPU does the work.
    """
    free = {"layer", "layer_sha256", "size", "repeats", "rounds", "quantities"}
    free |= {"threads", "cores"} if record["config"]["device"] == "cuda" else set()
    return {name: value for name, value in record["config"].items() if name not in free}


def latest(records: Sequence[dict], others: Sequence[dict]) -> list[dict]:
    """``records``, and of ``others`` the newest at each size and layer that ``records`` lack, of one source file."""
    taken = {place(record) for record in records}
    free = [record for record in of_one_source(records, others) if place(record) not in taken]
    return [*records, *newest([], free, lambda record: (record["digest"],))]


def beside(records: Sequence[dict], root: Path) -> list[dict]:
    """``records`` and the newest other measurements below ``root`` that can be compared, each size and layer once.

    Comparable: the same `circumstances`; of a user's layer that ``records`` have, the same source file.
    """
    found = []
    for path in sorted((Path(root) / FOLDER).glob("*/record.json")):
        try:
            found.append(json.loads(path.read_text()))
        except ValueError as error:
            raise LiprefError(f"{path} is damaged ({error}); delete that file to measure again") from error
    others = [record for record in found if circumstances(record) == circumstances(records[0])]
    return sorted(latest(records, others), key=place)


def misfit(record: dict, shape: Shape | None, batch_size: int | None, device: str | None) -> str:
    """What of a measurement is not as asked for, such as ``batch_size=64, not 256``; empty where all is.

    What is None is not compared.
    """
    wanted: dict[str, object] = {"batch_size": batch_size, "device": device and device.split(":")[0]}
    if shape is not None:
        wanted |= {name: getattr(shape, name) for name in ("image_size", "channels", "num_classes")}
    config = record["config"]
    return ", ".join(
        f"{name}={config[name]!r}, not {value!r}"
        for name, value in wanted.items()
        if value is not None and config[name] != value
    )
