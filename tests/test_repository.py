"""The files around the code say the same thing as each other, and as the code."""

import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pandas as pd
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from rattler import MatchSpec

import lipref
from lipref.bench import cost
from lipref.paper import time_to_cra
from lipref.paths import RESULTS, ROOT
from lipref.runs import overview
from lipref.runs.recipes import Search
from lipref.runs.records import row

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA_NAMES = {"torch": "pytorch"}


def _requirements(*groups: str) -> dict[str, SpecifierSet]:
    """Name -> range, of the run-time dependencies and of the named extras."""
    extras = PROJECT["optional-dependencies"]
    lines = PROJECT["dependencies"] + [line for group in groups for line in extras[group]]
    requirements = [Requirement(line) for line in lines]
    return {canonicalize_name(requirement.name): requirement.specifier for requirement in requirements}


def _git(*arguments: str) -> subprocess.CompletedProcess[str]:
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout")
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)


def _commands(text: str, program: str) -> set[str]:
    """First arguments of `program` in the code blocks and code spans of a Markdown text."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    spans = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)
    pattern = re.compile(rf"(?:^|&& ){program} ([a-z][\w-]*)", flags=re.MULTILINE)
    return {command for code in blocks + spans for command in pattern.findall(code)}


# --- dependencies


def test_every_dependency_has_a_lower_bound():
    for name, specifier in _requirements("dev", "notebooks", "search", "attacks").items():
        assert any(clause.operator == ">=" for clause in specifier), f"{name} has no lower bound"


def test_constraints_pin_every_dependency_within_its_range():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    versions = {}
    for pin in pins:
        (clause,) = pin.specifier
        assert clause.operator == "==", f"{pin} is not a pin"
        versions[canonicalize_name(pin.name)] = clause.version
    ranges = _requirements("dev", "notebooks", "search", "attacks")
    assert versions.keys() == ranges.keys()
    for name, specifier in ranges.items():
        assert versions[name] in specifier, f"{name}: {versions[name]} is not in {specifier}"


def _conda_environment() -> dict:
    return yaml.safe_load((ROOT / "environment.yml").read_text())


def _conda_specs() -> dict[str, SpecifierSet]:
    specs = {}
    for line in _conda_environment()["dependencies"]:
        if isinstance(line, str) and line != "pip":
            spec = MatchSpec(line, strict=True)  # raises on a malformed spec
            assert spec.build is None, f"{line}: a build string would tie the environment to one platform"
            specs[re.match(r"[\w.-]+", line)[0]] = SpecifierSet(str(spec.version))
    return specs


def test_conda_environment_has_the_names_and_bounds_of_pyproject():
    expected = {
        CONDA_NAMES.get(name, name): bounds
        for name, bounds in _requirements("dev", "notebooks", "search", "attacks").items()
    }
    expected["python"] = SpecifierSet(PROJECT["requires-python"])
    assert _conda_specs() == expected


def test_conda_environment_uses_one_free_channel_and_installs_lipref():
    environment = _conda_environment()
    assert environment["channels"] == ["conda-forge", "nodefaults"]
    assert {"pip": ["-e ."]} in environment["dependencies"]
    assert "pip" in environment["dependencies"]


def test_malformed_conda_spec_is_refused():
    with pytest.raises(Exception, match="version spec"):
        MatchSpec("pytorch >>2", strict=True)


# --- version and citation


def test_version_has_one_source():
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" in pyproject["project"]["dynamic"]
    assert pyproject["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "lipref.__version__"}


def test_citation_names_this_version_and_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == lipref.__version__
    assert citation["license"] == PROJECT["license"] == "MIT"
    for field in ("message", "title", "authors"):
        assert citation[field]
    (paper,) = citation["references"]
    assert paper["title"].startswith("1-Lipschitz Layers Compared")
    assert [author["family-names"] for author in paper["authors"]] == ["Prach", "Brau", "Buttazzo", "Lampert"]
    assert paper["identifiers"][0]["value"] == "arXiv:2311.16833"


# --- commands


def test_commands_in_the_texts_are_makefile_targets():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert {"help", "setup", "test", "reproduce", "clean"} <= targets
    for name in ("README.md", "CONTRIBUTING.md"):
        commands = _commands((ROOT / name).read_text(), "make")
        assert {"setup", "test"} <= commands
        assert commands <= targets, f"{name} names {commands - targets}"


def test_example_in_the_readme_runs(capsys):
    (code,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), flags=re.MULTILINE | re.DOTALL)
    assert len(code.splitlines()) <= 15
    assert len(re.findall("import ", code)) == 1
    assert "epochs=5" in code
    exec(compile(code.replace("epochs=5", "epochs=1"), "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        f"CRA at {radius}" for radius in ("0.141", "0.282", "0.424", "1.000")
    ]


def test_ci_script_is_executable():
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_local_links_in_the_texts_lead_somewhere():
    for name in ("README.md", "CONTRIBUTING.md", "data/paper/README.md", "data/results/README.md"):
        path = ROOT / name
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text()):
            assert (path.parent / link).exists(), f"{name} links to {link}"


# --- what is tracked


def test_no_tracked_file_is_over_two_megabytes():
    listing = _git("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    assert listing.returncode == 0, listing.stderr
    paths = [ROOT / name for name in listing.stdout.split("\0") if name]
    assert ROOT / "pyproject.toml" in paths
    assert [path for path in paths if path.is_file() and path.stat().st_size > 2_000_000] == []


@pytest.mark.parametrize(
    ("path", "ignored"),
    [
        (".venv/bin/python", True),
        ("data/datasets/cifar10/x", True),
        ("data/runs/x/metrics.csv", True),
        ("lipref/__pycache__/x.pyc", True),
        ("lipref.egg-info/PKG-INFO", True),
        ("lipref/data/datasets.py", False),
        ("lipref/runs/records.py", False),
        ("data/paper/radar_scores.csv", False),
        ("data/results/x.csv", False),
    ],
)
def test_git_ignores_what_is_made_and_nothing_else(path, ignored):
    check = _git("check-ignore", "--no-index", "--quiet", path)
    assert check.returncode == (0 if ignored else 1), check.stderr


# --- published numbers


def _paper_table() -> dict[str, int]:
    text = (ROOT / "data" / "paper" / "README.md").read_text()
    return {name: int(rows) for name, rows in re.findall(r"^\| `(\w+\.csv)` \| (\d+) \|", text, flags=re.MULTILINE)}


def test_every_paper_file_is_described():
    assert _paper_table().keys() == {path.name for path in (ROOT / "data" / "paper").glob("*.csv")}


@pytest.mark.parametrize(("name", "rows"), _paper_table().items())
def test_paper_file_is_tidy(name, rows):
    table = pd.read_csv(ROOT / "data" / "paper" / name)
    assert len(table) == rows
    assert list(table.columns) == [column.strip() for column in table.columns]
    assert not table.duplicated().any()
    for column in table.select_dtypes("number"):
        values = table[column].dropna()
        if column.endswith("_pct"):
            assert values.between(0, 100).all(), column
        elif re.search(r"accuracy$|cra_", column) and name != "radar_scores.csv":
            assert values.between(0, 1).all(), column


def test_the_two_sources_of_the_24_hour_runs_agree():
    """The paper's Table 9 is the rounded last epoch of the authors' log files."""
    printed = pd.read_csv(ROOT / "data" / "paper" / "paper_accuracy_by_budget.csv")
    printed = printed.query("dataset == 'CIFAR-10' and kernel_size == 3 and budget_h == 24 and status == 'ok'")
    logged = pd.read_csv(ROOT / "data" / "paper" / "cifar10_24h_runs.csv").query("status == 'ok'")
    both = printed.merge(logged, on=["method", "size"], suffixes=("_printed", ""))
    assert len(both) >= 18
    assert ((both["cra36_pct"] - 100 * both["test_cra_36_255"]).abs() < 0.0501).all()
    assert ((both["accuracy_pct"] - 100 * both["test_accuracy"]).abs() < 0.0501).all()


def test_the_readmes_table_is_the_committed_result():
    readme = (ROOT / "README.md").read_text()
    shown = readme.split("<!-- table:digits -->")[1].split("<!-- /table -->")[0]
    table = [line for line in (RESULTS / "digits-xs" / "table.md").read_text().splitlines() if line.startswith("|")]
    assert table[2:]
    assert "\n".join(table) in shown
    assert ("(edge)" in "".join(table)) == (overview.EDGE[1:] in shown)


def test_rates_at_the_edge_of_the_search_are_marked(tmp_path):
    records = json.loads((RESULTS / "digits-xs" / "records.json").read_text())
    table = overview.summary(pd.DataFrame([row(record) for record in records])).set_index("layer")
    grid = Search.learning_rates
    for record in records:
        rate = record["config"]["settings"]["learning_rate"]
        marked = record["notes"]["hyperparameters"] == "search" and rate in (grid[0], grid[-1])
        assert table.loc[record["config"]["layer"], "lr"] == f"{rate:.3g}{' (edge)' if marked else ''}"
    assert not overview.brief(records)["lr"].str.contains("edge").any()
    inner = [record for record in records if record["config"]["settings"]["learning_rate"] not in (grid[0], grid[-1])]
    overview.write(inner, tmp_path, "t")
    assert "edge" not in (tmp_path / "table.md").read_text()
    overview.write(records, tmp_path, "t")
    assert overview.EDGE in (tmp_path / "table.md").read_text()


def _assert_provenance(records: list[dict]) -> None:
    assert records
    for record in records:
        environment = record["environment"]
        assert re.fullmatch("[0-9a-f]{40}", environment["commit"])
        assert environment["dirty"] is False
        assert environment["device"]
        assert environment["torch"]
        assert str(Path.home()) not in json.dumps(record)


@pytest.mark.parametrize("folder", sorted(path.parent.name for path in RESULTS.glob("*/costs.json")))
def test_committed_measurements_carry_their_provenance(folder):
    records = json.loads((RESULTS / folder / "costs.json").read_text())
    _assert_provenance(records)
    table = pd.DataFrame([cost.row(record) for record in records]).sort_values(["size", "layer"], key=overview.order)
    assert table.to_csv(index=False) == (RESULTS / folder / "costs.csv").read_text()


@pytest.mark.parametrize("folder", sorted(path.parent.name for path in RESULTS.glob("*/race.json")))
def test_committed_races_carry_their_provenance(folder):
    records = json.loads((RESULTS / folder / "race.json").read_text())
    _assert_provenance(records)
    assert time_to_cra.rows(records).to_csv(index=False) == (RESULTS / folder / "race.csv").read_text()


@pytest.mark.parametrize("folder", sorted(path.parent.name for path in RESULTS.glob("*/records.json")))
def test_committed_results_carry_their_provenance(folder):
    records = json.loads((RESULTS / folder / "records.json").read_text())
    _assert_provenance(records)
    table = overview.to_markdown(overview.summary(pd.DataFrame([row(record) for record in records])))
    assert table in (RESULTS / folder / "table.md").read_text()
