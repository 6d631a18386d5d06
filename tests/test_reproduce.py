"""The whole way by the command line: from training to the report, with a layer of one's own."""

import importlib
import json
import re
from html.parser import HTMLParser

import nbformat
import pandas as pd
import pytest
from tiny_runs import EXAMPLE, TINY, cli

from lipref import data
from lipref.bench import measurements
from lipref.cli import options
from lipref.layers import resolve
from lipref.paths import RESULTS, ROOT
from lipref.report.drawing import draw
from lipref.report.items import read_map
from lipref.runs import overview, plans
from lipref.runs.provenance import COST, fingerprint

reproduce = importlib.import_module("lipref.cli.reproduce")  # its function has the same name

ITEMS = {item.name: item for item in read_map()}
# The items that show the runs and measurements of any data set and any layer.
SHOWS_OWN = {
    "quickstart", "table1_complexity", "table2_accuracy", "figure1_radar", "figure2_training_time",
    "figure3_inference_throughput", "figure4_memory", "figure5_ranking", "figure9_accuracy_ranking", "certificates",
}  # fmt: skip


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.sources, self.links, self.ids = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if "src" in attrs:
            self.sources.append(attrs["src"])
        if tag == "a" and "href" in attrs:
            self.links.append(attrs["href"])
        self.ids.add(attrs.get("id"))


@pytest.mark.slow
def test_ones_own_layer_is_in_every_figure_of_the_report(tmp_path):
    command = ["reproduce", *TINY, "--epochs", "1", "--learning-rate", "0.05", "--layers", f"aol,{EXAMPLE}",
               "--cost-sizes", "XS", "--out", tmp_path]  # fmt: skip
    first = cli(*command)
    assert "report.html" in first.stdout
    for item in ITEMS.values():
        assert {name for name in item.outputs if (tmp_path / "figures" / name).is_file()} == set(item.outputs)
        if item.name not in SHOWS_OWN:
            continue
        name = "certificates_constants" if item.name == "certificates" else item.name
        table = pd.read_csv(tmp_path / "figures" / f"{name}.csv")
        assert {"aol", "MyConv"} <= set(table[table.source == "ours"].layer if "source" in table else table.layer)
        executed = nbformat.read(tmp_path / "notebooks" / f"{item.name}.ipynb", as_version=4)
        assert "MyConv" in str([cell.get("outputs") for cell in executed.cells])
    page = Page((tmp_path / "report.html").read_text())
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert len(page.sources) == sum(name.endswith(".png") for item in ITEMS.values() for name in item.outputs)
    for link in page.links:
        assert link[1:] in page.ids if link.startswith("#") else (tmp_path / link).is_file()
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("record.json")}
    assert len(stamps) == 4  # two runs, two measurements
    pictures = {path.name: path.read_bytes() for path in (tmp_path / "figures").iterdir()}
    cli(*command)
    assert stamps == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("record.json")}
    again = {path.name: path.read_bytes() for path in (tmp_path / "figures").iterdir()}
    assert again == pictures


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """What would be drawn of the committed records, changed by a function, for a plan of two layers on digits."""
    said, calls = [], []
    monkeypatch.setattr(reproduce.display, "say", said.append)
    monkeypatch.setattr(reproduce, "do_notebooks", lambda items, out, given, title: calls.append((items, given)) or [])
    plan = plans.make_plan(dataset="digits", sizes=("XS",), layers=("aol", EXAMPLE), learning_rate=0.1, out=tmp_path)
    cost_plan = measurements.CostPlan(
        sizes=("XS",), layers=plan.layers, shape=data.shape("digits"), batch_size=64, out=tmp_path
    )

    def draw_it(change):
        for name in ("records.json", "costs.json"):
            records = json.loads((RESULTS / "digits-xs" / name).read_text())[:4]
            new = {"code": fingerprint(COST)}
            records = [record | {"config": record["config"] | new} for record in records]
            own = {"layer": "MyConv", "layer_sha256": resolve(EXAMPLE).source_sha256}
            records.append(records[0] | {"config": records[0]["config"] | own})
            if name == "costs.json":
                records = [record | {"config": record["config"] | change} for record in records]
            (tmp_path / name).write_text(json.dumps(records))
        (tmp_path / "soundness").mkdir()
        (tmp_path / "soundness" / "constants.csv").touch()
        reproduce._draw(plan, cost_plan, "20 epochs")
        items, given = calls.pop()
        return {item.name for item in items}, given, said

    return draw_it


def test_the_figures_show_what_the_table_shows(drawn):
    names, given, said = drawn({})
    assert names == set(ITEMS)
    assert {"aol", EXAMPLE, "bcop"} <= set(given["layers"].split(","))
    assert given["seeds"] == "0"
    assert set(given["cost_sizes"].split(",")) <= {"XS", "S"}
    assert all("no run of that layer" in line for line in said)


@pytest.mark.parametrize(
    "change", [{"image_size": 32}, {"num_classes": 3}, {"batch_size": 8}, {"device": "cuda"}, {"code": "0"},
               {"layer": "lot"}, {"layer": "MyConv", "layer_sha256": "0"}],
)  # fmt: skip
def test_measurements_that_do_not_fit_the_plan_are_named_and_not_drawn(drawn, change):
    names, _, said = drawn(change)
    measured = {name for name, item in ITEMS.items() if any(path.endswith("costs.json") for path in item.inputs)}
    assert "figure2_training_time" in measured
    assert names == set(ITEMS) - measured
    assert sum(line.startswith("not drawn: ") for line in said) == 5
    assert "figure1_radar" in said[-1]


def test_one_epoch_is_one_epoch():
    assert [options.budget_of(epochs, None, "") for epochs in (1, 2)] == ["1 epoch", "2 epochs"]
    lines = [f"- {overview.epochs(pd.DataFrame({'epochs': epochs}))}" for epochs in ([1, 1], [3], [1, 3])]
    assert lines == ["- 1 epoch", "- 3 epochs", "- 1 to 3 epochs"]


@pytest.mark.parametrize("name", ["table1_complexity", "table2_accuracy"])
def test_the_committed_tables_are_what_is_drawn(name, tmp_path):
    for path in draw(ITEMS[name], tmp_path):
        if path.suffix in (".csv", ".md", ".tex"):
            assert path.read_bytes() == (ROOT / "figures" / path.name).read_bytes(), path.name


def test_measure_by_the_command_line(tmp_path):
    command = ["measure", "--layers", f"standard,{EXAMPLE}", "--sizes", "XS", "--batch-size", "4", "--repeats", "3",
               "--out", tmp_path]  # fmt: skip
    shown = cli(*command).stdout
    assert re.search(r"MyConv +XS", shown)
    table = pd.read_csv(tmp_path / "costs.csv")
    assert table.layer.tolist() == ["standard", "MyConv"]
    assert (table[["train_seconds", "infer_seconds", "train_peak_bytes", "infer_peak_bytes"]] > 0).all().all()
    assert (table.threads == 1).all()
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("record.json")}
    cli(*command)
    assert stamps == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("record.json")}
