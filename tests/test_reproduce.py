"""The whole way by the command line: from training to the report, with a layer of one's own."""

import re
from html.parser import HTMLParser

import nbformat
import pandas as pd
import pytest
from tiny_runs import EXAMPLE, TINY, cli

from lipref.notebooks import draw, read_map
from lipref.paths import ROOT

ITEMS = {item.name: item for item in read_map()}


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
        table = pd.read_csv(tmp_path / "figures" / f"{item.name}.csv")
        assert {"aol", "MyConv"} <= set(table[table.source == "ours"].layer if "source" in table else table.layer)
        executed = nbformat.read(tmp_path / "notebooks" / f"{item.name}.ipynb", as_version=4)
        assert "MyConv" in str([cell.get("outputs") for cell in executed.cells])
    page = Page((tmp_path / "report.html").read_text())
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert len(page.sources) == sum(f"{item.name}.png" in item.outputs for item in ITEMS.values())
    for link in page.links:
        assert link[1:] in page.ids if link.startswith("#") else (tmp_path / link).is_file()
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("record.json")}
    assert len(stamps) == 4  # two runs, two measurements
    pictures = {path.name: path.read_bytes() for path in (tmp_path / "figures").iterdir()}
    cli(*command)
    assert stamps == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("record.json")}
    again = {path.name: path.read_bytes() for path in (tmp_path / "figures").iterdir()}
    assert again == pictures


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
