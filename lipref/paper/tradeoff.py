"""The trade-off between two measures with its Pareto front, and the networks ranked by a weighted score."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import pandas as pd

from lipref.errors import LiprefError
from lipref.paper.style import (
    DARK,
    FONT,
    GREY,
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

SHOWN = 12  # bars
_UNITS = {"training time": ("s per epoch", 1), "inference time": ("s per image", 1),
          "training memory": ("MB", 1e-6), "inference memory": ("MB", 1e-6)}  # fmt: skip


@context()
def tradeoff(
    values: pd.DataFrame, front: pd.DataFrame, axes: tuple[str, str] | None, ranking: pd.DataFrame,
    best: Collection[tuple[str, str]],
) -> Figure:  # fmt: skip
    """Left: a cost against a benefit, the Pareto front as a line, the best ringed. Right: the best scores as bars.

    Args:
        values: `lipref.paper.recommend.values`.
        front: `lipref.paper.recommend.front` of the two measures.
        axes: The cost (logarithmic, to the right) and the benefit (in percent, upwards); None draws the bars alone.
        ranking: ``layer, size, score``, best first.
        best: Layers and sizes that are ringed.

    Raises:
        LiprefError: the ranking is empty.
    """
    if ranking.empty:
        raise LiprefError("there is no ranked network to draw")
    styles = layer_styles([*values.index.get_level_values("layer"), *ranking.layer])
    figure = new_figure(max(2.6, 0.8 + 0.19 * min(SHOWN, len(ranking))))
    panels = figure.subplots(1, 2, width_ratios=(1.5, 1)) if axes else [None, figure.subplots()]
    if axes:
        _scatter(panels[0], values.dropna(subset=list(axes)), front, axes, styles, best)
    _bars(panels[1], ranking.head(SHOWN), len(ranking), styles)
    legend(figure, line_handles(styles), title="ring: recommended; grey line: Pareto front" if axes else None)
    return figure


def _scatter(axis: Axes, rows: pd.DataFrame, front: pd.DataFrame, axes: tuple[str, str], styles, best) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    cost, benefit = axes
    unit, scale = _UNITS[cost]
    line = front.sort_values([cost, benefit])
    axis.plot(scale * line[cost], line[benefit], color=GREY, linewidth=2.5, alpha=0.5, zorder=1)
    several = rows.index.get_level_values("size").nunique() > 1
    for (layer, size), row in rows.iterrows():
        look = line_format(styles[layer]) | {"linestyle": "none"}
        axis.plot([scale * row[cost]], [row[benefit]], **look)
        if (layer, size) in best:
            axis.plot([scale * row[cost]], [row[benefit]], marker="o", markersize=13, markerfacecolor="none",
                      markeredgecolor=DARK, markeredgewidth=1.3, linestyle="none")  # fmt: skip
        if several:
            # Neighbours are of different layers: every second layer has its sizes on the other side.
            side = 1 if list(styles).index(layer) % 2 == 0 else -1
            away = (9, 3) if (layer, size) in best else (4, 2)
            axis.annotate(size, (scale * row[cost], row[benefit]), xytext=(side * away[0], side * away[1]),
                          ha="left" if side > 0 else "right", va="bottom" if side > 0 else "top",
                          textcoords="offset points", fontsize=FONT - 2.5)  # fmt: skip
    axis.set(xscale="log", xlabel=f"{cost} ({unit})", ylabel=f"{benefit} (%)")
    axis.margins(0.1)
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_title(f"{benefit} against {cost}")


def _bars(axis: Axes, rows: pd.DataFrame, total: int, styles) -> None:
    looks = [styles[layer] for layer in rows.layer]
    axis.barh(range(len(rows)), list(rows.score), height=0.78, color=[look.color for look in looks],
              edgecolor="white", linewidth=0, hatch=[look.hatch for look in looks])  # fmt: skip
    for place, score in enumerate(rows.score):
        axis.annotate(f"{score:.2f}", (score, place), xytext=(3, 0), textcoords="offset points", va="center",
                      fontsize=FONT - 1)  # fmt: skip
    axis.set_yticks(range(len(rows)), [f"{display_name(row.layer)} {row.size}" for row in rows[["layer", "size"]]
                                       .itertuples(index=False)])  # fmt: skip
    axis.set(ylim=(len(rows) - 0.4, -0.6), xlim=(0, 1.18), xlabel="score (0 to 1)")
    axis.grid(visible=False, axis="y")
    axis.set_title("ranked" if len(rows) == total else f"best {len(rows)} of {total}")
