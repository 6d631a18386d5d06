"""Wrong input on the command line: one line that names the value and the remedy, exit code 2, nothing written."""

import os
import subprocess
import sys

import pytest
import torch
from typer.testing import CliRunner

from lipref import cli
from lipref.layers import LAYERS
from lipref.paths import ROOT


def refused(monkeypatch, capsys, *arguments):
    """Run the command in this process; returns the one line of its error."""
    monkeypatch.setattr(sys, "argv", ["lipref", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    output = capsys.readouterr()
    assert caught.value.code == 2, output.err
    assert "Traceback" not in output.err
    lines = output.err.strip().splitlines()
    assert len(lines) == 1, output.err
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--layer", "nonsense"], ["nonsense", *LAYERS]),
        (["--layer", "nowhere.py:Conv"], ["nowhere.py"]),
        (["--layer", "torch.nn:Nothing"], ["Nothing"]),
        (["--layer", "torch.nn:functional"], ["torch.nn:functional"]),
        (["--size", "XXL"], ["XXL", "XS", "L_1x1"]),
        (["--dataset", "mnist"], ["mnist", "digits", "imagefolder"]),
        (["--dataset", "imagefolder:/nonexistent/folder"], ["/nonexistent/folder"]),
        (["--epochs", "0"], ["epochs=0"]),
        (["--batch-size", "0"], ["batch_size=0"]),
        (["--seed", "-1"], ["seed=-1"]),
        (["--learning-rate", "nan"], ["learning_rate=nan"]),
        (["--learning-rate", "-0.1"], ["-0.1"]),
        (["--weight-decay", "0.1"], ["--weight-decay", "--learning-rate"]),
        (["--schedule", "cosine"], ["cosine", "onecycle"]),
        (["--device", "tpu"], ["tpu", "cpu"]),
        (["--limit-train", "0"], ["0"]),
        (["--search-epochs", "0"], ["0"]),
        (["--checkpoint-seconds", "-1"], ["-1"]),
        (["--checkpoint-seconds", "nan"], ["nan"]),
        (["--size", "XS,S"], ["XS,S"]),
        (["--layer", ""], ["--layer"]),
        (["--seed", str(10**23)], [str(10**23)]),
        (["--precision", "half"], ["half", "float32", "bf16"]),
        (["--ema", "1"], ["ema=1.0"]),
        (["--cuda-graphs"], ["cuda_graphs", "cpu"]),
    ],
)
def test_train_refuses(monkeypatch, capsys, tmp_path, arguments, named):
    line = refused(monkeypatch, capsys, "train", *arguments, "--out", tmp_path / "out")
    assert all(str(name) in line for name in named), line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--profile", "huge"], ["huge", "smoke"]),
        (["--layers", "aol,nonsense"], ["nonsense", "soc"]),
        (["--layers", "aol,,soc"], ["--layers"]),
        (["--layers", "aol,aol"], ["aol", "twice"]),
        (["--layers", ""], ["--layers"]),
        (["--limit-train", "50"], ["50", "--limit-train"]),
        (["--sizes", "XS,Q"], ["Q"]),
        (["--seeds", "0,one"], ["one"]),
        (["--epochs", "0"], ["epochs=0"]),
        (["--jobs", "-1"], ["-1"]),
        (["--epochs", "3", "--budget", "2h"], ["--epochs 3", "2h"]),
        (["--budget", "2h"], ["digits", "2h"]),
        (["--budget", "soon"], ["soon", "24h"]),
        (["--cost-sizes", "XS,Q"], ["Q"]),
    ],
)
def test_reproduce_refuses(monkeypatch, capsys, tmp_path, arguments, named):
    line = refused(monkeypatch, capsys, "reproduce", *arguments, "--out", tmp_path / "out")
    assert all(str(name) in line for name in named), line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--layers", "nonsense"], ["nonsense", "soc"]),
        (["--sizes", "Q"], ["Q", "XS"]),
        (["--dataset", "mnist"], ["mnist", "digits"]),
        (["--image-size", "12"], ["12", "power of two"]),
        (["--batch-size", "0"], ["batch_size=0"]),
        (["--repeats", "0"], ["repeats=0"]),
        (["--device", "tpu"], ["tpu"]),
    ],
)
def test_measure_refuses(monkeypatch, capsys, tmp_path, arguments, named):
    line = refused(monkeypatch, capsys, "measure", *arguments, "--out", tmp_path / "out")
    assert all(str(name) in line for name in named), line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--grid", "channels=32,64", "--grid", "chanels=1"], ["chanels", "channels"]),
        (["--grid", "channels=many"], ["channels", "many", "int"]),
        (["--grid", "channels"], ["channels"]),
        (["--grid", "@nowhere.yaml"], ["nowhere.yaml"]),
        (["--grid", "channels=1,2", "--workers", "0"], ["0"]),
    ],
)
def test_batch_refuses(monkeypatch, capsys, tmp_path, arguments, named):
    notebook = ROOT / "notebooks" / "table1_complexity.ipynb"
    line = refused(monkeypatch, capsys, "batch", notebook, *arguments, "--out", tmp_path / "out")
    assert all(str(name) in line for name in named), line
    assert not (tmp_path / "out").exists()


def test_figures_refuses_an_unknown_item(monkeypatch, capsys, tmp_path):
    line = refused(monkeypatch, capsys, "figures", "--only", "figure99", "--out", tmp_path / "out")
    assert "figure99" in line
    assert "table2_accuracy" in line


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_missing_gpu_is_named(monkeypatch, capsys, tmp_path):
    assert "cuda" in refused(monkeypatch, capsys, "train", "--device", "cuda", "--out", tmp_path / "out")


def test_an_output_folder_that_cannot_be_written(monkeypatch, capsys, tmp_path):
    (tmp_path / "file").write_text("")
    line = refused(monkeypatch, capsys, "train", "--epochs", "1", "--out", tmp_path / "file" / "out")
    assert "--out" in line


def test_a_damaged_checkpoint_is_named_and_kept(monkeypatch, capsys, tmp_path):
    arguments = ["train", "--epochs", "1", "--limit-train", "60", "--limit-test", "20", "--batch-size", "20",
                 "--learning-rate", "0.1", "--out", tmp_path]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["lipref", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 0
    (folder,) = (path.parent for path in tmp_path.glob("*/record.json"))
    (folder / "record.json").unlink()
    for content in (b"", b"PK\x03\x04 a zip, as torch.save writes", b"\x80\x04 a pickle", b"noise" * 100):
        (folder / "checkpoint.safetensors").write_bytes(content)
        line = refused(monkeypatch, capsys, *arguments)
        assert "checkpoint.safetensors" in line
        assert (folder / "checkpoint.safetensors").read_bytes() == content


def test_help_and_layers():
    runner = CliRunner()
    assert runner.invoke(cli.app, ["--help"]).exit_code == 0
    for command in ("train", "measure", "reproduce", "figures", "batch", "layers", "excluded"):
        assert runner.invoke(cli.app, [command, "--help"]).exit_code == 0
    listed = runner.invoke(cli.app, ["layers"])
    known, apart = listed.stdout.split("excluded by the paper, and not part of 'all':\n")
    assert [line.split()[0] for line in known.splitlines()] == list(LAYERS)
    assert [line.split()[0] for line in apart.splitlines()] == ["eco", "sandwich", "bnb"]


def test_no_layer_import_needs_torchvision():
    code = "import sys, lipref.cli; sys.exit('torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ, check=False).returncode == 0
