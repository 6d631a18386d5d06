"""How training memory grows with the width of the network, and the width at which a given memory is full."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import nnls

from lipref.errors import LiprefError
from lipref.nets import BASE_WIDTH
from lipref.paper.style import display_name
from lipref.paper.tables import COLUMNS
from lipref.runs import overview

LEAST = 3  # widths that decide three coefficients
MEASURED, FITS = "training memory", "width that fits"
PARTS = ("fixed", "per channel", "per channel squared")
_UNITS = ("bytes", "bytes/width", "bytes/width²")
_GB = 1e9  # as in the paper
RULE = (
    "Peak of allocated bytes in training steps, 1 GB = 10⁹ bytes. Width that fits: where a + b w + c w² fills the "
    "memory, the coefficients fitted by nonnegative least squares of the relative error; beyond the measured widths it "
    "is an extrapolation. Largest size from the others: what a fit without it predicts, over what was measured."
)


@dataclass(frozen=True)
class Fit:
    """Peak bytes as ``fixed + linear w + square w²`` of the width w of the first block, all three at least 0."""

    fixed: float
    linear: float
    square: float

    def at(self, width):
        """Bytes at a width, or at an array of them."""
        return self.fixed + self.linear * width + self.square * width**2

    def width(self, size: float) -> float:
        """The width at which ``size`` bytes are full: 0 where the fixed part alone exceeds it, inf without growth."""
        rest = size - self.fixed
        if rest <= 0:
            return 0.0
        if self.square == 0:
            return rest / self.linear if self.linear > 0 else math.inf
        root = math.sqrt(self.linear**2 + 4 * self.square * rest)
        return 2 * rest / (self.linear + root)  # without cancellation


def fit(widths, sizes) -> Fit | None:
    """Nonnegative least squares of the relative error; None below `LEAST` widths, which would decide nothing.

    Weights and their gradients grow with the square of the width, activations in proportion to it, and the images do
    not grow: so no coefficient is negative, and a relative error lets the small networks count as much as the large.

    Args:
        widths: Of the first block, positive, all different.
        sizes: Peak bytes, positive.
    """
    widths, sizes = np.asarray(widths, float), np.asarray(sizes, float)
    if len(set(widths)) < LEAST:
        return None
    terms = np.stack([np.ones_like(widths), widths, widths**2], axis=1)
    # The scale of each column, so that 1 and w² are solved equally well.
    scale = np.max(terms, axis=0)
    found, _ = nnls(terms / scale / sizes[:, None], np.ones_like(sizes))
    return Fit(*(float(value) for value in found / scale))


def table(memory: pd.DataFrame, memory_gb: float) -> pd.DataFrame:
    """Tidy, `lipref.paper.tables.COLUMNS` and ``width``: measured bytes, the fit's coefficients, the width that fits.

    A layer measured at fewer than `LEAST` widths keeps its measurements; its fit has no value and a note that says so.

    Args:
        memory: `lipref.paper.tables.memory`.
        memory_gb: What is to be filled, in GB of 10⁹ bytes.

    Raises:
        LiprefError: a memory that is not positive and finite, or no measurement.
    """
    if not (memory_gb > 0 and math.isfinite(memory_gb)):
        raise LiprefError(f"memory_gb={memory_gb!r}: give a positive number of GB")
    rows = memory[(memory.measure == MEASURED) & memory["size"].isin(BASE_WIDTH) & memory.value.notna()]
    if rows.empty:
        raise LiprefError("no measured training memory of 3x3 networks: lipref measure makes it")
    rows = rows.assign(width=rows["size"].map(BASE_WIDTH).astype(float))
    lines = rows.to_dict("records")
    for (source, setting, layer), group in rows.groupby(["source", "setting", "layer"], sort=False):
        found = fit(group.width, group.value)
        note = "" if found else f"needs {LEAST} sizes, has {len(group)}"
        values = (found.fixed, found.linear, found.square, found.width(memory_gb * _GB)) if found else (math.nan,) * 4
        for measure, value, unit in zip((*PARTS, FITS), values, (*_UNITS, "channels"), strict=True):
            endless = math.isinf(value)
            lines.append(
                {"source": source, "setting": setting, "layer": layer, "size": "all", "measure": measure,
                 "value": math.nan if endless else value, "low": math.nan, "high": math.nan, "n": len(group),
                 "unit": unit, "of": len(group), "note": "does not grow" if endless else note, "width": math.nan}
            )  # fmt: skip
    return pd.DataFrame(lines, columns=[*COLUMNS, "width"])


def fits(table: pd.DataFrame) -> dict[tuple[str, str, str], Fit]:
    """The fits of `table`'s result: source, setting, layer -> `Fit`."""
    rows = table[table.measure.isin(PARTS) & table.value.notna()]
    return {
        key: Fit(*(group.set_index("measure").value[name] for name in PARTS))
        for key, group in rows.groupby(["source", "setting", "layer"], sort=False)
    }


