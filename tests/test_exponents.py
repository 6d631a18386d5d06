"""How counts grow, and what is said where a printed row no longer describes the code."""

import math

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lipref.bench import counting_grid
from lipref.errors import LiprefError
from lipref.layers import LAYERS, resolve
from lipref.paper import comparison, exponents, exponents_figure, readable, style, table1
from lipref.paper.exponents import AS_ROW, AT_BASE, NO_ROW, OTHER_GROWTH, OTHER_SIZE

COUNTS = counting_grid.read_counts()
TABLE = exponents.table(COUNTS)
PLACE = ["layer", "way", "part", "quantity"]


def line(found, layer, part, quantity, way=""):
    lines = exponents.judged(found).set_index(PLACE)
    return lines.loc[(layer, way, part, quantity)]


@given(
    power=st.floats(-4, 4), factor=st.floats(1e-3, 1e6),
    places=st.lists(st.integers(1, 4096), min_size=2, max_size=6, unique=True),
)  # fmt: skip
def test_a_power_law_gives_its_exponent(power, factor, places):
    assert exponents.slope(places, [factor * place**power for place in places]) == pytest.approx(power, abs=1e-6)


def test_an_exponent_is_that_of_the_largest_places():
    places = [1, 2, 4, 8, 16, 32, 64, 128]
    values = [1000 + place**3 for place in places]
    assert exponents.slope(places, values) == pytest.approx(3, abs=0.1)
    assert exponents.slope(places[:3], values[:3]) < 0.1
    assert exponents.slope(places[::-1], values[::-1]) == exponents.slope(places, values)
    assert math.isnan(exponents.slope([3], [5]))
    assert math.isnan(exponents.slope([1, 2], [0, 4]))


def test_the_unconstrained_convolution_has_its_exponents():
    found = line(TABLE, "standard", "input", "MACs")
    assert [found[f"ours_{symbol}"] for symbol in "bsck"] == pytest.approx([1, 2, 2, 2])
    assert math.isnan(found.ours_t)
    assert (found.ratio, found.wide, found.verdict) == (1, 1, AS_ROW)
    nothing = line(TABLE, "standard", "parameter", "MACs")
    assert (nothing.ratio, nothing.verdict) == (1, AS_ROW)


def test_every_row_stands_beside_its_counts():
    lines = exponents.judged(TABLE)
    assert set(lines.layer) == set(LAYERS)
    assert len(lines) == 4 * len(lines[["layer", "way"]].drop_duplicates())
    assert NO_ROW not in set(lines.verdict)
    # The rows' own exponents, fitted like ours: of formulas with one term they are whole numbers.
    soc = line(TABLE, "soc", "parameter", "MACs")
    assert [soc[f"row_{symbol}"] for symbol in "bsckt"] == pytest.approx([0, 0, 2, 2, 1], abs=1e-9)
    terms = line(TABLE, "soc", "input", "stored")
    assert [terms[f"row_{symbol}"] for symbol in "bsckt"] == pytest.approx([1, 2, 1, 0, 1], abs=1e-9)
    cpl = line(TABLE, "cpl", "parameter", "stored")
    assert 1 < cpl.row_c < 2  # c^2 k^2 + s^2 c


def changed(layer, part, column, factor):
    """The counts with one column of a layer's part altered by a function of the point."""
    counts = COUNTS.copy()
    mine = (counts.layer == layer) & (counts.part == part)
    values = [int(value * factor(point)) for value, point in zip(
        counts.loc[mine, column], counts[mine].to_dict("records"), strict=True)]  # fmt: skip
    counts.loc[mine, column] = values
    return exponents.table(counts)


@pytest.mark.parametrize(
    ("factor", "verdict", "said"),
    [
        (lambda point: 1, AS_ROW, None),
        (lambda point: 3, OTHER_SIZE, "Standard, input MACs: 3 times the row's."),
        (lambda point: point["k"], OTHER_GROWTH, "3 times the row's; grows with k^3.0 for k^2.0."),
        (lambda point: 0, OTHER_GROWTH, "0 times the row's"),
    ],
)
def test_altered_counts_change_the_verdict(factor, verdict, said):
    found = changed("standard", "input", "macs", factor)
    assert line(found, "standard", "input", "MACs").verdict == verdict
    words = exponents.departures(found)
    told = [text for text in words.splitlines() if text.startswith("Standard, input MACs")]
    assert told == [] if said is None else said in told[0]
    counts = exponents.judged(found).verdict.value_counts()
    assert words.startswith(f"Of {len(exponents.judged(found))} counts beside their printed rows {counts[AS_ROW]} are")


def test_a_ratio_that_changes_with_the_channels_is_told_twice():
    words = exponents.departures(changed("standard", "input", "macs", lambda point: 5 if point["c"] == 512 else 2))
    assert "Standard, input MACs: 2 times the row's, 5 times at c = 512" in words


