"""Runs as folders: decided by the configuration, never done twice, resumable."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pandas as pd
import pytest
import torch
from tiny_runs import CPU, TINY, cli, strip, tiny

from lipref import tensor_files
from lipref.data import load_dataset
from lipref.errors import LiprefError
from lipref.paths import RESULTS, ROOT
from lipref.runs import experiment, overview, records
from lipref.training.config import TrainingConfig


def test_the_configuration_decides_the_folder():
    config, data, spec = tiny()
    assert config.folder == tiny()[0].folder
    others = [
        tiny(epochs=2)[0],
        tiny(learning_rate=0.06)[0],
        tiny(seed=1)[0],
        tiny("soc")[0],
        experiment.configure(load_dataset("digits", limit_train=100), spec, "XS", config.settings, CPU),
        experiment.configure(data, spec, "XS", config.settings, CPU, validation=0.1),
        experiment.configure(data, spec, "S", config.settings, CPU),
        *(replace(config, **change) for change in ({"version": "0"}, {"code": "0"}, {"torch": "0"})),
    ]
    assert len({config.folder, *(other.folder for other in others)}) == 1 + len(others)


def test_a_configuration_from_before_the_code_was_part_of_it_keeps_its_digest():
    for record in json.loads((RESULTS / "digits-xs" / "records.json").read_text()):
        config = records.RunConfig(**(record["config"] | {"settings": TrainingConfig(**record["config"]["settings"])}))
        assert config.digest == record["digest"]
        assert config.as_dict() == record["config"]


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
    tensors, meta = tensor_files.load(folder / "weights.safetensors")
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
    line = records.row(record)
    assert line["cra_36_low"] <= line["cra_36"] <= line["cra_36_high"]
    assert records.beside([record], tmp_path) == [record]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 1, "status": "done", "digest": "0"}'])
def test_a_damaged_record_is_refused(tmp_path, text):
    config, data, spec = tiny()
    path = records.make_folder(tmp_path / config.folder) / "record.json"
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
    a, b = (tensor_files.load(tmp_path / name / config.folder / "weights.safetensors")[0] for name in "ab")
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_divergence_never_looks_like_a_result(tmp_path):
    config, data, spec = tiny("standard", learning_rate=1e12, epochs=3)
    record = experiment.execute(config, data, spec, tmp_path, device=CPU)
    assert record["status"] == "diverged"
    assert "certificate" not in record
    assert record["diverged"]["layer"]
    assert not (tmp_path / config.folder / "weights.safetensors").exists()
    text = overview.summary(pd.DataFrame([records.row(record)])).to_string()
    assert "diverged" in text


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
            [sys.executable, "-m", "lipref.cli.main", *command, "--out", str(tmp_path / "cut")],
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
    a, b = (tensor_files.load(folder / "weights.safetensors")[0] for folder in (whole, cut))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert strip(json.loads((whole / "record.json").read_text())) == strip(
        json.loads((cut / "record.json").read_text())
    )


def _progress(root):
    for path in root.glob("*/checkpoint.safetensors"):
        try:
            position = tensor_files.load(path)[1]["position"]
        except LiprefError:  # just gone: training has ended
            return 1000
        return 4 * position["epoch"] + position["step"]
    return 0


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
