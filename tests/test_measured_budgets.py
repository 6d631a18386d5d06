"""Budgets: times in epochs, by the paper's table and by measured steps, fixed once."""

import json
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lipref import data
from lipref.errors import LiprefError
from lipref.paper import published
from lipref.paths import ROOT
from lipref.runs import budgeting, budgets, plans, sweeps
from lipref.training.speed import Speed, usual


@given(st.integers(1, 10**6), st.integers(1, 1000), st.integers(1, 60_000), st.integers(1, 512))
def test_epochs_fill_the_budget_and_one_more_would_not(milliseconds, step, images, batch):
    epoch = Fraction(step, 1000) * -(-images // batch)
    seconds = Fraction(milliseconds, 1000) + epoch  # at least one epoch
    found = budgets.epochs_in(float(seconds), step / 1000, images, batch)
    assert found == seconds // epoch


@pytest.mark.parametrize(
    ("arguments", "named"),
    [((10, 1.0, 100, 5), "shorter than one epoch"), ((-1, 1.0, 1, 1), "seconds=-1"),
     ((1, float("nan"), 1, 1), "step_seconds"), ((1, 1.0, 0, 1), "images=0"), ((1, 1.0, 1, 0), "batch_size=0")],
)  # fmt: skip
def test_a_budget_of_no_epoch_is_refused(arguments, named):
    with pytest.raises(LiprefError, match=named):
        budgets.epochs_in(*arguments)


def test_longer_budgets_are_multiples_as_the_printed_ones_are():
    for line in published.epoch_budgets().dropna().itertuples():
        assert (line.epochs_10h, line.epochs_24h) == (5 * line.epochs_2h, 12 * line.epochs_2h)
    found = [budgets.paper_epochs("cifar10", "XS", "aol", budget) for budget in budgets.TIMES]
    assert found == [837, 5 * 837, 12 * 837, 24 * 837, 36 * 837]
    with pytest.raises(LiprefError, match="lot L"):
        budgets.paper_epochs("cifar10", "L", "lot", "48h")


def test_the_papers_step_times_give_its_epochs():
    for line in published.epoch_budgets().dropna().itertuples():
        if line.group == "CIFAR":
            step = budgets.paper_step("cifar10", line.size, line.layer)
            assert 7200 / (step * 196) == pytest.approx(line.epochs_2h, rel=1e-3)
    assert budgets.paper_step("digits", "XS", "aol") is None
    assert budgets.paper_step("cifar10", "XS", "standard") == pytest.approx(6.22 / 196, rel=0.01)


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("5min", 300), ("5 m", 300), ("2h", 7200), ("1.5 h", 5400), ("90 SEC", 90)]
)  # fmt: skip
def test_durations(text, seconds):
    assert budgets.duration(text) == seconds
    named = budgets.named(text, "measured")
    epochs, label = budgets.parse(named)
    assert epochs is None
    assert budgets.is_measured(label)
    assert budgets.seconds_of(label) == seconds
    assert budgets.parse(label) == (None, label)


@pytest.mark.parametrize("text", ["soon", "0s", "5", "-5min", "5 days", "", "measured"])
def test_no_durations(text):
    with pytest.raises(LiprefError):
        budgets.parse(f"{text} measured")


def test_where_a_budget_comes_from():
    assert budgets.parse("20 epochs") == (20, None)
    assert budgets.parse("48h") == (None, "48h")
    for text, source, named in (("20 epochs", "measured", "20 epochs"), ("2h", "guessed", "guessed")):
        with pytest.raises(LiprefError, match=named):
            budgets.named(text, source)
    with pytest.raises(LiprefError, match="--budget-from measured"):
        budgets.parse("5min")


def plan_of(out, **given):
    return plans.draft(
        **{"dataset": "digits", "sizes": ("XS",), "layers": ("aol",), "budget": "10s measured", "batch_size": 50,
           "learning_rate": 0.05, "limit_train": 200, "limit_test": 50, "out": out, "jobs": 1} | given
    )  # fmt: skip


@pytest.fixture
def timings(monkeypatch):
    """Measurements that are made up: the calls, and the seconds of a step that the next one finds."""
    calls, found = [], {"seconds": 0.5}

    def run(plan, on_task=None):
        calls.append(plan.tasks())
        records = []
        for size, layer in plan.tasks():
            config = {"size": size, "layer": layer, "device": "cpu", "machine": "a machine", "threads": 1}
            timed = None if found["seconds"] is None else {"median": found["seconds"]}
            records.append({"digest": "0123456789ab", "config": config, "train_seconds": timed})
        return records, []

    monkeypatch.setattr(budgeting.measurements, "run", run)
    return calls, found


def test_a_measured_budget_is_fixed_once(tmp_path, timings):
    calls, found = timings
    shape = data.shape("digits")
    plan = budgeting.settle(plan_of(tmp_path), shape)
    assert plan.settings_of("digits", "XS", "aol").epochs == 5  # 10 s at 4 steps of half a second
    assert calls == [[("XS", "aol")]]
    found["seconds"] = 0.1  # another day, another machine
    again = budgeting.settle(plan_of(tmp_path), shape)
    assert again == plan
    assert len(calls) == 1
    assert budgeting.foresee(plan_of(tmp_path), shape) == (plan, {("XS", "aol")})
    longer = budgeting.settle(plan_of(tmp_path, budget="20s measured"), shape)
    assert longer.settings_of("digits", "XS", "aol").epochs == 50
    assert {each.epochs for each in budgets.read(tmp_path)} == {5, 50}


