"""Figure 6 of the paper: what happens in a network of ECO layers, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from lipref.errors import LiprefError
from lipref.paper.style import FONT, GREY, context, display_name, layer_styles, legend, line_format, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = ("setting", "layer", "moment", "measure", "place", "value")
_AUTHORS = "#000000"


@context()
def eco(table: pd.DataFrame) -> Figure:
    """Figure 6: variance of the features, product of the norms, and the norm of one layer against the image's side.

    Args:
        table: `lipref.paper.excluded_tables.eco`.

    Raises:
        LiprefError: a missing column, a measure without rows, or a value that is not above 0.
    """
    from matplotlib.lines import Line2D

    missing = [name for name in _COLUMNS if name not in table.columns]
    if missing:
        raise LiprefError(f"the table has no column {missing[0]!r}; this picture needs {', '.join(_COLUMNS)}")
    parts = dict(list(table.groupby("measure", sort=False)))
    for name in ("variance", "product of norms so far", "norm at a side"):
        if name not in parts:
            raise LiprefError(f"the table has no rows of measure {name!r}: give at least one")
        if not (parts[name].value > 0).all():
            raise LiprefError(f"a value of measure {name!r} is not above 0, which its axis needs: correct the table")
    figure = new_figure(2.6)
    left, middle, right = figure.subplots(1, 3)
    handles = _lines(left, parts["variance"])
    left.set(yscale="log", ylabel="‖activation − batch mean‖², mean", xlabel="Lipschitz layers so far",
             title="batch activation variance")  # fmt: skip
    _lines(middle, parts["product of norms so far"])
    middle.set_yscale("log", base=2)
    middle.set(ylabel="product of norms", xlabel="Lipschitz layers so far", title="product of proved norms")
    _sides(right, parts["norm at a side"])
    dot = {"linestyle": "none", "color": layer_styles(["eco"])["eco"].color, "marker": "o", "markersize": 4.5}
    handles += [
        Line2D([], [], label="one ECO layer, side divisible by 3", **dot),
        Line2D([], [], label="one ECO layer, other sides", markerfacecolor="white", **dot),
        Line2D([], [], label="the authors' ECO layer, measured", linestyle="none", color=_AUTHORS, marker="x"),
    ]
    legend(figure, handles)
    return figure


def _lines(axis: Axes, rows: pd.DataFrame) -> list:
    """A line per layer and moment, hollow and dashed after training; returns legend entries."""
    from matplotlib.lines import Line2D

    handles = []
    for label, style in layer_styles(rows.layer).items():
        for moment, group in rows[rows.layer == label].groupby("moment", sort=False):
            group = group.sort_values("place")
            look = line_format(style) | {"markersize": 3, "markevery": 3}
            if moment != "initial":
                look |= {"markerfacecolor": "white", "linestyle": (0, (2, 2))}
            axis.plot(list(group.place), list(group.value), **look)
            text = "untrained" if moment == "initial" else f"after {moment}"
            handles.append(Line2D([], [], label=f"{display_name(label)}, {text}", **look))
    axis.margins(x=0.03)
    axis.tick_params(labelsize=FONT - 1)
    return handles


def _sides(axis: Axes, rows: pd.DataFrame) -> None:
    color = layer_styles(["eco"])["eco"].color
    measured = rows.setting.str.contains("authors")
    ours = rows[~measured].sort_values("place")
    axis.axhline(1, color=GREY, linewidth=0.8, linestyle=(0, (4, 2)))
    axis.plot(list(ours.place), list(ours.value), color=color, linewidth=0.6, alpha=0.6)
    for divisible in (True, False):
        part = ours[(ours.place % 3 == 0) == divisible]
        axis.plot(list(part.place), list(part.value), linestyle="none", marker="o", markersize=4.5, color=color,
                  markerfacecolor=color if divisible else "white")  # fmt: skip
    axis.plot(list(rows[measured].place), list(rows[measured].value), linestyle="none", marker="x", color=_AUTHORS)
    axis.set(xlabel="side of the image (pixels)", ylabel="spectral norm", title="one ECO layer, 3x3 kernel")
    axis.set_xticks([side for side in sorted(set(ours.place)) if side % 3 == 0])
    axis.tick_params(labelsize=FONT - 1)
