"""Figures 2 to 4 and 8 of the paper, and its Table 7: time, memory and parameters against the size of the network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from lipref.paper.panels import SIZES, Panel, gaps, human_axis, interval, panels, refuse_not_positive
from lipref.paper.style import (
    FONT,
    WIDTH,
    LayerStyle,
    context,
    display_name,
    grow,
    layer_styles,
    legend,
    line_format,
    line_handles,
    new_figure,
    wrap,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MEMORY = ("training memory", "inference memory")
EPOCHS = ("epochs in 2 h", "epochs in 10 h", "epochs in 24 h")
_DODGE = 0.28  # of the distance between two sizes
_BARS = {"elinewidth": 0.8, "capsize": 2.0}


def training_time(table: pd.DataFrame) -> Figure:
    """Figure 2: seconds per training epoch against size; a panel per source and setting, each with its own scale.

    At one size the layers stand a little side by side. A panel with a single size shows the
    layers one below the other instead.

    Args:
        table: Tidy, see `lipref.paper.panels.panels`; measure ``training time per epoch``, unit ``s``.

    Raises:
        LiprefError: the table cannot be drawn.
    """
    return _against_size(table, ("training time per epoch",), "s")


def inference_throughput(table: pd.DataFrame) -> Figure:
    """Figure 3: images per second in evaluation against size; drawn as `training_time`.

    Args:
        table: Tidy; measure ``inference throughput``, unit ``images/s``.

    Raises:
        LiprefError: the table cannot be drawn.
    """
    return _against_size(table, ("inference throughput",), "images/s")


def memory(table: pd.DataFrame) -> Figure:
    """Figure 4: peak memory in training, then in inference, against size; drawn as `training_time`.

    Args:
        table: Tidy; measures ``training memory`` and ``inference memory``, unit ``bytes``; drawn with 1 GB = 10⁹ bytes,
            as in the paper.

    Raises:
        LiprefError: the table cannot be drawn.
    """
    return _against_size(table, MEMORY, "bytes")


def parameters(table: pd.DataFrame) -> Figure:
    """Table 7: trained parameters against size; drawn as `training_time`.

    Args:
        table: Tidy; measure ``parameters``, unit ``parameters``.

    Raises:
        LiprefError: the table cannot be drawn.
    """
    return _against_size(table, ("parameters",), "parameters")


def epochs(table: pd.DataFrame) -> Figure:
    """Table 8: epochs in 2, 10 and 24 hours against size, a line of panels each; drawn as `training_time`.

    Args:
        table: Tidy; measures `EPOCHS`, unit ``epochs``; other measures are left out.

    Raises:
        LiprefError: the table cannot be drawn.
    """
    rows = table[table.measure.isin(EPOCHS)]
    return _against_size(rows, EPOCHS, "epochs", columns=rows.groupby(["source", "setting"]).ngroups)


@context()
def beside(table: pd.DataFrame, blanks: Mapping[tuple[str, str], str]) -> Figure:
    """Figure 8: a line of panels per measure, the paper's and ours side by side; drawn as `training_time`.

    A panel without values is empty, low, and says why.

    Args:
        table: Tidy, with one setting per source; measures and units as for the other functions of this file.
        blanks: For every pair of measure and source the text of its panel where it has no value.

    Raises:
        LiprefError: the table cannot be drawn.
    """
    measures, sources = (list(dict.fromkeys(names)) for names in zip(*blanks, strict=True))
    cells: dict[tuple[str, str], Panel] = {}
    for measure, rows in table.groupby("measure", sort=False):
        refuse_not_positive(rows)
        cells |= {(measure, panel.source): panel for panel in panels(rows, measures, rows.unit.iloc[0])}
    styles = layer_styles(label for panel in cells.values() for label in panel.rows.layer)
    heights = [2.6 if any((measure, source) in cells for source in sources) else 0.75 for measure in measures]
    figure = new_figure(sum(heights))
    axes = figure.subplots(len(measures), len(sources), squeeze=False, height_ratios=heights)
    for line, measure in zip(axes, measures, strict=True):
        for axis, source in zip(line, sources, strict=True):
            panel = cells.get((measure, source))
            if panel is None:
                axis.set(xticks=[], yticks=[])
                axis.grid(visible=False)
                words = wrap(blanks[measure, source], WIDTH / len(sources) - 0.5)
                axis.text(0.5, 0.5, words, ha="center", va="center", transform=axis.transAxes)
            else:
                draw = _lines if len(panel.sizes) > 1 else _dots
                draw(axis, panel, styles, measure, panel.rows.unit.iloc[0])
            axis.set_title(wrap(f"{source}: {measure}", WIDTH / len(sources) - 0.5))
    if any(len(panel.sizes) > 1 for panel in cells.values()):
        legend(figure, line_handles(styles), inches=1.9, notes=gaps(table))
    return figure


@context()
def _against_size(table: pd.DataFrame, measures: tuple[str, ...], unit: str, columns: int | None = None) -> Figure:
    found = panels(table, measures, unit)
    refuse_not_positive(table)
    cells = [(measure, panel.of(measure)) for measure in measures for panel in found]
    cells = [(measure, panel) for measure, panel in cells if not panel.rows.empty]
    styles = layer_styles(label for panel in found for label in panel.rows.layer)
    columns = columns or (len(cells) if len(cells) < 4 else 2 if len(cells) == 4 else 3)
    lines = math.ceil(len(cells) / columns)
    figure = new_figure(2.6 * lines)
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    titles: list[int] = []
    for axis, (measure, panel) in zip(axes, cells, strict=False):
        draw = _lines if len(panel.sizes) > 1 else _dots
        draw(axis, panel, styles, measure, unit)
        # Labels of the layers take room that the title then lacks.
        names = max(len(line) for text in axis.get_yticklabels() for line in text.get_text().split("\n"))
        axis.set_title(wrap(panel.title, WIDTH / columns - 0.4 - names * 0.58 * FONT / 72))
        titles.append(axis.get_title().count("\n"))
    for axis in axes[len(cells) :]:
        axis.remove()
    grow(figure, sum(max(titles[start : start + columns]) for start in range(0, len(cells), columns)))
    if any(len(panel.sizes) > 1 for _, panel in cells):
        legend(figure, line_handles(styles), inches=1.9, notes=gaps(table))
    return figure


def _lines(axis: Axes, panel: Panel, styles: dict[str, LayerStyle], measure: str, unit: str) -> None:
    sizes = panel.sizes
    for number, (label, style) in enumerate(styles.items()):
        aside = _DODGE * (number / max(1, len(styles) - 1) - 0.5)  # so that no marker hides another
        rows = panel.rows[panel.rows.layer == label].set_index("size")
        # One line per kind of kernel, and none across a size without a value.
        for kernel in (SIZES[:4], SIZES[4:]):
            places = [size for size in sizes if size in kernel]
            points = rows.reindex(places)
            if points.value.notna().any():
                axis.errorbar([sizes.index(size) + aside for size in places], list(points.value), yerr=interval(points),
                              label=display_name(label), zorder=2.5 if style.marker == "x" else 2,  # thin
                              **line_format(style), **_BARS)  # fmt: skip
    small = {"fontsize": FONT - 3} if len(sizes) > 4 else {}  # "1x1" side by side
    axis.set_xticks(range(len(sizes)), [size.replace("_1x1", "\n1x1") for size in sizes], **small)
    axis.set_xlim(-0.3, len(sizes) - 0.7)
    axis.set_xlabel("size of the network")
    human_axis(axis.yaxis, panel.rows, measure, unit)


def _dots(axis: Axes, panel: Panel, styles: dict[str, LayerStyle], measure: str, unit: str) -> None:
    labels = [label for label in styles if label in set(panel.rows.layer)]
    for place, label in enumerate(labels):
        rows = panel.rows[panel.rows.layer == label]
        axis.errorbar(list(rows.value), [place], xerr=interval(rows), label=display_name(label),
                      **line_format(styles[label]) | {"linestyle": "none"}, **_BARS)  # fmt: skip
    inches = 0.3 * WIDTH / axis.get_gridspec().ncols + 0.2
    axis.set_yticks(range(len(labels)), [wrap(display_name(label), inches) for label in labels])
    axis.set_ylim(len(labels) - 0.4, -0.6)
    axis.set_ylabel(f"layer, size {panel.sizes[0].replace('_1x1', ' 1x1')}")
    human_axis(axis.xaxis, panel.rows, measure, unit)
