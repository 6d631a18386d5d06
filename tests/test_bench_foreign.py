"""Other people's code in `lipref bench`: how it is built, timed, named, and run in a process of its own."""

import json
import subprocess
import sys
import types
from dataclasses import replace

import pytest
import torch
from fake_bench import AUTHORS, CPU, checkout, plan
from typer.testing import CliRunner

from lipref.bench import foreign, tables, timing, worker
from lipref.bench.requests import Against
from lipref.cli.main import app
from lipref.errors import LiprefError
from lipref.nets import convnet


@pytest.fixture
def no_models():
    """Their package is imported in this process for once, and is gone afterwards."""
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "models"]:
        del sys.modules[name]


def test_a_slow_step_is_timed_once():
    calls = []
    once = timing.seconds(lambda: calls.append(0), CPU, 5, 0)
    assert (len(once["times"]), once["warm_up"], len(calls)) == (1, 1, 2)  # what is compiled first is no time
    calls.clear()
    usual = timing.seconds(lambda: calls.append(0), CPU, 5, 60)
    assert (len(usual["times"]), usual["warm_up"], len(calls)) == (5, 2, 7)


def test_another_source_is_another_measurement(tmp_path):
    asked = plan(tmp_path)
    network = asked.networks()[0]
    one, two = (asked.theirs(network, Against(AUTHORS, sha256=digest)) for digest in "ab")
    assert one.digest != two.digest
    assert one.folder.startswith("authors-32x32-XS-standard-batch2-")
    assert replace(one, threads=99).digest != one.digest


@pytest.mark.parametrize("image_size", [32, 64])
def test_the_authors_network_is_measured_as_ours(tmp_path, monkeypatch, image_size, no_models):
    """The adaptor, in this process, with a module tree that stands for their code."""
    monkeypatch.syspath_prepend(checkout(tmp_path / "theirs"))
    asked = plan(tmp_path, image_sizes=(image_size,), rounds=1, layers=("aol",))
    hello = worker.answer({"do": "hello", "code": "authors"})
    assert len(hello["sha256"]) == 64
    assert hello["origin"] == {
        "name": "authors", "url": AUTHORS.url, "package": "models", "sha256": hello["sha256"], "version": None,
        "commit": None, "dirty": None,
    }  # fmt: skip
    network = next(n for n in asked.networks() if n.label == "aol")
    config = asked.theirs(network, Against(AUTHORS, **hello))
    results = {part: timing.measure(AUTHORS, config, part, 0, CPU) for part in ("train", "infer", "memory")}
    assert {result["status"] for result in results.values()} == {"done"}
    assert [len(results[part]["times"]) for part in ("train", "infer")] == [2, 2]
    assert results["memory"]["train_peak_bytes"] > results["memory"]["infer_peak_bytes"] > 2 * 3 * image_size**2 * 4
    assert results["memory"]["folded_peak_bytes"] is None


def test_others_layers_stand_in_our_network_and_fold(tmp_path, monkeypatch):
    """Orthogonium's adaptor with a layer of torch: parametrised, in our network, folded without changing the map."""

    class Layer(torch.nn.Conv2d):
        def __init__(self, channels, out, kernel_size, padding, padding_mode):
            super().__init__(channels, out, kernel_size, padding=padding, padding_mode=padding_mode)
            torch.nn.utils.parametrizations.spectral_norm(self)

    monkeypatch.setattr(foreign, "import_module", lambda name: types.SimpleNamespace(AOLConv2D=Layer))
    code = foreign.CODES["orthogonium"]
    torch.manual_seed(0)
    model = code.build("aol", "XS", 8, 3, 10).eval()
    assert [type(m).__name__ for m in model] == [
        name.replace("AOLConv2d", "ParametrizedLayer")
        for name in (type(m).__name__ for m in convnet("XS", "aol", 10, 3, 8))
    ]
    x = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        before = model(x)
        folded = code.fold(model)
        torch.testing.assert_close(folded(x), before)
    assert not any(torch.nn.utils.parametrize.is_parametrized(module) for module in folded.modules())


def test_the_command_with_processes_of_their_own(tmp_path):
    """Ours at XS and the stand-in, each in its own process; the second call measures nothing."""
    theirs, out = checkout(tmp_path / "theirs"), tmp_path / "out"
    command = [
        "bench", "--layers", "aol", "--profile", "smoke", "--batch-size", "2", "--device", "cpu", "--quantities",
        "train,infer", "--against", f"authors:{theirs}", "--out", str(out),
    ]  # fmt: skip
    first = CliRunner().invoke(app, command)
    assert first.exit_code == 0, first.output
    assert "Nothing is left." in first.output
    assert "noise" not in first.output
    assert "models" not in sys.modules
    kept = {path: path.read_bytes() for path in out.rglob("round*.json")}
    assert sorted(path.name for path in kept) == ["round0-infer.json"] * 2 + ["round0-train.json"] * 2
    costs = json.loads((out / "costs.json").read_text())
    assert [record["config"]["layer"] for record in costs] == ["aol", "standard"]
    assert (out / "bench.csv").read_text().count("\nauthors,") == 4
    for path in out.rglob("*.json"):  # no folder of this machine but the one that was given for results
        assert str(theirs) not in path.read_text(), path
    whole = json.loads((out / "bench.json").read_text())
    assert whole["against"][0]["url"].endswith("berndprach/1LipschitzLayersCompared")
    again = CliRunner().invoke(app, [*command, "--seconds", "100"])
    assert "Nothing is left." in again.output
    assert {path: path.read_bytes() for path in out.rglob("round*.json")} == kept


def test_the_commit_of_a_checkout_is_known(tmp_path, monkeypatch, no_models):
    place = checkout(tmp_path / "theirs")
    git = ["git", "-C", str(place), "-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *arguments], check=True)
    (place / "notes.txt").write_text("is no part of the package")
    monkeypatch.syspath_prepend(place)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    found = foreign.origin(AUTHORS)
    assert (found["commit"], found["dirty"]) == (head, False)
    assert f"commit {head[:10]}." in tables.notes(plan(tmp_path, against=(Against(AUTHORS, origin=found),)))[0]
    (place / "models" / "more.py").write_text("")
    found = foreign.origin(AUTHORS)
    assert (found["commit"], found["dirty"]) == (head, True)
    assert ", edited." in tables.notes(plan(tmp_path, against=(Against(AUTHORS, origin=found),)))[0]


def test_a_missing_package_is_named(tmp_path):
    broken = checkout(tmp_path / "broken", "")
    (broken / "models" / "__init__.py").write_text("import no_such_package_at_all\n")
    process = worker.Worker("authors", [broken])
    with pytest.raises(LiprefError, match="no_such_package_at_all is missing; pip install no_such_package_at_all"):
        process({"do": "hello", "code": "authors"})
    with pytest.raises(LiprefError, match=r"the process that measures authors died \(exit code 1\): KeyError: 'do'"):
        process({})
    with pytest.raises(worker.TimeUp):  # a new one, which has not even started
        process({"do": "hello", "code": "authors"}, 0.01)
    with pytest.raises(
        LiprefError, match=r"orthogonium is missing; install the extra bench: pip install 'lipref\[bench\]', or give"
    ):
        worker.answer({"do": "hello", "code": "orthogonium"})
