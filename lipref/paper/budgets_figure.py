"""Tables 9 to 12 and Figure 7 of the paper: accuracy and certified robust accuracy after several time budgets."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pandas as pd

from lipref.errors import LiprefError
from lipref.paper.panels import SIZES, interval, panels
from lipref.paper.style import (
    DARK,
    GREY,
    LayerStyle,
    context,
    display_name,
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

MEASURES = ("accuracy", "CRA(36/255)")
# Shortest budget first; told apart without colour by shape and by how full they are.
_MARKERS = (("o", "white"), ("s", "#BBBBBB"), ("D", DARK), ("^", "white"), ("v", "#BBBBBB"), ("P", DARK))
_LINE = 0.2  # inches for one layer


def hours(setting: str) -> int:
    """24 for ``CIFAR-10, 24 h``.

    Raises:
        LiprefError: the setting does not end in a budget.
    """
    found = re.search(r"\b(\d+) h$", setting)
    if found is None:
        raise LiprefError(f"setting {setting!r} has no budget: end it in hours, such as 'CIFAR-10, 24 h'")
    return int(found[1])


@context()
def budget_dots(table: pd.DataFrame) -> Figure:
    """Tables 9 to 12 as dots: a line per layer, a marker per budget; a panel per source, measure and size.

    All sizes of a measure share their scale. What has no value has no dot, and is named under the picture.

    Args:
        table: Tidy, see `lipref.paper.panels.panels`; measures ``accuracy`` and ``CRA(36/255)``, unit ``%``; settings
            end in a budget (``CIFAR-10, 24 h``).

    Raises:
        LiprefError: the table cannot be drawn.
    """
    from matplotlib.lines import Line2D

    rows = _checked(table)
    budgets, labels = _budgets(table), list(layer_styles(table.layer))
    figure, cells = _grid(rows, 0.62 + _LINE * len(labels), sharex="row", sharey=True)
    looks = {budget: _look(place) for place, budget in enumerate(budgets)}
    for axis, cell, name in cells:
        # Side by side within a layer's line, so that no marker hides another.
        aside = [0.22 * (budgets.index(budget) - (len(budgets) - 1) / 2) for budget in cell.hours]
        cell = cell.assign(place=[labels.index(label) + each for label, each in zip(cell.layer, aside, strict=True)])
        for _, of_layer in cell.sort_values("hours").groupby("layer", sort=False):
            axis.plot(list(of_layer.value), list(of_layer.place), color=GREY, linewidth=0.6, zorder=1.5)
        for budget, of_budget in cell.groupby("hours"):
            axis.errorbar(list(of_budget.value), list(of_budget.place), xerr=interval(of_budget), elinewidth=0.7,
                          capsize=1.5, **looks[budget])  # fmt: skip
        axis.set_yticks(range(len(labels)), [wrap(display_name(label), 1.2) for label in labels])
        axis.set_ylim(len(labels) - 0.45, -0.55)
        axis.set_xlabel(f"{name} (%)")
        axis.margins(x=0.1)
    handles = [Line2D([], [], label=f"{budget} h", **looks[budget]) for budget in budgets]
    legend(figure, handles, title="epochs that one A100 does in", inches=2.6, notes=_gaps(table))
    return figure


@context()
def budget_lines(table: pd.DataFrame) -> Figure:
    """Figure 7: CRA(36/255) against the time budget, a panel per size and source, a line per layer.

    The axis of the budgets is logarithmic, that of the values is the same everywhere. What has no value has no marker,
    and is named under the picture.

    Args:
        table: As for `budget_dots`, of one measure.

    Raises:
        LiprefError: the table cannot be drawn, or has two measures.
    """
    from matplotlib.ticker import NullLocator

    rows = _checked(table)
    if rows.measure.nunique() > 1:
        raise LiprefError(f"lines are of one measure: choose {' or '.join(dict.fromkeys(rows.measure))}")
    budgets, styles = _budgets(table), layer_styles(table.layer)
    figure, cells = _grid(rows, 2.7, sharex=True, sharey=True)
    for number, (axis, cell, name) in enumerate(cells):
        _lines(axis, cell, styles, budgets)
        axis.set_xscale("log")
        axis.set_xticks(budgets, [f"{budget}" for budget in budgets])
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_xlim(0.8 * budgets[0], 1.25 * budgets[-1])
        axis.set_xlabel("budget (h)")
        if axis.get_subplotspec().is_first_col() or number == 0:
            axis.set_ylabel(f"{name} (%)")
    legend(figure, line_handles(styles), inches=2.6, notes=_gaps(table))
    return figure


def _lines(axis: Axes, cell: pd.DataFrame, styles: dict[str, LayerStyle], budgets: list[int]) -> None:
    for number, (label, style) in enumerate(styles.items()):
        of_one = cell[cell.layer == label]
        if of_one.empty:
            continue
        of_one = of_one.set_index("hours").reindex(budgets)  # no line across a budget without a value
        aside = 1 + 0.1 * (number / max(1, len(styles) - 1) - 0.5)  # so that no marker hides another
        axis.errorbar([aside * budget for budget in budgets], list(of_one.value), yerr=interval(of_one),
                      elinewidth=0.7, capsize=1.5, label=display_name(label), **line_format(style))  # fmt: skip


def _budgets(table: pd.DataFrame) -> list[int]:
    """All budgets of the table in hours, also those that gave no value."""
    return sorted(set(table.setting.map(hours)))


def _checked(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that have a value, with their budget in ``hours``; one data set per source, by `panels`."""
    found = panels(table, MEASURES, "%")
    rows = pd.concat([panel.rows for panel in found])
    rows = rows.assign(hours=rows.setting.map(hours))
    for source, of_one in rows.groupby("source"):
        if len({setting.rpartition(",")[0] for setting in of_one.setting}) > 1:
            names = ", ".join(dict.fromkeys(of_one.setting))
            raise LiprefError(f"{source} has several data sets ({names}): draw one at a time")
    return rows


