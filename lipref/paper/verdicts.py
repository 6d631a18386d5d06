"""Claims and verdicts as a grid: every cell has a marker and words, so that no colour is needed to read it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from lipref.errors import LiprefError
from lipref.paper.style import DARK, FONT, GREY, context, legend, new_figure, wrap

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Verdict -> marker, fill, edge (Okabe and Ito's colours).
LOOKS = {
    "agrees": ("o", "#0072B2", "#0072B2"),
    "differs": ("X", "#D55E00", "#D55E00"),
    "not comparable": ("s", "none", GREY),
    "not run": ("_", GREY, GREY),
    "not published": (".", GREY, GREY),
}
_ROW = 0.21  # inches
_BAND = "#f2f2f2"  # behind every other row, so that a line leads the eye and no rule crosses the words
COLUMNS = ("claim", "source", "verdict", "text")


@context()
def verdicts(table: pd.DataFrame) -> Figure:
    """A row per claim, a column per source; a marker for the verdict, and the counts behind it as words.

    Args:
        table: With `COLUMNS`, one row per claim and source; verdicts are those of `LOOKS`.

    Raises:
        LiprefError: no rows, a column is missing, an unknown verdict, or two rows in one place.
    """
    from matplotlib.lines import Line2D

    missing = [name for name in COLUMNS if name not in table.columns]
    if missing or table.empty:
        raise LiprefError(f"the table has no {missing[0] if missing else 'rows'}; a grid needs {', '.join(COLUMNS)}")
    unknown = [name for name in table.verdict.unique() if name not in LOOKS]
    if unknown:
        raise LiprefError(f"unknown verdict {unknown[0]!r}; known: {', '.join(LOOKS)}")
    if table.duplicated(["claim", "source"]).any():
        raise LiprefError(f"two rows for {table[table.duplicated(['claim', 'source'])].claim.iloc[0]!r}: give one each")
    claims, sources = list(dict.fromkeys(table.claim)), list(dict.fromkeys(table.source))
    figure = new_figure(0.6 + _ROW * len(claims))
    axis = figure.add_subplot()
    for row in table.itertuples():
        x, y = sources.index(row.source), claims.index(row.claim)
        marker, fill, edge = LOOKS[row.verdict]
        axis.plot(x, y, marker=marker, markersize=6, markerfacecolor=fill, markeredgecolor=edge, markeredgewidth=1.2)
        bold = "bold" if row.verdict == "differs" else "normal"
        axis.annotate(wrap(row.text, 2.9, FONT - 1), (x, y), xytext=(9, 0), textcoords="offset points", va="center",
                      fontsize=FONT - 1, color=DARK, fontweight=bold)  # fmt: skip
    axis.set_yticks(range(len(claims)), claims)
    axis.set_xticks(range(len(sources)), sources, ha="left", fontweight="bold")
    axis.set_xlim(-0.06, len(sources) - 0.02)
    axis.set_ylim(len(claims) - 0.4, -0.6)
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    axis.grid(visible=False)
    for y in range(0, len(claims), 2):
        axis.axhspan(y - 0.5, y + 0.5, color=_BAND, linewidth=0)
    for side in ("left", "bottom"):
        axis.spines[side].set_visible(False)
    legend(figure, [
        Line2D([], [], linestyle="none", marker=marker, markersize=6, markerfacecolor=fill, markeredgecolor=edge,
               markeredgewidth=1.2, label=name)
        for name, (marker, fill, edge) in LOOKS.items() if name in set(table.verdict)
    ])  # fmt: skip
    return figure
