"""`lipref plan`: what would be run, from what is published and what lies on disk."""

import pytest
from tiny_runs import TINY, cli

from lipref import data
from lipref.cli import plan as plan_command
from lipref.cli import reproduce as reproduce_command
from lipref.cli import train as train_command
from lipref.runs import planning, plans, sweeps
from lipref.training.speed import Speed, usual

PAPER = {"dataset": "cifar10", "sizes": ("XS", "L"), "layers": ("standard", "lot", "soc"), "budget": "24h",
         "batch_size": 256, "schedule": "paper", "search": "random", "partial": True}  # fmt: skip


def test_the_papers_runs_with_their_hours_and_memory(tmp_path):
    found = planning.table(plans.draft(**PAPER, out=tmp_path / "none"), data.shape("cifar10"))
    assert not (tmp_path / "none").exists()
    assert found.groupby("what").runs.sum().to_dict() == {"run": 5, "search": 32}
    line = found[(found.layer == "soc") & (found["size"] == "XS")].iloc[0]
    assert (line.epochs, line.recipe_from, line.done) == (4452, "paper", 0)
    assert line.learning_rate == pytest.approx(0.051, abs=0.001)
    assert line.memory_gb == pytest.approx(1.56, abs=0.01)
    runs = found[found.what == "run"]
    assert runs.hours.tolist() == pytest.approx([24.0] * 5, rel=0.01)
    search = found[found.what == "search"].iloc[0]
    assert (search.runs, search.epochs) == (16, 1157)
    assert search.hours == pytest.approx(16 * 2 * 176 / 196, rel=0.01)
    assert ("lot", "L") not in set(zip(found.layer, found["size"], strict=True))
    total, hours = planning.totals(found)
    assert total == "37 runs, 0 of them done"
    assert "the paper's A100" in hours


def test_what_the_paper_has_not_measured_is_not_known():
    for change in ({"batch_size": 128}, {"dataset": "tiny-imagenet-200", "layers": ("soc",)}):
        given = PAPER | change
        found = planning.table(plans.draft(**given), data.shape(given["dataset"]))
        assert found.memory_gb.isna().all()
        assert found.hours.isna().all() == (given["batch_size"] != 256)
    assert "not published" in set(planning.people(found)["memory (GB)"])


def test_what_is_done_is_seen(tmp_path):
    given = {"dataset": "digits", "sizes": ("XS",), "layers": ("standard",), "budget": "1 epoch", "batch_size": 50,
             "limit_train": 200, "limit_test": 50, "out": tmp_path, "jobs": 1, "seeds": (0, 1)}  # fmt: skip
    plan = plans.draft(**given, learning_rate=0.05)
    shape = data.shape("digits")
    assert planning.table(plan, shape).done.tolist() == [0, 0]
    first = plans.draft(**given | {"seeds": (0,)}, learning_rate=0.05)
    sweeps.run_task(first, ("XS", "standard"), first.load(), lambda step: None)
    assert planning.table(plan, shape).done.tolist() == [1, 0]
    assert planning.table(plans.draft(**given, learning_rate=0.06), shape).done.tolist() == [0, 0]


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:1"])
def test_the_runs_that_are_listed_are_those_that_are_done(monkeypatch, device):
    """With the device's usual options in all commands, or `lipref plan` would find nothing done."""

    class Asked(Exception):
        pass

    def ask(**given):
        raise Asked(given)

    monkeypatch.setattr(plans, "draft", ask)
    monkeypatch.setattr(plans, "make_plan", ask)
    monkeypatch.setattr(train_command, "make_plan", ask)
    found = []
    for command, others in ((plan_command.plan, {}), (reproduce_command.reproduce, {"figures": False}),
                            (train_command.train, {})):  # fmt: skip
        with pytest.raises(Asked) as caught:
            command(device=device, **others)
        found.append(caught.value.args[0])
    assert [given["speed"] for given in found] == [usual(device)] * 3
    listed, done, _ = found
    assert {name: done[name] for name in listed} == listed


def test_a_run_with_other_options_is_another(tmp_path):
    given = {"dataset": "digits", "sizes": ("XS",), "layers": ("standard",), "budget": "1 epoch", "batch_size": 50,
             "limit_train": 200, "limit_test": 50, "out": tmp_path, "jobs": 1, "learning_rate": 0.05}  # fmt: skip
    done = plans.draft(**given, speed=Speed(channels_last=True))
    sweeps.run_task(done, ("XS", "standard"), done.load(), lambda step: None)
    assert planning.table(done, data.shape("digits")).done.tolist() == [1]
    assert planning.table(plans.draft(**given), data.shape("digits")).done.tolist() == [0]


def test_by_the_command_line(tmp_path):
    path = tmp_path / "plan.csv"
    shown = cli("plan", *TINY, "--layers", "aol", "--epochs", "1", "--out", tmp_path / "o", "--csv", path).stdout
    assert "5 runs, 0 of them done" in shown
    assert path.read_text().startswith(",".join(planning.COLUMNS))
    assert not (tmp_path / "o").exists()
