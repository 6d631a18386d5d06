"""The first experiments: AOL beside the unconstrained network, layers under one time, memory against width."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from fake_tables import costs_table, diverged, runs_table
from hypothesis import given
from hypothesis import strategies as st

from lipref.bench import measurements
from lipref.errors import LiprefError
from lipref.nets import BASE_WIDTH
from lipref.paper import experiment1, experiment2, experiment3, experiment3_figure, tables
from lipref.paper.experiment2 import Timed
from lipref.paper.style import display_name
from lipref.paths import RESULTS
from lipref.runs import records, sweeps
from lipref.runs.budgets import epochs_in
from lipref.runs.study import Study

FOUR = tuple(BASE_WIDTH)
RECORDS = json.loads((RESULTS / "digits-xs" / "records.json").read_text())


@pytest.fixture
def nothing_runs(monkeypatch):
    def never(*_, **__):
        raise AssertionError("something was computed")

    monkeypatch.setattr(sweeps, "run", never)
    monkeypatch.setattr(measurements, "run", never)


# --- curves in records


def test_curves_of_records():
    (record,) = (record for record in RECORDS if record["config"]["layer"] == "aol")
    shares = records.against_radius([record])
    assert shares.share.iloc[0] == record["certificate"]["accuracy"]["value"]
    learning = records.learning([record])
    assert learning.epoch.tolist() == list(range(1, 21))
    assert learning.accuracy.iloc[-1] == record["history"][-1]["accuracy"]
    bounds = records.layer_bounds([record])
    assert bounds.bound.tolist() == [bound for *_, bound in record["layer_bounds"]]
    assert bounds.bound.prod() == pytest.approx(record["certificate"]["lipschitz_bound"], rel=1e-6)
    lost = record | {"status": "diverged"}
    assert records.against_radius([lost]).empty
    assert records.layer_bounds([lost]).empty


# --- experiment 1


def first_table(runs=None):
    runs = runs_table(layers=("standard", "aol")) if runs is None else runs
    runs = runs.assign(proved=True, lipschitz_bound=[300.0, 0.99])
    bounds = pd.DataFrame(
        {"layer": ["standard", "aol", "aol"], "size": "XS", "seed": 0, "number": [1, 1, 2], "name": "x",
         "bound": [300.0, 1.0, 0.99]}
    )  # fmt: skip
    costs = costs_table(layers=("standard", "aol"), sizes=("XS", "S"))
    return experiment1.table(runs, costs, bounds, "digits", 1437), bounds


def test_a_first_table_has_ours_and_theirs():
    table, bounds = first_table()
    assert list(table.columns) == list(tables.COLUMNS)
    assert set(table["size"]) == {"XS"}
    ours = table[table.source == "ours"]
    assert set(ours.measure) == set(experiment1.MEASURES)
    assert set(table[table.source == "paper"].layer) == {"standard", "aol"}  # times and memory of the former
    people = experiment1.people(table).set_index("measure")
    assert people.loc["CRA(36/255) (%)", "AOL: ours"].startswith("72.0 [")
    assert people.loc["training memory (MB)", "AOL: ours"] == "2.0"
    assert experiment1.proved(bounds).split("\n")[0].startswith("Standard: 0 of 1 layers")
    assert experiment1.proved(bounds).split("\n")[1].startswith("AOL: 2 of 2 layers")
    assert experiment1.price(table, "aol").startswith("AOL classifies 91.0 %")


def test_a_first_network_that_diverged_is_said():
    table, _ = first_table(diverged(runs_table(layers=("standard", "aol")), "aol"))
    assert "gave no value" in experiment1.price(table, "aol")
    assert "diverged" in experiment1.people(table).set_index("measure").loc["accuracy (%)", "AOL: ours"]
    assert table[(table.layer == "aol") & (table.measure == experiment1.NETWORK)].empty


def test_a_first_picture_has_three_panels():
    mean = pd.DataFrame({"layer": ["aol"] * 2, "radius": [0, 0.5], "share": [0.9, 0.1], "note": ""})
    learning = pd.DataFrame({"layer": ["aol"] * 2, "epoch": [1, 2], "accuracy": [0.5, 0.8]})
    bounds = pd.DataFrame({"layer": ["aol"] * 2, "number": [1, 2], "bound": [0.9, 1000.0]})
    left, middle, right = experiment1.first_network(mean, learning, bounds).axes
    assert [*left.lines[-1].get_ydata()] == [90.0, 10.0]
    assert [*middle.lines[-1].get_ydata()] == [50.0, 80.0]
    assert 1000.0 in [value for line in right.lines for value in line.get_ydata()]
    assert right.get_yscale() == "log"
    with pytest.raises(LiprefError, match="no run"):
        experiment1.first_network(mean.assign(share=math.nan), learning, bounds)


def test_the_first_experiment_needs_nothing_computed(nothing_runs):
    study = Study(layers="aol,standard")
    assert (records.layer_bounds(study.run_records).query("layer == 'aol'").bound <= 1).all()


# --- experiment 2


@given(st.floats(1, 1e5), st.floats(1e-4, 0.01), st.integers(1, 5000), st.integers(1, 512))
def test_epochs_fit_and_one_more_does_not(seconds, step, images, batch):
    epoch = step * math.ceil(images / batch)
    if seconds < epoch:
        with pytest.raises(LiprefError, match="shorter than one epoch"):
            epochs_in(seconds, step, images, batch)
    else:
        found = epochs_in(seconds, step, images, batch)
        assert found * epoch <= seconds * (1 + 1e-12)
        assert (found + 1) * epoch > seconds * (1 - 1e-12)


@pytest.mark.parametrize("wrong", [0, -1.0, math.nan, math.inf])
def test_a_budget_is_positive(wrong):
    with pytest.raises(LiprefError, match="above 0"):
        epochs_in(wrong, 0.1, 100, 10)


def test_the_default_comparison_is_committed(nothing_runs):
    compared = Timed()
    assert compared.runs.layer.tolist() == ["cpl", "soc"]
    assert compared.runs.set_index("layer").epochs.to_dict() == compared.epochs
    steps = {record["config"]["layer"]: record["train_seconds"]["median"] for record in compared.costs}
    for layer, epochs in compared.epochs.items():
        assert epochs * 23 * steps[layer] <= 20 < (epochs + 1) * 23 * steps[layer]
    assert set(compared.table.source) == {"paper", "ours"}
    text = experiment2.sentence(compared.table, 20)
    assert all(f"{display_name(layer)} {epochs}" in text for layer, epochs in compared.epochs.items())


def test_another_budget_is_trained_with_the_committed_learning_rate(monkeypatch, tmp_path):
    seen = []

    def run(plan, _):
        seen.append(plan)
        (task,) = plan.tasks()
        record = next(record for record in RECORDS if record["config"]["layer"] == task[1])
        settings = record["config"]["settings"] | {"epochs": plan.settings.epochs}
        yield task, [record | {"config": record["config"] | {"settings": settings}}]

    monkeypatch.setattr(sweeps, "run", run)
    compared = Timed("soc,cpl", seconds=60, costs=str(RESULTS / "digits-xs"), folder=tmp_path, say=lambda text: None)
    assert compared.runs.layer.tolist() == ["soc", "cpl"]
    rates = {record["config"]["layer"]: record["config"]["settings"]["learning_rate"] for record in RECORDS}
    assert [(plan.layers, plan.settings.learning_rate, plan.given) for plan in seen] == [
        (("soc",), rates["soc"], True), (("cpl",), rates["cpl"], True)
    ]  # fmt: skip
    assert [plan.settings.epochs for plan in seen] == [compared.epochs["soc"], compared.epochs["cpl"]]
    written = {path.name for path in compared.write(tmp_path / "kept")}
    assert written == {"table.md", "table.csv", "records.json", "costs.csv", "costs.json"}


def test_what_cannot_be_compared_is_refused(nothing_runs, tmp_path):
    with pytest.raises(LiprefError, match="shorter than one epoch"):
        Timed(seconds=0.1).runs  # noqa: B018
    with pytest.raises(LiprefError, match="one size"):
        Timed(size="XS,S")
    (tmp_path / "costs.json").write_text("[]")
    with pytest.raises(LiprefError, match="lacks a measurement"):
        Timed(costs=str(tmp_path)).costs  # noqa: B018


def compare(cra):
    """The sentence for layers with these values and intervals of CRA."""
    lines = []
    for layer, (value, low, high) in cra.items():
        shared = dict.fromkeys(tables.COLUMNS, "") | {"source": "ours", "layer": layer, "low": low, "high": high}
        lines.append(shared | {"measure": experiment2.EPOCHS, "value": 7.0})
        lines.append(shared | {"measure": "CRA(36/255)", "value": value})
    return experiment2.sentence(pd.DataFrame(lines), 20)


def test_the_sentence_follows_the_intervals():
    assert "SOC is ahead, and no interval" in compare({"cpl": (50, 45, 55), "soc": (70, 65, 75)})
    assert "SOC overlaps with that of CPL" in compare({"cpl": (60, 55, 66), "soc": (70, 65, 75)})
    lost = compare({"cpl": (math.nan,) * 3, "soc": (70, 65, 75)})
    assert "Diverged: CPL" in lost
    assert "no two values" in lost


# --- experiment 3

PARTS = st.floats(0, 1e3).map(lambda value: round(value, 3))


@given(st.floats(1, 1e3), PARTS, PARTS, st.sampled_from([3, 4]))
def test_the_fit_finds_what_made_the_numbers(fixed, linear, square, count):
    widths = np.array([16.0, 32, 64, 128])[:count]
    made = experiment3.Fit(fixed, linear, square)
    found = experiment3.fit(widths, made.at(widths))
    assert found.at(widths) == pytest.approx(made.at(widths), rel=1e-6)
    assert min(found.fixed, found.linear, found.square) >= 0


@given(st.floats(0, 1e9), st.floats(0, 1e6), st.floats(0, 1e5), st.floats(1, 1e12))
def test_the_width_that_fits_fills_the_memory(fixed, linear, square, size):
    fit = experiment3.Fit(fixed, linear, square)
    width = fit.width(size)
    assert width >= 0
    if 0 < width < 1e100:
        assert fit.at(width) == pytest.approx(size, rel=1e-6)
    elif width == 0:
        assert fixed >= size
    else:
        assert fit.at(1.0) <= size


def test_two_widths_decide_nothing():
    assert experiment3.fit([16, 32], [1, 2]) is None
    table = experiment3.table(tables.memory(costs_table(sizes=("XS", "S"))), 16)
    fitting = table[(table.source == "ours") & (table.measure == experiment3.FITS)]
    assert fitting.value.isna().all()
    assert set(fitting.note) == {"needs 3 sizes, has 2"}
    assert "ours: no layer has the 3 sizes" in experiment3.sentence(table, 16)


def test_ours_and_theirs_stop_where_the_fit_says():
    table = experiment3.table(tables.memory(costs_table(sizes=FOUR)), 16)
    for (source, setting, layer), fit in experiment3.fits(table).items():
        rows = table[(table.source == source) & (table.setting == setting) & (table.layer == layer)]
        (width,) = rows[rows.measure == experiment3.FITS].value
        assert fit.at(width) == pytest.approx(16e9)
    checks = experiment3.held_out(table)
    assert ("paper", "lot") not in {(key[0], key[2]) for key in checks}  # three sizes: none to spare
    # 4^power bytes at widths 16 2^power: the square alone, which three of the four predict exactly.
    assert all(value == pytest.approx(1) for key, value in checks.items() if key[0] == "ours")
    people = experiment3.people(table).set_index(["source", "layer"])
    assert people.loc[("paper", "LOT"), "L (GB)"].startswith("(fit: ")
    assert people.loc[("ours", "AOL"), "L (GB)"] == "0.128"
    assert "extrapolated, not measured" in experiment3.sentence(table, 16)


def test_the_widths_are_drawn():
    table = experiment3.table(tables.memory(costs_table(sizes=FOUR)), 16)
    paper, ours = experiment3_figure.memory_width(table, experiment3.fits(table), 16).axes
    marks = {tuple(line.get_ydata()) for line in ours.lines if line.get_marker() not in ("None", None, "")}
    assert any(np.allclose(values, [0.002, 0.008, 0.032, 0.128]) for values in marks if len(values) == 4)
    assert [line.get_ydata()[0] for line in paper.lines].count(16) == 1


@pytest.mark.parametrize("wrong", [0, -1.0, math.nan, math.inf])
def test_a_memory_is_positive(wrong):
    with pytest.raises(LiprefError, match="positive number of GB"):
        experiment3.table(tables.memory(costs_table()), wrong)
    with pytest.raises(LiprefError, match="no measured training memory"):
        experiment3.table(tables.memory(costs_table())[:0], 16)
