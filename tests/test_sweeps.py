"""Comparisons of many runs: recipes, the search, processes, tables, and a user's own layer."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest
from tiny_runs import CPU, EXAMPLE, TABLE_ONLY, TINY, cli, tiny

from lipref.paths import ROOT
from lipref.runs import overview, plans, recipes, records, sweeps
from lipref.training import TrainingConfig


@pytest.mark.slow
def test_reproduce_with_ones_own_layer_in_processes_and_again(tmp_path):
    command = [
        "reproduce", *TINY, *TABLE_ONLY, "--epochs", "1", "--search-epochs", "1",
        "--layers", f"aol,{EXAMPLE}", "--out", tmp_path,
    ]  # fmt: skip
    first = cli(*command, "--jobs", "2")
    table = pd.read_csv(tmp_path / "table.csv")
    assert sorted(table.layer) == ["MyConv", "aol"]
    assert table.proved.all()
    assert (table.hyperparameters == "search").all()
    markdown = (tmp_path / "table.md").read_text()
    assert "| MyConv |" in markdown
    assert "table.csv" in first.stdout
    records = json.loads((tmp_path / "records.json").read_text())
    assert all({"commit", "torch", "device"} <= set(record["environment"]) for record in records)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("record.json")}
    cli(*command, "--jobs", "1")
    assert stamps == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("record.json")}
    assert len(list((tmp_path / "search").glob("*/record.json"))) == 2 * len(recipes.Search(epochs=1).learning_rates)


@pytest.mark.slow
def test_an_own_layer_without_a_bound_is_marked_not_proved(tmp_path):
    source = (ROOT / "examples" / "my_layer.py").read_text()
    bare = tmp_path / "bare.py"
    bare.write_text(source[: source.index("    def lipschitz_bound")])
    command = [
        "reproduce",
        *TINY,
        *TABLE_ONLY,
        "--epochs",
        "1",
        "--learning-rate",
        "0.05",
        "--layers",
        f"{bare}:MyConv",
    ]
    cli(*command, "--out", tmp_path / "o")
    assert "not proved" in (tmp_path / "o" / "table.md").read_text()
    # An edited file is another layer: its runs are other runs.
    bare.write_text(bare.read_text() + "\n# edited\n")
    cli(*command, "--out", tmp_path / "o")
    assert len(list((tmp_path / "o").glob("*/record.json"))) == 2


def test_recipes_are_the_papers_where_it_has_them():
    recipe = recipes.paper_recipe("cifar10-jpeg", "XS", "aol")
    assert (recipe.learning_rate, recipe.weight_decay) == (0.0572893960435106, 3.6760764309725095e-05)
    assert recipes.paper_recipe("cifar100", "M", "soc") is not None
    assert recipes.paper_recipe("tiny-imagenet-200", "S", "lot") is not None
    assert recipes.paper_recipe("cifar10", "S_1x1", "lot") != recipes.paper_recipe("cifar10", "S", "lot")
    for dataset, layer in (("digits", "aol"), ("cifar10", "standard"), ("cifar10", "MyConv")):
        assert recipes.paper_recipe(dataset, "XS", layer) is None


def test_the_search_takes_the_highest_cra_then_accuracy_then_the_smaller_rate(tmp_path, monkeypatch):
    found = {0.01: (0.2, 0.9), 0.03: (0.5, 0.7), 0.1: (0.5, 0.8), 0.3: (0.5, 0.8), 1.0: None}

    def execute(config, *_, **__):
        scores = found[config.settings.learning_rate]
        if scores is None:
            return {"status": "diverged"}
        cra, accuracy = ({"value": value} for value in scores)
        return {"status": "done", "certificate": {"cra": {"36/255": cra}, "accuracy": accuracy}}

    monkeypatch.setattr(recipes, "execute", execute)
    _, data, spec = tiny()
    plan = recipes.Search(epochs=1, learning_rates=tuple(found))
    recipe = recipes.search(data, spec, "XS", plan, 50, tmp_path, device=CPU)
    assert recipe == recipes.Recipe(0.1, plan.weight_decay, "search")


def test_the_search_never_sees_the_test_set(tmp_path):
    _, data, spec = tiny()
    recipes.search(data, spec, "XS", recipes.Search(epochs=1, learning_rates=(0.1,)), 50, tmp_path, device=CPU)
    (record,) = (json.loads(path.read_text()) for path in tmp_path.glob("*/record.json"))
    assert record["certificate"]["accuracy"]["total"] == 20  # a tenth of the 200 training images
    assert record["config"]["validation"] == recipes.VALIDATION


def test_costly_layers_start_first():
    plan = plans.Plan(
        dataset="digits", sizes=("XS",), layers=("aol", "mine.py:X", "lot"), seeds=(0,), given=True, out=ROOT,
        settings=TrainingConfig(epochs=1, learning_rate=0.1), search=recipes.Search(epochs=1),
    )  # fmt: skip
    assert [layer for _, layer in plan.tasks()] == ["mine.py:X", "lot", "aol"]


def test_a_searched_rate_that_diverges_is_cut_and_said_so(tmp_path):
    _, data, _ = tiny()
    plan = plans.Plan(
        dataset="digits",
        sizes=("XS",),
        layers=("standard",),
        seeds=(0,),
        given=False,
        out=tmp_path,
        settings=TrainingConfig(epochs=3, learning_rate=0.1, batch_size=50),
        search=recipes.Search(epochs=1, learning_rates=(3.0,)),
    )
    *tried, record = sweeps.run_task(plan, ("XS", "standard"), data, lambda step: None)
    rates = [r["config"]["settings"]["learning_rate"] for r in (*tried, record)]
    assert rates[0] == 3.0
    assert rates[1:] == [rate / 3 for rate in rates[:-1]]
    assert all(r["status"] == "diverged" for r in tried)
    # Every diverged run stays on record beside the last one, as a row of its own.
    assert len(list(tmp_path.glob("*/record.json"))) == len(rates)
    table = pd.DataFrame([records.row(r) for r in (*tried, record)])
    assert table.diverged_at_step.notna().sum() >= len(tried)
    assert f"/{len(rates)}" in overview.summary(table).n.iloc[0]


def test_where_a_learning_rate_comes_from_is_this_plans_answer(tmp_path, monkeypatch):
    """A run that was first made for another plan keeps its file, and is told as this plan's."""
    _, data, _ = tiny()
    given = plans.Plan(
        dataset="digits", sizes=("XS",), layers=("standard",), seeds=(0,), given=True, out=tmp_path,
        settings=TrainingConfig(epochs=1, learning_rate=0.1, batch_size=50), search=recipes.Search(epochs=1),
    )  # fmt: skip
    (first,) = sweeps.run_task(given, ("XS", "standard"), data, lambda step: None)
    found = recipes.Recipe(0.1, given.settings.weight_decay, "search")
    monkeypatch.setattr(recipes, "search", lambda *_, **__: found)
    (again,) = sweeps.run_task(replace(given, given=False), ("XS", "standard"), data, lambda step: None)
    assert [record["notes"]["hyperparameters"] for record in (first, again)] == ["given", "search"]
    assert again == first | {"notes": first["notes"] | {"hyperparameters": "search"}}
    assert again["notes"]["recipe"]["learning_rate"] == 0.1
    (path,) = tmp_path.glob("*/record.json")
    assert json.loads(path.read_text()) == first


