"""Whether ours may be compared, records that are there already, and what is drawn of the authors' runs."""

import json

import numpy as np
import pandas as pd
import pytest
from fake_tables import costs_table, runs_table

from lipref.errors import LiprefError
from lipref.paper import authors_runs, comparable, comparison, cost_figures, figure8, published, rankings, tables
from lipref.paper.comparison import VARIANTS
from lipref.paths import RESULTS
from lipref.runs import present

RUNS = json.loads((RESULTS / "digits-xs" / "records.json").read_text())
COSTS = json.loads((RESULTS / "digits-xs" / "costs.json").read_text())
LIKE_THEIRS = {"image_size": 32, "batch_size": 256, "device": "cuda", "machine": "NVIDIA A100-SXM4-80GB"}


def on_cifar10(budget="24h"):
    runs = runs_table(layers=("aol", "soc"), dataset="cifar10")
    return runs.assign(epochs=[published.epochs("cifar10", "XS", layer, budget) for layer in runs.layer])


def test_only_runs_of_the_papers_data_and_epochs_are_compared():
    assert comparable.reason_of_runs(on_cifar10()) == ""
    assert comparable.reason_of_runs(runs_table()[:0]) == ""
    assert "trained for" in comparable.reason_of_runs(on_cifar10("2h"))
    for name in ("digits", "cifar10-jpeg"):
        assert name in comparable.reason_of_runs(on_cifar10().assign(dataset=name))


@pytest.mark.parametrize(
    ("change", "times", "memory"),
    [({}, "", ""), ({"machine": "NVIDIA H200"}, "H200", ""), ({"device": "cpu"}, "", "CPU"),
     ({"image_size": 8}, "side 8", "side 8"), ({"batch_size": 64}, "batches of 64", "batches of 64")],
)  # fmt: skip
def test_only_measurements_like_the_papers_are_compared(change, times, memory):
    costs = costs_table().assign(**LIKE_THEIRS | change)
    for found, expected in ((comparable.reason_of_times(costs), times), (comparable.reason_of_memory(costs), memory)):
        assert expected in found
        assert bool(expected) == bool(found)
    assert comparable.reason_of_times(pd.DataFrame()) == comparable.reason_of_memory(pd.DataFrame()) == ""


def test_a_ranking_is_compared_with_the_same_data_set():
    runs = on_cifar10()
    table = comparable.of_dataset(tables.ranking(runs, networks=0), "cifar10")
    found = comparable.differences(table, "both", comparable.SHARES)
    assert len(found) == 27
    assert set(found[found.verdict != comparison.NOT_RUN].layer) == {"aol", "soc"}
    assert len(comparable.people(found)) == 2
    lines = comparable.rankings(tables.ranking(runs, networks=0), "cifar10").splitlines()
    assert [line.split()[2] for line in lines] == ["25", "26", "27"]
    (first, *_) = comparable.rankings(tables.ranking(runs, networks=0), "digits", "another data set").splitlines()
    assert first.split()[2] == "27"


def test_a_variant_of_one_source_compares_nothing():
    table = comparable.of_dataset(tables.ranking(on_cifar10(), networks=0), "cifar10")
    for variant in ("published", "ours"):
        found = comparable.differences(table, variant, comparable.SHARES)
        assert found.empty
        assert comparable.say(found, variant) == f"Only {variant}: nothing to compare."
        assert "nothing" in comparable.people(found).iloc[0, 0]


def test_what_cifar10_lacks():
    costs = costs_table(layers=("aol",)).assign(**LIKE_THEIRS)
    runs, measured = comparable.cifar10(on_cifar10(), costs).splitlines()
    assert runs.startswith("Not run: 25 networks")
    assert measured.startswith("Not measured: 29 networks")
    assert comparable.cifar10(runs_table(), costs_table()).count("27 networks") == 1


# --- rankings


def test_a_ranking_by_accuracy_has_the_networks_of_figure_5():
    by_cra, by_accuracy = tables.ranking(runs_table()), tables.ranking(runs_table(), "accuracy")
    for setting, rows in by_accuracy[by_accuracy.source == "paper"].groupby("setting"):
        same = by_cra[by_cra.setting == setting]
        assert set(zip(rows.layer, rows["size"], strict=True)) == set(zip(same.layer, same["size"], strict=True))
        assert rows.value.is_monotonic_decreasing
        assert (rows.value.to_numpy() > 0).all()
    assert not by_accuracy.value.isna().any()
    axes = rankings.ranking(by_accuracy).axes
    assert {axis.get_xlabel() for axis in axes} == {"accuracy (%)"}
    with pytest.raises(LiprefError, match="shows one of them"):
        rankings.ranking(pd.concat([by_cra, by_accuracy]))


def test_all_networks_are_97_bars():
    assert tables.ranking(runs_table()[:0], networks=10).setting.value_counts().tolist() == [27, 17, 10, 10]
    assert len(tables.ranking(runs_table()[:0], networks=0)) == len(tables.poster_ranking()) == 97
    assert sum(len(axis.patches) for axis in rankings.ranking(tables.poster_ranking()).axes) == 97
    assert "best three" in " ".join(tables.ranking(runs_table(), networks=3).setting)


# --- what is there already


