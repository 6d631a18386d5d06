"""The table of `lipref bench`: medians, ratios within rounds, what is missing, and the files."""

import json
import math

import pytest
from fake_bench import AUTHORS, CPU, Bench, plan

from lipref.bench import foreign, records, results, slices, tables
from lipref.bench.requests import Against, Network
from lipref.bench.rounds import PEAKS
from lipref.paper import tables as drawing
from lipref.runs.study import Study


def test_ratios_are_within_rounds(tmp_path):
    """The machine is three times as slow in the second round, which no ratio may show."""
    speed = {0: 1.0, 1: 3.0}
    ours = Bench(our_times=lambda r: [speed[r["number"]] * (2.0 if r["layer"] == "aol" else 1.0)])
    asked = plan(tmp_path, against=(Against(AUTHORS),))
    ours.run(asked)
    table = tables.table(asked)
    assert list(table.columns) == list(tables.COLUMNS)
    assert list(dict.fromkeys(zip(table.layer, table.code, strict=True))) == [
        ("standard", "lipref"), ("standard", "authors"), ("aol", "lipref"), ("aol", "authors")]  # fmt: skip
    row = table.set_index(["code", "layer", "quantity"])
    aol = row.loc[("lipref", "aol", "train")]
    assert (aol["median"], aol.low, aol.high, aol.n, aol.rounds) == (4, 2, 6, 2, 2)
    assert (aol.ratio_to_standard, aol.ratio_to_standard_low, aol.ratio_to_standard_high) == (2, 2, 2)
    assert math.isnan(aol.ratio_to_ours)
    theirs = row.loc[("authors", "aol", "infer")]
    assert (theirs["median"], theirs.n, theirs.unit) == (5, 4, "s")
    assert theirs.ratio_to_ours == pytest.approx((5 / 2 + 5 / 6) / 2)
    assert (theirs.ratio_to_ours_low, theirs.ratio_to_ours_high) == pytest.approx((5 / 6, 5 / 2))
    assert theirs.ratio_to_standard == pytest.approx(2 * theirs.ratio_to_ours)
    memory = row.loc[("authors", "aol", "train memory")]
    assert (memory["median"], memory.ratio_to_ours, memory.ratio_to_standard, memory.unit) == (300, 1.5, 3, "bytes")
    assert ("authors", "aol", "folded") not in row.index  # theirs cannot be folded
    assert theirs.images_per_second == pytest.approx(2 / 5)
    assert row.loc[("authors", "aol", "train"), "epoch_seconds"] == 5 * 25_000
    assert math.isnan(theirs.epoch_seconds)
    assert math.isnan(memory.images_per_second)
    shown = tables.people(table)
    assert list(shown.columns) == ["layer", "code", "train ms", "infer ms", "folded ms", "train MB", "infer MB"]
    assert shown["train ms"].tolist() == ["2e+03", "5e+03 (3.33 [1.67, 5])", "4e+03 (2)", "5e+03 (1.67 [0.833, 2.5])"]
    assert shown["folded ms"].tolist()[1] == ""
    paths = results.write(asked, table, tmp_path)
    texts = [path.read_bytes() for path in paths]
    results.write(asked, tables.table(asked), tmp_path)
    assert [path.read_bytes() for path in paths] == texts
    assert b"authors aol: AOLConv2d" in texts[1]
    assert tables.people(table, intervals=False)["train ms"].tolist()[1] == "5e+03 (3.33)"
    whole = json.loads(texts[2])
    assert (whole["settings"]["layers"], whole["settings"]["seed"], whole["failures"]) == (["standard", "aol"], 0, [])
    assert [entry["config"]["layer"] for entry in whole["theirs"]] == ["standard", "aol"]
    assert len(whole["theirs"][0]["parts"]) == 5
    assert whole["theirs"][0]["parts"][0]["result"]["times"] == [4, 6]
    assert {"torch", "commit", "dirty", "threads", "device"} <= set(whole["environments"][0])
    assert [path.name for path in paths[3:]] == ["costs.csv", "costs.json"]


def test_a_ratio_is_the_median_of_those_of_the_rounds(tmp_path):
    """Not the ratio of the medians, which is 8 / 2 here."""
    times = {"standard": (1.0, 10.0, 2.0), "aol": (2.0, 10.0, 8.0)}
    asked = plan(tmp_path, rounds=3, repeats=3, quantities=("train",))
    Bench(our_times=lambda request: [times[request["layer"]][request["number"]]]).run(asked)
    row = tables.table(asked).set_index("layer").loc["aol"]
    assert (row["median"], row.ratio_to_standard) == (8, 2)
    assert (row.ratio_to_standard_low, row.ratio_to_standard_high) == (1, 4)


