"""Which older results may stand in a table beside new ones: one configuration per size and layer."""

import json

import pytest

from lipref.bench import cost, measurements
from lipref.data import Shape
from lipref.paths import RESULTS
from lipref.runs import records
from lipref.runs.records import make_folder

RUN, COST = (
    json.loads((RESULTS / "digits-xs" / name).read_text())[0] | {"notes": {}} for name in ("records.json", "costs.json")
)
NEW = {"code": "1", "torch": "2"}


def run(day, *, layer="aol", rate=0.1, seed=0, retry=0, budget=None, epochs=20, start=None, **config):
    settings = RUN["config"]["settings"] | {"learning_rate": rate, "seed": seed, "epochs": epochs}
    config = RUN["config"] | NEW | {"layer": layer} | config | {"settings": settings}
    recipe = {"learning_rate": start or rate, "weight_decay": settings["weight_decay"]}
    return RUN | {
        "config": config, "environment": RUN["environment"] | {"time": f"2026-01-{day:02}T00:00:00+00:00"},
        "notes": {"hyperparameters": "search", "retry": retry, "budget": budget, "recipe": recipe},
        "digest": json.dumps(config),
    }  # fmt: skip


def measured(day, *, layer="aol", size="XS", **config):
    config = COST["config"] | NEW | {"layer": layer, "size": size} | config
    environment = COST["environment"] | {"time": f"2026-01-{day:02}T00:00:00+00:00"}
    return COST | {"config": config, "environment": environment, "digest": json.dumps(config)}


def keep(folder, records):
    for number, record in enumerate(records):
        path = make_folder(folder / f"{number}") / "record.json"
        path.write_text(json.dumps(record))


def days(records):
    return sorted(int(record["environment"]["time"][8:10]) for record in records)


ASKED = run(20, layer="soc")


@pytest.mark.parametrize(
    ("found", "kept"),
    [
        ([run(1), run(2, rate=0.3)], {2}),  # two learning rates are not two seeds
        ([run(1, rate=0.3), run(2)], {2}),
        ([run(1), run(2, seed=1), run(3, seed=1, rate=0.3)], {3}),
        ([run(1), run(2, seed=1), run(3, seed=2)], {1, 2, 3}),
        ([run(1, start=0.3, rate=0.3), run(2, start=0.3, rate=0.1, retry=1), run(3, seed=1, start=0.3, rate=0.3)],
         {1, 2, 3}),
        ([run(1, layer="My", layer_sha256="a"), run(2, layer="My", layer_sha256="b", seed=1)], {2}),
        ([run(1, layer="My", layer_sha256="a"), run(2, layer="My", layer_sha256="b", size="S")], {2}),
        ([run(1, code="0"), run(2, torch="0"), run(3, version="0"), run(4, epochs=5), run(5, device="cuda")], set()),
        ([run(1, layer="soc", seed=1), run(2, layer="soc", seed=2, rate=0.3)], {1}),  # the recipe asked for counts
        ([run(1, layer="soc", rate=0.03, start=0.1, retry=1)], set()),  # that seed is answered
    ],
)  # fmt: skip
def test_one_configuration_per_size_and_layer(tmp_path, found, kept):
    keep(tmp_path, found)
    assert set(days(records.beside([ASKED], tmp_path))) == kept | {20}


def test_ones_own_layer_is_the_current_file(tmp_path):
    keep(tmp_path, [run(1, layer="My", layer_sha256="a", size="S"), run(2, layer="My", layer_sha256="b", size="M")])
    asked = run(20, layer="My", layer_sha256="a")
    assert days(records.beside([asked], tmp_path)) == [1, 20]


def test_runs_of_one_budget_stay_together_though_epochs_differ(tmp_path):
    keep(tmp_path, [run(1, budget="2h", epochs=70), run(2, layer="cpl", budget="10h", epochs=70), run(3, layer="lot")])
    asked = run(20, layer="soc", budget="2h", epochs=40)
    assert days(records.beside([asked], tmp_path)) == [1, 20]


def test_records_without_the_new_fields_can_still_be_compared(tmp_path):
    old = [RUN | {"config": RUN["config"] | {"layer": name}, "digest": name} for name in ("aol", "soc")]
    keep(tmp_path, old)
    assert [record["config"]["layer"] for record in records.beside(old[:1], tmp_path)] == ["aol", "soc"]


@pytest.mark.parametrize(
    ("found", "kept"),
    [
        ([measured(1, repeats=3), measured(2), measured(3, repeats=5)], {3}),  # a layer stands once
        ([measured(1, layer="My", layer_sha256="a"), measured(2, layer="My", layer_sha256="b")], {2}),
        ([measured(1, layer="soc", size="S"), measured(2, size="S", rounds=1)], {1, 2}),
        ([measured(1, layer="soc", repeats=3)], set()),
        ([measured(1, code="0"), measured(2, threads=1), measured(3, cores=7), measured(4, torch="0")], set()),
    ],
)
def test_a_layer_has_one_measurement_per_size(tmp_path, found, kept):
    keep(tmp_path / measurements.FOLDER, found)
    beside = measurements.beside([measured(20, layer="soc")], tmp_path)
    assert set(days(beside)) == kept | {20}
    assert len({records.place(record) for record in beside}) == len(beside)


def test_the_measurements_of_an_edited_layer_are_left_out(tmp_path):
    found = [measured(1, layer="My", layer_sha256="a", size="S"), measured(2, layer="My", layer_sha256="b", size="M")]
    keep(tmp_path / measurements.FOLDER, found)
    assert days(measurements.beside([measured(20, layer="My", layer_sha256="b")], tmp_path)) == [2, 20]


def plan(tmp_path):
    return measurements.CostPlan(
        sizes=("XS",), layers=("standard", "aol"), shape=Shape(4, 1, 10, 9), batch_size=4, out=tmp_path, repeats=3
    )


def test_all_networks_have_their_turn_in_every_round(tmp_path, monkeypatch):
    turns, real = [], cost.execute_round
    monkeypatch.setattr(
        cost, "execute_round",
        lambda config, spec, root, number, **rest: (turns.append((number, config.layer)),
                                                    real(config, spec, root, number, **rest)),
    )  # fmt: skip
    calls = []
    records, failures = measurements.run(plan(tmp_path), lambda *call: calls.append(call))
    assert not failures
    interleaved = [(number, layer) for number in range(3) for layer in ("standard", "aol")]
    assert list(dict.fromkeys(turns)) == interleaved
    assert calls == [(i, 6, "XS", layer) for i, (_, layer) in enumerate(interleaved)]
    assert [record["train_seconds"]["repeats"] for record in records] == [3, 3]
    calls.clear()
    assert measurements.run(plan(tmp_path), lambda *call: calls.append(call)) == (records, [])
    assert not calls


def test_a_killed_measurement_goes_on(tmp_path):
    def stop(done, total, size, layer):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measurements.run(plan(tmp_path), stop)
    kept = {path: path.read_bytes() for path in tmp_path.rglob("round*.json")}
    assert len(kept) == 3
    records, _ = measurements.run(plan(tmp_path))
    for path, text in kept.items():
        first = json.loads(text)
        (record,) = (r for r in records if r["digest"] == first["digest"])
        times = sorted(first["result"]["train_seconds"])
        assert times[len(times) // 2] == record["train_seconds"]["rounds"][first["round"]], path
