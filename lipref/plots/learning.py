"""Learning curves: certified robust accuracy while a network trains."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from lipref.errors import LiprefError
from lipref.plots.panels import SIZES
from lipref.plots.style import (
    DARK,
    WIDTH,
    context,
    display_name,
    layer_styles,
    legend,
    line_format,
    line_handles,
    new_figure,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = ("source", "layer", "size", "run", "share", "train_loss", "train_cra_36_255", "test_cra_36_255")
# What a source logs in every epoch: ours certify the test images once, after the last. Beside ours the authors' runs of
# the same layers are dotted.
_SHOWN = {"paper": ("test_cra_36_255", "test CRA(36/255)"), "ours": ("train_cra_36_255", "training CRA(36/255)")}


@context()
def learning_curves(table: pd.DataFrame) -> Figure:
    """CRA(36/255) against the share of the epochs: a line of panels per source, a panel per size, a line per run.

    Ours have that of the training images; the authors' of the same layers is dotted beside it.
    A run ends where its loss became NaN: there it has a cross, and the legend names it.

    Args:
        table: `lipref.items.authors.curves`.

    Raises:
        LiprefError: a column is missing, or there is nothing to draw.
    """
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing or table.empty:
        what = f"have no column {missing[0]!r}" if missing else "have no rows"
        raise LiprefError(f"the curves {what}: give those of at least one run, with {', '.join(COLUMNS)}")
    sources = [source for source in _SHOWN if source in set(table.source)]
    sizes = [size for size in SIZES if size in set(table["size"])]
    styles = layer_styles(table.layer)
    figure = new_figure(2.9 * len(sources))
    axes = figure.subplots(len(sources), len(sizes), squeeze=False, sharex=True, sharey="row")
    notes: list[str] = []
    for line, source in zip(axes, sources, strict=True):
        for axis, size in zip(line, sizes, strict=True):
            rows = table[(table.source == source) & (table["size"] == size)]
            notes += _draw(axis, rows, styles, source)
            if source == "ours":
                _beside(axis, table[(table["size"] == size) & table.layer.isin(rows.layer)], styles)
            axis.set_title(f"{source}: {size.replace('_1x1', ' 1x1')}")
            axis.set_xlabel("share of the epochs (%)")
            axis.set_xlim(0, 100)
            axis.set_ylim(bottom=0)
        line[0].set_ylabel(f"{_SHOWN[source][1]} (%)")
    if "paper" in sources and "ours" in sources:
        notes.append("dotted: the authors' training CRA")
    legend(figure, line_handles(styles, markers=False), inches=WIDTH / 3, notes=notes)
    return figure


def _draw(axis: Axes, rows: pd.DataFrame, styles: dict, source: str) -> list[str]:
    """Draws the runs of one panel; returns a note for each that ended with NaN."""
    notes = []
    for (label, _), run in rows.groupby(["layer", "run"], sort=False):
        run = run.sort_values("share", kind="stable")
        lost = run.train_loss.isna()
        kept = run[~lost.cummax()]
        values = 100 * kept[_SHOWN[source][0]]
        look = line_format(styles[label], markers=False)
        axis.plot(list(100 * kept.share), list(values), label=display_name(label), **look)
        if lost.any() and len(kept):
            place = (100 * kept.share.iloc[-1], values.iloc[-1])
            axis.plot(*place, marker="x", markersize=6, markeredgewidth=1.8, color=DARK, linestyle="none", zorder=4)
            notes.append(f"{display_name(label)} {run['size'].iloc[0]}: NaN after {place[0]:.0f} % (×)")
    return notes


def _beside(axis: Axes, rows: pd.DataFrame, styles: dict) -> None:
    """The authors' training CRA, of runs that were finished."""
    for (label, _), run in rows[rows.source == "paper"].groupby(["layer", "run"], sort=False):
        if run.train_loss.notna().all():
            values = run.sort_values("share", kind="stable")
            look = line_format(styles[label], markers=False) | {"linestyle": ":", "linewidth": 0.9}
            axis.plot(list(100 * values.share), list(100 * values.train_cra_36_255), label="_authors", **look)
