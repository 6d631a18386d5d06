"""Table 4 of the paper as a picture: accuracy and certified robust accuracy at several radii, network by network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from lipref.paper.panels import SIZES, gaps, interval, panels
from lipref.paper.style import DARK, WIDTH, context, display_name, legend, new_figure, wrap

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MEASURES = ("accuracy", *(f"CRA({radius}/255)" for radius in (36, 72, 108, 255)))
# The larger the radius the darker; shapes tell them apart without shades.
_LOOKS = (("o", "white"), ("s", "#DDDDDD"), ("^", "#AAAAAA"), ("D", "#666666"), ("v", DARK))
_LINE, _AROUND = 0.19, 0.75  # inches for one network, and for the title and axis of a panel


@context()
def radii_dots(table: pd.DataFrame) -> Figure:
    """Dots of accuracy and CRA, a line per network, a marker per radius; a panel per source and setting, one scale.

    What is not known has no dot; a network without any value is named under the picture.

    Args:
        table: Tidy, see `lipref.paper.panels.panels`; measures `MEASURES`, unit ``%``; the size ``all`` is not written.

    Raises:
        LiprefError: the table cannot be drawn.
    """
    from matplotlib.lines import Line2D

    found = panels(table, MEASURES, "%", sizes=("all", *SIZES))
    names = [list(dict.fromkeys(zip(panel.rows.layer, panel.rows["size"], strict=True))) for panel in found]
    heights = [_AROUND + _LINE * len(each) for each in names]
    figure = new_figure(sum(heights))
    axes = figure.subplots(len(found), 1, squeeze=False, sharex=True, height_ratios=heights).ravel()
    looks = {measure: _look(place) for place, measure in enumerate(MEASURES)}
    for axis, panel, networks in zip(axes, found, names, strict=True):
        for measure, look in looks.items():
            rows = panel.of(measure).rows
            places = [networks.index(pair) for pair in zip(rows.layer, rows["size"], strict=True)]
            axis.errorbar(list(rows.value), places, xerr=interval(rows), elinewidth=0.7, capsize=1.5, **look)
        texts = [display_name(layer) + ("" if size == "all" else f" {size}") for layer, size in networks]
        axis.set_yticks(range(len(networks)), [wrap(text, 1.6) for text in texts])
        axis.set_ylim(len(networks) - 0.45, -0.55)
        axis.set_title(wrap(panel.title, WIDTH - 2.2))
        axis.tick_params(labelbottom=True)
    axes[-1].set_xlim(left=0)
    axes[-1].set_xlabel("share of the test images (%)")
    shown = [measure for measure in MEASURES if measure in set(table.measure)]
    legend(figure, [Line2D([], [], label=measure, **looks[measure]) for measure in shown], notes=gaps(table))
    return figure


def _look(place: int) -> dict:
    marker, face = _LOOKS[place]
    return {"color": DARK, "marker": marker, "markerfacecolor": face, "markersize": 4, "markeredgewidth": 0.7,
            "linestyle": "none"}  # fmt: skip
