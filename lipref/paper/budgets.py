"""Tables 2, 4 and 9 to 12 and Figure 7: accuracy and CRA by data set and time budget, as tidy tables.

The columns are `lipref.paper.tables.COLUMNS`. Ours and theirs share a ``setting`` where they can be compared: data set
and budget. ``runs`` is always the table of runs with their ``budget`` that `lipref.runs.budget_records.load` gives.
"""

from __future__ import annotations

import math
from functools import cache

import pandas as pd

from lipref import data
from lipref.errors import LiprefError
from lipref.layers import LAYERS
from lipref.paper import comparison, published, tables, unrun
from lipref.paper.comparison import Tolerance

SHARES = ("accuracy", "CRA(36/255)")
RATES = ("learning rate", "weight decay")
PRINTED = " (printed)"  # what the paper prints beside, or in place of, the value
RADII = ("accuracy", *(f"CRA({radius}/255)" for radius in published.RADII))
LITERATURE = "quoted from the literature"
OF_THE_PAPER = "networks of the paper, "  # before the setting, where others stand beside them
SEARCH = "random search"
# Points of percent, beyond our interval: the paper has one seed for each network, and no spread.
TOLERANCE = Tolerance(absolute=1.5)
DATASETS = {"CIFAR-10": "cifar10", "CIFAR-100": "cifar100", "TinyImageNet": "tiny-imagenet-200"}  # the paper's -> ours
TEST_IMAGES = 10_000  # of each of the three
BATCH = 256


def dataset(name: str) -> str:
    """The paper's data set in the spelling of its files: ``TinyImageNet`` for ``Tiny ImageNet``.

    Raises:
        LiprefError: it is none of the paper's.
    """
    found = {title.lower(): key for key in DATASETS for title in (key, published.dataset_title(key), DATASETS[key])}
    if name.lower() not in found:
        known = ", ".join(published.dataset_title(key) for key in DATASETS)
        raise LiprefError(f"paper_dataset={name!r}: choose one of {known}")
    return found[name.lower()]


def setting(paper_dataset: str, budget: str) -> str:
    """``CIFAR-10, 24 h``: what ours and theirs share."""
    return f"{published.dataset_title(paper_dataset)}, {budget.removesuffix('h')} h"


@cache
def epochs_of(ours: str, size: str, layer: str) -> dict[str, int]:
    """The epochs of each of the paper's budgets, on our data set; empty where the paper has none, as for LOT L."""
    try:
        return {budget: published.epochs(ours, size, layer, budget) for budget in published.BUDGETS}
    except LiprefError:
        return {}


def by_budget(runs: pd.DataFrame, paper_dataset: str, kernel_size: int = 3) -> pd.DataFrame:
    """Tables 9 to 12: every printed number, and ours beside it.

    Measures are `SHARES` and `RATES`. With `PRINTED` behind them they are what the paper prints in the place: the one
    digit of the rates, and for a failed run, which has no value, its accuracy (chance) and CRA (0). The rates in full
    precision have the setting `SEARCH`.

    Args:
        runs: Ours, of that data set.
        paper_dataset: The paper's name.
        kernel_size: 3, or 1 for Table 12.
    """
    rows = _of_the_search(paper_dataset, kernel_size)
    for budget, lines in published.by_budget(paper_dataset, kernel_size).groupby("budget", sort=False):
        place = ("paper", setting(paper_dataset, budget))
        for line in lines.itertuples():
            for measure, value in zip(SHARES, (line.accuracy, line.cra_36), strict=True):
                value_of = (*place, line.layer, line.size)
                if line.note:
                    rows.append(_row(*value_of, measure, math.nan, "%", 0, 1, line.note))
                    measure += PRINTED
                rows.append(_row(*value_of, measure, value, "%"))
            for measure, value in zip(RATES, (line.learning_rate, line.weight_decay), strict=True):
                rows.append(_row(*place, line.layer, line.size, measure + PRINTED, value, "1"))
        for line in published.without_result(paper_dataset, kernel_size).itertuples():
            rows += [_row(*place, line.layer, line.size, measure, math.nan, "%", 0, 0, line.note) for measure in SHARES]
    paper = pd.DataFrame(rows, columns=list(tables.COLUMNS))
    return _joined(paper, _ours(runs[runs["size"].str.endswith("_1x1") == (kernel_size == 1)], paper_dataset))


