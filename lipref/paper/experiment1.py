"""The first experiment: a network beside the unconstrained one.

Its certificate, its training, and the proved bound of each of its layers, with accuracy and cost in one tidy table.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pandas as pd

from lipref.errors import LiprefError
from lipref.paper import tables
from lipref.paper.radius_curves import MARKS
from lipref.paper.style import (
    DARK,
    GREY,
    context,
    display_name,
    layer_styles,
    legend,
    line_format,
    line_handles,
    new_figure,
)
from lipref.runs import overview

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


LARGEST, NETWORK = "largest bound of a layer", "bound of the network"
MEASURES = (
    "accuracy", "CRA(36/255)", "CRA(72/255)", "CRA(108/255)", "training time per epoch", "training memory", LARGEST,
    NETWORK,
)  # fmt: skip
_ROUNDING = 1e-9  # a proof in floating-point numbers ends above what it proves by so much
_FORMS = {"%": (1, "{:.1f}"), "s": (1, "{:.2f}"), "bytes": (1e-6, "{:,.1f}"), "bound": (1, "{:.5g}")}
_UNITS = {"%": "%", "s": "s", "bytes": "MB", "bound": ""}


def table(runs: pd.DataFrame, costs: pd.DataFrame, bounds: pd.DataFrame, dataset: str, images: int) -> pd.DataFrame:
    """Tidy, with `lipref.paper.tables.COLUMNS`: `MEASURES` of ours at one size, and what the paper has of them.

    Args:
        runs: The table of runs (`lipref.runs.records.row`), one size.
        costs: The table of measurements (`lipref.bench.cost.row`) at that size.
        bounds: `lipref.runs.records.layer_bounds` of the same runs.
        dataset: Our name of the data set.
        images: Training images in an epoch.
    """
    parts = [
        tables.accuracy(runs, dataset), tables.robustness(runs), tables.training_time(costs, dataset, images),
        tables.memory(costs),
    ]  # fmt: skip
    found = pd.concat([part for part in parts if not part.empty])
    found = found[found["size"].isin(runs["size"]) & found.layer.isin(runs.layer) & found.measure.isin(MEASURES)]
    lines = found.drop_duplicates(["source", "layer", "measure"]).to_dict("records")
    setting = next((line["setting"] for line in lines if line["source"] == "ours"), "")
    for run in runs.itertuples():
        if run.status != "done" or not run.proved:
            continue
        each = bounds[(bounds.layer == run.layer) & (bounds.seed == run.seed)]
        shared = {"source": "ours", "setting": setting, "layer": run.layer, "size": run.size, "low": math.nan,
                  "high": math.nan, "n": 1, "unit": "bound", "of": 1, "note": ""}  # fmt: skip
        lines += [
            shared | {"measure": LARGEST, "value": float(each.bound.max())},
            shared | {"measure": NETWORK, "value": float(run.lipschitz_bound)},
        ]
    frame = pd.DataFrame(lines, columns=list(tables.COLUMNS))
    return frame.sort_values(
        ["measure", "source", "layer"], kind="stable", ignore_index=True,
        key=lambda c: c.map(MEASURES.index) if c.name == "measure" else overview.order(c) if c.name == "layer" else c,
    )  # fmt: skip


def people(table: pd.DataFrame) -> pd.DataFrame:
    """The tidy table as people read it: a row per measure, a column per layer and source."""
    columns = table[["source", "layer"]].drop_duplicates().sort_values("layer", key=overview.order, kind="stable")
    lines = []
    for measure, rows in table.groupby("measure", sort=False):
        unit = _UNITS[rows.unit.iloc[0]]
        line = {"measure": f"{measure} ({unit})" if unit else measure}
        for source, layer in columns.itertuples(index=False):
            cell = rows[(rows.source == source) & (rows.layer == layer)]
            line[f"{display_name(layer)}: {source}"] = "" if cell.empty else _text(cell.iloc[0])
        lines.append(line)
    return pd.DataFrame(lines)


def _text(row: pd.Series) -> str:
    if row.note:
        return row.note
    scale, form = _FORMS[row.unit]
    ends = "" if pd.isna(row.low) else f" [{form.format(scale * row.low)}, {form.format(scale * row.high)}]"
    return form.format(scale * row.value) + ends


def proved(bounds: pd.DataFrame) -> str:
    """A line per layer: how many of its network's layers are proved to be 1-Lipschitz, and the largest bound.

    Args:
        bounds: `lipref.runs.records.layer_bounds`.
    """
    lines = []
    for label, rows in bounds.groupby("layer", sort=False):
        within = int((rows.bound <= 1 + _ROUNDING).sum())
        lines.append(
            f"{display_name(label)}: {within} of {len(rows)} layers are proved to have a Lipschitz constant of at most "
            f"1; the largest bound is {rows.bound.max():.5f}, their product {rows.bound.prod():.4g}"
        )
    return "\n".join(lines)


def price(table: pd.DataFrame, layer: str, beside: str = "standard") -> str:
    """What the certificate costs and gives: accuracy and CRA of ``layer`` and of the layer ``beside`` it, in words."""
    ours = table[table.source == "ours"].set_index(["layer", "measure"]).value.to_dict()
    values = {(name, m): ours.get((name, m), math.nan) for name in (layer, beside) for m in ("accuracy", "CRA(36/255)")}
    if any(pd.isna(value) for value in values.values()):
        return "One of the two networks gave no value (see the table), so they cannot be compared."
    return (
        f"{display_name(layer)} classifies {values[layer, 'accuracy']:.1f} % of the test images rightly, "
        f"{display_name(beside)} {values[beside, 'accuracy']:.1f} %. Proved for every perturbation up to 36/255: "
        f"{values[layer, 'CRA(36/255)']:.1f} % and {values[beside, 'CRA(36/255)']:.1f} %."
    )


@context()
def first_network(curves: pd.DataFrame, learning: pd.DataFrame, bounds: pd.DataFrame) -> Figure:
    """CRA against the radius, accuracy on the training images against the epoch, and the bound of every layer.

    Args:
        curves: `lipref.paper.tables.mean_curves`.
        learning: `lipref.runs.records.learning`, one seed.
        bounds: `lipref.runs.records.layer_bounds`, one seed.

    Raises:
        LiprefError: there is nothing to draw.
    """
    known = curves.dropna(subset=["radius", "share"])
    if known.empty or learning.empty:
        raise LiprefError("there is no run with a certificate and a learning curve to draw")
    styles = layer_styles([*known.layer, *learning.layer])
    figure = new_figure(2.5)
    left, middle, right = figure.subplots(1, 3)
    for mark in MARKS:
        left.axvline(mark, color=GREY, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
    for label, style in styles.items():
        rows = known[known.layer == label].sort_values("radius")
        left.plot(255 * rows.radius, 100 * rows.share, drawstyle="steps-pre", clip_on=False,
                  markevery=max(1, len(rows) // 6), **line_format(style))  # fmt: skip
        rows = learning[learning.layer == label]
        middle.plot(rows.epoch, 100 * rows.accuracy, markevery=max(1, len(rows) // 6), **line_format(style))
        rows = bounds[bounds.layer == label]
        right.plot(rows.number, rows.bound, **line_format(style) | {"linewidth": 0.8})
    most = max(1.06 * MARKS[-1], 255 * float(known.radius.max()))
    left.set(xlim=(0, most), ylim=(0, 104), xticks=[0, *MARKS, *([252] if most > 252 else [])],
             xlabel="ℓ₂ radius (1/255)", ylabel="CRA (%)", title="certified on test images")  # fmt: skip
    middle.set(ylim=(0, 104), xlabel="epoch", ylabel="accuracy (%)", title="while training")
    _whole_ticks(middle)
    _bounds(right, bounds)
    legend(figure, line_handles(styles))
    return figure


def _bounds(axis: Axes, bounds: pd.DataFrame) -> None:
    axis.axhline(1, color=DARK, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
    axis.set(xlabel="layer, first to head", ylabel="proved bound", title="each layer")
    if not bounds.empty:
        least, most = min(1.0, bounds.bound.min()), max(1.0, bounds.bound.max())
        room = 0.08 * (most - least) or 0.05
        axis.set_ylim(max(0.0, least - room), most + room)
        if most / max(least, math.ulp(1.0)) > 20:
            axis.set_yscale("log")
    _whole_ticks(axis)


def _whole_ticks(axis: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
