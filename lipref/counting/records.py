"""Counts as files: ``counts.csv``, and ``provenance.json`` beside it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from lipref.counting.grid import SYMBOLS, count_way, ways_of
from lipref.counting.layer import INPUT, PARAMETER, WHOLE
from lipref.errors import LiprefError
from lipref.layers import LayerSpec
from lipref.paths import RESULTS
from lipref.provenance import environment, write_json
from lipref.runs import make_folder
from lipref.tensor_files import replace_file

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
