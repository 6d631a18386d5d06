"""Notebooks executed one by one and over a grid: nothing that failed is taken for a result."""

import json
import os
import signal
import sys
import time

import nbformat
import pandas as pd
import pytest

from lipref.errors import LiprefError
from lipref.report import batch, execute, items, kernels, parameters
from lipref.report.execute import damaged

PARAMETERS = """\
word: str = "a=b"  # some text
count: int = 3
rate: float = -1e-3  # per step
flag: bool = False
out: str = "."  # where files go
"""
WORK = """\
import sys, pathlib
print(word, count, repr(rate), flag, sys.executable)
pathlib.Path(out, "work.csv").write_text(f"count,rate\\n{count},{rate}\\n")
print("wrote", pathlib.Path(out, "work.csv"))"""


def write(path, *cells, tagged=1):
    """A notebook whose first ``tagged`` cells have the tag ``parameters``."""
    made = [nbformat.v4.new_code_cell(source) for source in cells]
    for cell in made[:tagged]:
        cell.metadata.tags = ["parameters"]
    # A kernel that is nobody's: the interpreter's own is to be taken, not the one that the notebook names.
    spec = {"name": "python-of-somebody-else", "display_name": "?", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=made, metadata={"kernelspec": spec}), path)
    return path


def left(folder):
    return sorted(path.name for path in folder.iterdir())


def gone(pid):
    """Whether a process ends within ten seconds."""
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def test_parameters_are_read(tmp_path):
    found = parameters.parameters_of(write(tmp_path / "n.ipynb", PARAMETERS))
    assert list(found) == ["word", "count", "rate", "flag", "out"]
    assert found["word"] == parameters.Parameter("word", "str", "a=b", "some text")
    assert found["rate"] == parameters.Parameter("rate", "float", -1e-3, "per step")
    assert found["count"].help == ""


@pytest.mark.parametrize(
    ("cells", "tagged", "named"),
    [
        (["count: int = 1"], 0, "0 cells tagged"),
        (["count: int = 1", "rate: float = 1.0"], 2, "2 cells tagged"),
        (["count = 1"], 1, "'count = 1'"),
        (["count: list = [1]"], 1, "count: list"),
        (["count: int = 1\ncount: int = 2"], 1, "count is there twice"),
        (["count: int = '1'"], 1, "default is text"),
        (["count: int = len('1')"], 1, "literal"),
        (["count: int = 1.5"], 1, "1.5"),
        (["count: int ="], 1, "not Python"),
    ],
)
def test_parameters_that_papermill_would_lose_are_refused(tmp_path, cells, tagged, named):
    with pytest.raises(LiprefError, match=named):
        parameters.parameters_of(write(tmp_path / "n.ipynb", *cells, tagged=tagged))


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ({"rate": "1e-3"}, 0.001),
        ({"rate": 2}, 2.0),
        ({"count": "10"}, 10),
        ({"flag": "True"}, True),
        ({"word": "[1,2]"}, "[1,2]"),
    ],
)
def test_text_becomes_the_annotated_type(tmp_path, given, value):
    (checked,) = parameters.check(write(tmp_path / "n.ipynb", PARAMETERS), given).values()
    assert checked == value
    assert type(checked) is type(value)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"cuont": 1}, "cuont.* takes word, count"),
        ({"count": "1e1"}, "count.*'1e1'.*int"),
        ({"count": 1.0}, "count.*1.0.*int"),
        ({"count": True}, "count.*True.*int"),
        ({"rate": "fast"}, "rate.*'fast'.*float"),
        ({"rate": "nan"}, "rate.*finite"),
        ({"rate": 2**53 + 1}, "rate.*float"),
        ({"rate": False}, "rate.*False"),
        ({"flag": 1}, "flag.*1.*bool"),
        ({"flag": "yes"}, "flag.*'yes'.*bool"),
        ({"word": 5}, "word.*5.*str"),
        ({"word": None}, "word.*None.*str"),
    ],
)
def test_wrong_values_are_refused_before_a_kernel_starts(tmp_path, given, named):
    source = write(tmp_path / "n.ipynb", PARAMETERS)
    with pytest.raises(LiprefError, match=named) as refusal:
        execute.execute(source, tmp_path / "done.ipynb", given)
    assert "\n" not in str(refusal.value)
    assert left(tmp_path) == ["n.ipynb"]


