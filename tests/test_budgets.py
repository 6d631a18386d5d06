"""Runs of ours with the paper's budgets: which fit, where they stand, and what is said of them."""

import re

import fake_records
import pandas as pd
import pytest
from fake_tables import runs_table
from hypothesis import given, settings
from hypothesis import strategies as st

from lipref.errors import LiprefError
from lipref.paper import budgets, budgets_text, comparison, published, readable
from lipref.paper.comparison import AGREES, DIFFERS, NOT_COMPARABLE, NOT_RUN
from lipref.paths import RESULTS
from lipref.report.drawing import draw
from lipref.report.items import read_map
from lipref.runs import budget_records

ITEMS = {item.name: item for item in read_map()}
NAMES = ("table4_literature", "table9_cifar10", "table10_cifar100", "table11_tiny_imagenet", "table12_1x1",
         "figure7_budgets")  # fmt: skip
PAPER = published.by_budget("CIFAR-10").set_index(["layer", "size", "budget"])
AOL = PAPER.loc[("aol", "XS", "2h")]


def load(tmp_path, *records, dataset="cifar10"):
    said = []
    return budget_records.load(fake_records.write(tmp_path, *records), dataset, said.append), "\n".join(said)


def judged(table, layer="aol", size="XS", setting="CIFAR-10, 2 h", measure="accuracy"):
    found = budgets.differences(table)
    (line,) = found[
        (found.layer == layer) & (found["size"] == size) & (found.setting == setting) & (found.measure == measure)
    ].itertuples()
    return line


def compared(found):
    return found[found.ours.notna()]


# --- the records


def test_a_run_of_a_budget_appears_and_agrees(tmp_path):
    runs, said = load(tmp_path, fake_records.record(accuracy=AOL.accuracy + 1, cra_36=AOL.cra_36 - 1))
    assert "left out" not in said
    assert runs[["layer", "size", "budget", "status"]].to_numpy().tolist() == [["aol", "XS", "2h", "done"]]
    table = budgets.by_budget(runs, "CIFAR-10")
    line, other = judged(table), judged(table, measure="CRA(36/255)")
    assert (line.verdict, other.verdict) == (AGREES, AGREES)
    assert (line.difference, other.difference) == (pytest.approx(1), pytest.approx(-1))
    assert comparison.summary(budgets.differences(table)) == "Of 162 published values: 2 agree, 160 not run."
    ours = table[table.source == "ours"]
    assert dict(zip(ours.measure, ours.value, strict=True)) == {
        "accuracy": pytest.approx(AOL.accuracy + 1), "CRA(36/255)": pytest.approx(AOL.cra_36 - 1),
        "learning rate": fake_records.BASE["config"]["settings"]["learning_rate"],
        "weight decay": fake_records.BASE["config"]["settings"]["weight_decay"],
    }  # fmt: skip


@pytest.mark.parametrize("measure", ["accuracy", "CRA(36/255)"])
def test_five_points_flip_the_verdict(tmp_path, measure):
    values = {"accuracy": AOL.accuracy, "cra_36": AOL.cra_36}
    name = "accuracy" if measure == "accuracy" else "cra_36"
    for points, verdict in ((0, AGREES), (5, DIFFERS), (-5, DIFFERS)):
        runs, _ = load(tmp_path, fake_records.record(**values | {name: values[name] + points}, width=0.9))
        table = budgets.by_budget(runs, "CIFAR-10")
        other = "CRA(36/255)" if measure == "accuracy" else "accuracy"
        assert (judged(table, measure=measure).verdict, judged(table, measure=other).verdict) == (verdict, AGREES)


@settings(max_examples=20)
@given(st.floats(-8, 8), st.floats(0, 3))
def test_the_interval_has_to_come_within_the_tolerance(points, width):
    made = fake_records.record(accuracy=AOL.accuracy + points, cra_36=AOL.cra_36, width=width)
    runs = pd.DataFrame([budget_records.row(made) | {"budget": budget_records.budget_of(made, "cifar10")}])
    limit = budgets.TOLERANCE.absolute + width
    if abs(abs(points) - limit) > 1e-6:
        line = judged(budgets.by_budget(runs, "CIFAR-10"))
        assert line.verdict == (AGREES if abs(points) < limit else DIFFERS)


