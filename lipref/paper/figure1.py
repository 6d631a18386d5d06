"""Figure 1 of the paper: how each layer scores on six axes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lipref.errors import LiprefError
from lipref.paper.panels import SIZES, Panel, gaps, panels
from lipref.paper.style import DARK, FONT, GREY, WIDTH, context, display_name, layer_styles, legend, new_figure, wrap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


WORST, BEST = 1, 5
MIDDLE = (WORST + BEST) / 2
SCORES = (
    f"Our scores: {BEST} for the best of the layers drawn, {WORST} for the worst, between them in proportion, and "
    f"{MIDDLE:g} for all where all are equal; linear in accuracy and CRA, logarithmic in seconds and bytes, means over "
    "the sizes that all layers have. They are relative to the layers drawn: two layers get "
    f"{WORST} and {BEST}, however small their difference, and another choice of layers gives other scores. The paper's "
    "are whole numbers by a rule of its own, over three data sets and four sizes."
)


def scores(table: pd.DataFrame, column: str, logarithmic: bool) -> dict[str, float]:
    """A score per layer by the rule that `SCORES` tells.

    Args:
        table: Columns ``layer``, ``size`` and ``column``; a row without a value takes no part.
        column: What is scored.
        logarithmic: Scored in proportion to the logarithm, and low numbers are good; else high ones are.

    Returns:
        Layer -> score, empty for an empty table.
    """
    if table.empty or column not in table.columns:
        return {}
    table = table[table[column].notna()]
    sizes = table.groupby("size").layer.nunique()
    common = sizes[sizes == table.layer.nunique()].index
    table = table[table["size"].isin(common)] if len(common) else table
    values = np.log(table[column].astype(float)) if logarithmic else table[column].astype(float)
    means = values.groupby(table.layer).mean()
    spread = means.max() - means.min()
    if not spread > 0:
        return dict.fromkeys(means.index, MIDDLE)
    place = (means.max() - means if logarithmic else means - means.min()) / spread
    return (WORST + (BEST - WORST) * place).to_dict()


AXES = {
    "robust accuracy": "RA",
    "accuracy": "A",
    "training time": "TT",
    "inference time": "IT",
    "training memory": "TM",
    "inference memory": "IM",
}
LEAST, MOST = 1, 5
_RULE = (
    f"scores from {LEAST} (worst, inside) to {MOST} (best, outside); ours relative to the layers drawn, "
    f"{(LEAST + MOST) / 2:g} where all are equal"
)


@context()
def radar(table: pd.DataFrame) -> Figure:
    """Figure 1: a radar per layer; ours filled in the layer's colour, the paper's scores as a dashed outline.

    A layer without a score on some axis has no line to that axis and no filling.

    Args:
        table: Tidy, see `lipref.paper.panels.panels`; measures as in `AXES`, unit ``score``, from 1 (worst) to 5
            (best), size ``all``; at most one setting per source.

    Raises:
        LiprefError: the table cannot be drawn.
    """
    found = panels(table, tuple(AXES), "score", ("all", *SIZES))
    scores = _by_source(found)
    styles = layer_styles(label for panel in found for label in panel.rows.layer)
    columns = min(4, len(styles))
    lines = math.ceil(len(styles) / columns)
    figure = new_figure(2.0 * lines)
    figure.get_layout_engine().set(rect=(0, 0, 1, 0.97), hspace=0.12)  # titles above round axes are not reckoned with
    grid = figure.subplots(lines, columns, squeeze=False, subplot_kw={"projection": "polar"}).ravel()
    for axis, (label, style) in zip(grid, styles.items(), strict=False):
        _frame(axis)
        axis.set_title(wrap(display_name(label), WIDTH / columns - 0.3), loc="center", fontweight="bold", y=1.13, pad=0)
        for source in ("ours", "paper"):
            if source in scores and label in set(scores[source].rows.layer):
                _polygon(axis, scores[source], label, style.color)
    for axis in grid[len(styles) :]:
        axis.remove()
    meaning = ", ".join(f"{short} {name}" for name, short in AXES.items())
    legend(figure, _handles(scores), f"{meaning}\n{wrap(_RULE, WIDTH - 1.0, FONT - 1)}", notes=gaps(table))
    return figure


def _by_source(found: list[Panel]) -> dict[str, Panel]:
    scores: dict[str, Panel] = {}
    for panel in found:
        wrong = panel.rows[(panel.rows.value < LEAST) | (panel.rows.value > MOST)]
        if not wrong.empty:
            row = wrong.iloc[0]
            raise LiprefError(
                f"score {row.value} of {row.layer} in {row.measure} is not from {LEAST} to {MOST}: correct the table"
            )
        if panel.source in scores or panel.rows["size"].nunique() > 1:
            raise LiprefError(
                f"several settings or sizes of {panel.source!r} ({panel.title!r}) in one radar: select one of them"
            )
        scores[panel.source] = panel
    return scores


def _frame(axis: Axes) -> None:
    axis.set_theta_zero_location("N")
    axis.set_theta_direction(-1)
    angles = np.linspace(0, 2 * math.pi, len(AXES), endpoint=False)
    axis.set_xticks(angles, [""] * len(AXES))
    for angle, short in zip(angles, AXES.values(), strict=True):
        axis.text(angle, 1.18 * MOST, short, ha="center", va="center")  # matplotlib's own are unevenly far away
    axis.set_ylim(0, MOST + 0.25)
    axis.set_yticks(range(LEAST, MOST + 1), [str(LEAST), "", "3", "", str(MOST)], fontsize=FONT - 2, color=GREY)
    axis.set_rlabel_position(30)
    axis.spines["polar"].set_visible(False)
    axis.set_axisbelow(True)


def _polygon(axis: Axes, panel: Panel, label: str, color: str) -> None:
    rows = panel.rows[panel.rows.layer == label].set_index("measure").value.reindex(list(AXES))
    angles = np.linspace(0, 2 * math.pi, len(AXES) + 1)
    closed = np.append(rows.to_numpy(dtype=float), rows.iloc[0])
    if panel.source == "ours":
        if rows.notna().all():
            axis.fill(angles[:-1], closed[:-1], color=color, alpha=0.3, linewidth=0)
        axis.plot(angles, closed, color=color, linewidth=1.4, marker="o", markersize=3, label=panel.title)
    else:
        axis.plot(angles, closed, color=DARK, linewidth=1.0, linestyle=(0, (4, 2)), marker="o", markersize=3,
                  markerfacecolor="white", markeredgewidth=0.8, label=panel.title)  # fmt: skip


def _handles(scores: dict[str, Panel]) -> list:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles = []
    if "ours" in scores:
        title = f"{scores['ours'].title} (filled, in the layer's colour)"
        handles.append(Patch(facecolor="#bbbbbb", edgecolor=GREY, linewidth=1.4, label=title))
    if "paper" in scores:
        look = {"color": DARK, "linewidth": 1.0, "linestyle": (0, (4, 2)), "marker": "o", "markersize": 3}
        title = f"{scores['paper'].title} (dashed outline)"
        handles.append(Line2D([], [], markerfacecolor="white", label=title, **look))
    return handles
