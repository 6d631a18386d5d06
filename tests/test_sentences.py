"""What stands in words beside a table: computed from it, so that it is true for every choice of parameters."""

import pandas as pd
import pytest
from fake_tables import costs_table, diverged, runs_table

from lipref.layers import LAYERS
from lipref.paper import published, sentences, tables


def test_extremes_are_those_of_the_largest_common_size():
    costs = costs_table()
    assert sentences.extremes(tables.memory(costs)).splitlines() == [
        "training memory: most LOT S (80.0 MB), least Standard S (4.0 MB)",
        "inference memory: most LOT S (24.0 MB), least Standard S (1.2 MB)",
    ]
    costs = costs[~((costs.layer == "lot") & (costs["size"] == "S"))]
    assert "most LOT XS (20.0 MB)" in sentences.extremes(tables.memory(costs))


def test_growth_is_the_ratio_of_the_outer_sizes():
    costs = costs_table(layers=("aol", "soc"))
    costs.loc[(costs.layer == "soc") & (costs["size"] == "S"), ["train_seconds", "train_seconds_high"]] *= 2
    paper, ours = sentences.growth(tables.training_time(costs, "digits", 64)).splitlines()
    assert ours == "ours, from XS to S: training time per epoch grows 4.0 times (AOL) to 8.0 times (SOC)"
    assert paper.startswith("paper, from XS to M: ")  # LOT L did not fit
    assert "ours" not in sentences.growth(tables.training_time(costs_table(sizes=("XS",)), "digits", 64))


def test_noise_is_that_of_one_and_the_same_operation():
    text = sentences.measurement_noise(tables.inference_throughput(costs_table()))
    assert text.startswith("Standard, AOL and BCOP fold to one plain convolution")
    assert "up to 200 %" in text  # 1 to 3 in the table
    assert "Fewer than two" in sentences.measurement_noise(tables.inference_throughput(costs_table(layers=("soc",))))


@pytest.mark.parametrize("name", LAYERS)
def test_what_folds_to_a_convolution_does(name):
    layer = LAYERS[name](4, 4, 3, padding=1).eval()
    assert sentences.folds_to_convolution(name) == (type(layer.fold((8, 8))).__name__ == "Conv2d")


def test_the_best_and_who_overlaps():
    table = tables.robustness(runs_table(layers=("standard", "aol", "lot")))  # accuracies 90, 91, 92: -3, +2
    first, *_ = sentences.best(table).splitlines()
    assert first == "CRA(0): highest is LOT XS (92.0 %), intervals overlap with AOL XS, Standard XS"
    narrow = table.assign(low=table.value, high=table.value)
    assert "no interval overlaps" in sentences.best(narrow)
    assert "LOT" not in sentences.best(tables.robustness(diverged(runs_table(layers=("aol", "lot")), "lot")))


def test_explained_variance(monkeypatch):
    table = pd.DataFrame(
        {"layer": ["aol", "aol", "soc", "soc"], "size": ["XS", "S"] * 2, "cra_36": [0.1, 0.2, 0.4, 0.5]}
    )
    for module in (published, published.rankings):
        monkeypatch.setattr(module, "ranking", lambda *_: table)
    assert published.explained("any", "layer") == pytest.approx(0.09 / 0.1)
    assert published.explained("any", "size") == pytest.approx(0.01 / 0.1)
    assert "CIFAR-10: layer 90 %, size 10 %" in sentences.explained_variance()


def test_the_layer_explains_more_of_the_papers_figure_than_the_size():
    shares = {factor: published.explained("CIFAR-10", factor) for factor in ("layer", "size")}
    assert 0 < shares["size"] < shares["layer"] < 1


def test_the_same_order():
    rows = [(source, layer, score) for source, scores in {"paper": (1, 2, 3), "ours": (2.0, 3.5, 5.0)}.items()
            for layer, score in zip(("aol", "lot", "soc"), scores, strict=True)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["source", "layer", "value"]).assign(measure="accuracy")
    assert "accuracy 1.00" in sentences.same_order(table)
    table.loc[table.source == "ours", "value"] = [5.0, 3.5, 2.0]
    assert "accuracy -1.00" in sentences.same_order(table)
    assert "Too few" in sentences.same_order(table[table.layer != "lot"])
    assert "Too few" in sentences.same_order(table[table.source == "ours"])


def test_rates_at_the_edge_of_the_grid_are_named():
    runs = runs_table(layers=("aol", "lot", "soc")).assign(learning_rate=[0.01, 0.1, 0.3])
    assert "for AOL XS 0.01, SOC XS 0.3: a better one" in sentences.edges(runs)
    assert sentences.edges(runs.assign(hyperparameters="paper")) == ""
    assert sentences.edges(runs[:0]) == ""
