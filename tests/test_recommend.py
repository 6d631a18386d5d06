"""The recommendation: what must hold for every table and every choice of weights."""

import math

import numpy as np
import pandas as pd
import pytest
from fake_tables import costs_table, diverged, runs_table
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lipref.errors import LiprefError
from lipref.paper import recommend, style, tradeoff, tradeoffs
from lipref.paper.recommend import BENEFITS
from lipref.paper.tables import COLUMNS, RADAR_MEASURES

LAYERS = ("aol", "bcop", "cpl", "soc")
UNITS = dict.fromkeys(BENEFITS, "%")
# Steps that no rounding of the logarithm or of a weighted mean can hide.
LEVELS = st.integers(1, 50)
WEIGHTS = st.lists(st.integers(0, 20), min_size=6, max_size=6).filter(any)


def make(levels):
    """A tidy table: layer -> six values, in the order of the measures; None has no row."""
    lines = [
        dict(zip(COLUMNS, ("ours", "here", layer, "XS", name, float(value), math.nan, math.nan, 1,
                           UNITS.get(name, "s"), 1, ""), strict=True))
        for layer, values in levels.items()
        for name, value in zip(RADAR_MEASURES, values, strict=True) if value is not None
    ]  # fmt: skip
    return pd.DataFrame(lines, columns=list(COLUMNS))


def weigh(numbers):
    return dict(zip(RADAR_MEASURES, map(float, numbers), strict=True))


TABLES = st.lists(st.lists(LEVELS, min_size=6, max_size=6), min_size=4, max_size=4).map(
    lambda rows: dict(zip(LAYERS, rows, strict=True))
)


@settings(max_examples=30)
@given(TABLES, WEIGHTS, st.floats(1e-3, 1e3))
def test_scaling_all_weights_leaves_the_choice(levels, numbers, factor):
    table = make(levels)
    first = recommend.recommend(table, weigh(numbers))
    second = recommend.recommend(table, weigh([factor * number for number in numbers]))
    assert set(first.best) == set(second.best)
    assert first.ranking.score.to_numpy() == pytest.approx(second.ranking.score.to_numpy(), abs=1e-9)


@settings(max_examples=30)
@given(TABLES, WEIGHTS, st.sampled_from(LAYERS))
def test_what_is_best_in_everything_is_recommended(levels, numbers, winner):
    most = [max(column) + 1 if name in BENEFITS else min(column) / 2
            for name, column in zip(RADAR_MEASURES, zip(*levels.values(), strict=True), strict=True)]  # fmt: skip
    assert recommend.recommend(make(levels | {winner: most}), weigh(numbers)).best == ((winner, "XS"),)


@settings(max_examples=30)
@given(TABLES, st.sampled_from(["training memory", "inference memory"]))
def test_weight_on_memory_alone_gives_the_leanest(levels, measure):
    place = RADAR_MEASURES.index(measure)
    least = min(values[place] for values in levels.values())
    best = recommend.recommend(make(levels), {measure: 1.0}).best
    assert {layer for layer, _ in best} == {layer for layer, values in levels.items() if values[place] == least}


@settings(max_examples=30)
@given(TABLES, WEIGHTS)
def test_the_recommended_is_never_beaten(levels, numbers):
    """No other network is at least as good in all that counts and better in something."""
    best = {layer for layer, _ in recommend.recommend(make(levels), weigh(numbers)).best}
    good = {layer: [value if name in BENEFITS else -value
                    for name, value, number in zip(RADAR_MEASURES, values, numbers, strict=True) if number]
            for layer, values in levels.items()}  # fmt: skip
    for layer in best:
        for other in set(LAYERS) - best:
            assert not all(np.greater_equal(good[other], good[layer]))


@settings(max_examples=30)
@given(TABLES, st.sampled_from([name for name in RADAR_MEASURES if name not in BENEFITS]), st.sampled_from(BENEFITS))
def test_the_front_is_what_nothing_beats(levels, cost, benefit):
    found = recommend.values(make(levels))
    front = set(recommend.front(found, cost, benefit).index)
    for key, own in found.iterrows():
        beaten = any(
            row[cost] <= own[cost] and row[benefit] >= own[benefit]
            and (row[cost] < own[cost] or row[benefit] > own[benefit])
            for _, row in found.iterrows()
        )  # fmt: skip
        assert (key in front) != beaten


@settings(max_examples=30)
@given(TABLES, WEIGHTS, st.integers(0, 5))
def test_a_measure_that_nobody_has_is_said(levels, numbers, gone):
    assume(sum(1 for place, number in enumerate(numbers) if number and place != gone) > 0 and numbers[gone])
    without = {layer: [None if place == gone else value for place, value in enumerate(values)]
               for layer, values in levels.items()}  # fmt: skip
    found = recommend.recommend(make(without), weigh(numbers))
    assert found.unknown == (RADAR_MEASURES[gone],)
    assert f"without effect: {RADAR_MEASURES[gone]}" in found.reason
    numbers = [0 if place == gone else number for place, number in enumerate(numbers)]
    assert set(found.best) == set(recommend.recommend(make(levels), weigh(numbers)).best)


