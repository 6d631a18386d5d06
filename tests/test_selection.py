"""What a folder of records shows: what fits the parameters, the rest by name, and no contradiction."""

import json
import shutil

import pandas as pd
import pytest
from tiny_runs import EXAMPLE

from lipref.errors import LiprefError
from lipref.layers import LAYERS, resolve
from lipref.paths import RESULTS
from lipref.runs.study import Study

DIGITS = RESULTS / "digits-xs"
RUNS, COSTS = (json.loads((DIGITS / name).read_text()) for name in ("records.json", "costs.json"))


def changed(record, *, settings=None, **config):
    settings = record["config"].get("settings", {}) | (settings or {})
    return record | {"config": record["config"] | ({"settings": settings} if settings else {}) | config}


@pytest.fixture
def folder(tmp_path):
    """Runs with seeds 0 and 1 of all layers and one's own, and measurements at two sizes."""
    runs = [changed(record, settings={"seed": seed}) for record in RUNS for seed in (0, 1)]
    runs.append(changed(RUNS[0], layer="MyConv", layer_sha256=resolve(EXAMPLE).source_sha256))
    (tmp_path / "records.json").write_text(json.dumps(runs))
    (tmp_path / "costs.json").write_text(json.dumps(COSTS))
    return tmp_path


@pytest.fixture
def studied(folder):
    said = []

    def make(**given):
        ours = Study(records=str(folder), say=said.append, **given)
        ours.said = said
        return ours

    return make


def test_exactly_what_is_asked_for_is_shown_and_the_rest_said(studied):
    ours = studied(layers="soc,aol", seeds="0,1")
    assert ours.runs.layer.tolist() == ["aol", "aol", "soc", "soc"]
    assert set(ours.costs.layer) == {"aol", "soc"}
    assert set(ours.costs["size"]) == {"XS"}
    text = "\n".join(ours.said)
    assert "left out of" in text
    assert "MyConv" in text
    assert "size S" in text
    assert set(ours.curves.seed) == {0, 1}


def test_all_layers_are_all_that_there_are(studied):
    ours = studied(seeds="1,2", sizes="XS,S")
    assert ours.runs.layer.tolist() == list(LAYERS)
    assert any("seed 2" in line for line in ours.said)
    assert any("seed 0" in line for line in ours.said)
    assert any("size S" in line for line in ours.said)
    assert "MyConv" in studied().runs.layer.tolist()
    assert len(ours.costs) == len(COSTS)


def test_a_layer_that_failed_may_be_missing(studied, folder):
    kept = [record for record in RUNS if record["config"]["layer"] != "lot"]
    (folder / "records.json").write_text(json.dumps(kept))
    ours = studied(layers="lot,aol")
    assert ours.runs.layer.tolist() == ["aol"]
    assert any("not in" in line and "lot" in line for line in ours.said)


def test_an_edited_layer_is_left_out(studied, folder):
    def spoil(name, records):
        stale = changed(records[0], layer="MyConv", layer_sha256="0" * 64)
        (folder / name).write_text(json.dumps([*records, stale]))

    spoil("records.json", RUNS)
    spoil("costs.json", COSTS)
    ours = studied(layers=f"aol,{EXAMPLE}", sizes="XS,S")
    assert set(ours.runs.layer) == set(ours.costs.layer) == {"aol"}
    assert sum("another source file" in line for line in ours.said) == 2


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"dataset": "cifar10"}, "dataset digits"),
        ({"budget": "5 epochs"}, "budget 20 epochs"),
        ({"batch_size": 32}, "batch_size 64"),
        ({"seeds": "7"}, "seed 7"),
        ({"sizes": "M"}, "sizes XS"),
        ({"layers": "aol", "sizes": "L"}, "layers"),
    ],
)
def test_a_contradiction_of_runs_is_refused(studied, given, named):
    with pytest.raises(LiprefError, match=named) as caught:
        _ = studied(**given).runs
    assert "\n" not in str(caught.value)


def test_a_default_is_taken_from_the_records_and_said(studied, folder):
    other = [changed(record, dataset="other", settings={"epochs": 3, "batch_size": 32}) for record in RUNS]
    (folder / "records.json").write_text(json.dumps(other))
    ours = studied()
    assert len(ours.runs) == len(RUNS)
    assert {"dataset other", "budget 3 epochs"} <= {line.split(" is of ")[-1] for line in ours.said}
    assert (ours.name, ours.train_images) == ("other", RUNS[0]["config"]["train_images"])


@pytest.mark.parametrize(
    ("change", "given", "named"),
    [
        ({"image_size": 32}, {}, "image_size=32"),
        ({"num_classes": 7}, {}, "num_classes=7"),
        ({"batch_size": 8}, {"batch_size": 64}, "batch_size=8"),
    ],
)
def test_measurements_that_do_not_fit_are_not_drawn(studied, folder, change, given, named):
    stale = [changed(COSTS[0], **change), *COSTS[1:]]
    (folder / "costs.json").write_text(json.dumps(stale))
    ours = studied(sizes="XS,S", **given)
    assert len(ours.costs) == len(COSTS) - 1
    assert any(named in line for line in ours.said)
    (folder / "costs.json").write_text(json.dumps([changed(record, **change) for record in COSTS]))
    with pytest.raises(LiprefError, match=named):
        _ = studied(**given).costs


def test_two_machines_are_not_mixed(studied, folder):
    (folder / "costs.json").write_text(json.dumps([changed(COSTS[0], threads=9), *COSTS[1:]]))
    with pytest.raises(LiprefError, match="mixes"):
        _ = studied(sizes="XS,S").costs


def test_a_folder_of_measurements_alone_is_enough(tmp_path):
    shutil.copy(DIGITS / "costs.json", tmp_path)
    ours = Study(records=str(tmp_path), sizes="XS,S")
    assert (len(ours.costs), ours.name, ours.train_images) == (len(COSTS), "digits", 1437)
    with pytest.raises(LiprefError, match=r"records\.json"):
        _ = ours.runs
    with pytest.raises(LiprefError, match="channels=1"):  # of digits
        _ = Study(records=str(tmp_path), dataset="cifar10", say=print).costs
    (tmp_path / "costs.json").write_text(json.dumps([changed(record, image_size=16) for record in COSTS]))
    said = []
    costs = Study(records=str(tmp_path), say=said.append).costs
    assert isinstance(costs, pd.DataFrame)
    assert any("side 16" in line for line in said)
