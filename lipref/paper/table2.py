"""Table 2 of the paper as a picture: accuracy and certified robust accuracy of every layer and size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from lipref.paper.panels import SIZES, Panel, gaps, interval, panels
from lipref.paper.style import DARK, LayerStyle, context, display_name, layer_styles, legend, new_figure, wrap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MEASURES = ("accuracy", "CRA(36/255)")
_MARKERS = ("o", "s", "^", "D", "v", "P")


@context()
def accuracy(table: pd.DataFrame) -> Figure:
    """Table 2 as dots, a panel per measure and size: open markers for the paper's values, filled ones for ours.

    A layer without a value keeps its place, empty, and is named under the picture.

    Args:
        table: Tidy, see `lipref.paper.panels.panels`; measures ``accuracy`` and ``CRA(36/255)``, unit ``%``.

    Raises:
        LiprefError: the table cannot be drawn.
    """
    found = panels(table, MEASURES, "%")
    styles = layer_styles(table.layer)
    rows = pd.concat([panel.rows for panel in found])
    measures = [measure for measure in MEASURES if measure in set(rows.measure)]
    sizes = [size for size in SIZES if size in set(rows["size"])]
    cells = _grid(measures, sizes)
    figure = new_figure(len(cells) * (0.6 + 0.17 * len(styles)))
    axes = figure.subplots(
        len(cells), len(cells[0]), squeeze=False, sharey=True, sharex="row" if len(sizes) > 1 else False
    )
    for line, row in zip(axes, cells, strict=True):
        for axis, cell in zip(line, row, strict=True):
            if cell is None:
                axis.set_visible(False)
                continue
            measure, size = cell
            _dots(axis, found, styles, measure, size)
            axis.set_title(size.replace("_1x1", " 1x1"), loc="center", fontweight="bold")
            axis.set_xlabel(f"{measure} (%)")
    legend(figure, _handles(found), notes=gaps(table))
    return figure


def _grid(measures: list[str], sizes: list[str]) -> list[list[tuple[str, str] | None]]:
    """Which measure and size stand where: sizes side by side, except for a single size."""
    if len(sizes) == 1:
        return [[(measure, sizes[0]) for measure in measures]]
    kernels = [[size for size in sizes if size in part] for part in (SIZES[:4], SIZES[4:])]
    widest = max(map(len, kernels))
    return [
        [*((measure, size) for size in kernel), *[None] * (widest - len(kernel))]
        for measure in measures
        for kernel in kernels
        if kernel
    ]


def _dots(axis: Axes, found: list[Panel], styles: dict[str, LayerStyle], measure: str, size: str) -> None:
    from matplotlib.ticker import MaxNLocator

    labels = list(styles)
    step = 0.5 / len(found)  # settings side by side within a layer's line, so that none hides another
    for number, panel in enumerate(found):
        rows = panel.of(measure).rows
        rows = rows[rows["size"] == size]
        for label, group in rows.groupby("layer", sort=False):
            place = labels.index(label) + step * (number - (len(found) - 1) / 2)
            look = _look(panel.source, number, styles[label].color)
            axis.errorbar(list(group.value), [place], xerr=interval(group), elinewidth=0.8, capsize=1.5,
                          label=panel.title, **look)  # fmt: skip
    axis.set_yticks(range(len(labels)), [wrap(display_name(label), 1.2) for label in labels])
    axis.set_ylim(len(labels) - 0.4, -0.6)
    axis.margins(x=0.12)
    axis.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))


def _look(source: str, number: int, color: str) -> dict:
    return {
        "color": color,
        "linestyle": "none",
        "marker": _MARKERS[number % len(_MARKERS)],
        "markersize": 4,
        "markerfacecolor": "white" if source == "paper" else color,
        "markeredgewidth": 1.0,
    }


def _handles(found: list[Panel]) -> list:
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], label=panel.title, **_look(panel.source, number, DARK)) for number, panel in enumerate(found)
    ]
