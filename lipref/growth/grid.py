"""What is measured: layers over a grid of widths, sides and batches, and the configuration of each measurement."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

import lipref
from lipref.ceilings import here
from lipref.counting.layer import PARAMETER
from lipref.errors import LiprefError
from lipref.fingerprint import fingerprint
from lipref.growth.parts import AXES, KERNEL, parts_of
from lipref.layers import LayerSpec

CODE = ("ceilings", "counting", "growth", "layers", "linalg", "workloads")  # what decides the numbers


@dataclass(frozen=True)
class Grid:
    """Widths (channels), sides (pixels) and batches; one is varied at a time, the others stay at their middle value."""

    widths: tuple[int, ...]
    sides: tuple[int, ...]
    batches: tuple[int, ...]

    def __post_init__(self) -> None:
        for name, values in asdict(self).items():
            good = all(isinstance(value, int) and not isinstance(value, bool) and value >= 1 for value in values)
            if not values or not good or len(set(values)) < len(values):
                raise LiprefError(f"{name}={','.join(map(str, values))!r}: give different whole numbers, at least 1")
            object.__setattr__(self, name, tuple(sorted(values)))

    @property
    def axes(self) -> dict[str, tuple[int, ...]]:
        """The values of c, s and b, ascending."""
        return dict(zip(AXES, (self.widths, self.sides, self.batches), strict=True))

    @property
    def centre(self) -> dict[str, int]:
        """The middle value of each; of an even number of values the smaller of the two in the middle."""
        return {name: values[(len(values) - 1) // 2] for name, values in self.axes.items()}

    def points(self, part: str) -> Iterator[dict[str, int]]:
        """The centre, then every other point; `PARAMETER` has no batch, so that one is not varied there."""
        yield self.centre
        for name, values in self.axes.items():
            if part != PARAMETER or name != "b":
                yield from (self.centre | {name: value} for value in values if value != self.centre[name])


# No call of the profile cpu takes a second on one core.
GRIDS = {
    "smoke": Grid((4, 8, 16), (4, 8, 16), (2, 4, 8)),
    "cpu": Grid((8, 16, 32, 64, 128), (4, 8, 16, 32, 64), (4, 8, 16, 32, 64)),
    "gpu": Grid((16, 32, 64, 128, 256), (8, 16, 32, 64, 128), (32, 64, 128, 256, 512)),
}
REPEATS = {"smoke": 1, "cpu": 3, "gpu": 10}  # in a round
ROUNDS = {"smoke": 2, "cpu": 5, "gpu": 5}


@dataclass(frozen=True, kw_only=True)
class GrowthConfig:
    """Everything that decides the measurement of one layer, and through its digest the folder.

    ``repeats`` are timed calls of a part at a point in one of ``rounds``; the rest as in `lipref.cost.CostConfig`.
    """

    layer: str
    layer_sha256: str | None
    widths: tuple[int, ...]
    sides: tuple[int, ...]
    batches: tuple[int, ...]
    kernel_size: int
    repeats: int
    rounds: int
    device: str
    machine: str
    cores: int
    threads: int
    version: str
    code: str
    torch: str

    def as_dict(self) -> dict:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @property
    def digest(self) -> str:
        """SHA-256 over the canonical JSON of the configuration."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()

    @property
    def folder(self) -> str:
        return f"growth-{self.layer}-{self.digest[:10]}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Every layer over one grid, on one device, in ``rounds`` that go over all of them; files go to ``out``."""

    specs: tuple[LayerSpec, ...]
    grid: Grid
    out: Path
    device: str = "cpu"
    repeats: int = REPEATS["cpu"]
    rounds: int = ROUNDS["cpu"]

    def __post_init__(self) -> None:
        for name in ("repeats", "rounds"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise LiprefError(f"{name}={value!r}: give a whole number, at least 1")
        if not self.specs:
            raise LiprefError("no layers: give at least one name")
        labels = [spec.label for spec in self.specs]
        if len(set(labels)) < len(labels):
            raise LiprefError(f"layers={','.join(labels)!r}: name each one once")

    def config(self, spec: LayerSpec) -> GrowthConfig:
        """The configuration of one layer's measurement, made here."""
        grid = {name: getattr(self.grid, name) for name in ("widths", "sides", "batches")}
        return GrowthConfig(
            layer=spec.label, layer_sha256=spec.source_sha256, **grid, kernel_size=KERNEL, repeats=self.repeats,
            rounds=self.rounds, version=lipref.__version__, code=fingerprint(CODE), **here(torch.device(self.device)),
        )  # fmt: skip

    def steps(self, spec: LayerSpec) -> list[tuple[str, dict[str, int]]]:
        """Parts and points of a layer's round, in their order."""
        return [(part, point) for part in parts_of(spec.cls) for point in self.grid.points(part)]
