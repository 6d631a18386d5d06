"""The paper's published numbers (`data/paper`), as tables in the library's own names."""

from __future__ import annotations

import math

import pandas as pd

from lipref.errors import LiprefError
from lipref.layers import LAYERS
from lipref.paths import PAPER

# Ours -> the paper's. The re-encoded pictures are CIFAR-10's.
DATASETS = {
    "cifar10": "CIFAR-10",
    "cifar10-jpeg": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "tiny-imagenet-200": "TinyImageNet",
}
RANKED = ("CIFAR-10", "CIFAR-100", "TinyImageNet")  # the data sets of Figures 5 and 9
BUDGETS = ("2h", "10h", "24h")
_TITLES = {"TinyImageNet": "Tiny ImageNet"}
_NOTES = {"ok": "", "diverged_nan": "diverged", "out_of_memory": "out of memory", "no_result": "no result"}
RADII = ("36", "72", "108", "255")  # of CRA, in units of 1/255
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


def by_budget(dataset: str, kernel_size: int = 3) -> pd.DataFrame:
    """Tables 9 to 12 with everything that they print, failed runs included.

    Returns:
        ``layer, size, budget, accuracy, cra_36, learning_rate, weight_decay, note``: percent as printed, for a run that
        failed too (chance and 0); the learning rate and the weight decay have the one digit that is printed; ``note``
        is empty, or says how the run failed ("diverged"). Sizes of the networks with 1x1 kernels end in ``_1x1``.
    """
    table = pd.read_csv(PAPER / "paper_accuracy_by_budget.csv")
    table = _of(table, dataset, kernel_size)
    return pd.DataFrame(
        {
            "layer": table.method.map(layer_name),
            "size": _sizes(table),
            "budget": table.budget_h.astype(str) + "h",
            "accuracy": table.accuracy_pct,
            "cra_36": table.cra36_pct,
            "learning_rate": table.lr_1digit,
            "weight_decay": table.wd_1digit,
            "note": table.status.map(_NOTES),
        }
    ).reset_index(drop=True)


def hyperparameters(dataset: str, kernel_size: int = 3) -> pd.DataFrame:
    """What the random search chose: ``layer, size, learning_rate, weight_decay`` and both as printed, with one digit.

    In full precision for CIFAR-10, from the authors' result files; with one digit elsewhere (``full`` is False). The
    printed values are the columns ``printed_learning_rate`` and ``printed_weight_decay``.
    """
    table = pd.read_csv(PAPER / "best_lr_wd.csv")
    table = _of(table, dataset, kernel_size)
    return pd.DataFrame(
        {
            "layer": table.method.map(layer_name),
            "size": _sizes(table),
            "learning_rate": table.lr,
            "weight_decay": table.weight_decay,
            "printed_learning_rate": table.lr_1digit,
            "printed_weight_decay": table.wd_1digit,
            "full": table.precision == "full",
        }
    ).reset_index(drop=True)


def without_result(dataset: str, kernel_size: int = 3) -> pd.DataFrame:
    """Networks that Tables 9 to 12 lack: ``layer, size, note``.

    They did not fit into the memory (Table 8 has no budget for them), or their search was done and no result printed.
    """
    budgets = pd.read_csv(PAPER / "epoch_budgets.csv")
    budgets = budgets[(budgets.dataset_group == _BUDGET_GROUPS[dataset]) & (budgets.kernel_size == kernel_size)]
    lost = budgets[budgets.epochs_2h.isna() & budgets.note.fillna("").str.contains("does not fit")]
    printed = by_budget(dataset, kernel_size)
    there = set(zip(printed.layer, printed["size"], strict=True))
    searched = hyperparameters(dataset, kernel_size)
    pairs = [(layer_name(row.method), size, "out of memory")
             for row, size in zip(lost.itertuples(), _sizes(lost), strict=True)]  # fmt: skip
    pairs += [(row.layer, row.size, "no result") for row in searched[["layer", "size"]].itertuples(index=False)]
    return pd.DataFrame([pair for pair in pairs if pair[:2] not in there], columns=["layer", "size", "note"])