def test_memory_that_runs_out_in_ours_is_a_result_too(tmp_path):
    asked = plan(tmp_path, against=(Against(AUTHORS),), quantities=("train", "memory"))
    done = Bench(our_times=lambda request: None if request["layer"] == "aol" else [1.0]).run(asked)
    assert (done.failures, done.left) == ({}, {})
    row = tables.table(asked).set_index(["code", "layer", "quantity"])
    assert row.loc[("lipref", "aol", "train"), "note"] == "out of memory"
    assert math.isnan(row.loc[("lipref", "aol", "train"), "median"])
    theirs = row.loc[("authors", "aol", "train")]  # measured all the same, with nothing to divide by
    assert theirs["median"] == 5
    assert math.isnan(theirs.ratio_to_ours)
    assert [record["status"] for record in slices.complete(asked)] == ["out_of_memory", "done"]


def test_the_figures_of_time_and_memory_read_it(tmp_path):
    asked = plan(tmp_path, image_sizes=(32, 64), batch_size=256)
    Bench().run(asked)
    results.write(asked, tables.table(asked), tmp_path)
    for dataset, side, steps in (("cifar10", 32, 196), ("tiny-imagenet-200", 64, 391)):
        study = Study(dataset=dataset, records=str(tmp_path), say=lambda line: None)
        assert list(study.costs.image_size) == [side, side]
        drawn = drawing.training_time(study.costs, dataset, study.train_images)
        assert set(drawn[drawn.source == "ours"].value) == {steps * 1.0}
        ours = drawing.memory(study.costs)
        assert {"training memory", "inference memory"} <= set(ours[ours.source == "ours"].measure)


def test_half_a_measurement_is_shown_as_far_as_it_is(tmp_path):
    bench, asked = Bench(), plan(tmp_path, quantities=("train", "prepare"))
    done = bench.run(asked, seconds=3.5)
    assert done.left == {"lipref": 1}
    table = tables.table(asked)
    assert dict(zip(table.layer + " " + table.quantity, table["rounds"], strict=True)) == {
        "standard train": 2, "standard prepare": 2, "aol train": 1, "aol prepare": 1}  # fmt: skip
    assert [record["config"]["layer"] for record in slices.complete(asked)] == ["standard"]
    assert slices.complete(plan(tmp_path, batch_size=3)) == []


def test_memory_that_runs_out_is_a_result(tmp_path):
    asked = plan(tmp_path, against=(Against(AUTHORS),), rounds=1, layers=("standard",), quantities=("train", "memory"))
    Bench().run(asked)
    config = asked.theirs(asked.networks()[0], asked.against[0])
    for part in ("train", "memory"):
        lost = {"times": [], "warm_up": 0} if part == "train" else dict.fromkeys(PEAKS) | {"steps": 0}
        records.write(tmp_path, config, 0, part, {"status": "out_of_memory"} | lost, {"train_seconds": 1.0}, CPU)
    table = tables.table(asked)
    theirs = table[table.code == "authors"]
    assert set(theirs.note) == {"out of memory"}
    assert theirs["median"].isna().all()
    assert theirs.ratio_to_ours.isna().all()
    assert tables.people(table)["train ms"].tolist() == ["1e+03", "out of memory"]


def test_what_others_lack_is_said_and_left_blank(tmp_path):
    lacking = Against(foreign.CODES["orthogonium"], lacks={"cayley": "needs einops"})
    asked = plan(
        tmp_path, layers=("aol", "lot", "cayley"), sizes=("XS", "XS_1x1"), image_sizes=(16, 64),
        against=(Against(AUTHORS), lacking),
    )  # fmt: skip
    whys = {(n.label, n.size, n.image_size): asked.against[0].why_not(n) for n in asked.networks()}
    assert whys[("lot", "XS", 64)] == ""
    assert "sides 32 and 64" in whys[("lot", "XS", 16)]
    assert "1x1" in whys[("aol", "XS_1x1", 64)]
    text = "\n".join(tables.notes(asked))
    blank = "cayley XS 16, cayley XS_1x1 16, cayley XS 64, cayley XS_1x1 64: needs einops."
    assert f"orthogonium is left blank at {blank}" in text
    assert "authors is left blank at standard XS 16, aol XS 16, cayley XS 16 and 5 more: its networks are for" in text
    assert "it has no lot" in text
    own = Network("examples/my_layer.py:MyConv", "XS", 32)
    assert AUTHORS.why_not("aol", "XS", 32) == ""
    assert "your layer" in asked.against[0].why_not(own)