def _grid(rows: pd.DataFrame, height: float, **shared: object) -> tuple[Figure, list]:
    """A figure, and for each panel its axes, rows and measure: a line per source and measure, a column per size."""
    lines = [
        (source, measure) for source in dict.fromkeys(rows.source) for measure in MEASURES
        if ((rows.source == source) & (rows.measure == measure)).any()
    ]  # fmt: skip
    sizes = [size for size in SIZES if size in set(rows["size"])]
    figure = new_figure(height * len(lines))
    axes = figure.subplots(len(lines), len(sizes), squeeze=False, **shared)
    cells = []
    for across, (source, measure) in zip(axes, lines, strict=True):
        for axis, size in zip(across, sizes, strict=True):
            chosen = rows[(rows.source == source) & (rows.measure == measure) & (rows["size"] == size)]
            axis.set_title(size.replace("_1x1", " 1x1"), loc="center", fontweight="bold")
            cells.append((axis, chosen, measure))
        across[0].set_title(f"{source}  ", loc="left")
    return figure, cells


def _gaps(table: pd.DataFrame) -> list[str]:
    """What has a row and no value, a line each: ``CPL S: diverged (10, 24 h)``; without hours where in all of them."""
    if "note" not in table.columns:
        return []
    lost = table[table.value.isna() & table.note.fillna("").ne("")]
    of_source = lost.source.nunique() > 1
    lines: dict[str, list[int]] = {}
    for row in lost.itertuples(index=False):
        name = f"{row.source}, " if of_source else ""
        name += f"{display_name(row.layer)} {row.size.replace('_1x1', ' 1x1')}: {row.note}"
        lines.setdefault(name, []).append(hours(row.setting))
    return [
        name
        + (
            ""
            if sorted(set(found)) == _budgets(table)
            else f" ({', '.join(str(each) for each in sorted(set(found)))} h)"
        )
        for name, found in lines.items()
    ]


def _look(place: int) -> dict:
    marker, face = _MARKERS[place % len(_MARKERS)]
    return {
        "color": DARK, "marker": marker, "markerfacecolor": face, "markersize": 3.6, "markeredgewidth": 0.7,
        "linestyle": "none",
    }  # fmt: skip