@pytest.mark.parametrize("budget", published.BUDGETS)
@pytest.mark.parametrize(
    ("dataset", "name", "kernel_size", "size"),
    [("cifar10", "CIFAR-10", 3, "M"), ("cifar10", "CIFAR-10", 1, "S_1x1"), ("cifar100", "CIFAR-100", 3, "XS"),
     ("tiny-imagenet-200", "TinyImageNet", 3, "L")],
)  # fmt: skip
def test_every_data_set_and_budget_has_its_place(tmp_path, dataset, name, kernel_size, size, budget):
    made = fake_records.record(dataset, layer="soc", size=size, budget=budget)
    table = budgets.by_budget(load(tmp_path, made, dataset=dataset)[0], name, kernel_size)
    (setting,) = set(table[table.source == "ours"].setting)
    assert setting == budgets.setting(name, budget)
    assert judged(table, "soc", size, setting).verdict in (AGREES, DIFFERS)
    if kernel_size == 1:  # and not in the other table of that data set
        assert "ours" not in set(budgets.by_budget(load(tmp_path, made)[0], "CIFAR-10").source)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"settings": {"epochs": 836}}, "836 epochs"),
        ({"settings": {"batch_size": 128}}, "batches of 128"),
        ({"settings": {"offset": 0.5}}, "another loss"),
        ({"settings": {"temperature": 1.0}}, "another loss"),
        ({"train_images": 4500}, "a part of the 50,000"),
        ({"validation": 0.1}, "a part of the 50,000"),
        ({"test_images": 1000}, "tested on 1,000"),
        ({"layer_sha256": "a"}, "layer that the paper's tables lack"),
        ({"layer": "standard"}, "layer that the paper's tables lack: standard"),
        ({"dataset": "cifar100"}, "of cifar100, not cifar10"),
    ],
)
def test_what_does_not_fit_is_left_out_and_said(tmp_path, changed, reason):
    made = fake_records.record(**{name: value for name, value in changed.items() if name == "settings"})
    made["config"] |= {name: value for name, value in changed.items() if name != "settings"}
    runs, said = load(tmp_path, made)
    assert runs.empty
    assert reason in said
    assert "Nothing of" in said
    both, said = load(tmp_path, made, fake_records.record(layer="soc"))
    assert both.layer.tolist() == ["soc"]
    assert reason in said


@pytest.mark.parametrize("schedule", ["onecycle", "paper", "constant"])
def test_every_schedule_fits(tmp_path, schedule):
    assert len(load(tmp_path, fake_records.record(settings={"schedule": schedule}))[0]) == 1


def test_lot_l_has_no_budget_and_no_run():
    assert budgets.epochs_of("cifar10", "L", "lot") == {}
    made = fake_records.record(layer="lot", size="M")
    made["config"]["size"] = "L"
    assert budget_records.misfit(made, "cifar10").endswith("none of the paper's budgets for lot L")


def test_a_network_stands_with_one_recipe(tmp_path):
    old = fake_records.record(accuracy=10, day=1, settings={"learning_rate": 0.3})
    new = [fake_records.record(accuracy=60 + seed, seed=seed, day=2 + seed) for seed in (0, 1)]
    other = fake_records.record(accuracy=50, budget="10h", day=1, settings={"learning_rate": 0.3})
    runs, said = load(tmp_path, old, *new, other)
    assert sorted(round(100 * value) for value in runs.accuracy) == [50, 60, 61]
    assert "1 older runs with other settings" in said
    table = budgets.by_budget(runs, "CIFAR-10")
    line = table[(table.source == "ours") & (table.measure == "accuracy") & (table.setting == "CIFAR-10, 2 h")].iloc[0]
    assert (line.value, line.n, line.of) == (pytest.approx(60.5), 2, 2)


