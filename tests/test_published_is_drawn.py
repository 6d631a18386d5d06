"""Every number of the published files stands in a file under figures/: a dropped row or a changed value is found."""

import numpy as np
import pandas as pd
import pytest

from lipref.paper import published
from lipref.paths import PAPER, ROOT

FIGURES = ROOT / "figures"


def read(name):
    return pd.read_csv(FIGURES / name, dtype={"run": str, "run_id": str, "note": str})


def source(name):
    table = pd.read_csv(PAPER / name, dtype={"run_id": str})
    if "method" in table:
        table["layer"] = table.method.map(published.known_layer)
    return table


def missing(rows, drawn, keys, columns):
    """The rows of a published file without a drawn row with the same keys and, column by column, the same numbers.

    Args:
        rows: The published rows.
        drawn: The rows of a figure's file.
        keys: Published column -> drawn column, compared as text.
        columns: Published column -> (drawn column, factor); empty cells have to be empty there too.
    """
    taken, lost = set(), []
    groups = {key: list(part.index) for key, part in drawn.astype(str).groupby(list(keys.values()), sort=False)}
    for row in rows.to_dict("records"):
        found = groups.get(tuple(str(row[name]) for name in keys), [])
        for index in found:
            pairs = [(row[name], drawn.at[index, to], factor) for name, (to, factor) in columns.items()]
            if index not in taken and all(same(theirs, ours, factor) for theirs, ours, factor in pairs):
                taken.add(index)
                break
        else:
            lost.append(row)
    return lost


def same(theirs, ours, factor):
    if pd.isna(theirs) or isinstance(theirs, str):
        return (pd.isna(theirs) and pd.isna(ours)) or theirs == ours
    return bool(np.isclose(float(theirs) * factor, float(ours), rtol=1e-9, atol=1e-12))


def as_it_is(rows, keys):
    return {name: (name, 1.0) for name in rows.columns if name not in keys and name != "layer"}


def poster():
    rows, drawn = source("cra36_24h_figure_values.csv"), read("figure5_ranking_all.csv")
    titles = rows.dataset.map(published.dataset_title)
    rows["setting"] = titles + ", 24 h, from the poster"
    keys = {"setting": "setting", "layer": "layer", "size": "size"}
    return rows, drawn, keys, {"cra36_pct": ("value", 1.0)}


def printed():
    rows, drawn = source("cra36_24h_figure_values.csv"), read("figure5_ranking.csv")
    rows["setting"] = rows.dataset.map(published.dataset_title) + ", 24 h"
    rows = rows[rows.paper_table_value_pct.notna()]
    keys = {"setting": "setting", "layer": "layer", "size": "size"}
    return rows, drawn, keys, {"paper_table_value_pct": ("value", 1.0)}


def radar():
    rows = source("radar_scores.csv").melt(id_vars=["method", "layer"], var_name="axis", value_name="score")
    rows = rows.assign(measure=rows.axis.str.replace("_", " "), source="paper")
    keys = {"source": "source", "layer": "layer", "measure": "measure"}
    return rows, read("figure1_radar.csv"), keys, {"score": ("value", 1.0)}


def training_time():
    rows = source("train_time_memory_figure_values.csv").assign(source="paper")
    keys = {"source": "source", "layer": "layer", "size": "size"}
    return rows, read("figure2_training_time.csv"), keys, {"train_sec_per_epoch": ("value", 1.0)}


def training_memory():
    rows = source("train_time_memory_figure_values.csv").assign(source="paper", measure="training memory")
    keys = {"source": "source", "layer": "layer", "size": "size", "measure": "measure"}
    return rows, read("figure4_memory.csv"), keys, {"train_peak_memory_GB": ("value", 1e9)}


def logged_rates():
    rows = source("cifar10_24h_statistics.csv").query("kernel_size == 3 and test_throughput_img_s.notna()")
    rows, keys = rows.assign(source="paper"), {"source": "source", "layer": "layer", "size": "size"}
    return rows, read("figure3_inference_throughput.csv"), keys, {"test_throughput_img_s": ("value", 1.0)}


def tiny_imagenet():
    rows = source("epoch_budgets.csv").query("dataset_group == 'TinyImageNet' and implied_sec_per_epoch.notna()")
    rows, keys = rows.assign(source="paper"), {"source": "source", "layer": "layer", "size": "size"}
    return rows, read("figure8_tiny_imagenet.csv"), keys, {"implied_sec_per_epoch": ("value", 1.0)}


