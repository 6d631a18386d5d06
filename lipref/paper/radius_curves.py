"""Certified robust accuracy against the radius."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pandas as pd

from lipref.errors import LiprefError
from lipref.paper.style import GREY, context, display_name, layer_styles, legend, line_format, line_handles, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = ("layer", "radius", "share")
MARKS = (36, 72, 108)  # in units of 1/255: the radii of the paper's tables
_MARKED_POINTS = 8


@context()
def robustness_curve(curves: pd.DataFrame) -> Figure:
    """Certified robust accuracy against the l2 radius, a line of steps per layer, with marks at 36, 72 and 108 / 255.

    Between two radii of the table the line shows the share at the larger one. That share is certified at every smaller
    radius too, so the line never claims more than the table.

    Args:
        curves: Columns ``layer``; ``radius``, l2 over pixels in [0, 1], at least 0; ``share``, the certified robust
            accuracy there, from 0 to 1. A row with a NaN is left out; its ``note``, if there is one, is told below.

    Raises:
        LiprefError: a column is missing, there is nothing to draw, a radius or share out of range, two shares at one
            radius, or a share that grows with the radius.
    """
    notes = [] if "note" not in curves.columns else [
        f"{display_name(row.layer)}: {row.note}" for row in curves[curves.share.isna()].itertuples(index=False)
    ]  # fmt: skip
    curves = _checked(curves)
    styles = layer_styles(curves.layer)
    figure = new_figure(3.2)
    axis = figure.subplots()
    most = max(1.06 * MARKS[-1], 255 * float(curves.radius.max()))
    for mark in MARKS:
        axis.axvline(mark, color=GREY, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
    for number, (label, style) in enumerate(styles.items()):
        rows = curves[curves.layer == label].sort_values("radius")
        every = max(1, len(rows) // _MARKED_POINTS)
        axis.plot(255 * rows.radius.to_numpy(), 100 * rows.share.to_numpy(), drawstyle="steps-pre", clip_on=False,
                  label=display_name(label), markevery=(number * every // len(styles), every),
                  **line_format(style))  # fmt: skip
    axis.set_xlim(0, most)
    axis.set_ylim(0, max(1.0, 105 * float(curves.share.max())))
    axis.set_xticks(_ticks(most))
    axis.set_xlabel("ℓ₂ radius (1/255)")
    axis.set_ylabel("certified robust accuracy (%)")
    above = axis.secondary_xaxis("top", functions=(lambda x: x / 255, lambda x: x * 255))
    above.tick_params(length=3, width=0.6)
    above.set_xlabel("ℓ₂ radius (pixels in [0, 1])")
    legend(figure, line_handles(styles), inches=1.9, notes=notes)
    return figure


def _ticks(most: float) -> list[int]:
    """The marks, and multiples of 36 beyond them, at most about ten."""
    step = MARKS[0] * math.ceil(most / (10 * MARKS[0]))
    beyond = [tick for tick in range(0, math.floor(most) + 1, step) if tick >= MARKS[-1] + step / 2]
    return [0, *MARKS, *beyond]


def _checked(curves: pd.DataFrame) -> pd.DataFrame:
    missing = [name for name in COLUMNS if name not in curves.columns]
    if missing:
        raise LiprefError(f"the curves have no column {missing[0]!r}; a picture needs {', '.join(COLUMNS)}")
    rows = curves.dropna(subset=["radius", "share"])
    if rows.empty:
        raise LiprefError("the curves have no rows with a value: give at least one radius and share")
    for name, most in (("radius", math.inf), ("share", 1.0)):
        wrong = rows[(rows[name] < 0) | (rows[name] > most) | (rows[name] == math.inf)]
        if not wrong.empty:
            row = wrong.iloc[0]
            remedy = "radii are at least 0 and finite, over pixels in [0, 1]" if name == "radius" else "give 0 to 1"
            raise LiprefError(f"{name} {row[name]} of {row.layer} is out of range: {remedy}")
    twice = rows[rows.duplicated(["layer", "radius"])]
    if not twice.empty:
        row = twice.iloc[0]
        raise LiprefError(f"two shares of {row.layer} at radius {row.radius}: give one, such as the mean")
    for label, group in rows.groupby("layer", sort=False):
        if not group.sort_values("radius").share.is_monotonic_decreasing:
            raise LiprefError(f"the share of {label} grows with the radius, which no certificate does: check the table")
    return rows
