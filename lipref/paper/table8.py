"""Table 8 of the paper: how many epochs a training time is worth, and how many parameters the networks have."""

from __future__ import annotations

import math
from functools import cache

import pandas as pd
from torch import nn

from lipref.errors import LiprefError
from lipref.layers import LAYERS
from lipref.nets import convnet, count_parameters
from lipref.paper import comparison, published
from lipref.paper.comparison import DIFFERS, EXACT, NOT_RUN, Tolerance
from lipref.paper.tables import COLUMNS
from lipref.runs import budgets, overview

EPOCHS = tuple(f"epochs in {budget.removesuffix('h')} h" for budget in published.BUDGETS)
PER_EPOCH, PER_STEP, RATE = "training time per epoch", "training time per step", "training throughput"
PARAMETERS = "parameters"
# A mean over 50 steps with loading of data on theirs, a median without it on ours.
TOLERANCE = Tolerance(relative=0.1)
NO_BUDGET = "does not fit 80 GB"
WHY = {
    "bcop": "half frames: k c² + c per layer, for (2k - 1) c² + c",
    "cayley": "every layer's scale is a parameter from the start; theirs counts the head's only",
}
_CLASSES = {32: 10, 64: 200}
_TITLES = {"CIFAR": "CIFAR", "TinyImageNet": "Tiny ImageNet"}
_UNITS = {**dict.fromkeys(EPOCHS, "epochs"), PER_EPOCH: "s", PER_STEP: "s", RATE: "images/s", PARAMETERS: "parameters"}


def epochs(costs: pd.DataFrame, dataset: str, train_images: int) -> pd.DataFrame:
    """Epochs in the paper's three budgets and the step times behind them, tidy (`lipref.paper.tables`).

    Theirs is every number of Table 8 and of the networks with 1x1 kernels, ECO's and BnB's too; times follow from the
    epochs of 2 h. Ours are by the measured training step, without loading data.

    Args:
        costs: The table of measurements (`cost.row`).
        dataset: Name of the data set, for the setting.
        train_images: In one epoch of it.
    """
    rows = []
    for line in published.epoch_budgets().itertuples():
        setting = f"{_TITLES[line.group]}, one A100, batch 256"
        values = (line.epochs_2h, line.epochs_10h, line.epochs_24h, line.seconds_per_epoch, line.seconds_per_step,
                  line.images_per_second)  # fmt: skip
        rows += [
            _row("paper", setting, line.layer, line.size, measure, value, NO_BUDGET if pd.isna(value) else "")
            for measure, value in zip((*EPOCHS, PER_EPOCH, PER_STEP, RATE), values, strict=True)
        ]
    for line in costs[costs.status == "done"].itertuples() if not costs.empty else ():
        threads = "" if line.device == "cuda" else f", {line.threads} thread{'s' if line.threads > 1 else ''}"
        setting = f"{dataset}, {train_images:,} images, {line.machine}{threads}, batch {line.batch_size}"
        place = ("ours", setting, line.layer, line.size)
        for budget, measure in zip(published.BUDGETS, EPOCHS, strict=True):
            try:
                found, note = budgets.epochs_in(
                    budgets.duration(budget), line.train_seconds, train_images, line.batch_size
                ), ""  # fmt: skip
            except LiprefError:
                found, note = math.nan, "less than one epoch"
            rows.append(_row(*place, measure, found, note))
        steps = budgets.steps(train_images, line.batch_size)
        rows += [
            _row(*place, PER_EPOCH, steps * line.train_seconds), _row(*place, PER_STEP, line.train_seconds),
            _row(*place, RATE, line.batch_size / line.train_seconds),
        ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(COLUMNS))


def parameters() -> pd.DataFrame:
    """Trainable parameters of the paper's networks at sides 32 and 64, theirs and ours, tidy.

    Ours are counted on the meta device, without memory for them; what the library lacks has no row of ours.
    """
    rows = []
    for line in published.parameter_counts().itertuples():
        place = (_side(line.image_size), line.layer, line.size, PARAMETERS)
        rows.append(_row("paper", *place, line.trainable))
        if line.layer in LAYERS:
            ours = convnet(line.size, _bare(line.layer), _CLASSES[line.image_size], 3, line.image_size, device="meta")
            rows.append(_row("ours", *place, count_parameters(ours)))
    return pd.DataFrame(rows, columns=list(COLUMNS))


@cache
def _bare(layer: str) -> type[nn.Module]:
    """The layer without its initialisation, which costs seconds per network and changes no count."""
    cls = LAYERS[layer]
    return type(cls.__name__, (cls,), {"reset_parameters": lambda self: None})


def _side(image_size: int) -> str:
    return f"{image_size}x{image_size} images"