def test_records_of_another_data_set_are_left_out_and_said():
    said = []
    table, records = present.runs("cifar10", say=said.append, records="data/results/digits-xs")
    assert (len(table), records) == (0, [])
    assert present.costs("tiny-imagenet-200", say=said.append, records="data/results/digits-xs").empty
    assert len(said) == 2
    with pytest.raises(LiprefError, match="no such folder"):
        present.costs("cifar10", records="data/none")


def test_records_that_fit_are_taken(tmp_path):
    config = {"dataset": "cifar10", "train_images": 50_000}
    records = [record | {"config": record["config"] | config} for record in RUNS]
    (tmp_path / "records.json").write_text(json.dumps([*records, RUNS[0]]))
    table, found = present.runs("cifar10", layers="aol,soc", records=str(tmp_path))
    assert (set(table.layer), len(found)) == ({"aol", "soc"}, 2)
    shape = {"image_size": 64, "channels": 3, "num_classes": 200}
    costs = [record | {"config": record["config"] | shape} for record in COSTS]
    other = COSTS[0] | {"config": costs[0]["config"] | {"machine": "another"}}
    (tmp_path / "costs.json").write_text(json.dumps([other, *costs, *COSTS]))
    said = []
    table = present.costs("tiny-imagenet-200", records=str(tmp_path), say=said.append)
    assert len(table) == len(COSTS)
    assert table.machine.nunique() == 1
    assert "1 measurements of other circumstances" in said[0]
    assert set(present.costs("tiny-imagenet-200", "S", "lot", str(tmp_path), said.append)["size"]) == {"S"}


# --- Figure 8


@pytest.mark.parametrize("variant", VARIANTS)
def test_tiny_imagenet_has_a_panel_for_every_measure(variant):
    for costs in (pd.DataFrame(), costs_table().assign(image_size=64)):
        table = comparison.variant(figure8.table(costs), variant)
        if table.empty:
            continue
        blanks = figure8.blanks(variant)
        figure = cost_figures.beside(table, blanks)
        assert len(figure.axes) == len(blanks)
        empty = sum(text.get_text() in set(blanks.values()) for axis in figure.axes for text in axis.texts)
        filled = len(table.groupby(["measure", "source"]))
        assert empty + filled == len(blanks)


def test_tiny_imagenets_times_are_table_8s():
    rows = figure8.table(pd.DataFrame())
    (value,) = rows[(rows.layer == "aol") & (rows["size"] == "XS")].value
    assert value == pytest.approx(7200 / published.epochs("tiny-imagenet-200", "XS", "aol", "2h"), abs=1e-3)
    assert set(rows.measure) == {"training time per epoch"}
    assert "ECO" not in comparable.measurements(rows, figure8.DATASET)


# --- the authors' runs


def test_curves_end_with_nan_and_are_the_logged_shares():
    table = authors_runs.curves([])
    figure = authors_runs.learning_curves(table)
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["paper: XS", "paper: S", "paper: M"]
    lines = [line for axis in figure.axes for line in axis.lines]
    assert len([line for line in lines if len(line.get_xdata()) > 1]) == 26  # one folder has no curve
    crosses = [line for line in lines if line.get_marker() == "x"]
    assert len(crosses) == 5
    assert all(line.get_ydata()[0] > 1 for line in crosses)  # before the loss is lost, not at chance
    run = table[table.run == "20230822_081440.4"]
    (drawn,) = [line for line in figure.axes[0].lines if line.get_label() == "AOL"]
    np.testing.assert_allclose(drawn.get_ydata(), 100 * run.test_cra_36_255)
    with pytest.raises(LiprefError, match="no rows"):
        authors_runs.learning_curves(table[:0])


def test_ours_stand_beside_the_authors_runs():
    record = RUNS[1]
    table = authors_runs.curves([record])
    ours = table[table.source == "ours"]
    assert len(ours) == len(record["history"])
    assert ours.share.iloc[-1] == 1
    assert ours.test_accuracy.iloc[-1] == record["certificate"]["accuracy"]["value"]
    assert len(authors_runs.learning_curves(table).axes) == 6
    runs = runs_table(layers=("aol",), dataset="cifar10").assign(weight_decay=0.0, train_seconds=7200.0)
    both = authors_runs.runs(runs)
    assert both.source.tolist() == ["paper"] * 27 + ["ours"]
    assert both.wall_hours.iloc[-1] == 2
    found = comparison.differences(authors_runs.tidy(both, runs), comparable.SHARES)
    assert len(found) == 42  # 21 places have a run that ended well
    assert (found.verdict != comparison.NOT_RUN).sum() == 2


def test_repeats_count_once_and_failures_are_named():
    runs = authors_runs.runs(pd.DataFrame())
    assert "27 published runs, 21 with a result" in authors_runs.say(runs)
    assert "CPL S (diverged nan, epoch 3294 of 9564)" in authors_runs.say(runs)
    tidy = authors_runs.tidy(runs, pd.DataFrame())
    (value,) = tidy[(tidy.layer == "sll") & (tidy["size"] == "S") & (tidy.measure == "CRA(36/255)")].value
    assert value == pytest.approx(61.98)


@pytest.mark.parametrize("name", ["statistics", "layers", "networks"])
def test_files_are_whole_and_text(name):
    table = authors_runs.file(name)
    assert len(authors_runs.people(table)) == len(table) > 0
    assert authors_runs.people(table).map(lambda cell: isinstance(cell, str)).all().all()
    assert authors_runs.file(name, "ours").empty
