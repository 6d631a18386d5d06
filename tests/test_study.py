"""What a notebook gets from the library: committed records where they fit, computed ones where not."""

import itertools
import json

import pytest
import torch
from tiny_runs import EXAMPLE

from lipref.bench import measurements
from lipref.errors import LiprefError
from lipref.layers import LAYERS
from lipref.paper.experiment2 import Timed
from lipref.paths import RESULTS
from lipref.runs import plans, study, sweeps
from lipref.runs.study import Study
from lipref.training.speed import usual

DIGITS = RESULTS / "digits-xs"


@pytest.fixture
def nothing_runs(monkeypatch):
    def never(*_, **__):
        raise AssertionError("something was computed")

    monkeypatch.setattr(sweeps, "run", never)
    monkeypatch.setattr(measurements, "run", never)


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """The plans that a study would carry out, answered with the committed records under the layers' names."""
    seen = []

    def run(plan, _):
        seen.append(plan)
        record = json.loads((DIGITS / "records.json").read_text())[0]
        for size, layer in plan.tasks():
            yield (size, layer), [record | {"config": record["config"] | {"layer": layer.split(":")[-1], "size": size}}]

    def measure(plan, _):
        seen.append(plan)
        record = json.loads((DIGITS / "costs.json").read_text())[0]
        return [
            record | {"config": record["config"] | {"layer": layer.split(":")[-1], "size": size}}
            for size, layer in plan.tasks()
        ], []

    monkeypatch.setattr(sweeps, "run", run)
    monkeypatch.setattr(measurements, "run", measure)
    monkeypatch.setattr(study, "RUNS", tmp_path)
    return seen


def test_the_defaults_need_nothing_computed(nothing_runs):
    ours = Study()
    assert ours.runs.layer.tolist() == list(LAYERS)
    assert set(ours.runs["size"]) == {"XS"}
    costs = Study(sizes="XS,S").costs
    assert len(costs) == 2 * len(LAYERS)
    assert (ours.name, ours.train_images) == ("digits", 1437)


def test_a_part_of_it_needs_nothing_computed(nothing_runs):
    ours = Study(layers="soc,aol", sizes="S")
    assert Study(layers="soc,aol").runs.layer.tolist() == ["aol", "soc"]
    assert ours.costs.layer.tolist() == ["aol", "soc"]


def test_only_what_is_missing_is_trained(asked):
    ours = Study(layers=f"all,{EXAMPLE}", say=lambda text: None)
    assert ours.runs.layer.tolist() == [*LAYERS, "MyConv"]
    (plan,) = asked
    assert plan.layers == (EXAMPLE,)
    assert plan.settings.epochs == 20
    assert plan.search.epochs == 3  # as lipref reproduce


@pytest.mark.parametrize(
    "other", [{"budget": "5 epochs"}, {"seeds": "1"}, {"sizes": "S"}, {"batch_size": 32}, {"seeds": "0,1"}]
)  # fmt: skip
def test_other_settings_are_other_runs(asked, other):
    assert Study(layers="aol", say=lambda text: None, **other).runs.layer.tolist() == ["aol"]
    assert asked[0].layers == ("aol",)


def test_times_are_compared_on_one_machine_only(asked):
    """One measurement that is missing means that all are made here."""
    costs = Study(layers=f"all,{EXAMPLE}", say=lambda text: None).costs
    assert set(costs.layer) == {*LAYERS, "MyConv"}
    assert asked[0].layers == (*LAYERS, EXAMPLE)


@pytest.fixture
def cuda(monkeypatch, tmp_path):
    """Committed results that may be made up, and a CUDA device on which nothing runs; writes them."""
    monkeypatch.setattr(plans, "check_device", lambda device: None)
    monkeypatch.setattr(study, "RESULTS", tmp_path)
    (tmp_path / "made-up").mkdir()

    def write(speed):
        for name in ("records", "costs"):
            made = [r for r in json.loads((DIGITS / f"{name}.json").read_text()) if r["config"]["size"] == "XS"]
            for record in made:
                record["config"]["device"] = "cuda"
                (record["config"]["settings"] if name == "records" else record["config"])["speed"] = speed
            (tmp_path / "made-up" / f"{name}.json").write_text(json.dumps(made))
        return str(tmp_path / "made-up")

    return write