def parameter_differences(table: pd.DataFrame) -> pd.DataFrame:
    """`lipref.paper.comparison.differences` of the parameters, exactly, with the images' side and why they differ."""
    parts = []
    counts = table[table.measure == PARAMETERS]
    for setting, group in counts.groupby("setting", sort=False):
        found = comparison.differences(group, EXACT)
        found.insert(2, "images", setting.split()[0])
        parts.append(found)
    found = pd.concat(parts, ignore_index=True)
    reasons = {DIFFERS: lambda layer: WHY.get(layer, "not known"),
               NOT_RUN: lambda layer: "" if layer in LAYERS else "not a layer of the library"}  # fmt: skip
    found["why"] = [reasons.get(line.verdict, lambda layer: "")(line.layer) for line in found.itertuples()]
    return found


def unlike(costs: pd.DataFrame, dataset: str) -> str:
    """Why epochs of ours cannot be compared with theirs; empty where they can."""
    if costs.empty:
        return ""
    line = costs.iloc[0]
    theirs = published.budget_group(dataset) is not None and line.batch_size == 256 and "A100" in line.machine
    return "" if theirs else (
        f"ours: {line.image_size}x{line.image_size} images in batches of {line.batch_size} on {line.machine}; "
        "theirs: 32x32 in batches of 256 on an A100"
    )  # fmt: skip


def epoch_differences(table: pd.DataFrame, dataset: str, reason: str = "") -> pd.DataFrame:
    """`lipref.paper.comparison.differences` of the epochs in 2 h, for the layers of the library.

    Beside a data set that the paper lacks stand its numbers for CIFAR.
    """
    title = _TITLES[published.budget_group(dataset) or "CIFAR"]
    rows = table[(table.measure == EPOCHS[0]) & table.layer.isin(LAYERS)]
    rows = rows[(rows.source == "ours") | rows.setting.str.startswith(f"{title},")]
    return comparison.differences(rows, TOLERANCE, reason)


def unmeasured(table: pd.DataFrame, dataset: str) -> list[tuple[str, str]]:
    """Layers of the library and sizes that have a published budget, and no step time of ours on CIFAR images."""
    rows = table[(table.measure == EPOCHS[0]) & table.value.notna() & table.layer.isin(LAYERS)]
    ours = rows[rows.source == "ours"] if published.budget_group(dataset) == "CIFAR" else rows.iloc[:0]
    there = set(zip(ours.layer, ours["size"], strict=True))
    wanted = rows[rows.setting.str.startswith("CIFAR,") & (rows.source == "paper")]
    return [pair for pair in zip(wanted.layer, wanted["size"], strict=True) if pair not in there]


def wide(table: pd.DataFrame) -> pd.DataFrame:
    """The table as people read it: a row per layer and size, text; the paper's columns first."""
    shown = table[~table.measure.isin([PER_STEP, RATE])]
    columns = list(dict.fromkeys(zip(shown.source, shown.setting, shown.measure, strict=True)))
    columns.sort(key=lambda column: (column[2] == PARAMETERS, column[0] != "paper"))
    lines = []
    for (layer, size), group in shown.groupby(["layer", "size"], sort=False):
        line = {"layer": layer, "size": size.replace("_1x1", " 1x1")}
        for source, setting, measure in columns:
            cell = group[(group.source == source) & (group.setting == setting) & (group.measure == measure)]
            line[_head(source, setting, measure)] = "" if cell.empty else _text(cell.iloc[0])
        lines.append((layer, size, line))
    frame = pd.DataFrame([line for *_, line in lines])
    places = pd.DataFrame([pair[:2] for pair in lines], columns=["layer", "size"])
    return frame.loc[places.sort_values(["layer", "size"], key=overview.order, kind="stable").index].reset_index(
        drop=True
    )


def readable_differences(found: pd.DataFrame) -> pd.DataFrame:
    """Differences as people read them, text: whole numbers with thousands, nothing where there is none."""
    frame = found.drop(columns=["low", "high", "measure", "unit"]).copy()
    for name in ("paper", "ours", "difference", "tolerance"):
        frame[name] = ["" if pd.isna(value) else f"{value:,.0f}" for value in frame[name]]
    return frame


def _head(source: str, setting: str, measure: str) -> str:
    short = {PER_EPOCH: "s per epoch", PARAMETERS: f"parameters at {setting.split()[0]}"}.get(measure, measure)
    where = f"{source}, " if measure == PARAMETERS else f"{setting.split(',')[0]}, " if source == "paper" else "ours, "
    return where + short


def _text(row: pd.Series) -> str:
    if row.note:
        return row.note
    return f"{row.value:.3g}" if row.unit == "s" and row.value < 1000 else f"{row.value:,.0f}"


def _row(source: str, setting: str, layer: str, size: str, measure: str, value: float, note: str = "") -> dict:
    unknown = pd.isna(value)
    cells = (source, setting, layer, size, measure, float(value), math.nan, math.nan, int(not unknown),
             _UNITS[measure], 1, note)  # fmt: skip
    return dict(zip(COLUMNS, cells, strict=True))
