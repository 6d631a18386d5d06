"""The published accuracies and their hyperparameters: Tables 2, 4 and 9 to 12, and the authors' run folders."""

from __future__ import annotations

import pandas as pd

from lipref.paper.published.costs import _BUDGET_GROUPS
from lipref.paper.published.names import RADII, layer_name, sizes_of
from lipref.paths import PAPER

_NOTES = {"ok": "", "diverged_nan": "diverged", "out_of_memory": "out of memory", "no_result": "no result"}


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
            "size": sizes_of(table),
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
            "size": sizes_of(table),
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
             for row, size in zip(lost.itertuples(), sizes_of(lost), strict=True)]  # fmt: skip
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


def logged_constants() -> pd.DataFrame:
    """Lipschitz constants that the authors' CIFAR-10 runs logged: ``layer, size, constant``; failed runs left out.

    Products of power-iteration norms, not divided by; 1 for BCOP, CPL, SLL and SOC means that nothing was measured.
    """
    table = pd.read_csv(PAPER / "cifar10_24h_runs.csv")
    table = table[(table.status == "ok") & table.logged_lipschitz_bound.notna()]
    return pd.DataFrame(
        {"layer": table.method.map(layer_name), "size": table["size"], "constant": table.logged_lipschitz_bound}
    ).reset_index(drop=True)


def _of(table: pd.DataFrame, dataset: str, kernel_size: int) -> pd.DataFrame:
    return table[(table.dataset == dataset) & (table.kernel_size == kernel_size)]
