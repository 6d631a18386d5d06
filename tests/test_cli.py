"""Wrong input on the command line: one line that names the value and the remedy, exit code 2, nothing written."""

import io
import os
import subprocess
import sys

import pandas as pd
import pytest
import torch
from PIL import Image
from rich.console import Console
from tiny_runs import CPU, TINY, tiny
from tiny_runs import cli as called
from typer.testing import CliRunner

from lipref.cli import display, main, running
from lipref.errors import LiprefError
from lipref.layers import LAYERS
from lipref.paths import ROOT
from lipref.runs import experiment, sweeps
from lipref.training import Progress


def refused(monkeypatch, capsys, *arguments):
    """Run the command in this process; returns the one line of its error."""
    monkeypatch.setattr(sys, "argv", ["lipref", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main.main()
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
        main.main()
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
    assert runner.invoke(main.app, ["--help"]).exit_code == 0
    for command in ("train", "measure", "reproduce", "figures", "batch", "layers", "excluded"):
        assert runner.invoke(main.app, [command, "--help"]).exit_code == 0
    listed = runner.invoke(main.app, ["layers"])
    known, apart = listed.stdout.split("excluded by the paper, and not part of 'all':\n")
    assert [line.split()[0] for line in known.splitlines()] == list(LAYERS)
    assert [line.split()[0] for line in apart.splitlines()] == ["eco", "sandwich", "bnb"]


def test_no_layer_import_needs_torchvision():
    code = "import sys, lipref.cli.main; sys.exit('torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ, check=False).returncode == 0


NAMES = ["[bold]a.png", "q[/q]/z.png", ":smile:", "a\x1b[2Jb", os.fsdecode(b"\xff.png")]
SHOWN = ["[bold]a.png", "q[/q]/z.png", ":smile:", r"a\x1b[2Jb", r"\xff.png"]


@pytest.fixture
def terminal():
    return Console(file=io.StringIO(), width=200, force_terminal=True, color_system=None)


def test_names_are_shown_as_they_are(terminal):
    display.print_table(terminal, pd.DataFrame({"picture": NAMES, "[i]n[/i]": NAMES}))
    head, _, *rows = (line.split() for line in terminal.file.getvalue().splitlines() if line.strip())
    assert head == ["picture", "[i]n[/i]"]
    assert rows == [[name, name] for name in SHOWN]
    for name, shown in zip(NAMES, SHOWN, strict=True):
        display.say(name, terminal)
        assert terminal.file.getvalue().endswith(f"{shown}\n")


def test_a_display_shows_names_as_they_are(terminal):
    for name, shown in zip(NAMES, SHOWN, strict=True):
        with display.Count(terminal, "[b]counting") as counted:
            counted.update(1, 2, name)
        assert shown in terminal.file.getvalue()
        with display.Display(terminal, [("XS", name)]) as drawn:
            drawn.listen(sweeps.Step(("XS", name), name, 0.5, Progress(0, 1, 2, 1.0, 0.5, 0.5, 0.1)))
        assert f"{shown} XS, {shown}" in terminal.file.getvalue()
    assert "[b]counting" in terminal.file.getvalue()


def test_an_error_is_one_line_whatever_names_are_in_it(monkeypatch, capsys):
    line = refused(monkeypatch, capsys, "audit", "[b]no\n\x1b[2Jwhere")
    assert r"[b]no\n\x1b[2Jwhere" in line


@pytest.mark.parametrize("option", ["--[bold]x", "q[/q]"])
def test_typers_own_errors_show_names_as_they_are(option):
    done = CliRunner().invoke(main.app, ["count", option])
    assert done.exit_code == 2
    assert option in done.output


def test_signs_that_the_terminal_lacks(tmp_path):
    (tmp_path / "±é").mkdir()
    own = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = called("count", "--layers", "aol", "--out", tmp_path / "±é", own=own)
    assert r"\xb1\xe9" in done.stdout
    assert "counts.csv" in done.stdout


def test_home_is_found_after_an_equals_sign(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(main.app, ["plan", "--csv=~/plan.csv", "--layers=aol"]).exit_code == 0
    assert (tmp_path / "plan.csv").is_file()
    (tmp_path / "mine.py").write_text((ROOT / "examples" / "my_layer.py").read_text())
    mine = ["train", *TINY, "--epochs=1", "--learning-rate=0.05", "--layer=~/mine.py:MyConv", "--out=~/runs"]
    assert CliRunner().invoke(main.app, mine).exit_code == 0
    (run,) = (tmp_path / "runs").iterdir()
    done = CliRunner().invoke(main.app, ["audit", f"~/runs/{run.name}", "--layer=~/mine.py:MyConv"])
    assert done.exit_code == 0, done.output
    for arguments in (
        ["verify", "--records=~/none"], ["predict", str(run), "~/none/a.png", "--layer=~/mine.py:MyConv"],
        ["count", "--layers=aol,~/none/it.py:Conv"], ["measure", "--dataset=imagefolder:~/none"],
        ["bench", "--against=authors:~/none"], ["batch", "~/none/it.ipynb", "--grid=a=1", "--out=~/batch"],
        ["batch", str(ROOT / "notebooks/table1_complexity.ipynb"), "--grid=@~/none/g.yaml", "--out=~/batch"],
    ):  # fmt: skip
        line = refused(monkeypatch, capsys, *arguments)
        assert f"{tmp_path}/none" in line
        assert "~" not in line
    assert not list(tmp_path.rglob("~*"))


def test_a_tilde_within_a_name_is_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    out = tmp_path / "old~" / "~"
    assert CliRunner().invoke(main.app, ["count", "--layers=aol", f"--out={out}"]).exit_code == 0
    assert (out / "counts.csv").is_file()


def test_failures_are_counted_and_named():
    with pytest.raises(LiprefError, match=r"^3 parts failed: a; b; c$"):
        running.raise_failures(["a", "b", "c"], "parts")
    with pytest.raises(LiprefError, match=r"^a$"):
        running.raise_failures(["a"], "parts")
    running.raise_failures([], "parts")


def test_predict_shows_every_name_as_it_is(tmp_path):
    config, data, spec = tiny()
    experiment.execute(config, data, spec, tmp_path / "runs", device=CPU)
    pictures = tmp_path / "pictures"
    for name in (*NAMES, "line\nend"):
        (pictures / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(data.test.images[0, 0].numpy()).save(pictures / name, format="png")
        (pictures / name).rename((pictures / name).with_suffix(".png"))
    done = called("predict", tmp_path / "runs" / config.folder, pictures, own={"COLUMNS": "400"})
    for shown in SHOWN:
        assert f"{pictures}/{shown.removesuffix('.png')}.png " in done.stdout
    assert "line" in done.stdout
