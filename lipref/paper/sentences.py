"""What tables say, in words: every number and name in a sentence is computed from the table that it stands under."""

from __future__ import annotations

import pandas as pd

from lipref.layers import LAYERS
from lipref.layers.kernel import KernelConv2d
from lipref.paper import published
from lipref.paper.style import display_name
from lipref.runs import overview
from lipref.runs.recipes import at_edge

_SCALES = {"%": (1, "%"), "s": (1, "s"), "images/s": (1, "images/s"), "bytes": (1e-6, "MB")}


def extremes(table: pd.DataFrame) -> str:
    """A line per measure of ours: the highest and the lowest value at the largest size that all layers have."""
    ours = _values(table, "ours")
    return "\n".join(_extremes(measure, rows) for measure, rows in ours.groupby("measure", sort=False))


def growth(table: pd.DataFrame) -> str:
    """A line per source: how much a value grows from the smallest to the largest size that all layers have."""
    lines = []
    for source in ("paper", "ours"):
        rows = _values(table, source)
        sizes = _common_sizes(rows)
        if len(sizes) < 2:
            continue
        first, last = (rows[rows["size"] == size].set_index("layer").value for size in (sizes[0], sizes[-1]))
        factors = (last / first).sort_values()
        least, most = factors.index[0], factors.index[-1]
        lines.append(
            f"{source}, from {sizes[0]} to {sizes[-1]}: {rows.measure.iloc[0]} grows {factors[least]:.1f} times "
            f"({display_name(least)}) to {factors[most]:.1f} times ({display_name(most)})"
        )
    return "\n".join(lines)


def measurement_noise(table: pd.DataFrame) -> str:
    """How far our throughputs of layers that fold to one and the same operation, a plain convolution, lie apart.

    Args:
        table: `lipref.paper.tables.inference_throughput`.
    """
    ours = _values(table, "ours")
    ours = ours[ours.layer.map(folds_to_convolution)]
    spreads = [rows.sort_values("value") for _, rows in ours.groupby("size", sort=False) if len(rows) > 1]
    if not spreads:
        return (
            "Fewer than two of these layers fold to a plain convolution, so nothing here shows how far measurements of "
            "the same operation lie apart."
        )
    rows = max(spreads, key=lambda rows: rows.value.iloc[-1] / rows.value.iloc[0])
    low, high = rows.iloc[0], rows.iloc[-1]
    return (
        f"{_names(ours.layer)} fold to one plain convolution, the same operation. Their measurements differ by up to "
        f"{100 * (high.value / low.value - 1):.0f} % ({_named(low)}, {_named(high)}): smaller "
        "differences between layers may be chance."
    )


def folds_to_convolution(label: str) -> bool:
    """Whether a layer of the library, folded, is one plain convolution: the unconstrained layer's own operation."""
    return label in LAYERS and issubclass(LAYERS[label], KernelConv2d)


def best(table: pd.DataFrame) -> str:
    """A line per measure of ours in percent: the best network, and those whose intervals overlap with its own."""
    lines = []
    for measure, rows in _values(table, "ours").groupby("measure", sort=False):
        rows = rows.sort_values("value", ascending=False, kind="stable")
        first, others = rows.iloc[0], rows.iloc[1:]
        open_ = others[others.high >= first.low]
        text = f"{measure}: highest is {_named(first)}"
        if len(rows) > 1:
            text += (
                f", intervals overlap with {_networks(open_)}" if len(open_) else ", no interval overlaps with its own"
            )
        lines.append(text)
    return "\n".join(lines)


def explained_variance() -> str:
    """What decides the places in the paper's Figure 5: the layer or the size, in shares of the variance."""
    parts = []
    for name in dict.fromkeys(published.DATASETS.values()):
        layer, size = (100 * published.explained(name, factor) for factor in ("layer", "size"))
        first = published.ranking(name, 1).iloc[0]
        parts.append(
            f"{published.dataset_title(name)}: layer {layer:.0f} %, size {size:.0f} %, best "
            f"{display_name(first.layer)} {first['size']}"
        )
    return "Variance of the paper's CRA(36/255) that each explains alone: " + "; ".join(parts) + "."


def same_order(table: pd.DataFrame) -> str:
    """How far the orders of the layers by our scores and by the paper's agree, axis by axis of the radar.

    Spearman's rank correlation: 1 for the same order, -1 for the reverse; ties get their mean rank.
    """
    parts = []
    for measure, rows in table[table.value.notna()].groupby("measure", sort=False):
        both = rows.pivot(index="layer", columns="source", values="value")
        both = both.dropna().rank() if {"paper", "ours"} <= set(both.columns) else both[:0]
        if len(both) > 2 and both.nunique().min() > 1:
            parts.append(f"{measure} {both.corr().iloc[0, 1]:.2f}")
    if not parts:
        return "Too few layers have both scores to compare their order."
    return f"Rank correlation of our scores with the paper's (1: the same order, 0: none): {', '.join(parts)}."


def edges(runs: pd.DataFrame) -> str:
    """Which networks were trained at a learning rate from the edge of the search's grid; empty where none was.

    Args:
        runs: The table of runs (`lipref.runs.records.row`).
    """
    if runs.empty:
        return ""
    found = [at_edge(line.learning_rate, line.hyperparameters) for line in runs.itertuples()]
    chosen = runs[found].drop_duplicates(["layer", "size"])
    if chosen.empty:
        return ""
    rates = ", ".join(
        f"{display_name(line.layer)} {line.size} {line.learning_rate:.3g}"
        for line in chosen.itertuples(index=False)
    )  # fmt: skip
    return (
        f"The learning rate is the smallest or the largest of those searched for {rates}: a better one may lie beyond."
    )


def _values(table: pd.DataFrame, source: str) -> pd.DataFrame:
    return table[(table.source == source) & table.value.notna()]


def _common_sizes(rows: pd.DataFrame) -> list[str]:
    """The sizes that every layer of ``rows`` has, ascending."""
    if rows.empty:
        return []
    counts = rows.groupby("size").layer.nunique()
    common = counts[counts == rows.layer.nunique()].index.to_series()
    return list(common.sort_values(key=overview.order))


def _extremes(measure: str, rows: pd.DataFrame) -> str:
    sizes = _common_sizes(rows)
    rows = rows[rows["size"] == sizes[-1]] if sizes else rows
    rows = rows.sort_values("value", kind="stable")
    return f"{measure}: most {_named(rows.iloc[-1])}, least {_named(rows.iloc[0])}"


def _named(row: pd.Series) -> str:
    scale, unit = _SCALES[row.unit]
    form = "{:.1f}" if unit in ("%", "MB") else "{:,.0f}" if unit == "images/s" else "{:.3g}"
    return f"{display_name(row.layer)} {row['size']} ({form.format(scale * row.value)} {unit})"


def _networks(rows: pd.DataFrame) -> str:
    return ", ".join(f"{display_name(row.layer)} {row.size}" for row in rows[["layer", "size"]].itertuples(index=False))


def _names(labels: pd.Series) -> str:
    names = [display_name(label) for label in dict.fromkeys(labels)]
    return ", ".join(names[:-1]) + f" and {names[-1]}"
