"""Pictures of the tables by time budget and of the literature: every number of the table is drawn, and no other."""

import fake_records
import numpy as np
import pandas as pd
import pytest

from lipref.errors import LiprefError
from lipref.paper import budgets, budgets_figure, published, table2, table4
from lipref.runs import budget_records

NONE = pd.DataFrame(columns=["size", "budget"])
SETS = [("CIFAR-10", 3), ("CIFAR-10", 1), ("CIFAR-100", 3), ("TinyImageNet", 3)]


def ours(*made):
    return pd.DataFrame(
        [budget_records.row(each) | {"budget": budget_records.budget_of(each, "cifar10")} for each in made]
    )


def drawn(figure, axis):
    """All places of markers and corners along x (0) or y (1)."""
    lines = [line.get_xydata()[:, axis] for each in figure.axes for line in each.lines]
    return np.concatenate([np.asarray(line, dtype=float) for line in lines])


def texts(figure):
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    return " ".join(legend).replace("\n", " ")


@pytest.mark.parametrize(("name", "kernel_size"), SETS)
def test_every_value_is_a_dot(name, kernel_size):
    table = budgets.shares(budgets.by_budget(NONE, name, kernel_size))
    figure = budgets_figure.budget_dots(table)
    numbers = drawn(figure, 0)
    values = table.value.dropna()
    assert all(np.isclose(numbers, value).any() for value in values)
    assert len(figure.axes) == 8
    markers = [line for axis in figure.axes for line in axis.lines if line.get_marker() in ("o", "s", "D")]
    assert sum(len(line.get_xdata()) for line in markers) == len(values)
    assert not np.isclose(numbers, 0.0).any()  # what a failed run is printed with is not drawn


@pytest.mark.parametrize(("name", "kernel_size"), SETS)
def test_every_cra_is_on_a_line(name, kernel_size):
    table = budgets.shares(budgets.by_budget(NONE, name, kernel_size), ("CRA(36/255)",))
    figure = budgets_figure.budget_lines(table)
    assert len(figure.axes) == 4
    numbers = drawn(figure, 1)
    assert all(np.isclose(numbers, value).any() for value in table.value.dropna())
    assert np.isfinite(numbers).sum() == table.value.notna().sum()


def test_what_failed_is_named_with_its_budgets():
    table = budgets.shares(budgets.by_budget(NONE, "CIFAR-10", 1))
    words = texts(budgets_figure.budget_dots(table))
    for text in ("CPL S 1x1: diverged (24 h)", "CPL M 1x1: diverged (10, 24 h)", "LOT M 1x1: no result"):
        assert text in words
    assert "LOT M 1x1: no result (" not in words
    assert "BnB" in [text.get_text() for text in budgets_figure.budget_dots(table).axes[0].get_yticklabels()]
    assert "LOT L: out of memory" in texts(
        budgets_figure.budget_lines(budgets.shares(budgets.by_budget(NONE, "CIFAR-100"), ("CRA(36/255)",)))
    )


def test_ours_have_panels_of_their_own_with_intervals():
    made = [
        fake_records.record(layer=layer, width=1.0, cra_36=50 + place) for place, layer in enumerate(("aol", "soc"))
    ]
    made += [fake_records.record(layer="aol", budget="24h", diverged=True)]
    table = budgets.shares(budgets.by_budget(ours(*made), "CIFAR-10"))
    figure = budgets_figure.budget_dots(table)
    assert len(figure.axes) == 16
    numbers = drawn(figure, 0)
    for value in (49, 50, 51, 52):  # both values with the ends of their intervals
        assert np.isclose(numbers, value).any()
    assert "ours, AOL XS: diverged (24 h)" in texts(figure)
    assert len(budgets_figure.budget_lines(table[table.measure == "CRA(36/255)"]).axes) == 8


def test_a_line_does_not_bridge_a_budget_without_a_value():
    made = [fake_records.record(layer="aol", budget=budget, diverged=budget == "10h") for budget in published.BUDGETS]
    table = budgets.shares(budgets.by_budget(ours(*made), "CIFAR-10"), ("CRA(36/255)",))
    (axis, *_) = budgets_figure.budget_lines(table[table.source == "ours"]).axes
    (line,) = [line for line in axis.lines if len(line.get_ydata()) == 3 and line.get_marker() == "o"]
    assert np.isnan(np.asarray(line.get_ydata(), dtype=float)).tolist() == [False, True, False]


def test_every_value_of_the_literature_is_a_dot():
    table = budgets.shares(budgets.literature(NONE), budgets.RADII)
    figure = table4.radii_dots(table)
    numbers = drawn(figure, 0)
    assert all(np.isclose(numbers, value).any() for value in table.value)
    assert len(figure.axes) == 2
    assert np.isfinite(numbers).sum() == len(table)
    names = [text.get_text() for axis in figure.axes for text in axis.get_yticklabels()]
    assert {"SLL X-Large", "SOC M"} <= set(names)


def test_table_2_names_the_data_set_of_a_lost_run():
    words = texts(table2.accuracy(budgets.all_sets(pd.DataFrame())))
    assert "CPL S: diverged (CIFAR-100, 24 h)" in words
    assert "LOT L: out of memory" in words
    assert "LOT L: out of memory (" not in words


def test_tables_that_cannot_be_drawn_are_refused():
    table = budgets.shares(budgets.by_budget(NONE, "CIFAR-10"))
    with pytest.raises(LiprefError, match="has no budget"):
        budgets_figure.budget_dots(table.assign(setting=table.setting.str.removesuffix(" h")))
    with pytest.raises(LiprefError, match="several data sets"):
        budgets_figure.budget_dots(pd.concat([table, budgets.shares(budgets.by_budget(NONE, "CIFAR-100"))]))
    with pytest.raises(LiprefError, match="of one measure"):
        budgets_figure.budget_lines(table)
    with pytest.raises(LiprefError, match="no rows"):
        table4.radii_dots(table[:0])
