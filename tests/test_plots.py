"""What is drawn: the numbers of the tidy table, every one and no others."""

import itertools
import re
import subprocess
import sys

import matplotlib.colors
import matplotlib.text
import numpy as np
import pandas as pd
import pytest
from fake_tables import COSTLY, costs_table, diverged, runs_table

from lipref.errors import LiprefError
from lipref.layers import LAYERS
from lipref.layers.excluded import EXCLUDED
from lipref.paper import cost_figures, exponents_figure, figure1, panels, radius_curves, rankings, style, table2, tables
from lipref.paper import style as looks
from lipref.paths import ROOT

FOUR = ("XS", "S", "M", "L")


def curves(layers=tuple(COSTLY)):
    return pd.DataFrame(
        [{"layer": layer, "radius": radius, "share": max(0.0, 0.9 - radius - 0.01 * place)}
         for place, layer in enumerate(layers) for radius in (0, 36 / 255, 72 / 255, 1.0)]
    )  # fmt: skip


PICTURES = {
    "training_time": (
        cost_figures.training_time, lambda sizes: tables.training_time(costs_table(sizes=sizes), "digits", 1437)
    ),
    "inference_throughput": (
        cost_figures.inference_throughput, lambda sizes: tables.inference_throughput(costs_table(sizes=sizes))
    ),
    "memory": (cost_figures.memory, lambda sizes: tables.memory(costs_table(sizes=sizes))),
    "radar": (figure1.radar, lambda sizes: tables.radar(runs_table(sizes=sizes), costs_table(sizes=sizes))),
    "ranking": (rankings.ranking, lambda sizes: tables.ranking(runs_table(sizes=sizes))),
    "accuracy": (table2.accuracy, lambda sizes: tables.accuracy(runs_table(sizes=sizes), "digits")),
}  # fmt: skip


def drawn(figure):
    """All numbers that stand in the picture along some axis."""
    found = []
    for axis in figure.axes:
        for line in axis.lines:
            found += [*np.ravel(line.get_xdata()), *np.ravel(line.get_ydata())]
        for patch in axis.patches:
            if hasattr(patch, "get_width"):
                found.append(patch.get_width())
    return np.array([value for value in found if isinstance(value, int | float | np.number)], dtype=float)


def texts(figure):
    import matplotlib.text

    return " ".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))


@pytest.mark.parametrize("sizes", [("XS",), FOUR])
@pytest.mark.parametrize("name", PICTURES)
def test_every_value_of_the_table_is_drawn(name, sizes, tmp_path):
    draw, make = PICTURES[name]
    table = make(sizes)
    figure = draw(table)
    numbers = drawn(figure)
    scale = 1e-6 if name == "memory" else 1.0
    missing = [
        row for row in table.itertuples()
        if not any(np.isclose(numbers, factor * row.value, rtol=1e-9).any() for factor in (1.0, scale, 1e-9))
    ]  # fmt: skip
    assert missing == []
    style.save(figure, tmp_path / name)  # no warning, nothing that cannot be drawn


@pytest.mark.parametrize("name", PICTURES)
def test_a_layer_of_ones_own_is_in_the_picture(name):
    draw, make = PICTURES[name]
    figure = draw(make(("XS", "S")))
    words = texts(figure).replace("\n", " ")
    assert "MyConv" in words
    assert "Cayley" in words


@pytest.mark.parametrize("name", ["ranking", "accuracy", "radar"])
def test_what_diverged_is_named_under_the_picture(name):
    draw = PICTURES[name][0]
    whole = runs_table(layers=("aol", "soc", "MyConv"))
    runs = diverged(whole, "soc")
    makes = {"ranking": tables.ranking, "accuracy": lambda runs: tables.accuracy(runs, "digits"),
             "radar": lambda runs: tables.radar(runs, costs_table())}  # fmt: skip
    assert "SOC: diverged" in texts(draw(makes[name](runs))).replace(" XS", "")
    assert "diverged" not in texts(draw(makes[name](whole)))
    assert "SOC: diverged" in texts(
        radius_curves.robustness_curve(tables.mean_curves(curves(("aol",)).assign(size="XS", seed=0),
                                                  runs[runs.layer.isin(["aol", "soc"])], "XS"))
    )  # fmt: skip