def held_out(table: pd.DataFrame) -> dict[tuple[str, str, str], float]:
    """How good the extrapolation is: the largest measured memory, as predicted from the smaller widths, over itself.

    Only where at least `LEAST` smaller widths were measured.
    """
    found = {}
    rows = table[table.measure == MEASURED]
    for key, group in rows.groupby(["source", "setting", "layer"], sort=False):
        group = group.sort_values("width")
        last, smaller = group.iloc[-1], fit(group.width.iloc[:-1], group.value.iloc[:-1])
        if smaller is not None:
            found[key] = float(smaller.at(last.width) / last.value)
    return found


def people(table: pd.DataFrame) -> pd.DataFrame:
    """As people read it: GB per size, the width that fits, and how a fit without the largest size predicts it.

    What was not measured has the fit's value in its place, marked as such, where there is a fit.
    """
    lines, checks = [], held_out(table)
    sizes = [size for size in BASE_WIDTH if size in set(table["size"])]
    for (source, setting, layer), group in table.groupby(["source", "setting", "layer"], sort=False):
        cells = group[group.measure == MEASURED].set_index("size").value
        line = {"source": source, "layer": layer}
        fitted = fits(table).get((source, setting, layer))
        for size in sizes:
            line[f"{size} (GB)"] = f"{cells[size] / _GB:.3g}" if size in cells else ""
            if size not in cells and fitted:
                line[f"{size} (GB)"] = f"(fit: {fitted.at(BASE_WIDTH[size]) / _GB:.3g})"
        fitting = group[group.measure == FITS].iloc[0]
        line["width that fits"] = fitting.note or f"{math.floor(fitting.value):,}"
        check = checks.get((source, setting, layer))
        line["largest size from the others"] = "" if check is None else f"{100 * check:.0f} %"
        lines.append(line)
    frame = pd.DataFrame(lines).sort_values(
        ["source", "layer"], key=lambda c: overview.order(c) if c.name == "layer" else c != "paper", kind="stable"
    )
    return frame.assign(layer=frame.layer.map(display_name)).reset_index(drop=True)


def sentence(table: pd.DataFrame, memory_gb: float) -> str:
    """A line per source: which layers stop first and last, and how far beyond what was measured that is."""
    lines, checks = [], held_out(table)
    for source, rows in table.groupby("source", sort=False):
        found = rows[(rows.measure == FITS) & rows.value.notna()].sort_values("value", kind="stable")
        measured = rows[rows.measure == MEASURED].width.max()
        if found.empty:
            lines.append(f"{source}: no layer has the {LEAST} sizes that a fit needs; the table has what was measured.")
            continue
        first, last = found.iloc[0], found.iloc[-1]
        beyond = int((found.value > measured).sum())
        lines.append(
            f"{source}: {memory_gb:g} GB are full at width {math.floor(first.value):,} with "
            f"{display_name(first.layer)}, at {math.floor(last.value):,} with {display_name(last.layer)}. "
            f"{beyond} of {len(found)} such widths lie beyond the largest one measured ({measured:.0f}): they are "
            "extrapolated, not measured."
        )
        misses = {key[2]: abs(value - 1) for key, value in checks.items() if key[0] == source}
        if misses:
            worst = max(misses, key=misses.get)
            lines[-1] += (
                f" As a check, fits without the largest size miss it by up to {100 * misses[worst]:.0f} % "
                f"({display_name(worst)})."
            )
    return "\n".join(lines)
