"""The notebooks as they are committed, and that a broken one is found.

The cells' outputs are compared by nbval, in the second half of ``make test``.
"""

import os
import re
import subprocess
import sys

import nbformat
import pytest

from lipref.errors import LiprefError
from lipref.paths import PAPER, ROOT
from lipref.report.execute import execute
from lipref.report.items import read_map
from lipref.report.parameters import parameters_of

FOLDER = ROOT / "notebooks"
ITEMS = read_map()
NAMES = [item.name for item in ITEMS]
BY_NAME = {item.name: item for item in ITEMS}
MARK = "# NBVAL_CHECK_OUTPUT"


def faults(path, item):
    """Everything that is wrong with a committed notebook, as lines."""
    found = []
    try:
        takes = tuple(parameters_of(path))
    except LiprefError as error:
        return [str(error)]
    if takes != item.parameters:
        found.append(f"takes {takes}, the map says {item.parameters}")
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if notebook.metadata.kernelspec.name != "python3":
        found.append(f"kernel {notebook.metadata.kernelspec.name}")
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        found.append("not executed from top to bottom")
    if not any(cell.source.startswith(MARK) and cell.outputs for cell in code):
        found.append("no cell whose output is compared")
    if any(output.output_type == "error" or output.get("name") == "stderr" for cell in code for output in cell.outputs):
        found.append("an output that is an error")
    for cell in code:
        found += [f"logic in a cell: {line}" for line in re.findall(r"^ *(?:def|class|while|if) .*", cell.source, re.M)]
    text = path.read_text()
    found += [f"names {word}" for word in (str(ROOT), os.path.expanduser("~/")) if word in text]
    if f"{item.name}.png" in item.outputs and "image/png" not in text:
        found.append("no picture")
    return found


def test_the_map_has_all_notebooks():
    assert sorted(NAMES) == sorted(path.stem for path in FOLDER.glob("*.ipynb"))


@pytest.mark.parametrize("name", NAMES)
def test_notebook_is_committed_executed_and_thin(name):
    assert faults(FOLDER / f"{name}.ipynb", BY_NAME[name]) == []


@pytest.mark.parametrize("name", NAMES)
def test_what_the_map_names_is_there(name):
    item = BY_NAME[name]
    assert all((ROOT / path).is_file() for path in item.inputs)
    assert all((ROOT / "figures" / output).is_file() for output in item.outputs)
    assert all(re.fullmatch(rf"{name}(_\w+)?", output.partition(".")[0]) for output in item.outputs)


def test_no_figure_is_left_over():
    expected = {output for item in ITEMS for output in item.outputs}
    assert {path.name for path in (ROOT / "figures").iterdir()} == expected | {"h200"}
    assert {path.name for path in (ROOT / "figures" / "h200").iterdir()} < expected  # of docs/performance-gpu.md


def test_the_readmes_table_is_the_map():
    readme = (ROOT / "README.md").read_text()
    shown = readme.split("<!-- map -->")[1].split("<!-- /map -->")[0]
    for item in ITEMS:
        (line,) = (line for line in shown.splitlines() if f"notebooks/{item.name}.ipynb" in line)
        for text in (item.item, item.title, item.shows, item.status):
            assert text in line
    assert re.findall(r"notebooks/(\w+)\.ipynb", shown) == NAMES


# As they are printed: the main part, then the appendices B, C, D, E and G.
PRINTED = [
    "Figure 1", "Table 1", "Figure 2", "Figure 3", "Figure 4", "Table 2", "Figure 5", "Figure 6", "Table 3", "Table 4",
    "Table 5", "Table 6", "Table 7", "Table 8", "Figure 7", "Figure 8", "Figure 9", "Table 9", "Table 10", "Table 11",
    "Table 12",
]  # fmt: skip


def test_the_map_has_the_papers_order_between_first_steps_and_what_goes_beyond():
    of_the_paper = [item.of_the_paper for item in ITEMS]
    first, last = of_the_paper.index(True), len(ITEMS) - of_the_paper[::-1].index(True)
    assert all(of_the_paper[first:last])
    assert [item.item for item in ITEMS[first:last]] == PRINTED
    assert ITEMS[0].item == "Quickstart"


@pytest.mark.parametrize("item", [item for item in ITEMS if item.of_the_paper], ids=lambda item: item.name)
def test_every_item_of_the_paper_has_its_variants(item):
    assert parameters_of(item.notebook)["variant"].default == "both"


@pytest.mark.parametrize("name", NAMES)
def test_published_numbers_are_read_not_typed(name):
    """No number of the paper's tables stands in a cell's source."""
    text = "\n".join(cell.source for cell in nbformat.read(FOLDER / f"{name}.ipynb", as_version=4).cells)
    assert not re.search(r"\b\d\d\.\d\b", text)
    assert any(path.startswith(str(PAPER.relative_to(ROOT))) for path in BY_NAME[name].inputs)


# --- broken on purpose


def broken(tmp_path, change):
    notebook = nbformat.read(FOLDER / "table1_complexity.ipynb", as_version=4)
    change(notebook)
    path = tmp_path / "table1_complexity.ipynb"
    nbformat.write(notebook, path)
    return path


def compare(path, seconds="120"):
    """What ``make test`` does with the notebooks, on one of them; a dead kernel costs it the seconds of a cell."""
    makefile = (ROOT / "Makefile").read_text()
    arguments = re.search(r"^NBVAL_ARGS \?= (.*)$", makefile, re.M)[1].replace("120", seconds).split()
    return subprocess.run(
        [sys.executable, "-m", "pytest", *arguments, "-p", "no:cacheprovider", str(path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_a_changed_number_is_found(tmp_path):
    def change(notebook):
        (cell,) = (cell for cell in notebook.cells if cell.get("id") == "numbers")
        for output in cell.outputs:
            output.data["text/plain"] = output.data["text/plain"].replace("9.66", "9.67", 1)

    assert compare(broken(tmp_path, lambda notebook: None)).returncode == 0
    done = compare(broken(tmp_path, change))
    assert done.returncode == 1
    assert "9.67" in done.stdout


@pytest.mark.slow
def test_a_dead_kernel_is_found(tmp_path):
    def change(notebook):
        notebook.cells[2].source = "import os\n\nos.kill(os.getpid(), 9)"

    path = broken(tmp_path, change)
    assert compare(path, "15").returncode != 0
    with pytest.raises(LiprefError, match="kernel"):
        execute(path, tmp_path / "done.ipynb", {})
    assert not (tmp_path / "done.ipynb").exists()


def test_a_removed_tag_is_found(tmp_path):
    def change(notebook):
        for cell in notebook.cells:
            cell.metadata.pop("tags", None)

    assert "parameters" in " ".join(faults(broken(tmp_path, change), BY_NAME["table1_complexity"]))


def test_an_unknown_parameter_is_found(tmp_path):
    def change(notebook):
        (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
        cell.source = cell.source.replace("channels", "chanels")

    assert "chanels" in " ".join(faults(broken(tmp_path, change), BY_NAME["table1_complexity"]))
    with pytest.raises(LiprefError, match="chanels"):
        execute(FOLDER / "table1_complexity.ipynb", tmp_path / "done.ipynb", {"chanels": 32})


def test_outputs_that_were_cleared_are_found(tmp_path):
    def change(notebook):
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None

    assert faults(broken(tmp_path, change), BY_NAME["table1_complexity"])


def test_every_parameter_is_explained():
    for item in ITEMS:
        for name, parameter in parameters_of(item.notebook).items():
            assert parameter.help, f"{item.name}: {name} has no explanation"
