"""Layers counted over a grid of sizes, one symbol varied at a time, and the counts as files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from lipref.bench.counting import INPUT, PARAMETER, WHOLE, count_layer
from lipref.errors import LiprefError
from lipref.layers import LayerSpec
from lipref.paths import RESULTS
from lipref.runs.provenance import environment, write_json
from lipref.runs.records import make_folder
from lipref.tensor_files import replace_file

# b batch, s image side, c channels, k kernel side: a layer in the middle of a network, and the paper's batch.
BASE = {"b": 256, "s": 32, "c": 64, "k": 3}
# The base values and larger ones: what formulas say to leading order shows at large values.
AXES = {
    "b": (256, 512, 1024), "s": (32, 64, 128), "c": (64, 128, 256, 512), "k": (3, 5, 7),
    "t": (10, 20, 40, 80), "t1": (5, 10, 20, 40), "t2": (1, 2, 4, 8, 16),
}  # fmt: skip
SYMBOLS = tuple(AXES)


def _nothing(point: Mapping[str, int]) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Way:
    """One of the ways in which a layer's code runs.

    Attributes:
        layer: The registered name.
        name: Of the way; empty where the layer has one way only.
        iterations: The numbers of inner iterations of the layer's row (t, or t1 and t2), as published.
        options, attributes: How these become arguments of the constructor, and attributes of the layer.
        varied: Whether the way has such a setting.
        device: ``cpu``, or ``meta`` for what the layer does on other devices.
    """

    layer: str
    name: str = ""
    iterations: Mapping[str, int] = field(default_factory=dict)
    options: Callable[[Mapping[str, int]], dict[str, Any]] = _nothing
    attributes: Callable[[Mapping[str, int]], dict[str, Any]] = _nothing
    varied: bool = True
    device: str = "cpu"

    def points(self) -> Iterator[dict[str, int]]:
        """The base point first, then every other point of the grid."""
        own = dict(self.iterations) if self.varied else {}
        base = BASE | own
        yield base
        for symbol in [*BASE, *own]:
            yield from (base | {symbol: value} for value in AXES[symbol] if value != base[symbol])

    def build(self, cls: type[nn.Module], point: Mapping[str, int]) -> nn.Module:
        """The layer at a point of the grid."""
        options = self.options(point) if self.varied else {}
        if self.device != "cpu":
            options |= {"device": self.device}
        layer = cls(point["c"], point["c"], point["k"], **options)
        for name, value in self.attributes(point).items():
            setattr(layer, name, value)
        return layer


def _gaussian(point: Mapping[str, int]) -> dict[str, Any]:
    return {"weight": nn.Parameter(torch.randn(point["c"], point["c"], point["k"], point["k"]))}


WAYS = (
    # Not the identity that training starts from, whose zeros are summed anew.
    Way("aol", attributes=_gaussian),
    Way("bcop", "t steps", {"t": 20}, lambda point: {"iterations": point["t"]}),
    # The default; how many steps that takes depends on the weights: here, those it starts from.
    Way("bcop", "converged", {"t": 20}, varied=False),
    Way("lot", "on a CPU", {"t": 10}, lambda point: {"terms": point["t"]}),
    Way("lot", "on other devices", {"t": 10}, lambda point: {"terms": point["t"]}, device="meta"),
    Way(
        "soc", "", {"t1": 5, "t2": 1}, lambda point: {"train_terms": point["t1"]},
        lambda point: {"LONG": point["t2"], "SHORT": point["t2"]},
    ),
)  # fmt: skip


def ways_of(spec: LayerSpec) -> list[Way]:
    """The ways of a layer of the library; one for any other."""
    return [way for way in WAYS if spec.builtin and way.layer == spec.label] or [Way(spec.label)]


def count_way(way: Way, spec: LayerSpec) -> Iterator[dict[str, Any]]:
    """Count one way at all its points: rows of `lipref.bench.counting_grid.COLUMNS`."""
    for point in way.points():
        counts = count_layer(
            lambda point=point: way.build(spec.cls, point),
            batch=point["b"], channels=point["c"], side=point["s"], device=way.device,
        )  # fmt: skip
        for part, count in counts.items():
            place = {"layer": spec.label, "way": way.name, "part": part}
            numbers = {"macs": count.macs, "stored": count.stored, "given": count.given}
            yield place | {name: point.get(name) for name in SYMBOLS} | numbers | {"unknown": " ".join(count.unknown)}


FORMAT = 1
COUNTS, PROVENANCE = "counts.csv", "provenance.json"
COMMITTED = RESULTS / "complexity"
COLUMNS = ["layer", "way", "part", *SYMBOLS, "macs", "stored", "given", "unknown"]
_TEXTS = ("layer", "way", "part", "unknown")
_REMEDY = "lipref count --out FOLDER writes it"


def count(specs: Sequence[LayerSpec], on_way: Callable[[int, int, str], None] | None = None) -> pd.DataFrame:
    """Count every way of every layer over the grid: a row per point and part, with `COLUMNS`.

    Args:
        specs: The layers.
        on_way: Called before each way with its number, how many there are, and its name.
    """
    ways, rows = [(way, spec) for spec in specs for way in ways_of(spec)], []
    for number, (way, spec) in enumerate(ways):
        if on_way is not None:
            on_way(number, len(ways), f"{spec.label} {way.name}".strip())
        rows += count_way(way, spec)
    return _typed(pd.DataFrame(rows, columns=COLUMNS))


def write_counts(
    specs: Sequence[LayerSpec], out: Path, on_way: Callable[[int, int, str], None] | None = None
) -> pd.DataFrame:
    """`count`, and write the result with its provenance into the folder ``out``.

    Raises:
        LiprefError: a layer that cannot be counted, or files that cannot be written.
    """
    folder, started = make_folder(Path(out)), time.perf_counter()
    table = count(specs, on_way)
    replace_file(folder / COUNTS, table.to_csv(index=False, lineterminator="\n").encode())
    entry = {"format": FORMAT, "layers": [spec.label for spec in specs], "seconds": time.perf_counter() - started}
    write_json(folder / PROVENANCE, entry | {"environment": environment("cpu")})
    return table


def read_counts(folder: Path = COMMITTED) -> pd.DataFrame:
    """The table that `write_counts` wrote into ``folder``.

    Raises:
        LiprefError: missing, damaged, or of other columns.
    """
    path = Path(folder) / COUNTS
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        if list(table.columns) != COLUMNS:
            raise ValueError(f"its columns are not {', '.join(COLUMNS)}")
        table = _typed(table.replace("", pd.NA))
        if not table.part.isin([INPUT, PARAMETER, WHOLE]).all():
            raise ValueError("an unknown part")
    except OSError as error:
        raise LiprefError(f"{path} cannot be read ({error.strerror}): {_REMEDY}") from None
    except (ValueError, TypeError) as error:
        raise LiprefError(f"{path} is damaged ({error}): delete it, {_REMEDY}") from None
    return table


def counts_of(specs: Sequence[LayerSpec], folder: Path = COMMITTED) -> tuple[pd.DataFrame, str]:
    """The counts of ``specs``: those in ``folder``, and for layers that it lacks or that are one's own new ones.

    Returns:
        The table, and a line for each layer that could not be counted, with the reason.
    """
    kept, parts, lines = read_counts(folder), [], []
    for spec in specs:
        found = kept[kept.layer == spec.label] if spec.builtin else kept[:0]
        if found.empty:
            try:
                found = count([spec])
            except Exception as error:  # one's own code may fail in any way
                reason = str(error).strip().splitlines()
                lines.append(f"{spec.label} is not counted: {reason[0] if reason else type(error).__name__}")
        parts.append(found)
    return pd.concat(parts, ignore_index=True) if parts else kept[:0], "\n".join(lines)


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    table = table.copy()
    for name in COLUMNS:
        if name in _TEXTS:
            table[name] = table[name].fillna("").astype(str)
        else:
            table[name] = pd.to_numeric(table[name]).astype("Int64")
    numbers = table[["macs", "stored", "given"]]
    if numbers.isna().any(axis=None) or (numbers < 0).any(axis=None):
        raise ValueError("a count is missing or below 0")
    return table
