"""Costs as folders: measured once, complete for every layer, and read again without measuring."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from tiny_runs import CPU, EXAMPLE
from torch import nn

from lipref.bench import cost, rounds
from lipref.errors import LiprefError
from lipref.layers import LAYERS, LayerSpec, resolve
from lipref.nets import convnet, count_parameters
from lipref.runs import experiment, records

SHAPE = {"image_size": 4, "channels": 3, "num_classes": 10, "batch_size": 4}
QUANTITIES = [*cost.SECONDS, *cost.PEAKS]


class Plain(nn.Conv2d):
    """A user's layer without bound, preparation and folded form."""

    def __init__(self, in_channels, out_channels, kernel_size, **options):
        super().__init__(in_channels, out_channels, kernel_size, padding="same", **options)


class Greedy(Plain):
    """Its training needs more memory than there is."""

    def forward(self, x):
        if torch.is_grad_enabled():
            torch.empty(2**56, dtype=torch.uint8)
        return super().forward(x)


class Drowned(Plain):
    def forward(self, x):
        if torch.is_grad_enabled():
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(x)


class Broken(Plain):
    def forward(self, x):
        if torch.is_grad_enabled():
            raise ValueError("two\nlines")
        return super().forward(x)


class Spoilt(Plain):
    def forward(self, x):
        return super().forward(x) * (torch.nan if self.training else 1)


def own(cls):
    return LayerSpec(cls.__name__, cls, "0" * 64)


def tiny(layer="standard", repeats=3, rounds=1, **changes):
    spec = resolve(layer) if isinstance(layer, str) else own(layer)
    return cost.configure(spec, "XS", **(SHAPE | {"device": CPU, "repeats": repeats, "rounds": rounds} | changes)), spec


@pytest.mark.parametrize("layer", [*LAYERS, EXAMPLE, Plain])
def test_a_record_is_complete(tmp_path, layer):
    config, spec = tiny(layer, image_size=8)
    seen = []
    record = cost.execute(config, spec, tmp_path, device="cpu", on_progress=seen.append)
    assert (record["kind"], record["status"], record["digest"]) == ("cost", "done", config.digest)
    assert record["config"] == config.as_dict()
    assert record["parameters"] == count_parameters(convnet("XS", spec, 10, 3, 8))
    assert {"commit", "torch", "threads", "time"} <= set(record["environment"])
    missing = set() if spec.builtin else {"folded_seconds", "prepare_seconds", "folded_peak_bytes"}
    assert {name for name in QUANTITIES if record[name] is None} == missing
    for timed in (record[name] for name in cost.SECONDS if record[name]):
        assert 0 < timed["low"] <= timed["median"] <= timed["high"]
        assert (timed["repeats"], timed["rounds"]) == (3, [timed["median"]])
    assert [(step.quantity, step.done, step.total) for step in seen] == [(n, i, 7) for i, n in enumerate(QUANTITIES)]
    assert [path.name for path in (tmp_path / config.folder).iterdir()] == ["record.json"]
    # Weights are float32; training holds a gradient and a momentum for each.
    assert record["train_peak_bytes"] > 3 * 4 * record["parameters"]
    assert record["infer_peak_bytes"] > 4 * record["parameters"]
    if spec.builtin:
        assert record["infer_peak_bytes"] > record["folded_peak_bytes"] > 0
    line = cost.row(record)
    assert all(value is None or isinstance(value, str | int | float) for value in line.values())
    assert (line["layer"], line["repeats"], line["threads"]) == (spec.label, 3, torch.get_num_threads())
    assert line["train_seconds_low"] <= line["train_seconds"] <= line["train_seconds_high"]
    assert cost.execute(config, spec, tmp_path, device="cpu", on_progress=_never, read_only=True) == record


def _never(step):
    raise AssertionError("measured again")