@pytest.mark.parametrize("unit", ["s", "bytes", "images/s"])
@pytest.mark.parametrize(("least", "most"), [(3, 4), (90, 5000), (1e3, 3e9), (0.002, 600), (1, 1)])
def test_ticks_are_evenly_spaced(least, most, unit):
    """1, 2, 5, 10, ... without a gap, or powers of ten with equal gaps; each text is the tick's own number."""
    ticks = panels._ticks(*panels.limits(least, most))
    assert 2 <= len(ticks) <= panels.MOST_TICKS
    leads = {f"{tick:e}"[0] for tick in ticks}
    assert leads <= {"1", "2", "5"}
    factors = [high / low for low, high in itertools.pairwise(ticks)]
    assert max(factors) / min(factors) < 1.26 or (leads != {"1"} and max(factors) <= 2.6)
    sizes = {name: size for size, name in panels._UNITS[unit]}
    for tick in ticks:
        number, name = panels._text(tick, unit)
        assert float(number.replace(",", "")) * sizes[name] == pytest.approx(tick)


def test_layers_at_one_size_stand_side_by_side():
    (axis, *_) = cost_figures.memory(tables.memory(costs_table())).axes
    places = {line.get_color(): line.get_xdata()[0] for line in axis.lines if len(line.get_xdata()) > 1}
    assert len(set(places.values())) == len(places) == len(LAYERS)


@pytest.mark.parametrize("name", PICTURES)
def test_ours_alone_and_the_papers_alone(name):
    draw, make = PICTURES[name]
    table = make(("XS",))
    for source in ("ours", "paper"):
        part = table[table.source == source]
        assert len(drawn(draw(part))) < len(drawn(draw(table)))
        other = {"ours": "paper", "paper": "ours"}[source]
        assert f"{other}:" not in texts(draw(part))


@pytest.mark.parametrize(
    ("name", "unit"),
    [("training_time", r"\(s"), ("inference_throughput", "images/s"), ("memory", "MB"), ("ranking", "%"),
     ("accuracy", "%")],
)  # fmt: skip
def test_axes_have_units(name, unit):
    draw, make = PICTURES[name]
    for axis in draw(make(FOUR)).axes:
        if axis.get_visible():
            labels = axis.get_xlabel() + axis.get_ylabel()
            assert re.search(unit.replace("MB", "[MG]B"), labels), labels


def test_bars_are_sorted_and_labelled():
    table = tables.ranking(runs_table())
    (first, *_) = rankings.ranking(table).axes
    widths = [patch.get_width() for patch in first.patches]
    assert widths == sorted(widths, reverse=True)
    best = table[table.source == "ours"].sort_values("value").iloc[-1]
    assert widths[0] == best.value
    assert first.get_yticklabels()[0].get_text() == f"{style.display_name(best.layer)} {best['size']}"


def test_curves_are_the_shares():
    figure = radius_curves.robustness_curve(curves())
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    np.testing.assert_allclose(lines["AOL"].get_xdata(), [0, 36, 72, 255])
    expected = 100 * curves(("standard", "aol")).query("layer == 'aol'").share
    np.testing.assert_allclose(lines["AOL"].get_ydata(), expected)
    assert "MyConv" in lines


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda t: t.drop(columns="low"), "low"),
        (lambda t: t[:0], "no rows"),
        (lambda t: t.assign(measure="speed"), "speed"),
        (lambda t: t.assign(unit="h"), "'h'"),
        (lambda t: t.assign(value=-1.0, low=np.nan, high=np.nan), "-1.0"),
        (lambda t: pd.concat([t, t[:1]]), "two values"),
        (lambda t: t.assign(high=t.value / 2, low=t.value / 4), "not between"),
    ],
)
def test_tables_that_cannot_be_drawn_are_refused(change, named):
    table = tables.training_time(costs_table(), "digits", 1437)
    with pytest.raises(LiprefError, match=named):
        cost_figures.training_time(change(table))


