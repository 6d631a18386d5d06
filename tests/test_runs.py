"""Runs as folders: decided by the configuration, never done twice, resumable; the user's own layer."""

import json
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import torch

from lipref import checkpoint, experiment, recipes, report, runs, sweeps
from lipref.data import load
from lipref.errors import LiprefError
from lipref.layers import resolve
from lipref.paths import ROOT
from lipref.training import Settings

CPU = torch.device("cpu")
TINY = ["--dataset", "digits", "--limit-train", "200", "--limit-test", "50", "--batch-size", "50"]
EXAMPLE = str(ROOT / "examples" / "my_layer.py") + ":MyConv"


def cli(*arguments, check=True, **options):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-m", "lipref.cli", *map(str, arguments)],
        capture_output=True, text=True, env=environment, cwd=ROOT, check=False, **options,
    )  # fmt: skip
    assert not check or done.returncode == 0, done.stderr
    return done


def tiny(layer="aol", **settings):
    data = load("digits", limit_train=200, limit_test=50)
    spec = resolve(layer)
    settings = Settings(**({"epochs": 1, "learning_rate": 0.05, "batch_size": 50} | settings))
    return experiment.configure(data, spec, "XS", settings, CPU), data, spec


def test_the_configuration_decides_the_folder():
    config, data, spec = tiny()
    assert config.folder == tiny()[0].folder
    others = [
        tiny(epochs=2)[0],
        tiny(learning_rate=0.06)[0],
        tiny(seed=1)[0],
        tiny("soc")[0],
        experiment.configure(load("digits", limit_train=100), spec, "XS", config.settings, CPU),
        experiment.configure(data, spec, "XS", config.settings, CPU, validation=0.1),
        experiment.configure(data, spec, "S", config.settings, CPU),
    ]
    assert len({config.folder, *(other.folder for other in others)}) == 1 + len(others)


def test_a_finished_run_is_read_not_repeated(tmp_path):
    config, data, spec = tiny()
    record = experiment.execute(config, data, spec, tmp_path, device=CPU)
    folder = tmp_path / config.folder
    stamp = (folder / "record.json").stat().st_mtime_ns
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "weights.safetensors",
        "metrics.csv",
        "record.json",
    }

    def never(progress):
        raise AssertionError("trained again")

    assert experiment.execute(config, data, spec, tmp_path, device=CPU, on_progress=never) == record
    assert (folder / "record.json").stat().st_mtime_ns == stamp
    tensors, meta = checkpoint.load(folder / "weights.safetensors")
    assert meta["config"] == record["config"]
    assert sum(t.numel() for t in tensors.values()) >= record["parameters"]


def test_a_record_says_everything(tmp_path):
    config, data, spec = tiny("cpl")
    record = experiment.execute(config, data, spec, tmp_path, device=CPU)
    assert record["status"] == "done"
    assert set(record["certificate"]["cra"]) == {"36/255", "72/255", "108/255", "255/255"}
    assert record["certificate"]["accuracy"]["total"] == 50
    assert {"commit", "torch", "threads", "device", "command", "time"} <= set(record["environment"])
    assert record["config"]["data_sha256"] == data.fingerprint()
    line = runs.row(record)
    assert line["cra_36_low"] <= line["cra_36"] <= line["cra_36_high"]
    assert runs.beside([record], tmp_path) == [record]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 1, "status": "done", "digest": "0"}'])
def test_a_damaged_record_is_refused(tmp_path, text):
    config, data, spec = tiny()
    path = runs.make_folder(tmp_path / config.folder) / "record.json"
    path.write_text(text)
    with pytest.raises(LiprefError, match="delete that file"):
        experiment.execute(config, data, spec, tmp_path, device=CPU)
    assert path.read_text() == text


def test_the_same_seed_gives_the_same_numbers(tmp_path):
    config, data, spec = tiny("soc")
    first = experiment.execute(config, data, spec, tmp_path / "a", device=CPU)
    torch.rand(3)  # the global random state plays no part
    second = experiment.execute(config, data, spec, tmp_path / "b", device=CPU)
    assert first["certificate"] == second["certificate"]
    a, b = (checkpoint.load(tmp_path / name / config.folder / "weights.safetensors")[0] for name in "ab")
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_divergence_never_looks_like_a_result(tmp_path):
    config, data, spec = tiny("standard", learning_rate=1e12, epochs=3)
    record = experiment.execute(config, data, spec, tmp_path, device=CPU)
    assert record["status"] == "diverged"
    assert "certificate" not in record
    assert record["diverged"]["layer"]
    assert not (tmp_path / config.folder / "weights.safetensors").exists()
    text = report.summary(pd.DataFrame([runs.row(record)])).to_string()
    assert "diverged" in text


def strip(record):
    """A record without what may differ between two runs of the same configuration."""
    history = [{k: v for k, v in line.items() if k != "seconds"} for line in record["history"]]
    timed = {"train_seconds", "certify_seconds", "environment", "history"}
    return {k: v for k, v in record.items() if k not in timed} | {"history": history}


