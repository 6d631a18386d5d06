"""Table 1 as a picture: how counted costs grow, beside what the printed rows say."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pandas as pd

from lipref.errors import LiprefError
from lipref.paper.style import DARK, FONT, GREY, blank, context, display_name, layer_styles, legend, new_figure, wrap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = ("source", "layer", "way", "part", "quantity", "measure", "value")
RATIO = "ours / row"
_LINE = 0.135  # inches for one layer
_TITLES = {"MACs": "multiply-accumulates", "stored": "stored numbers"}


@context()
def exponents(table: pd.DataFrame) -> Figure:
    """A row of panels per part and quantity: the exponent of every symbol, and the size over the printed row's.

    Circles are the printed rows', filled marks ours; a layer stands on one line per way in which its code runs. What is
    counted as a whole, and so has no place in these panels, is named under the picture.

    Args:
        table: Tidy, with `COLUMNS`, see `lipref.paper.exponents.table`.

    Raises:
        LiprefError: a column is missing, or two values for one place.
    """
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise LiprefError(f"the table has no column {missing[0]!r}; a picture needs {', '.join(COLUMNS)}")
    twice = table[table.duplicated(list(COLUMNS[:-1]))]
    if not twice.empty:
        place = ", ".join(str(value) for value in twice.iloc[0][list(COLUMNS[:-1])])
        raise LiprefError(f"two values for ({place}): give one row for each")
    shown = table[table.part != "whole"]
    if shown.empty:
        return blank("; ".join(_notes(table)) or "nothing is counted")
    lines = list(dict.fromkeys(zip(shown.layer, shown.way, strict=True)))
    rows = list(dict.fromkeys(zip(shown.part, shown.quantity, strict=True)))
    symbols = [name for name in dict.fromkeys(shown.measure) if name.startswith("exponent of ")]
    both = set(shown.source) == {"paper", "ours"}
    styles = layer_styles(shown.layer)
    figure = new_figure(len(rows) * (_LINE * len(lines) + 0.42))
    widths = [1.0] * len(symbols) + ([1.25] if both else [])
    axes = figure.subplots(len(rows), len(widths), squeeze=False, gridspec_kw={"width_ratios": widths})
    for number, (part, quantity) in enumerate(rows):
        found = shown[(shown.part == part) & (shown.quantity == quantity)]
        for axis, measure in zip(axes[number], symbols, strict=False):
            _exponents(axis, found[found.measure == measure], lines, styles)
            axis.set_xlabel(measure if number == len(rows) - 1 else "")
        if both:
            _ratios(axes[number][-1], found[found.measure == "at the base point"], lines, styles)
            axes[number][-1].set_xlabel(RATIO if number == len(rows) - 1 else "")
        first = axes[number][0]
        first.set_yticks(range(len(lines)), [_short(*line) for line in lines], fontsize=FONT - 1.5)
        first.set_title(f"{part}: {_TITLES.get(quantity, quantity)}")
    legend(figure, _handles(set(shown.source)), notes=_notes(table))
    return figure


def _exponents(axis: Axes, found: pd.DataFrame, lines: list, styles: dict) -> None:
    axis.set_xlim(-0.5, 4.7)
    axis.set_xticks(range(5))
    _guides(axis, len(lines))
    _marks(axis, found[found.value.notna()], lines, styles)


def _ratios(axis: Axes, found: pd.DataFrame, lines: list, styles: dict) -> None:
    """Ours over the row, on a logarithmic axis; nothing where one of the two is 0."""
    values = found.pivot(index=["layer", "way"], columns="source", values="value").reindex(columns=["ours", "paper"])
    ratios = (values.ours / values.paper).replace([0, math.inf], math.nan).dropna()
    axis.set_xscale("log")
    reach = max([30.0, *(ratios * 1.5), *(1.5 / ratios)])
    axis.set_xlim(1 / reach, reach)
    axis.set_xticks([0.1, 1, 10], ["0.1", "1", "10"])
    axis.minorticks_off()
    axis.axvline(1, color=GREY, linewidth=0.8)
    _guides(axis, len(lines))
    _marks(axis, ratios.rename("value").reset_index().assign(source="ours"), lines, styles)


def _guides(axis: Axes, number: int) -> None:
    """A thin line per layer, in place of ticks: many panels of ticks are slow to draw."""
    axis.set_yticks([])
    axis.set_ylim(number - 0.4, -0.6)
    axis.hlines(range(number), *axis.get_xlim(), color="#dddddd", linewidth=0.5, zorder=0.5)
    axis.tick_params(length=0)


def _marks(axis: Axes, found: pd.DataFrame, lines: list, styles: dict) -> None:
    """Circles for the printed rows, and over them a mark per layer for ours."""
    for (source, layer), rows in found.groupby(["source", "layer"], sort=False):
        places = [lines.index(line) for line in zip(rows.layer, rows.way, strict=True)]
        look = {"marker": "o", "markersize": 7.5, "markerfacecolor": "none", "markeredgecolor": GREY}
        if source == "ours":
            look = {"marker": styles[layer].marker, "markersize": 4, "color": styles[layer].color}
        axis.plot(list(rows.value), places, linestyle="none", markeredgewidth=0.9, **look)


def _handles(sources: set[str]) -> list:
    from matplotlib.lines import Line2D

    looks = {
        "paper": {"marker": "o", "markersize": 7.5, "markerfacecolor": "none", "markeredgecolor": GREY,
                  "label": "paper: the printed row"},
        "ours": {"marker": "o", "markersize": 4, "color": DARK, "label": "ours: counted"},
    }  # fmt: skip
    return [Line2D([], [], linestyle="none", **looks[name]) for name in looks if name in sources]


def _short(layer: str, way: str) -> str:
    text = f"{display_name(layer)}, {way}" if way else display_name(layer)
    return wrap(text, 1.3, FONT - 1.5).split("\n")[0].rstrip(",")


def _notes(table: pd.DataFrame) -> list[str]:
    whole = dict.fromkeys(table[table.part == "whole"].layer)
    return [f"{display_name(layer)}: counted as a whole" for layer in whole]
