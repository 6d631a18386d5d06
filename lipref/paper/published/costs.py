"""The published costs: Table 1, Figures 2 to 4 and 8, and the epochs of Table 8."""

from __future__ import annotations

import math

import pandas as pd

from lipref.errors import LiprefError
from lipref.paper.published.names import BUDGETS, DATASETS, known_layer, layer_name
from lipref.paths import PAPER

_BUDGET_GROUPS = {"CIFAR-10": "CIFAR", "CIFAR-100": "CIFAR", "TinyImageNet": "TinyImageNet"}


def training_cost() -> pd.DataFrame:
    """Figures 2 and 4, from the poster: ``layer, size, seconds_per_epoch, peak_bytes``.

    CIFAR-10, batches of 256, one A100 with 80 GB; reading error below 0.5 %.
    """
    table = pd.read_csv(PAPER / "train_time_memory_figure_values.csv")
    return pd.DataFrame(
        {
            "layer": table.method.map(layer_name),
            "size": table["size"],
            "seconds_per_epoch": table.train_sec_per_epoch,
            "peak_bytes": table.train_peak_memory_GB * 1e9,
        }
    )


def logged_throughput() -> pd.DataFrame:
    """Images per second on the test set as the authors' runs logged them: ``layer, size, images_per_second``.

    CIFAR-10, 3x3 kernels, medians over the epochs, on the GPUs of a cluster (not the A100 of Figure 3, whose values
    are published as a picture only), with the loading of data.
    """
    table = pd.read_csv(PAPER / "cifar10_24h_statistics.csv")
    table = table[(table.kernel_size == 3) & table.test_throughput_img_s.notna()]
    return pd.DataFrame(
        {
            "layer": table.method.map(layer_name),
            "size": table["size"],
            "images_per_second": table.test_throughput_img_s,
        }
    ).reset_index(drop=True)


def tiny_imagenet_epochs() -> pd.DataFrame:
    """Seconds per epoch on Tiny ImageNet as Table 8 implies them: ``layer, size, seconds_per_epoch``.

    Two hours over the epochs that the paper gives for two hours: arithmetic on published numbers. ECO, which the
    comparison leaves out, has a budget too.
    """
    table = pd.read_csv(PAPER / "epoch_budgets.csv")
    table = table[(table.dataset_group == "TinyImageNet") & table.implied_sec_per_epoch.notna()]
    return pd.DataFrame(
        {
            "layer": table.method.map(known_layer),
            "size": table["size"],
            "seconds_per_epoch": table.implied_sec_per_epoch,
        }
    ).reset_index(drop=True)


def complexity() -> pd.DataFrame:
    """Table 1 as printed, one row per layer, with the shorthands C = b s² c² k², M = b s² c, P = c² k²."""
    table = pd.read_csv(PAPER / "complexity_table1.csv", dtype=str)
    return table.assign(layer=table.method.map(layer_name)).drop(columns="method").set_index("layer")


def epochs(dataset: str, size: str, layer: str, budget: str) -> int:
    """How many epochs the paper's time budget is worth (Table 8).

    Standard was not trained there: its budget follows from the time per epoch on the poster, and on Tiny ImageNet,
    where there is none, it gets as many epochs as the quickest of the seven.

    Raises:
        LiprefError: a data set, size or layer for which the paper has no budget, or an unknown budget.
    """
    remedy = "give a number of epochs, such as '20 epochs'"
    if budget not in BUDGETS:
        raise LiprefError(f"unknown budget {budget!r}; the paper's are {', '.join(BUDGETS)}; or {remedy}")
    if dataset not in DATASETS:
        known = ", ".join(DATASETS)
        raise LiprefError(f"the paper has no budget of {budget} for {dataset}, only for {known}; {remedy}")
    table = pd.read_csv(PAPER / "epoch_budgets.csv")
    group = _BUDGET_GROUPS[DATASETS[dataset]]
    kernel_size, short = (1 if size.endswith("_1x1") else 3), size.removesuffix("_1x1")
    table = table[(table.dataset_group == group) & (table.kernel_size == kernel_size) & (table["size"] == short)]
    found = table[table.method.map(layer_name) == layer]
    if not found.empty and found[f"epochs_{budget}"].notna().all():
        return int(found[f"epochs_{budget}"].iloc[0])
    times = training_cost().query("layer == @layer and size == @short")
    if layer == "standard" and group == "CIFAR" and kernel_size == 3 and not times.empty:
        return math.floor(int(budget.removesuffix("h")) * 3600 / times.seconds_per_epoch.iloc[0])
    if layer == "standard":
        return int(table[f"epochs_{budget}"].max())
    raise LiprefError(f"the paper has no budget of {budget} for {layer} {size} on {dataset}; {remedy}")


def budget_group(dataset: str) -> str | None:
    """The part of Table 8 for our data set: ``"CIFAR"`` or ``"TinyImageNet"``; None where the paper lacks it."""
    return _BUDGET_GROUPS[DATASETS[dataset]] if dataset in DATASETS else None


def epoch_budgets() -> pd.DataFrame:
    """Table 8, and the budgets of the networks with 1x1 kernels: one row per group of data sets, layer and size.

    Columns ``group, layer, size, epochs_2h, epochs_10h, epochs_24h, seconds_per_epoch, seconds_per_step,
    images_per_second``; the last three are what the epochs of 2 h imply, for batches of 256. Empty where the network
    does not fit 80 GB. Beside the compared layers there are ``eco`` and ``bnb`` (1x1 kernels only).
    """
    table = pd.read_csv(PAPER / "epoch_budgets.csv")
    return pd.DataFrame(
        {
            "group": table.dataset_group,
            "layer": table.method.map(layer_name),
            "size": table["size"] + table.kernel_size.map({3: "", 1: "_1x1"}),
            **{f"epochs_{budget}": table[f"epochs_{budget}"] for budget in BUDGETS},
            "seconds_per_epoch": table.implied_sec_per_epoch,
            "seconds_per_step": table.implied_sec_per_batch,
            "images_per_second": table.implied_train_img_per_s,
        }
    )


def parameter_counts() -> pd.DataFrame:
    """Parameters of the authors' networks, counted from their code: ``image_size, layer, size, trainable, total``."""
    table = pd.read_csv(PAPER / "model_parameter_counts.csv")
    return pd.DataFrame(
        {
            "image_size": table.input_side,
            "layer": table.method.map(layer_name),
            "size": table["size"],
            "trainable": table.trainable_parameters,
            "total": table.all_parameters,
        }
    )