def parameters(column, measure):
    rows = source("model_parameter_counts.csv").assign(measure=measure)
    keys = {name: name for name in ("input_side", "size", "layer", "measure")}
    return rows, read("table7_sizes.csv"), keys, {column: ("paper", 1.0)}


def sizes(column, measure):
    rows, keys = source("sizes.csv").assign(measure=measure), {name: name for name in ("input_side", "size", "measure")}
    return rows, read("table7_sizes.csv"), keys, {column: ("paper", 1.0)}


def network(number, side, name):
    rows = source("architecture.csv").query("table == @number and input_side == @side").assign(source="paper")
    keys = {name: name for name in ("source", "stage", "operation")}
    return rows, read(name), keys, {n: (n, 1.0) for n in ("repetitions", "kernel", "channels", "side")}


def curves():
    rows = source("cifar10_24h_learning_curves.csv").assign(source="paper")
    keys = {"source": "source", "layer": "layer", "size": "size", "run_id": "run", "epoch": "epoch"}
    shown = ("epochs_total", "train_loss", "test_loss", "train_accuracy", "test_accuracy", "train_cra_36_255",
             "test_cra_36_255")  # fmt: skip
    return rows, read("authors_runs_curves.csv"), keys, {name: (name, 1.0) for name in shown}


def runs():
    rows = source("cifar10_24h_runs.csv").assign(source="paper")
    keys = {"source": "source", "layer": "layer", "size": "size", "run_id": "run_id"}
    return rows, read("authors_runs.csv"), keys, as_it_is(rows, {*keys, "method"})


def file(name, drawn, *keys):
    rows = source(name)
    return rows, read(drawn), {key: key for key in keys}, as_it_is(rows, keys)


FILES = {
    "poster": poster, "printed": printed, "radar": radar, "training_time": training_time,
    "training_memory": training_memory, "logged_rates": logged_rates, "tiny_imagenet": tiny_imagenet,
    "trained_parameters": lambda: parameters("trainable_parameters", "trained parameters"),
    "all_parameters": lambda: parameters("all_parameters", "all parameters"),
    "widths": lambda: sizes("width", "width"),
    "millions": lambda: sizes("parameters_millions", "millions of parameters"),
    "network": lambda: network(5, 32, "table5_architecture.csv"),
    "block": lambda: network(6, 32, "table6_block.csv"),
    "curves": curves, "runs": runs,
    "statistics": lambda: file("cifar10_24h_statistics.csv", "authors_runs_statistics.csv", "method", "size",
                               "kernel_size"),
    "layers": lambda: file("lipschitz_measured_layers.csv", "authors_runs_layers.csv", "method", "state", "mode",
                           "input_region"),
    "networks": lambda: file("lipschitz_measured_networks.csv", "authors_runs_networks.csv", "method", "mode",
                             "sgd_steps"),
}  # fmt: skip
COUNTS = {
    "poster": 97, "radar": 42, "training_time": 31, "training_memory": 31, "tiny_imagenet": 31,
    "trained_parameters": 80, "all_parameters": 80, "curves": 2752, "runs": 27, "statistics": 58, "layers": 58,
    "networks": 30, "widths": 8, "network": 10, "block": 4,
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_every_published_number_is_in_a_file(name):
    rows, drawn, keys, columns = FILES[name]()
    assert missing(rows, drawn, keys, columns) == []
    assert len(rows) == COUNTS.get(name, len(rows)) > 0


@pytest.mark.parametrize("name", FILES)
def test_a_dropped_row_and_a_changed_number_are_found(name):
    rows, drawn, keys, columns = FILES[name]()
    (column, _), *_ = columns.values()
    keep = drawn.index[drawn.astype(str)[list(keys.values())].apply(tuple, axis=1).isin(
        [tuple(str(row[key]) for key in keys) for row in rows[-1:].to_dict("records")])]  # fmt: skip
    assert len(missing(rows, drawn.drop(keep), keys, columns)) >= 1
    if pd.api.types.is_numeric_dtype(drawn[column]) and drawn.loc[keep, column].notna().any():
        changed = drawn.copy()
        changed[column] = changed[column].astype(float)
        changed.loc[keep, column] *= 1.001
        assert len(missing(rows, changed, keys, columns)) >= 1
