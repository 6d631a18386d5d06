"""Many measurements of cost, one after the other: each has the machine to itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from lipref import cost
from lipref.data import Shape
from lipref.errors import LiprefError
from lipref.layers import LayerSpec, resolve
from lipref.nets import convnet
from lipref.plans import COSTLY_FIRST

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

    def tasks(self) -> list[tuple[str, str]]:
        """Pairs of size and layer: small networks first, and among them the quick layers."""
        rank = {name: place for place, name in enumerate(reversed(COSTLY_FIRST))}
        pairs = [(size, layer) for size in self.sizes for layer in self.layers]
        return sorted(pairs, key=lambda pair: (self.sizes.index(pair[0]), rank.get(pair[1], len(rank))))


def check(plan: CostPlan) -> None:
    """Build every network once, so that what does not fit is refused before anything is measured."""
    for size, layer in plan.tasks():
        spec = resolve(layer)
        _configure(plan, spec, size)
        with torch.random.fork_rng(devices=[]), torch.device("meta" if spec.builtin else "cpu"):
            convnet(size, spec, plan.shape.num_classes, plan.shape.channels, plan.shape.image_size)


def _configure(plan: CostPlan, spec: LayerSpec, size: str) -> cost.CostConfig:
    return cost.configure(
        spec, size, image_size=plan.shape.image_size, channels=plan.shape.channels, num_classes=plan.shape.num_classes,
        batch_size=plan.batch_size, device=torch.device(plan.device), repeats=plan.repeats,
    )  # fmt: skip


def run(plan: CostPlan, on_task: Callable[[int, int, str, str], None] | None = None) -> tuple[list[dict], list[str]]:
    """Measure what is missing. Returns the records, and a line for each measurement that failed.

    ``on_task(done, total, size, layer)`` is called before each.
    """
    tasks, records, failures = plan.tasks(), [], []
    device = torch.device(plan.device)
    for done, (size, layer) in enumerate(tasks):
        if on_task is not None:
            on_task(done, len(tasks), size, layer)
        try:
            spec = resolve(layer)
            records.append(cost.execute(_configure(plan, spec, size), spec, plan.out / FOLDER, device=device))
        except LiprefError as error:
            failures.append(f"{layer} {size}: {error}")
    return records, failures


def beside(records: Sequence[dict], root: Path) -> list[dict]:
    """``records`` and the other measurements below ``root`` that can be compared with them.

    Comparable: the same shape of pictures, batch, device, machine, threads and version; another size or layer.
    """
    free = ("layer", "layer_sha256", "size", "repeats")

    def setting(record: dict) -> dict:
        return {name: value for name, value in record["config"].items() if name not in free}

    def place(record: dict) -> tuple[str, str]:
        return record["config"]["size"], record["config"]["layer"]

    taken = {place(record) for record in records}
    found = []
    for path in sorted((Path(root) / FOLDER).glob("*/record.json")):
        try:
            found.append(json.loads(path.read_text()))
        except ValueError as error:
            raise LiprefError(f"{path} is damaged ({error}); delete that file to measure again") from error
    others = [record for record in found if place(record) not in taken and setting(record) == setting(records[0])]
    return sorted([*records, *others], key=place)