def test_an_execution_is_repeatable_to_the_byte(tmp_path, monkeypatch):
    foreign = tmp_path / "jupyter" / "kernels" / "python3"
    foreign.mkdir(parents=True)
    (foreign / "kernel.json").write_text('{"argv": ["false"], "display_name": "?", "language": "python"}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    source = write(tmp_path / "work {x}.ipynb", PARAMETERS, WORK, "")
    cells = []
    for name in ("one", "two"):
        folder = tmp_path / name
        done = execute.execute(
            source,
            folder / "done.ipynb",
            {"rate": "1e-3", "count": 7},
            outputs=["work.csv"],
            on_cell=lambda done, total: cells.append((done, total)),
        )
        assert done == folder / "done.ipynb"
        assert left(folder) == ["done.ipynb", "work.csv"]
    assert cells == [(1, 3), (2, 3), (3, 3)] * 2
    data = done.read_bytes()
    assert data == (tmp_path / "one" / "done.ipynb").read_bytes()
    assert str(tmp_path).encode() not in data
    notebook = nbformat.reads(data.decode(), as_version=4)
    used = {"word": "a=b", "count": 7, "rate": 0.001, "flag": False, "out": "."}
    assert notebook.metadata.papermill.parameters == used
    printed = "".join(output.text for output in notebook.cells[2].outputs)
    assert printed == f"a=b 7 0.001 False {sys.executable}\nwrote ./work.csv\n"
    assert (tmp_path / "two" / "work.csv").read_text() == "count,rate\n7,0.001\n"


FAILURES = {
    "raise": ("raise ValueError('two\\nlines')", [], r"In \[3\] raised ValueError: two lines"),
    "exit": ("raise SystemExit(0)", [], "SystemExit"),
    "killed": ("import os; os.kill(os.getpid(), 9)", [], r"In \[3\] ended the kernel"),
    "timeout": ("import time; time.sleep(600)", [], "longer than 5 s"),
    "stale": ("1", ["old.csv"], "did not write old.csv"),
}


@pytest.fixture(scope="module")
def failures(tmp_path_factory):
    """All failures, in threads, each over a good earlier result."""
    root = tmp_path_factory.mktemp("failures")
    jobs = []
    for name, (last, outputs, _) in FAILURES.items():
        write(root / f"{name}.ipynb", "out: str = '.'", last)
        folder = root / name
        folder.mkdir()
        for old in ("done.ipynb", "old.csv"):
            (folder / old).write_text("good")
        item = items.Item(name, "Table 9", "t", "s", ("out",), (), tuple(outputs), "1 s", "new", root)
        jobs.append((item, folder / "done.ipynb", {}))
    results = items.execute_all(jobs, workers=2, timeout=5)
    return root, {item.name: result for item, result in results}


@pytest.mark.parametrize("name", FAILURES)
def test_what_failed_is_no_result(failures, name):
    root, results = failures
    assert isinstance(results[name], LiprefError)
    message = str(results[name])
    failed = root / name / "done.failed.ipynb"
    assert "\n" not in message
    assert message.endswith(f"see {failed}")
    with pytest.raises(LiprefError, match=FAILURES[name][2]):
        raise results[name]
    assert left(root / name) == ["done.failed.ipynb", "done.ipynb", "old.csv"]
    assert {(root / name / old).read_text() for old in ("done.ipynb", "old.csv")} == {"good"}
    assert nbformat.read(failed, as_version=4).metadata.papermill.failed in message


@pytest.mark.parametrize(("bad", "code", "starts"), [(1, "pass", 2), (9, "import time; time.sleep(600)", 3)])
def test_a_kernel_that_does_not_answer_is_started_again(tmp_path, monkeypatch, bad, code, starts):
    source = write(tmp_path / "n.ipynb", "out: str = '.'", "print(1)")
    made, whole = [], kernels.Kernels.manager_class

    def manager_class(self):
        made.append(whole(self))
        if len(made) <= bad:
            made[-1].kernel_spec.argv[1:] = ["-c", code, "{connection_file}"]
        return made[-1]

    monkeypatch.setattr(kernels.Kernels, "manager_class", manager_class)
    if bad < starts:
        execute.execute(source, tmp_path / "done.ipynb", {})
    else:
        monkeypatch.setattr(kernels, "START_SECONDS", 3)
        with pytest.raises(LiprefError, match="didn't respond in 3 seconds"):
            execute.execute(source, tmp_path / "done.ipynb", {})
    assert len(made) == starts


@pytest.mark.parametrize(
    ("name", "data", "named"),
    [
        ("x.png", b"\x89PNG\r\n\x1a\n half", "not a whole PNG"),
        ("x.pdf", b"%PDF-1.4 half", "not a whole PDF"),
        ("x.pdf", b"no %%EOF", "not a whole PDF"),
        ("x.csv", b"a\n1,2\n1,2,3,4\n", "pandas cannot read"),
        ("x.csv", b"a\n\xff\n", "pandas cannot read"),
        ("x.md", b"", "empty"),
        ("y.csv", b"a\n1\n", "did not write x.csv"),
    ],
)
def test_damaged_files_are_seen(tmp_path, name, data, named):
    (tmp_path / name).write_bytes(data)
    assert named in damaged(tmp_path, ["x.csv"] if name == "y.csv" else [name])
    assert damaged(tmp_path / "none", []) is None


def test_an_interrupt_stops_the_kernels_and_leaves_nothing(tmp_path):
    source = write(
        tmp_path / "n.ipynb",
        "out: str = '.'",
        f"import os, pathlib; pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))",
        "import time; time.sleep(600)",
    )

    def interrupt(done, total):
        if done == 3:
            os.kill(os.getpid(), signal.SIGINT)

    # A shell that starts the tests in the background has interrupts ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            execute.execute(source, tmp_path / "done.ipynb", {}, on_cell=interrupt)
    finally:
        signal.signal(signal.SIGINT, before)
    assert gone(int((tmp_path / "pid").read_text()))
    assert left(tmp_path) == ["n.ipynb", "pid"]


@pytest.mark.parametrize(
    ("arguments", "grid"),
    [
        (["sizes=XS, S", "seed=0"], {"sizes": ["XS", "S"], "seed": ["0"]}),
        (["sizes=XS,S;M"], {"sizes": ["XS,S", "M"]}),
        (["sizes=XS,S;", "rate=1e-3"], {"sizes": ["XS,S"], "rate": ["1e-3"]}),
        ([], {}),
    ],
)
def test_a_grid_is_read(tmp_path, arguments, grid):
    assert batch.parse_grid(arguments) == grid
    (tmp_path / "grid.yaml").write_text("count: [1, 2]\nword: x\n")
    assert batch.parse_grid([*arguments, f"@{tmp_path}/grid.yaml"]) == grid | {"count": [1, 2], "word": ["x"]}


@pytest.mark.parametrize("argument", ["seed", "seed=", "seed=0,,1", "=1", "@nowhere.yaml", "a=3"])
def test_a_wrong_grid_is_refused(argument):
    with pytest.raises(LiprefError):
        batch.parse_grid(["a=1", argument])


@pytest.mark.parametrize(
    ("grid", "named"), [({"a": [1]}, "no parameter a"), ({"count": [1, "1"]}, "twice"), ({"out": ["x"]}, "out")]
)
def test_a_grid_that_does_not_fit_is_refused_before_anything_runs(tmp_path, grid, named):
    source = write(tmp_path / "n.ipynb", PARAMETERS)
    with pytest.raises(LiprefError, match=named):
        batch.run_grid(source, grid, tmp_path / "out")
    assert left(tmp_path) == ["n.ipynb"]


def test_a_grid_goes_on_where_it_stopped(tmp_path):
    source = write(tmp_path / "n.ipynb", PARAMETERS, "assert count != 2", WORK)
    grid, out = batch.parse_grid(["count=1,2,3"]), tmp_path / "out"
    first = batch.run_grid(source, grid, out, workers=2)
    assert [(point.status, point.ran) for point in first] == [("done", True), ("failed", True), ("done", True)]
    assert left(first[0].folder) == ["n.ipynb", "run.json", "work.csv"]
    record = json.loads((first[0].folder / "run.json").read_text())
    assert record["parameters"] == {"count": 1}
    assert record["environment"]["python"]

    (first[2].folder / "run.json").write_text("{")
    done = []
    second = batch.run_grid(source, grid, out, workers=2, on_done=done.append)
    assert [(point.status, point.ran) for point in second] == [("done", False), ("failed", True), ("done", True)]
    assert "AssertionError" in second[1].note
    assert "run.json was damaged" in second[2].note
    assert {point.folder for point in done} == {point.folder for point in second}

    index = pd.read_csv(out / "index.csv")
    assert list(index["count"]) == [1, 2, 3]
    assert list(index.status) == ["done", "failed", "done"]
    assert list(index.folder) == [point.folder.name for point in second]
    assert os.path.isdir(out / index.folder[0])

    (first[0].folder / "work.csv").unlink()
    (third,) = batch.run_grid(source, {"count": ["1"]}, out)
    assert third.ran
    assert (third.folder / "work.csv").exists()


MAP = {
    "name": "n",
    "item": "Table 1",
    "title": "Costs",
    "shows": "s",
    "parameters": ["count"],
    "inputs": [],
    "outputs": ["n.csv"],
    "cost": "1 s",
    "status": "done",
}


def test_the_map_is_read(tmp_path):
    write(tmp_path / "n.ipynb", PARAMETERS)
    (tmp_path / "paper.yaml").write_text(json.dumps([MAP]))  # JSON is YAML
    (item,) = items.read_map(tmp_path / "paper.yaml")
    assert (item.item, item.outputs, item.notebook) == ("Table 1", ("n.csv",), tmp_path / "n.ipynb")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[", "YAML"),
        ("{}", "list"),
        (json.dumps([MAP, MAP]), "entry 2.*'n'"),
        (json.dumps([{key: MAP[key] for key in MAP if key != "cost"}]), "lacks cost"),
        (json.dumps([MAP | {"csot": "x"}]), "unknown csot"),
        (json.dumps([MAP | {"cost": 3}]), "cost is 3"),
        (json.dumps([MAP | {"outputs": "n.csv"}]), "outputs is 'n.csv'"),
        (json.dumps([MAP | {"name": "m"}]), "m.ipynb is missing"),
    ],
)
def test_a_wrong_map_is_refused(tmp_path, text, named):
    write(tmp_path / "n.ipynb", PARAMETERS)
    (tmp_path / "paper.yaml").write_text(text)
    with pytest.raises(LiprefError, match=named):
        items.read_map(tmp_path / "paper.yaml")