@pytest.mark.slow
def test_killed_and_started_again_ends_with_the_same_numbers(tmp_path):
    # SOC: its buffers move in training.
    command = [
        "train",
        *TINY,
        "--layer",
        "soc",
        "--epochs",
        "5",
        "--learning-rate",
        "0.05",
        "--checkpoint-seconds",
        "0",
    ]
    cli(*command, "--out", tmp_path / "whole")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    killed = 0
    while killed < 2:
        process = subprocess.Popen(
            [sys.executable, "-m", "lipref.cli", *command, "--out", str(tmp_path / "cut")],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment, cwd=ROOT,
        )  # fmt: skip
        before = _progress(tmp_path / "cut")
        while process.poll() is None and _progress(tmp_path / "cut") <= before + 2:
            time.sleep(0.02)
        assert process.poll() is None, "ended before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed += 1
    cli(*command, "--out", tmp_path / "cut")
    (whole,), (cut,) = ([p.parent for p in (tmp_path / name).glob("*/record.json")] for name in ("whole", "cut"))
    a, b = (checkpoint.load(folder / "weights.safetensors")[0] for folder in (whole, cut))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert strip(json.loads((whole / "record.json").read_text())) == strip(
        json.loads((cut / "record.json").read_text())
    )


def _progress(root):
    for path in root.glob("*/checkpoint.safetensors"):
        try:
            position = checkpoint.load(path)[1]["position"]
        except LiprefError:  # just gone: training has ended
            return 1000
        return 4 * position["epoch"] + position["step"]
    return 0


def test_reproduce_with_ones_own_layer_in_processes_and_again(tmp_path):
    command = [
        "reproduce", *TINY, "--epochs", "1", "--search-epochs", "1", "--layers", f"aol,{EXAMPLE}", "--out", tmp_path,
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


def test_an_own_layer_without_a_bound_is_marked_not_proved(tmp_path):
    source = (ROOT / "examples" / "my_layer.py").read_text()
    bare = tmp_path / "bare.py"
    bare.write_text(source[: source.index("    def lipschitz_bound")])
    cli(
        "reproduce",
        *TINY,
        "--epochs",
        "1",
        "--learning-rate",
        "0.05",
        "--layers",
        f"{bare}:MyConv",
        "--out",
        tmp_path / "o",
    )
    assert "not proved" in (tmp_path / "o" / "table.md").read_text()
    # An edited file is another layer: its runs are other runs.
    bare.write_text(bare.read_text() + "\n# edited\n")
    cli(
        "reproduce",
        *TINY,
        "--epochs",
        "1",
        "--learning-rate",
        "0.05",
        "--layers",
        f"{bare}:MyConv",
        "--out",
        tmp_path / "o",
    )
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
    plan = sweeps.Plan(
        dataset="digits", sizes=("XS",), layers=("aol", "mine.py:X", "lot"), seeds=(0,), given=True, out=ROOT,
        settings=Settings(epochs=1, learning_rate=0.1), search=recipes.Search(epochs=1),
    )  # fmt: skip
    assert [layer for _, layer in plan.tasks()] == ["mine.py:X", "lot", "aol"]


def test_a_searched_rate_that_diverges_is_cut_and_said_so(tmp_path):
    _, data, _ = tiny()
    plan = sweeps.Plan(
        dataset="digits",
        sizes=("XS",),
        layers=("standard",),
        seeds=(0,),
        given=False,
        out=tmp_path,
        settings=Settings(epochs=3, learning_rate=0.1, batch_size=50),
        search=recipes.Search(epochs=1, learning_rates=(3.0,)),
    )
    *tried, record = sweeps.run_task(plan, ("XS", "standard"), data, lambda step: None)
    rates = [r["config"]["settings"]["learning_rate"] for r in (*tried, record)]
    assert rates[0] == 3.0
    assert rates[1:] == [rate / 3 for rate in rates[:-1]]
    assert all(r["status"] == "diverged" for r in tried)
    # Every diverged run stays on record beside the last one, as a row of its own.
    assert len(list(tmp_path.glob("*/record.json"))) == len(rates)
    table = pd.DataFrame([runs.row(r) for r in (*tried, record)])
    assert table.diverged_at_step.notna().sum() >= len(tried)
    assert f"/{len(rates)}" in report.summary(table).n.iloc[0]


def test_a_second_command_adds_to_the_table(tmp_path):
    command = ["reproduce", *TINY, "--epochs", "1", "--learning-rate", "0.05", "--out", tmp_path]
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
    done = cli("reproduce", *TINY, "--layers", f"{path}:Broken", "--out", tmp_path / "o", check=False)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert named in done.stderr
    assert not (tmp_path / "o").exists()


def test_a_layer_that_draws_resumes_to_the_same_numbers(tmp_path):
    path = tmp_path / "noisy.py"
    path.write_text(
        "import torch\nfrom torch import nn\n\nclass Noisy(nn.Conv2d):\n"
        "    def __init__(self, i, o, k, bias=True):\n        super().__init__(i, o, k, padding='same', bias=bias)\n\n"
        "    def forward(self, x):\n        y = super().forward(x)\n"
        "        return y + 0.1 * torch.randn_like(y) if self.training else y\n"
    )
    config, data, spec = tiny(f"{path}:Noisy", epochs=2)
    whole = experiment.execute(config, data, spec, tmp_path / "whole", device=CPU)

    def stop(progress):
        if progress.step == 5:
            raise KeyboardInterrupt

    torch.manual_seed(99)
    with pytest.raises(KeyboardInterrupt):
        experiment.execute(config, data, spec, tmp_path / "cut", device=CPU, checkpoint_seconds=0, on_progress=stop)
    torch.rand(7)
    cut = experiment.execute(config, data, spec, tmp_path / "cut", device=CPU)
    assert strip(whole) == strip(cut)