def test_a_changed_row_changes_the_verdict(monkeypatch):
    printed = exponents.published.complexity()
    printed.loc["standard", "input_macs"] = "b s^3 c^2"
    monkeypatch.setattr(exponents.published, "complexity", lambda: printed)
    assert line(exponents.table(COUNTS), "standard", "input", "MACs").verdict == OTHER_GROWTH


def own():
    rows = COUNTS[(COUNTS.layer == "standard") & (COUNTS.part == "input")]
    return rows.assign(layer="MyConv", part="whole")


def test_ones_own_layer_has_exponents_and_no_row():
    found = exponents.table(pd.concat([COUNTS, own()], ignore_index=True))
    assert line(found, "MyConv", "whole", "MACs").verdict == NO_ROW
    people = exponents.for_people(found).set_index("layer")
    assert list(people.loc["MyConv", "s"]) == ["2.0", "1.9"]
    assert exponents.departures(found) == exponents.departures(TABLE)
    alone = exponents.table(own())
    assert exponents.departures(alone, "X is not counted").splitlines()[1:] == ["X is not counted"]
    assert "MyConv: counted as a whole" in " ".join(
        text.get_text() for text in exponents_figure.exponents(alone).axes[0].texts
    )


@pytest.mark.parametrize("variant", comparison.VARIANTS)
def test_every_variant_is_shown(variant):
    found = comparison.variant(TABLE, variant)
    people = exponents.for_people(found)
    assert ("verdict" in people.columns) == (variant == "both")
    assert len(people) == len(exponents.for_people(TABLE))
    assert people.map(lambda cell: isinstance(cell, str)).all(axis=None)
    assert ("[" in people.to_string()) == (variant == "both")
    picture = exponents_figure.exponents(found)
    assert len(picture.axes) == 4 * (6 if variant == "both" else 5)
    labels = [text.get_text() for text in picture.legends[0].get_texts()]
    assert len(labels) == (2 if variant == "both" else 1)
    specs = [resolve("lot"), resolve("examples/my_layer.py:MyConv")]
    symbolic = table1.table(specs, variant).set_index("layer")
    assert symbolic.loc["lot", "parameter MACs"] == "4 c³ s² t"
    assert symbolic.loc["MyConv", "parameter MACs"] == "not given"
    assert ("as printed" in symbolic.columns) == (variant == "both")


def test_published_rows_are_the_printed_ones(monkeypatch):
    printed = table1.published.complexity()
    printed.loc["aol", "input_macs"] = "7 C"
    monkeypatch.setattr(table1.published, "complexity", lambda: printed)
    shown = {name: table1.table([resolve("aol")], name)["input MACs"].item() for name in comparison.VARIANTS}
    assert shown == {"both": "C", "published": "7 C", "ours": "C"}
    with pytest.raises(LiprefError, match="variant='theirs'"):
        table1.table([resolve("aol")], "theirs")


def test_nothing_to_show_is_said():
    found = exponents.table(COUNTS[:0])
    assert readable.or_missing(found, exponents.for_people, exponents.NOTHING).to_dict("list") == {
        "not run": [exponents.NOTHING]
    }
    assert style.or_blank(exponents_figure.exponents, found, exponents.NOTHING).axes
    assert "Nothing to compare" in exponents.departures(found)


def test_every_value_is_drawn_in_its_place(tmp_path):
    picture = exponents_figure.exponents(TABLE)
    titles = [axis.get_title(loc="left") for axis in picture.axes[::6]]
    assert titles == ["parameter: multiply-accumulates", "parameter: stored numbers",
                      "input: multiply-accumulates", "input: stored numbers"]  # fmt: skip
    values = TABLE[TABLE.value.notna() & TABLE.measure.str.startswith("exponent")]
    drawn = [list(zip(*mark.get_data(), strict=True)) for n, axis in enumerate(picture.axes) if n % 6 < 5
             for mark in axis.lines]  # fmt: skip
    assert sum(map(len, drawn)) == len(values)
    names = [text.get_text() for text in picture.axes[0].get_yticklabels()]
    place = names.index("CPL")
    of_s = [point for mark in picture.axes[1].lines for point in zip(*mark.get_data(), strict=True)]
    assert sorted(x for x, y in of_s if y == place) == pytest.approx([0, 2])
    few = TABLE[TABLE.layer.isin(["aol", "lot"]) & (TABLE.part == "input")]
    files = [style.save(exponents_figure.exponents(few), tmp_path / name) for name in ("one", "two")]
    for first, second in zip(*files, strict=True):
        assert first.read_bytes() == second.read_bytes()
    with pytest.raises(LiprefError, match="two values"):
        exponents_figure.exponents(pd.concat([TABLE, TABLE[TABLE.measure == AT_BASE]]))
    with pytest.raises(LiprefError, match="'way'"):
        exponents_figure.exponents(TABLE.drop(columns="way"))