def shares(table: pd.DataFrame, measures: tuple[str, ...] = SHARES) -> pd.DataFrame:
    """The rows of accuracy and CRA alone, which pictures show."""
    return table[table.measure.isin(measures)].reset_index(drop=True)


def all_sets(runs: pd.DataFrame, budget: str = "24h") -> pd.DataFrame:
    """Table 2: accuracy and CRA(36/255) of all three data sets after one budget, and ours.

    Ours are in the setting of a data set of the paper where they can be compared (`why_not`), and in their own where
    they cannot.

    Args:
        runs: Of one data set, any one, with any number of epochs (`lipref.runs.study.Study.runs`).
        budget: The paper's.
    """
    none, paper = pd.DataFrame(columns=["size", "budget"]), []
    for name in DATASETS:
        both = name == "CIFAR-10" and tables.runs_have_1x1(runs)
        found = [shares(by_budget(none, name, kernel_size)) for kernel_size in ((3, 1) if both else (3,))]
        paper += [table[table.setting == setting(name, budget)] for table in found]
    ours = tables.accuracy(runs, "cifar10", budget)
    ours = ours[ours.source == "ours"]
    if len(ours) and not why_not(runs, budget):
        (name,) = (name for name, dataset in DATASETS.items() if dataset == runs.dataset.iloc[0])
        ours = ours.assign(setting=setting(name, budget))
    paper = pd.concat(paper, ignore_index=True)
    return _joined(paper[~paper.measure.str.endswith(PRINTED)], ours)


def why_not(runs: pd.DataFrame, budget: str) -> str:
    """Why our runs cannot be compared with the paper's after ``budget``; empty where they can, or there are none."""
    if runs.empty:
        return ""
    name = runs.dataset.iloc[0]
    if name not in DATASETS.values():
        return f"{name} is none of the paper's data sets"
    if (runs.train_images != data.shape(name).train_images).any() or (runs.test_images != TEST_IMAGES).any():
        return f"not all images of {name}"
    if (runs.batch_size != BATCH).any():
        return f"not all with batches of {BATCH}"
    compared = runs[runs.layer.isin(LAYERS) & (runs.layer != "standard")]
    wrong = [row for row in compared.itertuples() if row.epochs != epochs_of(name, row.size, row.layer).get(budget)]
    return (
        f"{wrong[0].epochs} epochs of {wrong[0].layer} {wrong[0].size} are not {budget} of the paper" if wrong else ""
    )


def literature(runs: pd.DataFrame) -> pd.DataFrame:
    """Table 4, CIFAR-10: the literature, the authors' best 24 h run of each layer, and ours, at four radii.

    Measures are `RADII`, in percent, and ``parameters``. Empty is what the paper leaves empty. A network of the
    literature has the name that is printed as its layer and no size.
    """
    rows = []
    for line in published.literature().to_dict("records"):
        place = ("paper", LITERATURE, line["method"], "all")
        rows.append(_row(*place, "parameters", line["parameters"], "1"))
        rows += _at_radii(place, line)
    for line in published.best_runs().to_dict("records"):
        rows += _at_radii(("paper", OF_THE_PAPER + setting("CIFAR-10", "24h"), line["layer"], line["size"]), line)
    paper = pd.DataFrame(rows, columns=list(tables.COLUMNS))
    ours = runs[(runs.budget == "24h") & ~runs["size"].str.endswith("_1x1")]
    ours = _ours(ours, "CIFAR-10", RADII, rates=False)
    return _joined(paper, ours.assign(setting=OF_THE_PAPER + ours.setting.astype(str)))