def literature() -> pd.DataFrame:
    """Table 4, CIFAR-10: ``method, accuracy, cra_36, cra_72, cra_108, cra_255`` in percent, and ``parameters``.

    Empty where the paper has none. Parameters as printed: whole millions.
    """
    table = pd.read_csv(PAPER / "sota_cifar10_table4.csv")
    names = {"accuracy_pct": "accuracy", "cra_1_pct": "cra_255"}
    names |= {f"cra_{radius}_255_pct": f"cra_{radius}" for radius in RADII[:3]}
    millions = table.parameters.str.removesuffix("M").astype(float)
    return table.rename(columns=names).assign(parameters=millions * 1e6)


def best_runs() -> pd.DataFrame:
    """The authors' own best 24 h runs on CIFAR-10, one per layer: the highest CRA(36/255) of sizes XS, S and M.

    Returns:
        ``layer, size, accuracy, cra_36, cra_72, cra_108, cra_255`` in percent. Their folders for size L are not public.
    """
    table = pd.read_csv(PAPER / "cifar10_24h_runs.csv")
    table = table[table.status == "ok"]
    table = table.loc[table.groupby("method").test_cra_36_255.idxmax()].sort_values("method")
    names = {f"cra_{radius}": f"test_cra_{radius}_255" for radius in RADII[:3]}
    names = {"accuracy": "test_accuracy", **names, "cra_255": "test_cra_1"}
    shares = {name: (100 * table[column]).round(2) for name, column in names.items()}  # of 10,000 images
    return pd.DataFrame({"layer": table.method.map(layer_name), "size": table["size"], **shares}).reset_index(drop=True)


def _of(table: pd.DataFrame, dataset: str, kernel_size: int) -> pd.DataFrame:
    return table[(table.dataset == dataset) & (table.kernel_size == kernel_size)]


def _sizes(table: pd.DataFrame) -> pd.Series:
    return table["size"] + table.kernel_size.map({3: "", 1: "_1x1"})


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


def ranked_accuracy(dataset: str, first: int | None = None) -> pd.DataFrame:
    """Figure 9: the accuracy after 24 h of the networks of `ranking`, best first: ``layer, size, accuracy`` as shares.

    The networks are those that Figure 5 shows, chosen by their CRA; their accuracies are those of the paper's tables.
    """
    chosen = ranking(dataset, first)[["layer", "size"]]
    found = chosen.merge(accuracy(dataset)[["layer", "size", "accuracy"]], on=["layer", "size"], how="left")
    return found.sort_values("accuracy", ascending=False, kind="stable").reset_index(drop=True)


def poster_ranking() -> pd.DataFrame:
    """All bars of the poster: ``dataset`` (the paper's name), ``layer, size, cra_36`` as shares, best first.

    Two decimals of a percent, on four data sets; Imagenette is on the poster alone.
    """
    table = pd.read_csv(PAPER / "cra36_24h_figure_values.csv")
    return pd.DataFrame(
        {
            "dataset": table.dataset,
            "layer": table.method.map(layer_name),
            "size": table["size"],
            "cra_36": table.cra36_pct / 100,
        }
    )


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


def known_layer(method: str) -> str:
    """The library's name of a method, or for one that it lacks (``ECO``) the paper's own."""
    return layer_name(method) if layer_name(method) in LAYERS else method


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


def logged_constants() -> pd.DataFrame:
    """Lipschitz constants that the authors' CIFAR-10 runs logged: ``layer, size, constant``; failed runs left out.

    Products of power-iteration norms, not divided by; 1 for BCOP, CPL, SLL and SOC means that nothing was measured.
    """
    table = pd.read_csv(PAPER / "cifar10_24h_runs.csv")
    table = table[(table.status == "ok") & table.logged_lipschitz_bound.notna()]
    return pd.DataFrame(
        {"layer": table.method.map(layer_name), "size": table["size"], "constant": table.logged_lipschitz_bound}
    ).reset_index(drop=True)
