"""The paper's values against ours: differences, tolerances, verdicts, and what has not been run."""

import math

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lipref.errors import LiprefError
from lipref.paper import comparison, readable, style, table2, tables, unrun
from lipref.paper.comparison import AGREES, DIFFERS, EXACT, NOT_COMPARABLE, NOT_RUN, Tolerance

NUMBERS = st.floats(-1e6, 1e6)


def row(source, layer, value, low=math.nan, high=math.nan, size="XS"):
    cells = (source, "here", layer, size, "accuracy", value, low, high, 1, "%", 1, "")
    return dict(zip(tables.COLUMNS, cells, strict=True))


TABLE = pd.DataFrame([row("paper", "aol", 70.0), row("paper", "soc", 74.1), row("ours", "aol", 72.0, 71.5, 72.5)])


def test_a_value_within_the_tolerance_agrees_and_one_beyond_differs():
    (near,) = comparison.differences(TABLE, Tolerance(1.5)).query("layer == 'aol'").itertuples()
    assert (near.verdict, near.difference, near.tolerance) == (AGREES, 2.0, 1.5)  # the interval's end is 1.5 away
    (far,) = comparison.differences(TABLE, Tolerance(1.4)).query("layer == 'aol'").itertuples()
    assert far.verdict == DIFFERS


def test_what_has_not_been_run_is_said():
    (missing,) = comparison.differences(TABLE, EXACT).query("layer == 'soc'").itertuples()
    assert missing.verdict == NOT_RUN
    assert math.isnan(missing.ours)
    assert math.isnan(missing.difference)


def test_another_data_set_is_not_compared():
    found = comparison.differences(TABLE, Tolerance(100), "another data set")
    assert list(found.verdict) == [NOT_COMPARABLE, NOT_RUN]
    assert found.difference.isna().all()
    assert comparison.summary(found, "another data set") == (
        "Of 2 published values: 1 not comparable, 1 not run (another data set)."
    )


def test_two_values_in_one_place_are_refused():
    with pytest.raises(LiprefError, match="two values for"):
        comparison.differences(pd.concat([TABLE, TABLE]), EXACT)


@given(NUMBERS, NUMBERS, st.floats(0, 100))
def test_a_verdict_is_the_distance(published, value, tolerance):
    distance = abs(published - value)
    if abs(distance - tolerance) > 1e-6:
        assert comparison.verdict(published, value, tolerance) == (AGREES if distance < tolerance else DIFFERS)


@given(NUMBERS)
def test_a_value_agrees_with_itself_exactly(value):
    assert comparison.verdict(value, value, 0.0) == AGREES


@pytest.mark.parametrize(("name", "count"), [("both", 3), ("published", 2), ("ours", 1)])
def test_variants_choose_the_source(name, count):
    assert len(comparison.variant(TABLE, name)) == count


def test_an_unknown_variant_lists_the_known():
    with pytest.raises(LiprefError, match="both, published, ours"):
        comparison.variant(TABLE, "theirs")


def test_the_command_that_fills_a_gap_and_its_hours():
    missing = unrun.missing_networks(TABLE)
    assert missing == [("soc", "XS")]
    text = unrun.networks([*missing, ("aol", "M"), ("aol", "S")], "cifar10", "24h")
    assert "--sizes XS,S,M --layers aol,soc" in text
    assert "72 GPU hours" in text
    assert unrun.networks([], "cifar10", "24h") == ""


def test_measurements_that_are_missing_have_the_papers_time_only_where_it_is_published():
    assert "GPU hours" in unrun.measurements([("soc", "XS")], "cifar10")
    assert "GPU hours" not in unrun.measurements([("soc", "XS")], "tiny-imagenet-200")
    assert unrun.measurements([], "cifar10") == ""


def test_an_empty_picture_says_what_is_missing():
    figure = style.or_blank(table2.accuracy, TABLE[:0], "Not run: soc")
    assert [text.get_text() for text in figure.axes[0].texts] == ["Not run: soc"]
    assert len(style.or_blank(table2.accuracy, TABLE, "Not run: soc").axes) == 1
    with pytest.raises(LiprefError, match="needs a text"):
        style.blank("")


def test_an_empty_table_says_what_is_missing():
    assert readable.or_missing(TABLE[:0], readable.wide, "Not run: soc").iloc[0, 0] == "Not run: soc"
    assert len(readable.or_missing(TABLE, readable.wide, "")) == 2
