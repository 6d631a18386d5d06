"""The six measures of every network in one tidy table: as published, or from our own records."""

from __future__ import annotations

import json

import pandas as pd

from lipref.errors import LiprefError
from lipref.layers import LAYERS
from lipref.paper import published, tables
from lipref.paper.tables import COLUMNS, RADAR_MEASURES
from lipref.paths import PAPER, RESULTS

SUFFIX = " (paper)"
_HOUR = 3600
_SHARES = {"CRA(36/255)": "robust accuracy", "accuracy": "accuracy"}


def choices() -> list[str]:
    """What can be chosen as data set: the paper's three, then those of which there are committed runs."""
    theirs = [published.dataset_title(name) + SUFFIX for name in dict.fromkeys(published.DATASETS.values())]
    return [*theirs, *_folders()]


def folder(dataset: str) -> str:
    """The folder of committed runs of one of our data sets.

    Raises:
        LiprefError: there is none.
    """
    found = _folders()
    if dataset not in found:
        raise LiprefError(f"dataset={dataset!r} has no committed records; choose one of {', '.join(choices())}")
    return found[dataset]


def _folders() -> dict[str, str]:
    found: dict[str, str] = {}
    for path in sorted(RESULTS.glob("*/records.json")):
        records = json.loads(path.read_text())
        # A comparison of all layers under one number of epochs; other folders answer other questions.
        if len({record["config"]["settings"]["epochs"] for record in records}) == 1:
            found.setdefault(records[0]["config"]["dataset"], str(path.parent))
    return found


def of_paper(title: str, budget: str = "24h") -> pd.DataFrame:
    """The paper's values of five measures (3x3 networks), with `lipref.paper.tables.COLUMNS`.

    Training time is the poster's (CIFAR-10, one A100, batch 256); on Tiny ImageNet it follows from the number of
    epochs in 24 hours. Training memory is the poster's, for the two data sets of 32x32 pictures. Inference time is
    what the authors' CIFAR-10 runs logged, on mixed GPUs, with loading. Inference memory is published as a picture
    only, so it has no rows.

    Args:
        title: One of `choices`, the paper's.
        budget: ``"2h"``, ``"10h"``, ``"24h"``.

    Raises:
        LiprefError: another name or budget.
    """
    names = {published.dataset_title(name) + SUFFIX: name for name in published.DATASETS.values()}
    if title not in names or budget not in published.BUDGETS:
        raise LiprefError(
            f"dataset={title!r}, budget={budget!r}: choose one of {', '.join(names)} and {', '.join(published.BUDGETS)}"
        )
    dataset, lines = names[title], []

    def add(layer: str, size: str, measure: str, value: float, unit: str) -> None:
        lines.append(dict(zip(COLUMNS, ("paper", f"{title}, {budget}", layer, size, measure, float(value), float("nan"),
                                        float("nan"), 1, unit, 1, ""), strict=True)))  # fmt: skip

    for row in published.accuracy(dataset, budget).itertuples():
        add(row.layer, row.size, "robust accuracy", 100 * row.cra_36, "%")
        add(row.layer, row.size, "accuracy", 100 * row.accuracy, "%")
    if dataset == "TinyImageNet":
        epochs = pd.read_csv(PAPER / "epoch_budgets.csv")
        epochs = epochs[(epochs.dataset_group == dataset) & (epochs.kernel_size == 3) & epochs.epochs_24h.notna()]
        for row in epochs.itertuples():
            add(published.layer_name(row.method), row.size, "training time", 24 * _HOUR / row.epochs_24h, "s")
    else:
        for row in published.training_cost().itertuples():
            add(row.layer, row.size, "training time", row.seconds_per_epoch, "s")
            add(row.layer, row.size, "training memory", row.peak_bytes, "bytes")
        for row in published.logged_throughput().itertuples():
            add(row.layer, row.size, "inference time", 1 / row.images_per_second, "s")
    frame = pd.DataFrame(lines, columns=list(COLUMNS))
    frame = frame[frame.layer.isin(LAYERS)]  # the paper's budgets have a further method, of which it shows no accuracy
    return frame[~frame["size"].str.endswith("_1x1")].reset_index(drop=True)


def of_ours(runs: pd.DataFrame, costs: pd.DataFrame, dataset: str, images: int) -> pd.DataFrame:
    """Our values of the six measures, with `lipref.paper.tables.COLUMNS`; a table without rows gives none.

    Training time is per epoch of ``images``, inference time per image with folded layers.
    """
    parts = []
    if not runs.empty:
        shares = tables.accuracy(runs, dataset)
        parts.append(shares.assign(measure=shares.measure.map(_SHARES)))
    if not costs.empty:
        times = tables.training_time(costs, dataset, images)
        parts.append(times.assign(measure="training time"))
        rates = tables.inference_throughput(costs)
        ends = {"value": 1 / rates.value, "low": 1 / rates.high, "high": 1 / rates.low}
        parts.append(rates.assign(measure="inference time", unit="s", **ends))
        parts.append(tables.memory(costs))
    found = pd.concat(parts) if parts else pd.DataFrame(columns=list(COLUMNS))
    found = found[(found.source == "ours") & found.measure.isin(RADAR_MEASURES)]
    return found.drop_duplicates(["layer", "size", "measure"]).reset_index(drop=True)
