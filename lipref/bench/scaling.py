"""How the seconds of single layers grow with width, side and batch: what is measured, and its files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import torch

import lipref
from lipref.bench.ceilings import here
from lipref.bench.counting import PARAMETER
from lipref.bench.scaling_parts import AXES, KERNEL, parts_of
from lipref.errors import LiprefError
from lipref.layers import LayerSpec
from lipref.runs.provenance import fingerprint, write_json
from lipref.runs.records import make_folder
from lipref.tensor_files import replace_file

# What decides the numbers.
CODE = ("bench/ceilings", "bench/counting", "bench/scaling", "bench/scaling_parts", "bench/scaling_rounds",
        "bench/workloads", "layers", "linalg")  # fmt: skip


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

    ``repeats`` are timed calls of a part at a point in one of ``rounds``; the rest as in
    `lipref.bench.cost.CostConfig`.
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


FORMAT = 1
CSV, RECORDS = "growth.csv", "growth.json"
COLUMNS = ("layer", "part", *AXES, "k", "seconds", "low", "high", "repeats", "rounds", "macs", "device", "machine",
           "threads")  # fmt: skip
_REMEDY = "lipref growth --out FOLDER writes it"


def write(records: Sequence[dict], out: Path) -> list[Path]:
    """``growth.csv`` and ``growth.json`` of ``records`` in ``out``; none where there is no record. Returns the paths.

    Raises:
        LiprefError: a file cannot be written.
    """
    if not records:
        return []
    folder = make_folder(Path(out))
    text = points(records).to_csv(index=False, lineterminator="\n")
    replace_file(folder / CSV, text.encode())
    write_json(folder / RECORDS, list(records))
    return [folder / CSV, folder / RECORDS]


def points(records: Sequence[dict]) -> pd.DataFrame:
    """A row per layer, part and point, with `COLUMNS`; seconds are empty where memory ran out."""
    lines = []
    for record in records:
        config = record["config"]
        for entry in record["points"]:
            timed = entry["seconds"] or {}
            line = {name: entry[name] for name in ("part", *AXES, "macs")}
            line |= {"seconds": timed.get("median"), "rounds": len(timed.get("rounds", ()))}
            line |= {name: timed.get(name) for name in ("low", "high")} | {"repeats": timed.get("repeats", 0)}
            line |= {name: config[name] for name in ("layer", "device", "machine", "threads")}
            lines.append(line | {"k": config["kernel_size"]})
    frame = pd.DataFrame(lines, columns=list(COLUMNS))
    return frame.assign(macs=frame.macs.astype("Int64"))


def read(folder: Path) -> list[dict]:
    """The records that `write` wrote into ``folder``.

    Raises:
        LiprefError: missing, damaged, or of several grids or machines.
    """
    path = Path(folder) / RECORDS
    try:
        records = json.loads(path.read_text())
        if not isinstance(records, list) or not records or not all(whole(record) for record in records):
            raise ValueError("no list of records")
        points(records)
    except OSError as error:
        raise LiprefError(f"{path} cannot be read ({error.strerror}): {_REMEDY}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LiprefError(f"{path} is damaged ({type(error).__name__}: {error}): delete it, {_REMEDY}") from None
    first = _circumstances(records[0])
    other = next((record for record in records if _circumstances(record) != first), None)
    if other is not None:
        names = [records[0]["config"]["layer"], other["config"]["layer"]]
        raise LiprefError(f"{path}: {names[0]} and {names[1]} were not measured alike: {_REMEDY}")
    return records


def _circumstances(record: dict) -> dict:
    return {name: value for name, value in record["config"].items() if name not in ("layer", "layer_sha256")}


def whole(record: dict) -> bool:
    """Whether a record is one of this package, of this format."""
    return record["format"] == FORMAT and record["kind"] == "growth" and bool(record["digest"])