def test_a_notebook_trains_on_cuda_with_the_usual_options(asked, cuda):
    cuda({})  # plain ones are other runs, and other measurements
    ours = Study(layers="aol", device="cuda", say=lambda text: None)
    assert ours.run_records
    assert ours.cost_records
    assert asked[0].settings.speed == usual("cuda")
    assert asked[1].speed in (None, usual("cuda"))
    cuda(usual("cuda").as_dict())
    ours = Study(layers="aol", device="cuda", say=lambda text: None)
    assert ours.run_records[0]["config"]["settings"]["speed"] == usual("cuda").as_dict()
    assert ours.cost_records[0]["config"]["speed"] == usual("cuda").as_dict()
    assert len(asked) == 2
    assert Study(layers="aol", say=lambda text: None).run_records  # on the CPU they are none
    assert asked[2].settings.speed == usual("cpu")


def test_what_a_gpu_measured_is_drawn_without_one(nothing_runs):
    """Sizes that stand in two committed files go together; what would have to be measured asks for the device."""
    given = {"dataset": "cifar10", "device": "cuda", "batch_size": 256, "say": lambda text: None}
    costs = Study(sizes="S,M", **given).costs
    assert sorted(set(zip(costs.layer, costs["size"], strict=True))) == sorted(itertools.product(LAYERS, "MS"))
    assert len(costs) == 16
    assert set(costs.machine) == {"NVIDIA H200"}
    if not torch.cuda.is_available():
        with pytest.raises(LiprefError, match="'cuda' is not available"):
            _ = Study(sizes="L", **given).costs


def test_the_steps_that_decide_the_epochs_are_those_that_train(asked, cuda):
    plain = Timed("aol", device="cuda", costs=cuda({}), say=lambda text: None)
    with pytest.raises(LiprefError, match="lacks a measurement"):
        _ = plain.costs
    ours = Timed("aol", device="cuda", costs=cuda(usual("cuda").as_dict()), say=lambda text: None)
    assert ours.records
    assert [plan.settings.speed for plan in asked] == [usual("cuda")]
    assert asked[0].settings.epochs == ours.epochs["aol"]


def test_a_damaged_file_of_records_is_refused(tmp_path):
    (tmp_path / "records.json").write_text("[{")
    with pytest.raises(LiprefError, match="damaged"):
        _ = Study(records=str(tmp_path)).runs
    with pytest.raises(LiprefError, match=r"costs\.json"):
        _ = Study(records=str(tmp_path / "..")).costs


def test_two_machines_in_one_committed_file_are_not_mixed(asked, monkeypatch, tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    records = [r for r in json.loads((DIGITS / "costs.json").read_text()) if r["config"]["size"] == "XS"]
    other = [r | {"config": r["config"] | {"threads": 1, "machine": "another"}} for r in records]
    monkeypatch.setattr(study, "RESULTS", tmp_path)
    (folder / "costs.json").write_text(json.dumps(other[:4] + records))
    assert set(Study(layers="all", say=lambda text: None).costs.machine) == {records[0]["config"]["machine"]}
    assert not asked
    (folder / "costs.json").write_text(json.dumps(other[:4] + records[4:]))
    _ = Study(layers="all", say=lambda text: None).costs
    assert len(asked) == 1  # neither machine has all: measured anew


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"sizes": "XXL"}, "XXL"),
        ({"layers": "aol,nonsense"}, "nonsense"),
        ({"layers": "aol,aol"}, "twice"),
        ({"budget": "soon"}, "soon"),
        ({"seeds": "one"}, "one"),
        ({"batch_size": -1}, "-1"),
        ({"batch_size": "many"}, "many"),
        ({"device": "tpu"}, "tpu"),
        ({"records": "nowhere"}, "nowhere"),
        ({"dataset": 3}, "dataset=3"),
        ({"sizes": ["XS"]}, "sizes="),
    ],
)
def test_wrong_parameters_are_refused(given, named):
    with pytest.raises(LiprefError, match=named):
        Study(**given)


def test_numbers_that_arrive_as_text_and_text_as_numbers():
    ours = Study(seeds=0, batch_size="64", budget=20)
    assert (ours.seeds, ours.batch_size, ours.epochs) == ((0,), 64, 20)
    assert Study(batch_size=0).batch_size == 64
    assert Study(dataset="cifar10", budget="2h").batch_size == 256
