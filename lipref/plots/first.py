"""A first network in three panels: its certificate, its training, and the proved bound of each of its layers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pandas as pd

from lipref.errors import LiprefError
from lipref.plots.curves import MARKS
from lipref.plots.style import DARK, GREY, context, layer_styles, legend, line_format, line_handles, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@context()
def first_network(curves: pd.DataFrame, learning: pd.DataFrame, bounds: pd.DataFrame) -> Figure:
    """CRA against the radius, accuracy on the training images against the epoch, and the bound of every layer.

    Args:
        curves: `lipref.tables.mean_curves`.
        learning: `lipref.curves.learning`, one seed.
        bounds: `lipref.curves.layer_bounds`, one seed.

    Raises:
        LiprefError: there is nothing to draw.
    """
    known = curves.dropna(subset=["radius", "share"])
    if known.empty or learning.empty:
        raise LiprefError("there is no run with a certificate and a learning curve to draw")
    styles = layer_styles([*known.layer, *learning.layer])
    figure = new_figure(2.5)
    left, middle, right = figure.subplots(1, 3)
    for mark in MARKS:
        left.axvline(mark, color=GREY, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
    for label, style in styles.items():
        rows = known[known.layer == label].sort_values("radius")
        left.plot(255 * rows.radius, 100 * rows.share, drawstyle="steps-pre", clip_on=False,
                  markevery=max(1, len(rows) // 6), **line_format(style))  # fmt: skip
        rows = learning[learning.layer == label]
        middle.plot(rows.epoch, 100 * rows.accuracy, markevery=max(1, len(rows) // 6), **line_format(style))
        rows = bounds[bounds.layer == label]
        right.plot(rows.number, rows.bound, **line_format(style) | {"linewidth": 0.8})
    most = max(1.06 * MARKS[-1], 255 * float(known.radius.max()))
    left.set(xlim=(0, most), ylim=(0, 104), xticks=[0, *MARKS, *([252] if most > 252 else [])],
             xlabel="ℓ₂ radius (1/255)", ylabel="CRA (%)", title="certified on test images")  # fmt: skip
    middle.set(ylim=(0, 104), xlabel="epoch", ylabel="accuracy (%)", title="while training")
    _whole_ticks(middle)
    _bounds(right, bounds)
    legend(figure, line_handles(styles))
    return figure


def _bounds(axis: Axes, bounds: pd.DataFrame) -> None:
    axis.axhline(1, color=DARK, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
    axis.set(xlabel="layer, first to head", ylabel="proved bound", title="each layer")
    if not bounds.empty:
        least, most = min(1.0, bounds.bound.min()), max(1.0, bounds.bound.max())
        room = 0.08 * (most - least) or 0.05
        axis.set_ylim(max(0.0, least - room), most + room)
        if most / max(least, math.ulp(1.0)) > 20:
            axis.set_yscale("log")
    _whole_ticks(axis)


def _whole_ticks(axis: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
