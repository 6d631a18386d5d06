"""What tables and figures show: every number is one of the records' or one of the paper's."""

import math

import numpy as np
import pandas as pd
import pytest
from fake_tables import COSTLY, costs_table, diverged, runs_table

from lipref.errors import LiprefError
from lipref.layers import LAYERS, resolve
from lipref.paper import artifacts, figure1, published, readable, table1, tables
from lipref.paths import PAPER
from lipref.runs.overview import order

TIDY = {
    "accuracy": lambda: tables.accuracy(runs_table(), "digits"),
    "ranking": lambda: tables.ranking(runs_table()),
    "robustness": lambda: tables.robustness(runs_table()),
    "training_time": lambda: tables.training_time(costs_table(), "digits", 1437),
    "inference_throughput": lambda: tables.inference_throughput(costs_table()),
    "memory": lambda: tables.memory(costs_table()),
    "radar": lambda: tables.radar(runs_table(), costs_table()),
}


def ours(table, layer, size="XS", measure=None):
    found = table[(table.source == "ours") & (table.layer == layer) & table["size"].isin([size, "all"])]
    found = found if measure is None else found[found.measure == measure]
    assert len(found) == 1
    return found.iloc[0]


@pytest.mark.parametrize("name", TIDY)
def test_every_table_is_tidy_and_has_all_layers(name):
    table = TIDY[name]()
    assert tuple(table.columns) == tables.COLUMNS
    assert not table.duplicated(["source", "setting", "layer", "size", "measure"]).any()
    expected = set(COSTLY) - ({"standard"} if name == "radar" else set())
    assert set(table[table.source == "ours"].layer) == expected
    assert np.isfinite(table.value).all()
    bounded = table.dropna(subset=["low", "high"])
    assert (bounded.low <= bounded.value).all()
    assert (bounded.value <= bounded.high).all()
    assert table[table.source == "ours"].setting.nunique() == 1
    people = readable.wide(table)
    assert set(people.layer) == set(table.layer)
    assert people.map(lambda cell: isinstance(cell, str)).all().all()
    assert "MyConv" in set(people.layer)


def test_values_are_those_of_the_records():
    runs, costs = runs_table(), costs_table()
    line = ours(tables.accuracy(runs, "digits"), "soc", measure="CRA(36/255)")
    row = runs[runs.layer == "soc"].iloc[0]
    assert (line.value, line.low, line.high) == (100 * row.cra_36, 100 * row.cra_36_low, 100 * row.cra_36_high)
    cost = costs[(costs.layer == "soc") & (costs["size"] == "XS")].iloc[0]
    time = ours(tables.training_time(costs, "digits", 1437), "soc")
    assert time.value == pytest.approx(math.ceil(1437 / 64) * cost.train_seconds)
    rate = ours(tables.inference_throughput(costs), "soc")
    assert rate.value == pytest.approx(64 / cost.folded_seconds)
    assert rate.low < rate.value < rate.high
    not_folded = ours(tables.inference_throughput(costs), "MyConv")
    assert not_folded.value == pytest.approx(64 / costs[costs.layer == "MyConv"].infer_seconds.iloc[0])
    peak = ours(tables.memory(costs), "lot", "S", "training memory")
    assert peak.value == 80e6


def test_several_seeds_become_mean_and_deviation():
    runs = runs_table(layers=("aol",), seeds=(0, 1, 2))
    line = ours(tables.accuracy(runs, "digits"), "aol", measure="CRA(36/255)")
    assert line.n == 3
    assert line.value == pytest.approx(71)
    assert line.high - line.value == pytest.approx(100 * runs.cra_36.std())
    assert "71.0 ± 1.0" in readable.wide(tables.accuracy(runs, "digits")).to_string()


def test_what_was_not_run_is_not_shown():
    costs = costs_table(layers=("aol", "lot"))
    costs.loc[costs.layer == "lot", ["status", "train_seconds", "train_peak_bytes"]] = ["out_of_memory", None, None]
    assert set(tables.training_time(costs, "digits", 10).query("source == 'ours'").layer) == {"aol"}
    memory = tables.memory(costs).query("source == 'ours' and layer == 'lot'")
    assert set(memory.measure) == {"inference memory"}
    with pytest.raises(LiprefError, match="no records"):
        readable.wide(memory[:0])
    with pytest.raises(LiprefError, match="no records"):
        readable.by_source(memory[:0])


