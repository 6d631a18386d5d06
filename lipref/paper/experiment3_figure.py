"""Training memory against the width of the network, with its fit and the memory that is there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lipref.errors import LiprefError
from lipref.paper.panels import limits
from lipref.paper.style import DARK, WIDTH, context, layer_styles, legend, line_format, line_handles, new_figure, wrap

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_GB = 1e9


@context()
def memory_width(table: pd.DataFrame, fits: Mapping[tuple[str, str, str], Any], memory_gb: float) -> Figure:
    """A panel per source and setting: measured peaks as markers, fits as lines, both axes logarithmic.

    Lines go on to where the memory is full: beyond the shaded range of measured widths they are extrapolated.

    Args:
        table: `lipref.paper.experiment3.table`.
        fits: `lipref.paper.experiment3.fits`.
        memory_gb: The memory, in GB of 10⁹ bytes: a horizontal line.

    Raises:
        LiprefError: there is no measured value.
    """
    rows = table[table.width.notna() & table.value.notna()]
    if rows.empty:
        raise LiprefError("the table has no measured memory to draw")
    panels = list(rows.groupby(["source", "setting"], sort=False))
    styles = layer_styles(rows.layer)
    figure = new_figure(3.3)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, ((source, setting), group) in zip(axes, panels, strict=True):
        here = {key[2]: value for key, value in fits.items() if key[:2] == (source, setting)}
        ends = [found.width(memory_gb * _GB) for found in here.values()]
        most = max([group.width.max(), *(end for end in ends if math.isfinite(end))])
        least = group.width.min()
        for label, style in styles.items():
            own = group[group.layer == label].sort_values("width")
            if own.empty:
                continue
            axis.plot(own.width, own.value / _GB, **line_format(style) | {"linestyle": "none"})
            if label in here:
                last = max(own.width.max(), min(here[label].width(memory_gb * _GB), most))
                places = np.geomspace(least, last, 60)
                axis.plot(places, here[label].at(places) / _GB, **line_format(style, markers=False))
        axis.axhline(memory_gb, color=DARK, linewidth=0.9)
        axis.annotate(f"{memory_gb:g} GB", (0.02, memory_gb), xycoords=axis.get_yaxis_transform(), va="bottom",
                      xytext=(0, 1), textcoords="offset points")  # fmt: skip
        axis.axvspan(least / 1.15, group.width.max() * 1.15, color="#eeeeee", zorder=0, linewidth=0)
        low, high = limits(
            float(min(group.value.min() / _GB, memory_gb)), float(max(group.value.max() / _GB, memory_gb))
        )
        axis.set(xscale="log", yscale="log", xlim=(least / 1.3, most * 1.3), ylim=(low, high * 1.15),
                 xlabel="width of the first block (channels)", ylabel="peak training memory (GB)")  # fmt: skip
        _plain_ticks(axis)
        axis.set_title(wrap(f"{source}: {setting}", WIDTH / len(panels) - 0.6))
    legend(figure, line_handles(styles), title="grey: measured widths; lines beyond it are extrapolated")
    return figure


def _plain_ticks(axis) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for each in (axis.xaxis, axis.yaxis):
        each.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        each.set_minor_formatter(NullFormatter())
    axis.xaxis.set_major_locator(LogLocator(base=2, numticks=9))
    axis.yaxis.set_major_locator(LogLocator(base=10, numticks=8))
