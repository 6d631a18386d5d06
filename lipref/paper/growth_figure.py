"""How the seconds of single layers grow with width, side and batch, with the slopes beside the printed exponents."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pandas as pd

from lipref.errors import LiprefError
from lipref.paper.panels import human_axis, interval
from lipref.paper.style import DARK, FONT, LayerStyle, context, display_name, layer_styles, line_format, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = ("source", "layer", "part", "axis", "place", "measure", "value", "low", "high")
_AXES = {"c": "channels c", "s": "image side s", "b": "batch b"}
_PARTS = {"input": "input transformation", "parameter": "parameter transformation", "whole": "whole layer"}
_PANEL, _ENTRY = 1.75, 0.125  # inches: a panel, and a line of its legend


@context()
def growth(table: pd.DataFrame) -> Figure:
    """A row of panels per part: seconds against channels, side and batch, both axes logarithmic, a line per layer.

    Grey are the places that the slope is fitted to; the legends have the slopes, in brackets the printed row's. Where
    the parameter transformation has no batch, dots tell which share of the machine's ceiling both parts reach at the
    most channels.

    Args:
        table: Tidy, with `COLUMNS`, see `lipref.paper.growth.table`.

    Raises:
        LiprefError: a column is missing, or there are no seconds to draw.
    """
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise LiprefError(f"the table has no column {missing[0]!r}; a picture needs {', '.join(COLUMNS)}")
    seconds = table[table.measure == "seconds"]
    if seconds.empty:
        raise LiprefError("the table has no seconds to draw: give at least two places of one axis")
    styles = layer_styles(seconds.layer)
    parts = [part for part in _PARTS if part in set(seconds.part)]
    figure = new_figure(len(parts) * (_PANEL + 0.5 + _ENTRY * (len(styles) + 1)))
    axes = figure.subplots(len(parts), len(_AXES), squeeze=False)
    for line, part in zip(axes, parts, strict=True):
        for axis, symbol in zip(line, _AXES, strict=True):
            rows = seconds[(seconds.part == part) & (seconds.axis == symbol)]
            if not rows.empty:
                _curves(axis, rows, _slopes(table, part, symbol), styles)
                human_axis(axis.yaxis, seconds[seconds.part == part], "forward and backward", "s")
                axis.set_xlabel(_AXES[symbol])
                axis.set_ylabel(axis.get_ylabel() if axis is line[0] else "")
            elif part == "parameter" and symbol == "b":
                _shares(axis, table, styles)
            else:
                axis.set_axis_off()
        line[0].set_title(_PARTS[part], fontweight="bold")
    return figure


def _slopes(table: pd.DataFrame, part: str, symbol: str) -> dict[tuple[str, str], float]:
    """(source, layer) -> exponent."""
    rows = table[(table.measure == "exponent") & (table.part == part) & (table.axis == symbol)]
    return {(row.source, row.layer): row.value for row in rows.itertuples()}


def _curves(axis: Axes, rows: pd.DataFrame, slopes: dict, styles: dict[str, LayerStyle]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    places, handles = sorted(rows.place.unique()), []
    fitted = places[-max(2, math.ceil(len(places) / 2)) :]
    axis.axvspan(fitted[0] / 1.15, fitted[-1] * 1.15, color="#eeeeee", zorder=0, linewidth=0)
    for label, style in styles.items():
        own = rows[rows.layer == label].sort_values("place")
        if own.empty:
            continue
        look = line_format(style) | {"markersize": 4.2 if style.marker == "*" else 3.2, "linewidth": 1.0}
        axis.errorbar(own.place, own.value, yerr=interval(own), elinewidth=0.6, **look)
        slope, printed = (_two(slopes.get((source, label))) for source in ("measured", "printed"))
        handles.append(Line2D([], [], label=f"{display_name(label)} {slope} [{printed}]", **look))
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(FixedLocator(places))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    legend = axis.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(-0.05, -0.27), fontsize=FONT - 1, title="slope [printed]",
        handlelength=3.4, alignment="left", labelspacing=0.15, borderpad=0,
    )  # fmt: skip
    legend.get_title().set_fontsize(FONT - 1)


def _shares(axis: Axes, table: pd.DataFrame, styles: dict[str, LayerStyle]) -> None:
    """A line per layer: filled the input, open the parameter transformation."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    rows = table[(table.measure == "share of the ceiling") & (table.axis == "c")]
    rows = rows[(rows.place == rows.place.max()) & (rows.value > 0)]
    labels = list(styles)
    for part, filled in (("input", True), ("parameter", False)):
        for row in rows[rows.part == part].itertuples():
            style = styles[row.layer]
            look = {"color": style.color, "markerfacecolor": style.color if filled else "white", "markersize": 4.5}
            axis.plot(row.value, labels.index(row.layer), marker="o" if filled else "s", linestyle="none", **look)
    axis.axvline(100, color=DARK, linewidth=0.9)
    axis.set_xscale("log")
    low, high = axis.get_xlim()
    axis.set_xlim(min(low, 1), max(high, 200))
    axis.xaxis.set_major_locator(LogLocator(base=10, numticks=8))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_yticks(range(len(labels)), [display_name(label) for label in labels])
    axis.set_ylim(len(labels) - 0.4, -0.6)
    at = "" if rows.empty else f", c = {rows.place.max():g}"
    axis.set_xlabel(f"% of the ceiling{at}\nfilled: input, open: parameter")


def _two(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value + 0.0:.2f}".replace("-0.00", "0.00")
