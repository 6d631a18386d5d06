"""A first network beside the unconstrained one: accuracy, certificate, cost and bounds in one tidy table."""

from __future__ import annotations

import math

import pandas as pd

from lipref import report, tables
from lipref.plots import display_name

LARGEST, NETWORK = "largest bound of a layer", "bound of the network"
MEASURES = (
    "accuracy", "CRA(36/255)", "CRA(72/255)", "CRA(108/255)", "training time per epoch", "training memory", LARGEST,
    NETWORK,
)  # fmt: skip
_ROUNDING = 1e-9  # a proof in floating-point numbers ends above what it proves by so much
_FORMS = {"%": (1, "{:.1f}"), "s": (1, "{:.2f}"), "bytes": (1e-6, "{:,.1f}"), "bound": (1, "{:.5g}")}
_UNITS = {"%": "%", "s": "s", "bytes": "MB", "bound": ""}


def table(runs: pd.DataFrame, costs: pd.DataFrame, bounds: pd.DataFrame, dataset: str, images: int) -> pd.DataFrame:
    """Tidy, with `lipref.tables.COLUMNS`: `MEASURES` of ours at one size, and what the paper has of them.

    Args:
        runs: The table of runs (`lipref.runs.row`), one size.
        costs: The table of measurements (`lipref.cost.row`) at that size.
        bounds: `lipref.curves.layer_bounds` of the same runs.
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
        key=lambda c: c.map(MEASURES.index) if c.name == "measure" else report.order(c) if c.name == "layer" else c,
    )  # fmt: skip


def people(table: pd.DataFrame) -> pd.DataFrame:
    """The tidy table as people read it: a row per measure, a column per layer and source."""
    columns = table[["source", "layer"]].drop_duplicates().sort_values("layer", key=report.order, kind="stable")
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
        bounds: `lipref.curves.layer_bounds`.
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