def test_a_curve_that_grows_is_refused():
    table = curves()
    table.loc[table.radius == 1.0, "share"] = 0.95
    with pytest.raises(LiprefError, match="grows"):
        radius_curves.robustness_curve(table)


def test_looks_differ_without_colour():
    """Built-in layers, excluded ones and one's own: markers, line styles and hatches tell them apart in greyscale."""
    styles = style.layer_styles([*LAYERS, *EXCLUDED, "One", "Two", "Three"])
    assert len({look.marker for look in styles.values()}) == len(styles)
    assert len({(look.linestyle, look.hatch) for look in styles.values()}) == len(styles)
    for look in styles.values():
        assert np.dot(matplotlib.colors.to_rgb(look.color), (0.299, 0.587, 0.114)) < 0.72  # dark enough on white


def test_a_layer_looks_the_same_everywhere():
    everywhere = style.layer_styles([*LAYERS, "Mine"])
    assert style.layer_styles(["soc"])["soc"] == everywhere["soc"]
    assert style.layer_styles(["Mine", "soc"])["Mine"] == everywhere["Mine"]
    assert style.layer_styles(["Mine", "Other"])["Other"] != everywhere["Mine"]


SCRIPT = """
import sys
sys.path.insert(0, "tests")
from pathlib import Path
from fake_tables import costs_table
from lipref.paper import cost_figures, style, tables
style.save(cost_figures.memory(tables.memory(costs_table())), Path(sys.argv[1]))
"""


def test_the_same_picture_is_the_same_bytes(tmp_path):
    table = tables.memory(costs_table())
    first = [path.read_bytes() for path in style.save(cost_figures.memory(table), tmp_path / "a")]
    second = [path.read_bytes() for path in style.save(cost_figures.memory(table), tmp_path / "b")]
    subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path / "c")], cwd=ROOT, check=True)
    third = [(tmp_path / f"c.{suffix}").read_bytes() for suffix in ("png", "pdf")]
    assert first == second == third
    assert first[0].startswith(b"\x89PNG")
    assert b"/CreationDate" not in first[1]
    assert b"/Type3" not in first[1]


def test_a_picture_that_was_shown_is_saved_as_one_that_was_not(tmp_path):
    """A notebook's kernel shows what it saves; `lipref figures` does not."""
    table = pd.read_csv(ROOT / "figures" / "table1_complexity_counts.csv").fillna({"way": ""})
    unseen = [path.read_bytes() for path in style.save(exponents_figure.exponents(table), tmp_path / "unseen")]
    picture = exponents_figure.exponents(table)
    assert picture._repr_png_() == picture._repr_png_()
    assert [path.read_bytes() for path in style.save(picture, tmp_path / "seen")] == unseen


@pytest.mark.parametrize("name", ["a$b$", "q$^$x", "a$"])
def test_dollar_signs_of_a_name_are_no_formula(name, tmp_path):
    figure = table2.accuracy(tables.accuracy(runs_table(dataset=name), name))
    style.save(figure, tmp_path / "figure")
    named = [text for text in figure.findobj(matplotlib.text.Text) if name in text.get_text()]
    assert named
    assert not any(text.get_parse_math() for text in named)
    style.save(style.blank(f"no run on {name}"), tmp_path / "blank")


def test_powers_on_logarithmic_axes_are_formulas(tmp_path):
    with looks.context():
        figure = looks.new_figure(2.0)
        axis = figure.subplots()
        axis.set_yscale("log")
        axis.plot([1, 2], [1e-9, 1e9])
    style.save(figure, tmp_path / "figure")
    visible = (text for text in figure.findobj(matplotlib.text.Text) if text.get_visible())
    powers = [text for text in visible if "10^" in text.get_text()]
    assert powers
    assert all(text.get_parse_math() for text in powers)
