"""Every number of the paper's accuracy tables stands in a committed file under ``figures/``: counted and compared."""

import csv
from collections import Counter

import pandas as pd
import pytest

from lipref.paths import PAPER, ROOT

FIGURES = ROOT / "figures"
TITLES = {"CIFAR-10": "CIFAR-10", "CIFAR-100": "CIFAR-100", "TinyImageNet": "Tiny ImageNet"}
BY_BUDGET = {
    ("CIFAR-10", "3"): "table9_cifar10", ("CIFAR-100", "3"): "table10_cifar100",
    ("TinyImageNet", "3"): "table11_tiny_imagenet", ("CIFAR-10", "1"): "table12_1x1",
}  # fmt: skip
MEASURES = {"accuracy_pct": "accuracy", "cra36_pct": "CRA(36/255)", "lr_1digit": "learning rate (printed)",
            "wd_1digit": "weight decay (printed)"}  # fmt: skip
RADII = {"accuracy_pct": "accuracy", "parameters": "parameters", "cra_1_pct": "CRA(255/255)"} | {
    f"cra_{radius}_255_pct": f"CRA({radius}/255)" for radius in (36, 72, 108)
}
# What is printed of a run that failed.
PRINTED = {"accuracy (printed)": "accuracy", "CRA(36/255) (printed)": "CRA(36/255)"}


def lines(name):
    with (PAPER / name).open() as file:
        return list(csv.DictReader(file))


def network(line):
    return line["method"].lower(), line["size"] + ("_1x1" if line["kernel_size"] == "1" else "")


def shown(*names):
    tables = [pd.read_csv(FIGURES / f"{name}.csv") for name in names]
    table = pd.concat(tables)
    return table[(table.source == "paper") & table.value.notna()]


def count(table, measures=None):
    """How often the table has each (setting, layer, size, measure, value)."""
    table = table if measures is None else table[table.measure.isin(measures)]
    keys = zip(table.setting, table.layer, table["size"], table.measure.replace(PRINTED), table.value, strict=True)
    return Counter(keys)


def by_budget(table):
    return count(table[table.setting.str.endswith(" h")])


def searched(table):
    return count(table[table.setting.str.endswith("random search")])


def published_by_budget(pairs):
    return Counter(
        (f"{TITLES[line['dataset']]}, {line['budget_h']} h", *network(line), measure, float(line[column]))
        for line in lines("paper_accuracy_by_budget.csv")
        if (line["dataset"], line["kernel_size"]) in pairs
        for column, measure in MEASURES.items()
    )


def test_all_of_tables_9_to_12_is_shown():
    expected = published_by_budget(BY_BUDGET)
    assert sum(expected.values()) == 4 * 333
    assert by_budget(shown(*BY_BUDGET.values())) == expected


@pytest.mark.parametrize("pair", BY_BUDGET)
def test_each_table_has_its_own(pair):
    assert by_budget(shown(BY_BUDGET[pair])) == published_by_budget([pair])


def test_every_rate_is_shown_in_full_and_as_printed():
    columns = {"lr": "learning rate", "weight_decay": "weight decay"} | {
        name: measure for name, measure in MEASURES.items() if name.endswith("_1digit")
    }
    expected = Counter(
        (f"{TITLES[line['dataset']]}, random search", *network(line), measure, float(line[column]))
        for line in lines("best_lr_wd.csv")
        for column, measure in columns.items()
    )
    assert sum(expected.values()) == 4 * 112
    assert searched(shown(*BY_BUDGET.values())) == expected


def test_all_of_table_4_is_shown():
    table = shown("table4_literature")
    expected = Counter(
        (line["method"], measure, float(line[column].removesuffix("M")) * (1e6 if column == "parameters" else 1))
        for line in lines("sota_cifar10_table4.csv")
        for column, measure in RADII.items()
        if line[column]
    )
    quoted = table[table.setting == "quoted from the literature"]
    assert Counter(zip(quoted.layer, quoted.measure, quoted.value, strict=True)) == expected
    assert sum(expected.values()) == 36


def test_the_authors_best_runs_at_all_radii_are_those_of_their_files():
    runs = [line for line in lines("cifar10_24h_runs.csv") if line["status"] == "ok"]
    best = {}
    for line in runs:
        if float(line["test_cra_36_255"]) > float(best.get(line["method"], {"test_cra_36_255": 0})["test_cra_36_255"]):
            best[line["method"]] = line
    table = shown("table4_literature")
    table = table[table.setting != "quoted from the literature"].set_index(["layer", "size", "measure"]).value
    assert len(table) == 5 * len(best) == 35
    for line in best.values():
        for radius, column in (("36/255", "36_255"), ("72/255", "72_255"), ("108/255", "108_255"), ("255/255", "1")):
            value = table[line["method"].lower(), line["size"], f"CRA({radius})"]
            assert value == pytest.approx(100 * float(line[f"test_cra_{column}"]))
        assert table[line["method"].lower(), line["size"], "accuracy"] == pytest.approx(
            100 * float(line["test_accuracy"])
        )


def test_table_2_is_the_last_budget_of_all_three():
    table = shown("table2_accuracy")
    shares = {
        key
        for key in published_by_budget(list(BY_BUDGET)[:3])
        if key[0].endswith("24 h") and key[3] in ("accuracy", "CRA(36/255)")
    }
    expected = {key for key in shares if key[:3] != ("CIFAR-100, 24 h", "cpl", "S")}
    assert len(shares - expected) == 2
    assert set(count(table)) == expected
    lost = pd.read_csv(FIGURES / "table2_accuracy.csv").query("source == 'paper' and value.isna()")
    assert set(zip(lost.layer, lost["size"], lost.note, strict=True)) == {
        ("cpl", "S", "diverged"), ("lot", "L", "out of memory")
    }  # fmt: skip


def test_figure_7_is_the_cra_of_table_9():
    wanted = {key: n for key, n in published_by_budget([("CIFAR-10", "3")]).items() if key[3] == "CRA(36/255)"}
    assert count(shown("figure7_budgets")) == wanted


@pytest.mark.parametrize("column", ["value", "layer", "setting"])
def test_a_row_that_is_dropped_or_changed_is_seen(column):
    table = shown("table9_cifar10").reset_index(drop=True)
    expected = published_by_budget([("CIFAR-10", "3")])
    place = table.index[table.setting == "CIFAR-10, 2 h"][5]
    assert by_budget(table.drop(index=place)) != expected
    changed = table.copy()
    changed.loc[place, column] = {"value": 1.5, "layer": "soc", "setting": "CIFAR-10, 10 h"}[column]
    assert by_budget(changed) != expected
