"""Everything that wants a GPU, in slices: every part gets its turn, and nothing that is left is called done."""

import json

import pytest
import typer
from typer.testing import CliRunner

from lipref.cli import gpu
from lipref.cli.main import app
from lipref.cli.running import LEFT, STOPPED
from lipref.errors import LiprefError

SMALL = ["gpu", "--profile", "smoke", "--layers", "aol", "--device", "cpu"]


class Parts:
    """Stand-ins for the three commands: what they were asked for, and what they end in."""

    def __init__(self, monkeypatch, **ends):
        self.asked = {}
        monkeypatch.setattr(gpu.foreign, "parse", lambda text: text)
        for name in ("bench", "race", "reproduce"):
            monkeypatch.setattr(gpu, name, self.part(name, ends.get(name)))

    def part(self, name, end):
        def command(**given):
            self.asked[name] = given
            if end is not None:
                raise end

        return command


def test_every_part_gets_its_turn_and_what_it_needs(monkeypatch, tmp_path):
    parts = Parts(monkeypatch)
    given = ["--layers", "aol,standard", "--dataset", "digits", "--against", "authors:x", "--seconds", "100"]
    found = CliRunner().invoke(app, ["gpu", "--device", "cpu", *given, "--out", str(tmp_path)])
    assert found.exit_code == 0, found.output
    assert found.output.endswith("Nothing is left.\n")
    assert "Only bench takes standard" in found.output
    assert list(parts.asked) == ["bench", "race", "reproduce"]
    assert parts.asked["bench"]["profile"] == "paper"
    assert parts.asked["bench"]["against"] == ["authors:x"]
    assert parts.asked["bench"]["layers"] == "aol,standard"
    assert parts.asked["race"]["profile"] == "goals"
    assert parts.asked["race"]["weights"] is True
    assert parts.asked["race"]["layers"] == parts.asked["reproduce"]["layers"] == "aol"
    assert 90 < parts.asked["race"]["seconds"] <= 100
    assert {name: parts.asked["reproduce"][name] for name in ("sizes", "epochs")} == {"sizes": "XS,S", "epochs": 100}
    assert {asked["device"] for asked in parts.asked.values()} == {"cpu"}
    assert {asked["out"].parent for asked in parts.asked.values()} == {tmp_path}


def test_the_short_profile_is_two_sizes_one_minute_and_one_seed(monkeypatch, tmp_path):
    parts = Parts(monkeypatch)
    given = ["--profile", "short", "--no-weights", "--device", "cpu", "--dataset", "digits", "--out", str(tmp_path)]
    found = CliRunner().invoke(app, ["gpu", *given])
    assert found.exit_code == 0, found.output
    assert list(parts.asked) == ["bench", "race"]
    assert (parts.asked["bench"]["sizes"], parts.asked["bench"]["image_size"]) == ("S,M", "32")
    assert (parts.asked["race"]["minutes"], parts.asked["race"]["seeds"]) == ("1", "0")
    assert parts.asked["race"]["weights"] is False


def test_a_part_that_is_left_ends_the_slice(monkeypatch, tmp_path):
    parts = Parts(monkeypatch, bench=LiprefError("it broke"), race=typer.Exit(LEFT))
    found = CliRunner().invoke(app, [*SMALL, "--seconds", "100", "--out", str(tmp_path)])
    assert found.exit_code == LEFT
    assert list(parts.asked) == ["bench", "race"]  # what failed does not keep the next from its turn
    assert "failed: bench: it broke" in found.output
    assert "Left: race, fidelity; the same command goes on." in found.output


def test_what_failed_is_the_error_in_the_end(monkeypatch, tmp_path):
    Parts(monkeypatch, race=LiprefError("it broke"))
    found = CliRunner().invoke(app, [*SMALL, "--out", str(tmp_path)])
    assert isinstance(found.exception, LiprefError)
    assert "race: it broke" in str(found.exception)
    assert "Nothing is left" not in found.output


def test_ctrl_c_is_not_taken_for_the_end_of_a_slice(monkeypatch, tmp_path):
    Parts(monkeypatch, reproduce=typer.Exit(STOPPED))
    assert CliRunner().invoke(app, [*SMALL, "--seconds", "100", "--out", str(tmp_path)]).exit_code == STOPPED


@pytest.mark.parametrize(
    ("given", "words"),
    [(["--profile", "huge"], "unknown profile 'huge'"), (["--seconds", "20"], "give a number above 20"),
     (["--layers", "standard"], "name at least one of"), (["--against", "authors:nowhere"], "nowhere"),
     (["--dataset", "imagefolder:nowhere"], "nowhere")],
)  # fmt: skip
def test_what_cannot_be_is_refused(given, words):
    found = CliRunner().invoke(app, ["gpu", "--profile", "smoke", "--device", "cpu", *given])
    assert words in str(found.exception)


# The alarm may fall into a callback of the garbage collector, where Python ignores it; the next one cuts the run.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_training_runs_are_cut_and_go_on(tmp_path):
    """Two seconds do not reach for the epochs; without a limit the run ends, from the checkpoint."""
    asked = {
        "profile": "smoke", "layers": "aol", "sizes": "XS", "epochs": 12, "learning_rate": 0.01, "weight_decay": 3e-5,
        "dataset": "digits", "device": "cpu", "out": tmp_path,
    }  # fmt: skip
    # What is imported at the first step must not be cut in two: unlike the command, this process goes on.
    gpu._fidelity(seconds=None, **asked | {"epochs": 1, "out": tmp_path / "first"})
    with pytest.raises(typer.Exit) as ended:
        gpu._fidelity(seconds=2.0, **asked)
    assert ended.value.exit_code == LEFT
    assert not (tmp_path / "records.json").exists()
    gpu._fidelity(seconds=None, **asked)
    (record,) = json.loads((tmp_path / "records.json").read_text())
    assert (record["status"], record["steps"]) == ("done", 12 * 23)