def test_memory_repeats_and_the_random_state_stays(tmp_path):
    config, spec = tiny("cpl", repeats=1)
    before = torch.get_rng_state()
    first = cost.execute(config, spec, tmp_path / "a", device="cpu")
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    second = cost.execute(config, spec, tmp_path / "b", device="cpu")
    assert [first[name] for name in cost.PEAKS] == [second[name] for name in cost.PEAKS]


def test_more_pictures_need_more_memory(tmp_path):
    few, many = (cost.execute(*tiny(repeats=1, batch_size=n), tmp_path, device="cpu") for n in (1, 64))
    for name in cost.PEAKS:
        assert many[name] - few[name] > 63 * 3 * 4 * 4 * 4, name


def test_repeats_are_spread_over_the_rounds_of_which_none_is_measured_twice(tmp_path):
    config, spec = tiny(repeats=5, rounds=3)
    folder, steps = tmp_path / config.folder, []
    for number in (0, 1):
        cost.execute_round(config, spec, tmp_path, number, device="cpu")
    kept = [json.loads((folder / f"round{number}.json").read_text())["result"] for number in (0, 1)]
    assert [len(result["train_seconds"]) for result in kept] == [2, 2]
    assert "train_peak_bytes" in kept[0]
    assert "train_peak_bytes" not in kept[1]
    record = cost.execute(config, spec, tmp_path, device="cpu", on_progress=steps.append)
    last = [(name, done, 15) for done, name in enumerate(cost.SECONDS, 11)]
    assert [(step.quantity, step.done, step.total) for step in steps] == last
    assert record["train_seconds"]["repeats"] == 5
    assert record["train_seconds"]["rounds"][:2] == [pytest.approx(np.median(r["train_seconds"])) for r in kept]
    assert sorted(path.name for path in folder.iterdir()) == ["record.json"]
    assert tiny(repeats=2, rounds=3)[0].rounds == 2


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1, "digest": "0", "round": 0, "result": {}}'])
def test_a_damaged_round_is_refused(tmp_path, text):
    config, spec = tiny()
    (records.make_folder(tmp_path / config.folder) / "round0.json").write_text(text)
    with pytest.raises(LiprefError, match="delete that file"):
        cost.execute(config, spec, tmp_path, device="cpu")


def test_an_interval_holds_the_quartiles_and_the_rounds():
    def interval(*samples):
        parts = [
            {"parameters": 1, "exhausted": False} | {name: list(times) for name in QUANTITIES} for times in samples
        ]
        timed = rounds.combine(parts)["train_seconds"]
        return timed["low"], timed["median"], timed["high"]

    assert interval([1.0, 2.0, 3.0, 4.0, 5.0]) == (2, 3, 4)
    assert interval([1.0, 1.1], [3.0, 3.1], [3.0, 3.2], [3.0, 3.3], [9.0])[::2] == (1.05, 9)
    assert interval([1.0, 5.0], [1.0, 5.0]) == (1, 3, 5)  # wider than the rounds


@pytest.mark.parametrize("rounds", [1, 3])
def test_a_time_budget_cuts_repeats(tmp_path, rounds):
    config, spec = tiny(repeats=8, rounds=rounds)
    record = cost.execute(config, spec, tmp_path, device="cpu", max_seconds=0)
    assert {record[name]["repeats"] for name in cost.SECONDS} == {3}
    assert cost.row(record)["repeats"] == 3


@pytest.mark.parametrize("layer", [Greedy, Drowned])
def test_running_out_of_memory_is_a_result(tmp_path, layer):
    record = cost.execute(*tiny(layer), tmp_path, device="cpu")
    assert record["status"] == "out_of_memory"
    assert record["train_seconds"] is record["train_peak_bytes"] is None
    assert record["infer_seconds"]["median"] > 0
    assert record["infer_peak_bytes"] > 0
    line = cost.row(record)
    assert (line["status"], line["train_seconds"], line["train_seconds_low"]) == ("out_of_memory", None, None)