def test_a_run_that_diverged_has_no_value_and_is_not_called_missing(tmp_path):
    runs, _ = load(tmp_path, fake_records.record(diverged=True))
    table = budgets.by_budget(runs, "CIFAR-10")
    lost = table[(table.source == "ours") & (table.measure == "accuracy")].iloc[0]
    assert (pd.isna(lost.value), lost.note, lost.n, lost.of) == (True, "diverged", 0, 1)
    assert judged(table).verdict == NOT_RUN
    people = budgets_text.by_budget(table).set_index(["layer", "size"])
    assert people.loc[("AOL", "XS"), "accuracy (%) 2 h: ours"] == "diverged"
    first = budgets.not_run(table).splitlines()[0]
    assert "3 networks on cifar10 with the paper's 2h" in first
    assert "--sizes S,M,L --layers aol " in first


def test_committed_runs_are_read_where_no_folder_is_given(tmp_path, monkeypatch):
    said = []
    assert budget_records.load("", "cifar10", said.append).empty
    assert said == ["Nothing of data/results is a run on cifar10 with one of the paper's budgets."]
    fake_records.write(tmp_path / "one", fake_records.record())
    fake_records.write(tmp_path / "two", fake_records.record(layer="soc"), fake_records.record(dataset="cifar100"))
    monkeypatch.setattr(budget_records.paths, "RESULTS", tmp_path)
    assert budget_records.load("", "cifar10", said.append).layer.tolist() == ["aol", "soc"]


def test_another_data_set_is_no_error_but_a_missing_folder_is(tmp_path):
    said = []
    assert budget_records.load(str(RESULTS / "digits-xs"), "cifar10", said.append).empty
    assert "8 runs, of digits, not cifar10" in said[0]
    (tmp_path / "costs-only").mkdir()
    assert budget_records.load(str(tmp_path / "costs-only"), "cifar10", said.append).empty
    with pytest.raises(LiprefError, match="no such folder"):
        budget_records.load(str(tmp_path / "nowhere"), "cifar10", said.append)
    (tmp_path / "records.json").write_text("[{")
    with pytest.raises(LiprefError, match="damaged"):
        budget_records.load(str(tmp_path), "cifar10", said.append)


# --- the tables


@pytest.mark.parametrize(
    ("name", "kernel_size"), [("CIFAR-10", 3), ("CIFAR-10", 1), ("CIFAR-100", 3), ("TinyImageNet", 3)]
)
def test_failed_runs_have_no_value_and_what_is_printed_stands_beside(name, kernel_size):
    printed = published.by_budget(name, kernel_size)
    table = budgets.by_budget(pd.DataFrame(columns=["size", "budget"]), name, kernel_size)
    failed = printed[printed.note != ""]
    lost = table[(table.note == "diverged") & (table.measure == "accuracy")]
    assert lost.value.isna().all()
    assert sorted(zip(lost.layer, lost["size"], lost.setting, strict=True)) == sorted(
        (row.layer, row.size, budgets.setting(name, row.budget)) for row in failed.itertuples()
    )
    assert (table[table.measure == "accuracy (printed)"].value <= 10).all()
    people = budgets_text.by_budget(table)
    assert people.map(lambda cell: isinstance(cell, str)).all().all()
    assert people.to_string().count("diverged (printed") == 2 * len(failed)
    assert len(people) == printed.groupby(["layer", "size"]).ngroups + 1  # LOT at one size more, without a value
    assert ("lr" in people.columns) == (name == "CIFAR-10")  # elsewhere only one digit is published


def test_what_the_paper_has_no_result_for_is_named():
    assert published.without_result("CIFAR-10").to_numpy().tolist() == [["lot", "L", "out of memory"]]
    assert published.without_result("CIFAR-10", 1).to_numpy().tolist() == [["lot", "M_1x1", "no result"]]
    table = budgets.by_budget(pd.DataFrame(columns=["size", "budget"]), "TinyImageNet")
    people = budgets_text.by_budget(table).set_index(["layer", "size"])
    assert set(people.loc[("LOT", "L")]) == {"out of memory", ""}