@pytest.mark.parametrize("name", ["accuracy", "ranking", "robustness"])
def test_what_diverged_is_shown_as_diverged(name):
    make = {"accuracy": lambda runs: tables.accuracy(runs, "digits")}.get(name, getattr(tables, name))
    table = make(diverged(runs_table(layers=("aol", "soc")), "soc"))
    lost = table[(table.source == "ours") & (table.layer == "soc")]
    assert lost.value.isna().all()
    assert set(zip(lost.n, lost.of, lost.note, strict=True)) == {(0, 1, "diverged")}
    people = readable.wide(table[table.source == "ours"]).set_index("layer")
    assert set(people.loc["soc"].drop(["size", "n"])) == {"diverged"}
    assert (people.loc["soc", "n"], people.loc["aol", "n"]) == ("0/1", "1")
    alone = make(diverged(runs_table(layers=("aol",)), "aol")[["dataset", "size", "layer", "seed", "status", "epochs",
                                                              "batch_size", "test_images"]])  # fmt: skip
    assert alone[alone.source == "ours"].value.isna().all()


def test_some_seeds_diverged():
    table = tables.accuracy(diverged(runs_table(layers=("aol",), seeds=(0, 1, 2)), "aol", seeds=(1,)), "digits")
    line = ours(table, "aol", measure="CRA(36/255)")
    assert (line.value, line.n, line.of, line.note) == (pytest.approx(71), 2, 3, "")
    assert readable.wide(table[table.source == "ours"]).n.tolist() == ["2/3"]


def test_curves_name_what_diverged():
    runs = diverged(runs_table(layers=("aol", "soc")), "soc")
    lines = [("aol", seed, radius, 0.8 - radius + seed / 10) for seed in (0, 1) for radius in (0.0, 0.5)]
    curves = pd.DataFrame(lines, columns=["layer", "seed", "radius", "share"]).assign(size="XS")
    means = tables.mean_curves(curves, runs, "XS")
    assert means[means.layer == "aol"].share.tolist() == pytest.approx([0.85, 0.35])
    (lost,) = means[means.layer == "soc"].itertuples()
    assert (math.isnan(lost.share), lost.note) == (True, "diverged")


def test_the_radar_follows_its_rule():
    table = tables.radar(runs_table(), costs_table())
    best, worst = ours(table, "MyConv", measure="training time"), ours(table, "lot", measure="training time")
    assert (best.value, worst.value) == (5, 1)
    middle = ours(table, "soc", measure="training time").value  # 6 between 1.5 and 20, logarithmic
    assert middle == pytest.approx(1 + 4 * math.log(20 / 6) / math.log(20 / 1.5))
    assert ours(table, "aol", measure="robust accuracy").value == 1
    assert ours(table, "MyConv", measure="accuracy").value == 5
    printed = pd.read_csv(PAPER / "radar_scores.csv").set_index("method")
    theirs = table[(table.source == "paper") & (table.layer == "cpl")].set_index("measure").value
    assert theirs["inference memory"] == printed.loc["CPL", "inference_memory"]


def test_scores_of_equals_are_the_middle():
    table = pd.DataFrame({"layer": ["aol", "soc"], "size": "XS", "cra": [0.5, 0.5]})
    assert figure1.scores(table, "cra", False) == {"aol": 3, "soc": 3}
    assert figure1.scores(table[:1], "cra", False) == {"aol": 3}
    assert figure1.scores(table.assign(cra=[0.5, 0.6]), "cra", False) == {"aol": 1, "soc": 5}
    assert figure1.scores(table.assign(cra=[0.5, 0.6]), "cra", True) == {"aol": 5, "soc": 1}
    assert "relative to the layers drawn" in figure1.SCORES
    assert "3 for all where all are equal" in figure1.SCORES


def test_the_radar_names_what_diverged_and_is_a_narrow_table():
    table = tables.radar(diverged(runs_table(), "soc"), costs_table())
    lost = table[(table.layer == "soc") & (table.note == "diverged")]
    assert set(lost.measure) == {"robust accuracy", "accuracy"}
    assert ours(table, "soc", measure="training time").value > 1
    people = readable.by_source(table)
    assert list(people.columns) == ["layer", "source", *tables.RADAR_MEASURES]
    assert people[people.layer == "soc"].source.tolist() == ["paper", "ours"]
    assert people[people.layer == "soc"].accuracy.tolist()[1] == "diverged"
    assert people[people.layer == "MyConv"].source.tolist() == ["ours"]


def test_a_radar_over_sizes_uses_those_that_all_layers_have():
    costs = costs_table()
    costs = costs[~((costs.layer == "lot") & (costs["size"] == "S"))]
    assert ours(tables.radar(runs_table(), costs), "lot", measure="training time").value == 1