def test_a_network_that_lacks_what_counts_is_not_ranked_and_named():
    table = make({"aol": [50, 50, 1, 1, 1, 1], "soc": [None, 60, 2, 2, 2, 2], "cpl": [40, 70, 3, 3, 3, 3]})
    found = recommend.recommend(table, {"robust accuracy": 1})
    assert found.best == (("aol", "XS"),)
    assert found.left_out == {("soc", "XS"): ("robust accuracy",)}
    assert "Not ranked: SOC XS (no robust accuracy)." in found.reason
    assert set(recommend.recommend(table, {"accuracy": 1}).ranking.layer) == {"aol", "soc", "cpl"}


def test_ties_are_said():
    found = recommend.recommend(make({"aol": [50] * 6, "soc": [50] * 6}), weigh([1] * 6))
    assert len(found.best) == 2
    assert "AOL XS, SOC XS share the first place" in found.reason


def test_the_unconstrained_layer_takes_no_part():
    found = recommend.recommend(make({"standard": [99, 99, 1, 1, 1, 1], "aol": [50, 50, 2, 2, 2, 2]}), {"accuracy": 1})
    assert found.ranking.layer.tolist() == ["aol"]


def test_intervals_that_overlap_are_said():
    table = tradeoffs.of_ours(runs_table(layers=("aol", "soc")), costs_table(("aol", "soc"), ("XS",)), "digits", 1437)
    reason = recommend.recommend(table, {"robust accuracy": 1}).reason
    assert "In robust accuracy its interval overlaps with" in reason
    apart = table.assign(low=table.value, high=table.value)
    assert "overlaps" not in recommend.recommend(apart, {"robust accuracy": 1}).reason


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("accuracy=0", "all weights are 0"),
        ("acuracy=1", "unknown measure 'acuracy'"),
        ("accuracy=-1", "give 0 or more"),
        ("accuracy=nan", "give 0 or more"),
        ("accuracy=inf", "give 0 or more"),
        ("accuracy", "give each measure once"),
        ("accuracy=1,accuracy=2", "give each measure once"),
        ("", "give each measure once"),
    ],
)
def test_bad_weights_are_refused(text, match):
    with pytest.raises(LiprefError, match=match):
        recommend.parse_weights(text)


def test_weights_keep_their_proportions():
    found = recommend.parse_weights(" training time = 1 ,robust accuracy=2")
    assert found == {**dict.fromkeys(RADAR_MEASURES, 0), "robust accuracy": 1.0, "training time": 0.5}


def test_nothing_that_counts_is_known():
    with pytest.raises(LiprefError, match="nothing is known of inference memory"):
        recommend.recommend(tradeoffs.of_paper("CIFAR-10 (paper)"), {"inference memory": 1})
    table = make({"aol": [50, None, 1, 1, 1, 1], "soc": [None, 60, 2, 2, 2, 2]})
    with pytest.raises(LiprefError, match="no network has values of robust accuracy, accuracy together"):
        recommend.recommend(table, {"robust accuracy": 1, "accuracy": 1})


# --- the tables


@pytest.mark.parametrize("title", [name for name in tradeoffs.choices() if name.endswith(tradeoffs.SUFFIX)])
def test_the_papers_tables_can_be_ranked(title):
    table = tradeoffs.of_paper(title)
    assert set(table.measure) < set(RADAR_MEASURES)
    assert "inference memory" not in set(table.measure)
    assert ("training memory" in set(table.measure)) == ("CIFAR" in title)
    assert set(table.layer) <= {"standard", *style.layer_styles(table.layer)}
    assert recommend.recommend(table, {"robust accuracy": 1, "training time": 1}).best


def test_our_tables_have_all_six_measures():
    table = tradeoffs.of_ours(runs_table(), costs_table(), "digits", 1437)
    assert set(table.measure) == set(RADAR_MEASURES)
    rows = table[table.value.notna()].set_index(["layer", "size", "measure"])
    seconds = rows.loc[("aol", "XS", "inference time")]
    assert seconds.value == pytest.approx(0.01 * 2 / 64)
    assert seconds.low < seconds.value < seconds.high
    lost = tradeoffs.of_ours(diverged(runs_table(), "aol"), costs_table(), "digits", 1437)
    assert ("aol", "XS") in recommend.recommend(lost, {"accuracy": 1, "training time": 1}).left_out


def test_an_unknown_data_set_is_refused():
    with pytest.raises(LiprefError, match="no committed records"):
        tradeoffs.folder("mnist")
    with pytest.raises(LiprefError, match="choose one of CIFAR-10"):
        tradeoffs.of_paper("MNIST (paper)")


def test_the_picture_has_every_network_and_rings_the_best():
    table = make({"aol": [50, 60, 1, 1, 1, 1], "soc": [60, 70, 2, 2, 2, 2], "cpl": [40, 70, 3, 3, 3, 3]})
    weights = {"robust accuracy": 2.0, "training memory": 1.0}
    found, result = recommend.values(table), recommend.recommend(table, weights)
    axes = recommend.axes(weights, found)
    assert axes == ("training memory", "robust accuracy")
    left, right = tradeoff.tradeoff(found, recommend.front(found, *axes), axes, result.ranking, result.best).axes
    rings = [line for line in left.lines if line.get_markersize() == 13]
    assert len(rings) == len(result.best)
    drawn = {(line.get_xdata()[0], line.get_ydata()[0]) for line in left.lines if line.get_linestyle() == "None"}
    assert drawn == {(1e-6, 50), (2e-6, 60), (3e-6, 40)}
    assert [bar.get_width() for bar in right.patches] == pytest.approx(result.ranking.score.tolist())
    (alone,) = tradeoff.tradeoff(found, found, None, result.ranking, result.best).axes
    assert len(alone.patches) == 3
