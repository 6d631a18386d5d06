"""Figures 5 and 9 of the paper: networks ranked by certified robust accuracy, or by accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from lipref.errors import LiprefError
from lipref.paper.panels import Panel, gaps, interval, panels
from lipref.paper.style import (
    DARK,
    FONT,
    WIDTH,
    LayerStyle,
    context,
    display_name,
    layer_styles,
    legend,
    new_figure,
    wrap,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MEASURES = ("CRA(36/255)", "accuracy")
BAR = 0.165  # inches
_AROUND = 0.75  # inches for the title and the axis of a panel


@context()
def ranking(table: pd.DataFrame) -> Figure:
    """Figures 5 and 9: bars, best first; a panel per source and setting, each with its own scale.

    What has no value has no bar, and is named under the picture.

    Args:
        table: Tidy, see `lipref.paper.panels.panels`; measure ``CRA(36/255)`` or ``accuracy``, one of the two, unit
            ``%``.

    Raises:
        LiprefError: the table cannot be drawn.
    """
    from matplotlib.patches import Patch

    found = panels(table, MEASURES, "%")
    if table.measure.nunique() > 1:
        raise LiprefError(f"the table has {' and '.join(table.measure.unique())}: a ranking shows one of them")
    styles = layer_styles(table.layer)
    columns = _columns(found)
    heights = [[_AROUND + BAR * len(panel.rows) for panel in column] for column in columns]
    tallest = max(map(sum, heights))
    figure = new_figure(tallest)
    outer = figure.add_gridspec(1, len(columns))
    for place, (column, inches) in enumerate(zip(columns, heights, strict=True)):
        rest = [tallest - sum(inches)] if tallest > sum(inches) else []  # so that bars are equally thick everywhere
        inner = outer[place].subgridspec(len(inches) + len(rest), 1, height_ratios=inches + rest)
        for line, panel in enumerate(column):
            _bars(figure.add_subplot(inner[line]), panel, styles, WIDTH / len(columns) - 0.9)
    handles = [
        Patch(facecolor=style.color, hatch=style.hatch, edgecolor="white", label=display_name(label))
        for label, style in styles.items()
    ]
    legend(figure, handles, inches=1.9, notes=gaps(table))
    return figure


def _columns(found: list[Panel]) -> list[list[Panel]]:
    """At most two columns: each panel goes, in order, to the one that has fewer bars."""
    columns: list[list[Panel]] = [[] for _ in found[:2]]
    for panel in found:
        shortest = min(columns, key=lambda column: sum(len(each.rows) + _AROUND / BAR for each in column))
        shortest.append(panel)
    return columns


def _bars(axis: Axes, panel: Panel, styles: dict[str, LayerStyle], inches: float) -> None:
    rows = panel.rows.sort_values("value", ascending=False, kind="stable")
    looks = [styles[label] for label in rows.layer]
    places = range(len(rows))
    names = [
        wrap(f"{display_name(row.layer)} {row.size.replace('_1x1', ' 1x1')}", 1.2)
        for row in rows.itertuples(index=False)
    ]
    axis.barh(places, list(rows.value), height=0.8, color=[look.color for look in looks], edgecolor="white",
              linewidth=0, hatch=[look.hatch for look in looks])  # fmt: skip
    if (rows.low.notna() & rows.high.notna()).any():
        # White below the dark line: on a dark bar with a hatch it could not be told apart.
        for color, width in (("white", 3.0), (DARK, 0.9)):
            axis.errorbar(list(rows.value), list(places), xerr=interval(rows), linestyle="none", ecolor=color,
                          elinewidth=width, capsize=1.5 + width / 3, capthick=width)  # fmt: skip
    ends = rows[["value", "high"]].max(axis=1)
    for place, value, end in zip(places, rows.value, ends, strict=True):
        axis.annotate(f"{value:.1f}", (end, place), xytext=(3, 0), textcoords="offset points", va="center",
                      fontsize=FONT - 1.5)  # fmt: skip
    axis.set_yticks(places, names, fontsize=FONT - 1)
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_xlim(0, max(1.0, 1.14 * ends.max()))
    axis.grid(visible=False, axis="y")
    axis.set_xlabel(f"{rows.measure.iloc[0]} (%)")
    axis.set_title(wrap(panel.title, inches))