def test_published_numbers_are_the_files():
    printed = pd.read_csv(PAPER / "paper_accuracy_by_budget.csv")
    best = published.accuracy("CIFAR-10").set_index(["layer", "size"])
    line = printed.query("dataset == 'CIFAR-10' and kernel_size == 3 and budget_h == 24")
    line = line[(line.method == "SOC") & (line["size"] == "M")]
    assert 100 * best.loc[("soc", "M"), "cra_36"] == pytest.approx(line.cra36_pct.iloc[0])
    assert ("soc", "M_1x1") in best.index
    assert len(published.ranking("CIFAR-10")) == 27
    assert set(published.training_cost().layer) == set(LAYERS)
    for name in ("CIFAR-10", "CIFAR-100", "TinyImageNet"):  # one network has one number, whatever shows it
        both = published.ranking(name).merge(published.accuracy(name), on=["layer", "size"], suffixes=("", "_table"))
        assert len(both) == len(published.ranking(name))
        assert both.cra_36.tolist() == pytest.approx(both.cra_36_table.tolist())
        assert published.ranking(name).cra_36.is_monotonic_decreasing
    failed = published.accuracy("CIFAR-100")
    assert not ((failed.layer == "cpl") & (failed["size"] == "S")).any()  # its run diverged


@pytest.mark.parametrize(
    ("dataset", "size", "layer", "budget", "epochs"),
    [("cifar10", "XS", "aol", "2h", 837), ("cifar100", "M", "lot", "24h", 132), ("cifar10-jpeg", "L", "soc", "2h", 77),
     ("tiny-imagenet-200", "S", "cayley", "10h", 430), ("cifar10", "XS", "standard", "2h", 1157),
     ("tiny-imagenet-200", "L", "standard", "2h", 63)],
)  # fmt: skip
def test_budgets_are_the_papers_epochs(dataset, size, layer, budget, epochs):
    assert published.epochs(dataset, size, layer, budget) == epochs


@pytest.mark.parametrize(
    ("arguments", "named"),
    [(("digits", "XS", "aol", "2h"), "digits"), (("cifar10", "XS", "MyConv", "2h"), "MyConv"),
     (("cifar10", "L", "lot", "2h"), "lot L"), (("cifar10", "XS", "aol", "3h"), "3h")],
)  # fmt: skip
def test_budgets_that_the_paper_lacks_are_refused(arguments, named):
    with pytest.raises(LiprefError, match=named):
        published.epochs(*arguments)


def test_the_layers_formulas_are_the_printed_ones():
    table = table1.table([resolve(name) for name in LAYERS]).set_index("layer")
    assert (table["as printed"] == "yes").all()
    assert table.loc["cayley", "input memory"] == "5/2 M"
    assert table.loc["soc", "input MACs"] == "C t₁"
    assert table.loc["aol", "parameter MACs"] == "c³ k⁴"


def test_a_formula_that_differs_is_seen(monkeypatch):
    printed = published.complexity()
    printed.loc["aol", "parameter_memory"] = "4 P"
    monkeypatch.setattr(published, "complexity", lambda: printed)
    assert table1.table([resolve("aol")])["as printed"].tolist() == ["no"]


def test_formulas_in_numbers():
    given = {"batch_size": 256, "image_size": 32, "channels": 64, "kernel_size": 3, "t": 10, "t1": 6, "t2": 10}
    table = table1.numbers([resolve("aol"), resolve("standard")], **given).set_index("layer")
    assert table.loc["aol", "input MACs (10⁹)"] == f"{256 * 32**2 * 64**2 * 9 / 1e9:.3g}"
    assert table.loc["standard", "parameter MACs (10⁹)"] == "0"
    with pytest.raises(LiprefError, match="channels=0"):
        table1.numbers([], **(given | {"channels": 0}))


def test_ones_own_layer_in_the_complexity_table():
    own = table1.table([resolve("examples/my_layer.py:MyConv")]).iloc[0]
    assert own.layer == "MyConv"
    assert own["input MACs"] == "not given"


def test_files_of_a_table(tmp_path):
    table = tables.accuracy(runs_table(), "digits")
    people = readable.wide(table)
    paths = artifacts.save(tmp_path, "x", table=table, people=people, notes="a note")
    assert [path.name for path in paths] == ["x.csv", "x.md", "x.tex"]
    written = pd.read_csv(tmp_path / "x.csv", dtype={"note": str}).fillna({"note": ""})
    pd.testing.assert_frame_equal(written, table, check_exact=False, check_dtype=False)
    assert "a note" in (tmp_path / "x.md").read_text()
    latex = (tmp_path / "x.tex").read_text()
    assert latex.count(r"\\") == len(people) + 1
    assert "%" not in latex.replace(r"\%", "")
    before = [path.read_bytes() for path in paths]
    assert [
        path.read_bytes() for path in artifacts.save(tmp_path, "x", table=table, people=people, notes="a note")
    ] == before
    assert artifacts.save("", "x", table=table) == []
    assert "c$^{3}$ k$^{4}$" in artifacts.to_latex(table1.table([resolve("aol")]))


def test_the_order_of_tables():
    names = pd.Series(["Zeta", "soc", "Alpha", "standard", "aol"])
    assert names.sort_values(key=order).tolist() == ["standard", "aol", "soc", "Alpha", "Zeta"]