@pytest.mark.parametrize(("name", "kernel_size"), [("CIFAR-10", 3), ("CIFAR-10", 1), ("TinyImageNet", 3)])
def test_the_commands_fill_exactly_what_is_missing(tmp_path, name, kernel_size):
    ours = budgets.DATASETS[name]
    done = fake_records.record(ours, layer="cpl", size="S" if kernel_size == 3 else "S_1x1", budget="10h")
    table = budgets.by_budget(load(tmp_path, done, dataset=ours)[0], name, kernel_size)
    pattern = r"--dataset (\S+) --sizes (\S+) --layers (\S+) --budget (\S+) .* in ([\d,]+) GPU hours"
    found, hours = [], 0
    for line in budgets.not_run(table).splitlines():
        dataset, sizes, layers, budget, cost = re.search(pattern, line).groups()
        assert dataset == ours
        found += [(layer, size, budget) for layer in layers.split(",") for size in sizes.split(",")]
        hours += int(cost.replace(",", ""))
    printed = published.by_budget(name, kernel_size)
    wanted = {(row.layer, row.size, row.budget) for row in printed.itertuples() if row.layer != "bnb"}
    wanted |= {("lot", "M_1x1", budget) for budget in published.BUDGETS} if kernel_size == 1 else set()
    wanted -= {("cpl", done["config"]["size"], "10h")}
    assert len(found) == len(set(found))
    assert set(found) == wanted
    assert hours == sum(int(budget[:-1]) for *_, budget in wanted)
    assert all(published.epochs(ours, size, layer, budget) for layer, size, budget in found)


def test_nothing_missing_is_nothing_said():
    assert budgets.not_run(budgets.by_budget(pd.DataFrame(columns=["size", "budget"]), "CIFAR-10")[:0]) == ""


def test_table_4_compares_the_authors_run_of_the_same_network(tmp_path):
    best = published.best_runs().set_index("layer").loc["soc"]
    made = fake_records.record(layer="soc", size=best["size"], budget="24h", accuracy=best.accuracy, cra_36=best.cra_36)
    small = fake_records.record(layer="soc", size="XS", budget="24h")
    short = fake_records.record(layer="soc", size=best["size"], budget="2h")
    table = budgets.literature(load(tmp_path, made, small, short)[0])
    found = compared(budgets.differences(table)).set_index("measure")
    assert set(found["size"]) == {best["size"]}
    assert found.loc["accuracy", "verdict"] == found.loc["CRA(36/255)", "verdict"] == AGREES
    assert found.loc["CRA(255/255)", "verdict"] == DIFFERS  # made up
    people = budgets_text.literature(table)
    assert people[people["values"].str.startswith("ours")].network.tolist() == ["SOC XS", f"SOC {best['size']}"]
    assert "SOC LipNet-15 + CRC" in set(people.network)


@pytest.mark.parametrize("text", ["CIFAR-10", "Tiny ImageNet", "TinyImageNet", "cifar100", "tiny-imagenet-200"])
def test_a_data_set_of_the_paper_has_several_spellings(text):
    assert budgets.dataset(text) in budgets.DATASETS


def test_an_unknown_data_set_lists_the_known():
    with pytest.raises(LiprefError, match="CIFAR-10, CIFAR-100, Tiny ImageNet"):
        budgets.dataset("digits")


# --- Table 2


def whole(dataset="cifar10", budget="24h", **changed):
    runs = runs_table(layers=("standard", "aol", "soc"), dataset=dataset)
    runs["train_images"], runs["test_images"], runs["batch_size"] = 50_000, 10_000, 256
    runs["epochs"] = [published.epochs(dataset, "XS", layer, budget) for layer in runs.layer]
    return runs.assign(**changed)


def test_table_2_compares_where_it_can():
    table = budgets.all_sets(whole())
    assert set(table[table.source == "ours"].setting) == {"CIFAR-10, 24 h"}
    found = budgets.differences(table)
    assert len(compared(found)) == 4
    assert set(compared(found).verdict) <= {AGREES, DIFFERS}
    short = budgets.all_sets(whole(budget="2h"), "2h")
    assert set(short[short.source == "ours"].setting) == {"CIFAR-10, 2 h"}
    people = budgets_text.all_sets(table)
    assert people[people["values"] == "ours"]["data set"].unique().tolist() == ["CIFAR-10, 24 h"]