def test_the_step_that_is_timed_is_the_one_that_trains(tmp_path, timings, monkeypatch):
    shape, timed = data.shape("digits"), []
    answer = budgeting.measurements.run

    def run(plan, on_task=None):
        timed.append(plan.speed)
        return answer(plan, on_task)

    monkeypatch.setattr(budgeting.measurements, "run", run)
    fast = Speed(channels_last=True, fused=True)
    plain = budgeting.settle(plan_of(tmp_path), shape)
    assert "speed" not in json.loads((tmp_path / budgets.FILE).read_text())["epochs"][0]  # as before there were options
    timings[1]["seconds"] = 0.25
    quick = budgeting.settle(plan_of(tmp_path, speed=fast), shape)
    assert timed == [Speed(), fast]  # never None, which would be the device's usual ones
    assert [each.settings_of("digits", "XS", "aol").epochs for each in (plain, quick)] == [5, 10]
    for plan in (plain, quick):  # both are kept, each found by its own options
        assert budgeting.settle(plan_of(tmp_path, speed=plan.settings.speed), shape) == plan
        assert budgeting.foresee(plan_of(tmp_path, speed=plan.settings.speed), shape) == (plan, {("XS", "aol")})
    assert len(timed) == 2


def test_a_measured_budget_takes_the_usual_options_of_cuda(tmp_path, timings, monkeypatch):
    monkeypatch.setattr(plans, "check_device", lambda device: None)
    plan = plan_of(tmp_path, device="cuda", speed=usual("cuda"))
    settled = budgeting.settle(plan, data.shape("digits"))
    assert settled.paces[0].speed == "channels_last=True, fused=True, cuda_graphs=True"
    assert budgets.read(tmp_path) == list(settled.paces)


def test_only_what_is_missing_is_timed(tmp_path, timings):
    calls, _ = timings
    budgeting.settle(plan_of(tmp_path), data.shape("digits"))
    budgeting.settle(plan_of(tmp_path, layers=("aol", "cpl")), data.shape("digits"))
    assert calls[1:] == [[("XS", "cpl")]]


def test_a_budget_below_one_epoch_and_memory_that_runs_out_are_errors(tmp_path, timings):
    _, found = timings
    with pytest.raises(LiprefError, match=r"aol XS.*shorter than one epoch"):
        budgeting.settle(plan_of(tmp_path, budget="1s measured"), data.shape("digits"))
    found["seconds"] = None
    with pytest.raises(LiprefError, match="does not fit"):
        budgeting.settle(plan_of(tmp_path), data.shape("digits"))


def test_other_budgets_measure_nothing(tmp_path, timings):
    plan = plan_of(tmp_path / "none", budget="3 epochs")
    assert budgeting.settle(plan, data.shape("digits")) is plan
    assert not (tmp_path / "none").exists()
    assert not timings[0]


def test_a_damaged_file_is_refused(tmp_path, timings):
    (tmp_path / budgets.FILE).write_text('{"format": 1}')
    with pytest.raises(LiprefError, match="damaged"):
        budgeting.settle(plan_of(tmp_path), data.shape("digits"))


def test_the_record_tells_the_budget_and_its_step_time(tmp_path, timings):
    plan = budgeting.settle(plan_of(tmp_path, layers=("standard",)), data.shape("digits"))
    (record,) = sweeps.run_task(plan, ("XS", "standard"), plan.load(), lambda step: None)
    assert record["config"]["settings"]["epochs"] == 5
    assert (record["notes"]["budget"], record["notes"]["step_seconds"]) == ("10s measured", 0.5)
    assert "a machine" in record["notes"]["step_from"]


def test_the_search_has_the_epochs_of_two_hours_at_most_the_runs(tmp_path):
    shared = {"dataset": "cifar10", "search": "random", "learning_rate": None, "limit_train": None, "limit_test": None}
    for budget, epochs in (("24h", 1157), ("2h", 1157), ("20 epochs", 20)):
        plan = plan_of(tmp_path, layers=("standard",), budget=budget, **shared)
        assert plan.search_of("cifar10", "XS", "standard").epochs == epochs
    plan = plan_of(tmp_path, layers=("standard",), budget="24h", search_epochs=7, **shared)
    assert plan.search_of("cifar10", "XS", "standard").epochs == 7
    answer = {"budget": "24h measured", "layer": "aol", "layer_sha256": None, "size": "XS", "images": 100,
              "batch_size": 10, "image_size": 8, "device": "cpu", "step_seconds": 1.0, "origin": ""}  # fmt: skip
    assert budgets.Pace(epochs=8640, **answer).search_epochs() == 720
    assert budgets.Pace(epochs=3, **answer).search_epochs() == 3


def test_a_partial_plan_leaves_out_what_the_paper_lacks():
    given = {"dataset": "cifar10", "sizes": ("XS", "L"), "layers": ("lot", "soc"), "budget": "24h"}
    plan = plans.draft(partial=True, **given)
    assert set(plan.tasks()) == {
        ("XS", "lot"), ("XS", "soc"), ("L", "soc")
    }  # fmt: skip
    ((size, layer, reason),) = plan.left_out
    assert (size, layer) == ("L", "lot")
    assert "lot L" in reason
    assert ("L", "lot") not in plans.draft(partial=True, **given | {"budget": "2h measured"}).tasks()
    assert ("L", "lot") in plans.draft(partial=True, **given | {"budget": "20 epochs"}).tasks()
    for wrong in ({"partial": False}, {"partial": True, "sizes": ("L",), "layers": ("lot",)}):
        with pytest.raises(LiprefError, match="lot L"):
            plans.draft(**given | wrong)


def test_a_plan_without_its_measurement_says_so():
    with pytest.raises(LiprefError, match="timed"):
        replace(plan_of(ROOT), paces=()).settings_of("digits", "XS", "aol")
