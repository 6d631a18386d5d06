"""Runs of ours that stand for the paper's: its data sets, whole, and as many epochs as one of its time budgets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from lipref import data, paths
from lipref.errors import LiprefError
from lipref.layers import LAYERS
from lipref.losses import OFFSET, TEMPERATURE
from lipref.paper import published
from lipref.paper.budgets import BATCH, TEST_IMAGES, epochs_of
from lipref.runs import overview
from lipref.runs.records import newest, row
from lipref.runs.study import read
from lipref.training.speed import beyond_rounding

LAYERS_OF_TABLES = tuple(name for name in LAYERS if name != "standard")  # which has no accuracy in the paper
COLUMNS = (
    "dataset", "size", "layer", "seed", "epochs", "batch_size", "test_images", "learning_rate", "weight_decay",
    "status", "budget",
)  # fmt: skip


def load(records: str, dataset: str, say: Callable[[str], None] = print) -> pd.DataFrame:
    """The runs that can be compared with the paper's, one recipe for each size, layer and budget.

    They come from the folder ``records``, if one is given, otherwise from the committed ones. What does not fit is left
    out, and said for a folder that is given: it may be one of another data set.

    Args:
        records: A folder with ``records.json``, relative to here or to the repository; empty for ``data/results``.
        dataset: Ours: ``"cifar10"``, ``"cifar100"`` or ``"tiny-imagenet-200"``.
        say: Called with a line of text.

    Returns:
        The table of runs (`lipref.runs.records.row`) with the paper's ``budget``, ``"2h"``, ``"10h"`` or ``"24h"``.

    Raises:
        LiprefError: there is no such folder, or its file is damaged.
    """
    files = [_folder(records) / "records.json"] if records else sorted(paths.RESULTS.glob("*/records.json"))
    found = [record for path in files if path.exists() for record in read(path)]
    fitting = [record for record in found if not misfit(record, dataset)]
    if records:
        reasons = pd.Series([misfit(record, dataset) for record in found], dtype=str)
        for reason, count in reasons[reasons != ""].value_counts(sort=False).items():
            say(f"left out of {records}: {count} run{'s' if count > 1 else ''}, {reason}")
    kept = _one_recipe(fitting, dataset)
    if len(kept) < len(fitting):
        say(f"left out: {len(fitting) - len(kept)} older runs with other settings, of the same networks")
    if not kept:
        say(f"Nothing of {records or 'data/results'} is a run on {dataset} with one of the paper's budgets.")
        return pd.DataFrame(columns=list(COLUMNS))
    say(f"ours: {overview.provenance(kept)}")
    table = pd.DataFrame([row(record) | {"budget": budget_of(record, dataset)} for record in kept])
    return table.sort_values(["size", "layer"], key=overview.order, kind="stable").reset_index(drop=True)


def misfit(record: dict, dataset: str) -> str:
    """Why a run cannot stand beside the paper's on ``dataset``; empty where it can."""
    config, settings = record["config"], record["config"]["settings"]
    if config["dataset"] != dataset:
        return f"of {config['dataset']}, not {dataset}"
    if config["layer"] not in LAYERS_OF_TABLES or config["layer_sha256"] is not None:
        return f"of a layer that the paper's tables lack: {config['layer']}"
    whole = data.shape(dataset).train_images
    if config["validation"] or config["train_images"] != whole:
        return f"trained on a part of the {whole:,} training images"
    if config["test_images"] != TEST_IMAGES:
        return f"tested on {config['test_images']:,} images, not on {TEST_IMAGES:,}"
    if settings["batch_size"] != BATCH:
        return f"with batches of {settings['batch_size']}, not {BATCH}"
    if (settings["offset"], settings["temperature"]) != (OFFSET, TEMPERATURE):
        return "with another loss"
    if beyond_rounding(settings):
        return f"with training options: {beyond_rounding(settings)}"
    if budget_of(record, dataset) is None:
        return f"of {settings['epochs']} epochs, none of the paper's budgets for {config['layer']} {config['size']}"
    return ""


def budget_of(record: dict, dataset: str) -> str | None:
    """The paper's budget that gives a run of that size and layer exactly its number of epochs; None where none does."""
    config = record["config"]
    budgets = epochs_of(dataset, config["size"], config["layer"])
    return next((name for name, epochs in budgets.items() if epochs == config["settings"]["epochs"]), None)


def _one_recipe(records: list[dict], dataset: str) -> list[dict]:
    """Of each size, layer and budget the runs that share everything but the seed with the newest one."""

    def same(record: dict) -> tuple:
        config, settings = record["config"], record["config"]["settings"]
        start = record["notes"].get("recipe", settings)  # a retry has a third of its recipe's learning rate
        names = ("code", "torch", "device")
        return (start["learning_rate"], start["weight_decay"], settings["schedule"], *map(config.get, names))

    by_budget = {name: [r for r in records if budget_of(r, dataset) == name] for name in published.BUDGETS}
    return [record for group in by_budget.values() for record in newest([], group, same)]


def _folder(text: str) -> Path:
    for folder in (Path(text), paths.ROOT / text):
        if folder.is_dir():
            return folder
    raise LiprefError(f"records={text!r}: no such folder here or in the repository; lipref reproduce --out makes one")
