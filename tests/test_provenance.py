import json
import math
import os
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
import torch

import lipref
from lipref.errors import LiprefError
from lipref.runs import provenance

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(folder, *arguments):
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", folder, *identity, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    folder = tmp_path / "checkout"
    folder.mkdir()
    git(folder, "init", "--quiet")
    (folder / "code.py").write_text("x = 1\n")
    git(folder, "add", "code.py")
    git(folder, "commit", "--quiet", "-m", "first")
    monkeypatch.setattr(provenance, "ROOT", folder.resolve())
    return folder


def test_the_record_survives_json_and_names_the_versions():
    record = provenance.environment("cpu")
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["lipref"] == lipref.__version__
    assert record["torch"] == torch.__version__
    assert record["numpy"] is not None
    assert record["python"] == ".".join(map(str, sys.version_info[:3]))
    assert record["threads"] == torch.get_num_threads()
    assert record["device"] == {"type": "cpu"}
    assert record["cpu"]
    assert record["cpu_capability"] in torch.__config__.show()
    assert datetime.fromisoformat(record["time"]).utcoffset().total_seconds() == 0


def test_torchvision_is_not_imported():
    code = (
        "import sys; from lipref.runs.provenance import environment; environment('cpu'); "
        "print('torchvision' in sys.modules)"
    )
    root = Path(lipref.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "False"


@needs_git
def test_commit_and_dirty_flag(checkout):
    commit = git(checkout, "rev-parse", "HEAD")
    record = provenance.environment("cpu")
    assert (record["commit"], record["dirty"]) == (commit, False)
    (checkout / "code.py").write_text("x = 2\n")
    assert provenance.environment("cpu")["dirty"] is True
    git(checkout, "checkout", "code.py")
    assert provenance.environment("cpu")["dirty"] is False
    (checkout / "new.py").touch()
    assert provenance.environment("cpu")["dirty"] is True


@needs_git
def test_the_variables_of_a_git_hook_do_not_mislead(checkout, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "--quiet")
    commit = git(checkout, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    assert provenance.environment("cpu")["commit"] == commit


@needs_git
def test_a_folder_inside_another_repository_has_no_commit(checkout, monkeypatch):
    installed = checkout / "venv"
    installed.mkdir()
    monkeypatch.setattr(provenance, "ROOT", installed.resolve())
    record = provenance.environment("cpu")
    assert (record["commit"], record["dirty"]) == (None, None)


@needs_git
def test_a_repository_without_commits(tmp_path, monkeypatch):
    git(tmp_path, "init", "--quiet")
    monkeypatch.setattr(provenance, "ROOT", tmp_path.resolve())
    record = provenance.environment("cpu")
    assert (record["commit"], record["dirty"]) == (None, None)


def test_no_git_at_all(monkeypatch):
    monkeypatch.setenv("PATH", os.devnull)
    record = provenance.environment("cpu")
    assert (record["commit"], record["dirty"]) == (None, None)


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["/opt/venv/bin/lipref", "train", "--epochs", "3"], "lipref train --epochs 3"),
        (["/opt/lib/lipref/__main__.py", "train"], "python -m lipref train"),
        (["/home/ada/bin/lipref", "--out=/home/ada/runs", "/home/ada"], "lipref --out=~/runs ~"),
        (["lipref", "/home/ada/my runs"], "lipref '~/my runs'"),
        (["lipref", "/home/adam/runs", "/data/home/ada/x"], "lipref /home/adam/runs /data/home/ada/x"),
        (
            ["lipref", "bench", "--against", "authors:/data/ref", "--device", "cuda:0"],
            "lipref bench --against authors:.../ref --device cuda:0",
        ),
        (
            [
                "lipref",
                "--dataset=imagefolder:/data/a/pictures",
                "authors:/home/ada/ref",
                "a:b",
                "x:ref/a",
                "http://a/b",
            ],
            "lipref --dataset=imagefolder:.../pictures authors:~/ref a:b x:ref/a http://a/b",
        ),
        (["-c"], "-c"),
    ],
)
def test_the_command_without_the_home_folder(monkeypatch, argv, command):
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setattr(sys, "argv", argv)
    assert provenance.environment("cpu")["command"] == command


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_device_is_named():
    device = provenance.environment("cuda")["device"]
    assert device["name"] == torch.cuda.get_device_name()
    assert device["driver"]
    assert device["cuda"] == torch.version.cuda


def test_write_json_keeps_the_order_and_replaces(tmp_path):
    path = tmp_path / "new" / "record.json"
    provenance.write_json(path, {"old": 1})
    provenance.write_json(path, {"z": 0.1 + 0.2, "a": [None, True, "é"]})
    assert list(json.loads(path.read_text(encoding="utf-8"))) == ["z", "a"]
    assert json.loads(path.read_text(encoding="utf-8"))["z"] == 0.1 + 0.2
    assert path.read_bytes().endswith(b"}\n")
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("value", [math.nan, math.inf, {1, 2}, torch.tensor(1.0), "\ud800"])
def test_write_json_refuses_and_leaves_the_old_file(tmp_path, value):
    path = tmp_path / "record.json"
    provenance.write_json(path, {"old": 1})
    with pytest.raises(LiprefError) as caught:
        provenance.write_json(path, {"x": value})
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert json.loads(path.read_text()) == {"old": 1}
