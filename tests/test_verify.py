"""The command, its exit codes and files, the picture, and REPLICATION.md."""

import copy
import json
import re

import claim_records as made
import pandas as pd
import pytest
from tiny_runs import cli
from typer.testing import CliRunner

from lipref.cli.main import app
from lipref.errors import LiprefError
from lipref.layers import LAYERS
from lipref.paper import claims, verdicts
from lipref.paper.verdicts import LOOKS
from lipref.paths import ROOT
from lipref.runs.overview import to_markdown

TEXT = (ROOT / "REPLICATION.md").read_text()
IDS = [claim.id for claim in claims.CLAIMS]


def verify(*arguments):
    """Exit code and output of the command, in this process."""
    done = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["verify", *map(str, arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


def test_a_full_set_equal_to_the_paper_passes_and_an_altered_one_fails(tmp_path):
    records = made.full("CIFAR-10")
    only = ("--only", "cra-cifar10,accuracy-cifar10,best-cifar10")
    code, text = verify("--records", made.keep(tmp_path / "equal", records), *only, "--strict")
    assert code == 0
    assert "56 agree" in text
    records = copy.deepcopy(records)
    made.alter(made.find(records, "lot", "XS"), "accuracy", -5)
    out = tmp_path / "out"
    code, text = verify("--records", made.keep(tmp_path / "altered", records), *only, "--out", out)
    assert code == 1
    table = pd.read_csv(out / "verify.csv", keep_default_na=False)
    (line,) = table[table.verdict == "differs"].itertuples()
    assert (line.claim, line.what) == ("accuracy-cifar10", "CIFAR-10, LOT XS")
    assert "altered/records.json" in line.evidence
    page = (out / "verify.md").read_text()
    assert "| accuracy-cifar10 | CIFAR-10, LOT XS | 75.5 % | agrees | 70.5 [69.6, 71.4] | 1.5 | differs |" in page
    assert "## Not run" in page


def test_what_has_not_been_run_fails_only_where_it_is_asked(tmp_path):
    folder = made.keep(tmp_path, [made.run("CIFAR-10", "soc", "M", 76.9, 66.3)])
    assert verify("--records", folder, "--only", "cra-cifar10")[0] == 0
    assert verify("--records", folder, "--only", "cra-cifar10", "--strict")[0] == 1


def test_what_the_paper_contradicts_itself_does_not_fail():
    code, text = verify("--only", "radar-robust-accuracy")
    assert code == 0
    assert "contradict 3 values of 1 claims: radar-robust-accuracy" in text


def test_several_folders_are_taken_together(tmp_path):
    one = made.keep(tmp_path / "one", [made.run("CIFAR-10", "soc", "M", 76.9, 66.3)])
    two = made.keep(tmp_path / "two", costs=[made.measured("cpl", "S"), made.measured("soc", "S", seconds=2.0)])
    code, text = verify("--records", one, "--records", two, "--only", "cra-cifar10,cpl-cheaper-than-soc")
    assert code == 0
    assert "1 agree" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("--only", "nothing"), "unknown claim 'nothing'"), (("--records", "nowhere"), "neither records")],
)
def test_what_cannot_be_checked_is_an_error(arguments, message):
    with pytest.raises(LiprefError, match=message):
        verify(*arguments)


def test_a_damaged_record_is_one_line_and_exit_code_2(tmp_path):
    record = made.run("CIFAR-10", "soc", "M", 76.9, 66.3)
    record["certificate"]["cra"]["36/255"]["value"] = 0.99  # but not the count
    done = cli("verify", "--records", made.keep(tmp_path, [record]), check=False)
    assert done.returncode == 2
    assert "CRA(36/255) 0.99" in done.stderr
    assert "6630 of 10000" in done.stderr
    assert done.stderr.count("\n") == 1


# --- the picture


def test_every_cell_of_the_grid_has_a_mark_and_words():
    table = claims.check(claims.chosen("bounds,cpl-soc-ratio,budgets,radar-robust-accuracy"), claims.Evidence())
    grid = claims.grid(table, claims.chosen("bounds,cpl-soc-ratio,budgets,radar-robust-accuracy"))
    figure = verdicts.verdicts(grid)
    (axis,) = figure.axes
    assert [text.get_text() for text in axis.texts] == list(grid.text)
    assert [line.get_marker() for line in axis.lines] == [LOOKS[word][0] for word in grid.verdict]
    looks = [(marker, fill) for marker, fill, _ in LOOKS.values()]
    assert len({marker for marker, _ in looks}) == len(looks)  # told apart without colour


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda grid: grid[:0], "no rows"), (lambda grid: grid.drop(columns="text"), "no text"),
        (lambda grid: grid.assign(verdict="perhaps"), "unknown verdict 'perhaps'"),
        (lambda grid: pd.concat([grid, grid]), "two rows for 'budgets'"),
    ],
)  # fmt: skip
def test_a_grid_that_cannot_be_drawn_is_refused(change, message):
    grid = pd.DataFrame({"claim": ["budgets"], "source": ["ours"], "verdict": ["agrees"], "text": ["agrees"]})
    with pytest.raises(LiprefError, match=message):
        verdicts.verdicts(change(grid))


# --- REPLICATION.md


def test_every_layer_has_a_section():
    sections = re.findall(r"^### (\w+)$", TEXT, re.MULTILINE)
    assert set(LAYERS) <= set(sections)
    for name in LAYERS:
        body = TEXT.split(f"\n### {name}\n")[1].split("\n#")[0]
        assert len(body.split()) > 15, name


def test_every_claim_that_is_named_exists():
    spans = re.findall(r"`([a-z0-9]+(?:-[a-z0-9]+)+)`", TEXT) + re.findall(r"--only ([\w,-]+)", TEXT)[0].split(",")
    assert len(spans) > len(IDS)
    assert set(spans) <= set(IDS)


def test_the_list_of_claims_is_the_catalogue():
    shown = TEXT.split("<!-- claims -->\n")[1].split("\n<!-- /claims -->")[0]
    table = claims.check(claims.CLAIMS, claims.Evidence())
    assert shown == to_markdown(claims.listing(table, claims.CLAIMS))


def test_the_numbers_of_the_slips_are_those_of_the_data():
    table = claims.check(claims.chosen("bounds,radar-robust-accuracy,eco-not-1-lipschitz"), claims.Evidence())
    published = {
        row.what.split(":")[0]: row.published for row in table[table.claim == "radar-robust-accuracy"].itertuples()
    }
    assert (published["AOL"], published["SLL"], published["BCOP"]) == (5, 1, 1)
    cpl = table[table.what.str.startswith("CPL: largest")].published.item()
    eco = table[table.what.str.startswith("ECO")].published.item()
    assert f"{cpl:.4f}" in TEXT
    assert f"{eco:.2f}" in TEXT


def test_links_lead_somewhere():
    for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", TEXT):
        assert (ROOT / link).exists(), link


def test_the_committed_ratio_that_is_told(tmp_path):
    costs = json.loads((made.COMMITTED / "costs.json").read_text())
    bcop, standard = (made.find(costs, layer, "S")["folded_seconds"]["median"] for layer in ("bcop", "standard"))
    assert f"took {bcop / standard:.2f} times" in TEXT.replace("\n", " ")
