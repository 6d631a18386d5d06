"""What has not been run: which command would fill it, and how many GPU hours that takes."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pandas as pd

from lipref.paper import published
from lipref.runs import overview


def networks(missing: Iterable[tuple[str, str]], dataset: str, budget: str) -> str:
    """What it takes to train the networks that are missing; empty where none is.

    The hours are those that the paper's budgets stand for: one A100, per network.

    Args:
        missing: Pairs of layer and size.
        dataset: Our name of the data set.
        budget: ``"2h"``, ``"10h"``, ``"24h"``.
    """
    missing = list(dict.fromkeys(missing))
    if not missing:
        return ""
    layers, sizes = _names(layer for layer, _ in missing), _names(size for _, size in missing)
    hours = len(missing) * int(budget.removesuffix("h"))
    return (
        f"Not run: {len(missing)} networks on {dataset} with the paper's {budget}. "
        f"lipref reproduce --profile paper --dataset {dataset} --sizes {sizes} --layers {layers} --budget {budget} "
        f"--device cuda fills them, in {hours:,} GPU hours of the paper's A100 ({budget} each, by definition)."
    )


def missing_networks(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Layers and sizes that have a published value in a tidy table and none of ours."""
    there = {(row.layer, row.size) for row in table[table.source == "ours"].itertuples(index=False)}
    paper = table[table.source == "paper"].itertuples(index=False)
    return [pair for pair in dict.fromkeys((row.layer, row.size) for row in paper) if pair not in there]


def measurements(missing: Iterable[tuple[str, str]], dataset: str, *, steps: int = 60) -> str:
    """What it takes to measure the networks that are missing; empty where none is.

    The time is what the paper's A100 would need for the training steps, by its own seconds per epoch; where those are
    not published, none is given.

    Args:
        missing: Pairs of layer and size.
        dataset: Our name of the data set.
        steps: Training steps and what else is measured, in training steps, per network.
    """
    missing = list(dict.fromkeys(missing))
    if not missing:
        return ""
    layers, sizes = _names(layer for layer, _ in missing), _names(size for _, size in missing)
    times = published.training_cost().set_index(["layer", "size"]).seconds_per_epoch
    seconds = sum(times.get(pair, math.nan) for pair in missing) * steps / 196  # batches of 256 in an epoch of 50,000
    hours = "" if math.isnan(seconds) or dataset != "cifar10" else f", in about {seconds / 3600:.2g} GPU hours"
    return (
        f"Not measured: {len(missing)} networks on {dataset}. lipref measure --dataset {dataset} --sizes {sizes} "
        f"--layers {layers} --batch-size 256 --device cuda --out data/runs/cost-{dataset} fills them{hours}."
    )


def _names(values: Iterable[str]) -> str:
    return ",".join(pd.Series(list(dict.fromkeys(values))).sort_values(key=overview.order))