@pytest.mark.parametrize(
    ("runs", "reason"),
    [
        (whole(epochs=20), "20 epochs of aol XS"),
        (whole(batch_size=64), "batches of 256"),
        (whole(train_images=4500), "not all images"),
        (whole(test_images=100), "not all images"),
        (runs_table(), "digits is none"),
        (runs_table(dataset="cifar10-jpeg"), "cifar10-jpeg is none"),
    ],
)
def test_table_2_says_why_it_cannot_compare(runs, reason):
    said = budgets.why_not(runs, "24h")
    assert reason in said
    table = budgets.all_sets(runs)
    assert not table[table.source == "ours"].setting.isin(table[table.source == "paper"].setting).any()
    found = budgets.differences(table, said)
    assert set(found.verdict) == {NOT_COMPARABLE, NOT_RUN}
    assert reason in budgets_text.differences(found, said).to_string()


def test_no_runs_no_reason():
    assert budgets.why_not(pd.DataFrame(), "24h") == ""


def test_networks_with_1x1_kernels_have_the_papers_beside_them():
    runs = runs_table(layers=("aol",), sizes=("S_1x1",))
    assert {"S", "S_1x1"} <= set(budgets.all_sets(runs).query("source == 'paper'")["size"])
    assert "S_1x1" not in set(budgets.all_sets(runs_table()).query("source == 'paper'")["size"])


# --- the notebooks


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_of_another_data_set_is_as_no_folder(name, tmp_path):
    """Ours is blank, and so the files are the committed ones."""
    for path in draw(ITEMS[name], tmp_path, {"records": str(RESULTS / "digits-xs")}):
        if path.suffix in (".csv", ".md", ".tex"):
            committed = ITEMS[name].folder.parent / "figures" / path.name
            assert path.read_bytes() == committed.read_bytes(), path.name
    assert set(pd.read_csv(tmp_path / f"{name}.csv").source) == {"paper"}
    assert set(pd.read_csv(tmp_path / f"{name}_difference.csv").verdict) == {NOT_RUN}


@pytest.mark.parametrize(("name", "variant"), [(name, "ours") for name in NAMES] + [("figure7_budgets", "published")])
def test_a_variant_without_values_says_what_would_fill_it(name, variant, tmp_path):
    draw(ITEMS[name], tmp_path, {"variant": variant})
    sources = set(pd.read_csv(tmp_path / f"{name}.csv").source)
    assert sources == ({"paper"} if variant == "published" else set())
    assert ("GPU hours" in (tmp_path / f"{name}.md").read_text()) == (variant == "ours")


@pytest.mark.parametrize("name", ["table9_cifar10", "figure7_budgets"])
def test_a_folder_with_runs_is_drawn_and_judged(name, tmp_path):
    made = [fake_records.record(accuracy=AOL.accuracy, cra_36=AOL.cra_36 + points, layer="aol", budget=budget)
            for points, budget in ((0, "2h"), (30, "10h"))]  # fmt: skip
    folder = fake_records.write(tmp_path / "records", *made)
    draw(ITEMS[name], tmp_path, {"records": folder, "variant": "ours"})
    assert set(pd.read_csv(tmp_path / f"{name}.csv").source) == {"ours"}
    found = pd.read_csv(tmp_path / f"{name}_difference.csv")
    found = found[(found.layer == "aol") & (found["size"] == "XS") & (found.measure == "CRA(36/255)")]
    assert found.verdict.tolist() == [AGREES, DIFFERS, NOT_RUN]


@pytest.mark.parametrize("name", ["CIFAR-100", "Tiny ImageNet"])
def test_figure_7_of_another_data_set(name, tmp_path):
    draw(ITEMS["figure7_budgets"], tmp_path, {"paper_dataset": name})
    assert all(text.startswith(name) for text in pd.read_csv(tmp_path / "figure7_budgets.csv").setting)


def test_an_empty_table_is_refused():
    empty = budgets.by_budget(pd.DataFrame(columns=["size", "budget"]), "CIFAR-10")[:0]
    for form in (budgets_text.by_budget, budgets_text.all_sets, budgets_text.literature):
        with pytest.raises(LiprefError, match="no records"):
            form(empty)
        assert readable.or_missing(empty, form, "none").iloc[0, 0] == "none"