@pytest.mark.parametrize(("layer", "text"), [(Broken, "ValueError: two lines"), (Spoilt, "the loss is nan")])
def test_a_layer_that_fails_is_named(tmp_path, layer, text):
    config, spec = tiny(layer)
    with pytest.raises(LiprefError, match=rf"^{layer.__name__} .*{text}.*$"):
        cost.execute(config, spec, tmp_path, device="cpu")
    assert not (tmp_path / config.folder / "record.json").exists()


def test_the_configuration_decides_the_folder():
    config, _ = tiny()
    assert config.folder == tiny()[0].folder
    assert config.folder.startswith("cost-4x4-XS-standard-batch4-")
    others = [dataclasses.replace(config, **change) for change in (
        {"layer": "aol"}, {"layer_sha256": "0"}, {"size": "S"}, {"image_size": 8}, {"channels": 1}, {"repeats": 4},
        {"num_classes": 9}, {"batch_size": 5}, {"device": "cuda"}, {"machine": "x"}, {"threads": 99}, {"version": "0"},
        {"code": "0"}, {"torch": "0"}, {"cores": 99}, {"rounds": 2},
    )]  # fmt: skip
    assert len({config.digest, *(other.digest for other in others)}) == 1 + len(others)


def test_only_here_can_be_measured_what_was_configured_here(tmp_path):
    config, spec = tiny()
    assert experiment.NotDone is records.NotDone
    with pytest.raises(records.NotDone):
        cost.execute(config, spec, tmp_path, device="cpu", read_only=True)
    others = ({"threads": config.threads + 1}, {"machine": "another"}, {"layer": "aol"}, {"cores": 99}, {"code": "0"})
    for change in others:
        with pytest.raises(LiprefError, match=f"{next(iter(change))}.*configure"):
            cost.execute(dataclasses.replace(config, **change), spec, tmp_path, device="cpu")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 1, "kind": "cost", "digest": "0"}'])
def test_a_damaged_record_is_refused(tmp_path, text):
    config, spec = tiny()
    path = records.make_folder(tmp_path / config.folder) / "record.json"
    path.write_text(text)
    with pytest.raises(LiprefError, match="delete that file"):
        cost.execute(config, spec, tmp_path, device="cpu")
    assert path.read_text() == text


def test_the_record_of_another_measurement_is_refused(tmp_path):
    config, spec = tiny(repeats=1)
    path = tmp_path / config.folder / "record.json"
    record = cost.execute(config, spec, tmp_path, device="cpu")
    for change in ({"digest": "0"}, {"kind": "run"}, {"status": "?"}, {"config": record["config"] | {"threads": 99}}):
        path.write_text(json.dumps(record | change))
        with pytest.raises(LiprefError, match="not the record of this measurement"):
            cost.execute(config, spec, tmp_path, device="cpu")
    path.write_text(json.dumps({name: value for name, value in record.items() if name != "train_peak_bytes"}))
    with pytest.raises(LiprefError, match=r"damaged.*train_peak_bytes"):
        cost.execute(config, spec, tmp_path, device="cpu")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"repeats": 1.5}, "repeats=1.5"),
        ({"rounds": 0}, "rounds=0"),
        ({"image_size": 9}, "image_size=9"),
        ({"channels": 99}, "99"),
        ({"num_classes": 10**6}, "1000000"),
        ({"device": "abacus"}, "'abacus'"),
        ({"device": "meta"}, "'meta'"),
        ({"device": "cuda:99"}, "'cuda:99'"),
    ],
)
def test_bad_input_is_named(change, text):
    with pytest.raises(LiprefError, match=text):
        tiny(**change)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("layer", ["aol", "lot"])
def test_on_cuda(tmp_path, layer):
    config, spec = tiny(layer, device="cuda")
    record = cost.execute(config, spec, tmp_path, device="cuda")
    assert record["config"]["machine"] == record["environment"]["device"]["name"]
    assert all(record[name] for name in QUANTITIES)
    again = cost.execute(config, spec, tmp_path / "again", device="cuda")
    assert [again[name] for name in cost.PEAKS] == [record[name] for name in cost.PEAKS]