def differences(table: pd.DataFrame, reason: str = "") -> pd.DataFrame:
    """Ours beside theirs, setting by setting: `lipref.paper.comparison.COLUMNS` and ``setting``.

    Our 95 % interval has to come within `TOLERANCE` of the published value. The literature, which is of other networks,
    is not compared, nor are the rates.

    Args:
        table: One of this module's, of both sources.
        reason: Why ours, whatever their setting, cannot be compared with any; empty where they can.
    """
    table = shares(table, RADII)
    paper = table[(table.source == "paper") & (table.setting != LITERATURE)]
    ours = table[table.source == "ours"]
    found = []
    for name, rows in paper.groupby("setting", sort=False):
        beside = ours if reason else ours[ours.setting == name]
        judged = comparison.differences(pd.concat([rows, beside]) if len(beside) else rows, TOLERANCE, reason)
        found.append(judged.assign(setting=name)[["setting", *comparison.COLUMNS]])
    if not found:
        return pd.DataFrame(columns=["setting", *comparison.COLUMNS])
    return pd.concat(found, ignore_index=True)


def not_run(table: pd.DataFrame) -> str:
    """What of the published networks has no run of ours: a line for every command that would fill some.

    Layers that have the same sizes missing share a command. Networks that the paper has no budget for are left out.
    """
    lines = []
    for name, ours in DATASETS.items():
        for budget in published.BUDGETS:
            rows = table[table.setting.str.endswith(setting(name, budget))]
            pairs = [(layer, size) for layer, size in unrun.missing_networks(rows)
                     if layer in LAYERS and epochs_of(ours, size, layer)]  # fmt: skip
            lines += [unrun.networks(part, ours, budget) for part in _same_sizes(pairs)]
    return "\n".join(lines)


def _same_sizes(pairs: list[tuple[str, str]]) -> list[list[tuple[str, str]]]:
    """The pairs of layer and size in parts, each of which is all combinations of some layers and some sizes."""
    sizes: dict[str, list[str]] = {}
    for layer, size in pairs:
        sizes.setdefault(layer, []).append(size)
    parts: dict[tuple[str, ...], list[tuple[str, str]]] = {}
    for layer, found in sizes.items():
        parts.setdefault(tuple(found), []).extend((layer, size) for size in found)
    return list(parts.values())


def _of_the_search(paper_dataset: str, kernel_size: int) -> list[dict]:
    place = ("paper", f"{published.dataset_title(paper_dataset)}, {SEARCH}")
    rows = []
    for line in published.hyperparameters(paper_dataset, kernel_size).itertuples():
        values = (line.learning_rate, line.weight_decay, line.printed_learning_rate, line.printed_weight_decay)
        for measure, value in zip([*RATES, *(rate + PRINTED for rate in RATES)], values, strict=True):
            rows.append(_row(*place, line.layer, line.size, measure, value, "1"))
    return rows


def _at_radii(place: tuple, line: dict) -> list[dict]:
    names = ("accuracy", *(f"cra_{radius}" for radius in published.RADII))
    return [
        _row(*place, measure, line[name], "%")
        for measure, name in zip(RADII, names, strict=True)
        if not pd.isna(line[name])
    ]


def _ours(
    runs: pd.DataFrame, paper_dataset: str, measures: tuple[str, ...] = SHARES, rates: bool = True
) -> pd.DataFrame:
    """Our rows, in the settings of the paper's; the rates are those of the runs that gave a result."""
    found = []
    for budget, group in runs.groupby("budget", sort=False):
        table = tables.robustness(group)
        table = table.assign(measure=table.measure.replace("CRA(0)", "accuracy"))
        found.append(shares(table, measures).assign(setting=setting(paper_dataset, budget)))
        for (layer, size), of_one in group.groupby(["layer", "size"], sort=False) if rates else ():
            done = of_one[of_one.status == "done"]
            last = (of_one if done.empty else done).iloc[-1]
            place = ("ours", setting(paper_dataset, budget), layer, size)
            values = zip(RATES, (last.learning_rate, last.weight_decay), strict=True)
            found.append(pd.DataFrame([_row(*place, measure, value, "1") for measure, value in values]))
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=list(tables.COLUMNS))


def _joined(paper: pd.DataFrame, ours: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([paper, ours], ignore_index=True) if len(ours) else paper


def _row(source, setting, layer, size, measure, value, unit, n=1, of=1, note="") -> dict:
    cells = (source, setting, layer, size, measure, float(value), math.nan, math.nan, n, unit, of, note)
    return dict(zip(tables.COLUMNS, cells, strict=True))
