"""The paper's published numbers (`data/paper`), as tables in the library's own names."""

from __future__ import annotations

import math

import pandas as pd

from lipref.errors import LiprefError
from lipref.paths import PAPER

# Ours -> the paper's. The re-encoded pictures are CIFAR-10's.
DATASETS = {
    "cifar10": "CIFAR-10",
    "cifar10-jpeg": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "tiny-imagenet-200": "TinyImageNet",
}
BUDGETS = ("2h", "10h", "24h")
_TITLES = {"TinyImageNet": "Tiny ImageNet"}
_BUDGET_GROUPS = {"CIFAR-10": "CIFAR", "CIFAR-100": "CIFAR", "TinyImageNet": "TinyImageNet"}


def dataset_of(dataset: str) -> str:
    """The paper's data set to show beside ``dataset``: the same one where the paper has it, else CIFAR-10."""
    return DATASETS.get(dataset, "CIFAR-10")


def dataset_title(name: str) -> str:
    """``Tiny ImageNet`` for the CSV files' ``TinyImageNet``."""
    return _TITLES.get(name, name)


def layer_name(method: str) -> str:
    """The name of ``LAYERS`` for the paper's method: ``Cayley`` -> ``cayley``."""
    return method.lower()


def accuracy(dataset: str, budget: str = "24h") -> pd.DataFrame:
    """Tables 9 to 12: ``layer, size, accuracy, cra_36`` as shares, for one data set (the paper's name) and budget.

    Sizes of the networks with 1x1 kernels end in ``_1x1``. Runs that diverged or did not fit are left out.
    """
    table = pd.read_csv(PAPER / "paper_accuracy_by_budget.csv")
    table = table[
        (table.dataset == dataset) & (table.budget_h == int(budget.removesuffix("h"))) & (table.status == "ok")
    ]
    return pd.DataFrame(
        {
            "layer": table.method.map(layer_name),
            "size": table["size"] + table.kernel_size.map({3: "", 1: "_1x1"}),
            "accuracy": table.accuracy_pct / 100,
            "cra_36": table.cra36_pct / 100,
        }
    ).reset_index(drop=True)


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


def ranking(dataset: str, first: int | None = None) -> pd.DataFrame:
    """Figure 5, in the poster's order: ``layer, size, cra_36`` as shares, best first.

    ``dataset`` is the paper's name of one data set, ``first`` how many networks to give (default all).

    Values are those that the paper prints in its tables, so that one network has one number everywhere; where it prints
    none, the poster's, which has one digit more.
    """
    table = pd.read_csv(PAPER / "cra36_24h_figure_values.csv")
    table = table[table.dataset == dataset].sort_values("rank")
    table = table if first is None else table.head(first)
    shown = table.paper_table_value_pct.fillna(table.cra36_pct)
    return pd.DataFrame(
        {"layer": table.method.map(layer_name), "size": table["size"], "cra_36": shown / 100}
    ).reset_index(drop=True)


def explained(dataset: str, factor: str) -> float:
    """How much of the variance of CRA(36/255) in Figure 5 the layer, or the size, explains alone.

    The share is eta squared: the sum of squares between the groups of ``factor`` over the total sum of squares.

    Args:
        dataset: The paper's name.
        factor: ``"layer"`` or ``"size"``.

    Returns:
        From 0 to 1.
    """
    table = ranking(dataset)
    mean = table.cra_36.mean()
    between = ((table.groupby(factor).cra_36.transform("mean") - mean) ** 2).sum()
    return float(between / ((table.cra_36 - mean) ** 2).sum())


def radar() -> pd.DataFrame:
    """Figure 1: ``layer, measure, score``, scores from 1 (worst) to 5 (best)."""
    table = pd.read_csv(PAPER / "radar_scores.csv").melt(id_vars="method", var_name="measure", value_name="score")
    return pd.DataFrame(
        {"layer": table.method.map(layer_name), "measure": table.measure.str.replace("_", " "), "score": table.score}
    )


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


def logged_constants() -> pd.DataFrame:
    """Lipschitz constants that the authors' CIFAR-10 runs logged: ``layer, size, constant``; failed runs left out.

    Products of power-iteration norms, not divided by; 1 for BCOP, CPL, SLL and SOC means that nothing was measured.
    """
    table = pd.read_csv(PAPER / "cifar10_24h_runs.csv")
    table = table[(table.status == "ok") & table.logged_lipschitz_bound.notna()]
    return pd.DataFrame(
        {"layer": table.method.map(layer_name), "size": table["size"], "constant": table.logged_lipschitz_bound}
    ).reset_index(drop=True)