@pytest.mark.slow
def test_a_second_command_adds_to_the_table(tmp_path):
    command = ["reproduce", *TINY, *TABLE_ONLY, "--epochs", "1", "--learning-rate", "0.05", "--out", tmp_path]
    cli(*command, "--layers", "aol,standard")
    cli(*command, "--layers", "soc")
    assert pd.read_csv(tmp_path / "table.csv").layer.tolist() == ["aol", "soc", "standard"]
    cli(*command, "--layers", "bcop", "--batch-size", "40")  # not to be compared with the others
    assert pd.read_csv(tmp_path / "table.csv").layer.tolist() == ["bcop"]


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ("def forward(self, x): return self.nothing(x)", "nothing"),
        ("def forward(self, x): return x[..., 1:]", "height and width"),
        ("def forward(self, x): return super().forward(x) @ torch.eye(x.shape[-1])", "float64"),
    ],
)
def test_a_broken_layer_of_ones_own_is_refused_before_training(tmp_path, body, named):
    path = tmp_path / "broken.py"
    path.write_text(
        "import torch\nfrom torch import nn\n\nclass Broken(nn.Conv2d):\n"
        "    def __init__(self, i, o, k, bias=True):\n        super().__init__(i, o, k, padding='same', bias=bias)\n\n"
        f"    {body}\n"
    )
    done = cli("reproduce", *TINY, *TABLE_ONLY, "--layers", f"{path}:Broken", "--out", tmp_path / "o", check=False)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert named in done.stderr
    assert not (tmp_path / "o").exists()


BARE = """
import sys
from lipref.runs import plans, sweeps
plan = plans.make_plan(
    dataset="digits", sizes=("XS",), layers=("aol", "standard"), seeds=(0,), budget="1 epoch", batch_size=50,
    learning_rate=0.05, weight_decay=None, schedule="onecycle", device="cpu", out=sys.argv[1], jobs=2,
    limit_train=200, limit_test=50,
)
for task, result in sweeps.run(plan, lambda step: None):
    print(task, result)
"""


def test_a_script_without_a_main_guard_is_told_of_it(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(BARE)
    command = [sys.executable, str(script), str(tmp_path / "out")]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done.stderr
    assert all("__main__" in line and "killed" not in line for line in lines)


@pytest.mark.slow
def test_a_process_that_is_killed_is_told_as_killed(tmp_path):
    source = (ROOT / "examples" / "my_layer.py").read_text()
    deadly = tmp_path / "deadly.py"
    deadly.write_text(
        f"{source}\n\nimport multiprocessing, os, signal\n"
        "if multiprocessing.parent_process() is not None:\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = cli("reproduce", *TINY, *TABLE_ONLY, "--epochs", "1", "--learning-rate", "0.05", "--jobs", "2",
               "--layers", f"{deadly}:MyConv,aol", "--out", tmp_path / "o",
               check=False)  # fmt: skip
    assert done.returncode == 2
    assert "killed" in done.stderr
    assert "__main__" not in done.stderr
