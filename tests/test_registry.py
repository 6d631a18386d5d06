"""Users' layers by their files: what is executed is what is hashed, also after an edit."""

import hashlib
import pickle
import sys

import pytest
from tiny_runs import cli

import lipref
from lipref.errors import LiprefError
from lipref.layers import LAYERS, resolve

LAYER = """\
import torch
from torch import nn

{imports}

class My(nn.Conv2d):
    value = {value}

    def __init__(self, channels, out, kernel_size):
        super().__init__(channels, out, kernel_size, padding="same")
"""


@pytest.fixture
def file(tmp_path):
    return tmp_path / "mine.py"


def write(file, value=1, imports=""):
    file.write_text(LAYER.format(value=value, imports=imports))


def resolved(file):
    spec = resolve(f"{file}:My")
    return spec.cls.value, spec.source_sha256


def test_an_edited_file_is_executed_anew(file):
    found = []
    for value in (1, 2, 1):
        write(file, value)
        found.append(resolved(file))
        assert found[-1] == (value, hashlib.sha256(file.read_bytes()).hexdigest())
    assert found[0] == found[2]
    assert resolve(f"{file}:My").cls is resolve(f"{file}:My").cls
    cls = resolve(f"{file}:My").cls
    assert pickle.loads(pickle.dumps(cls)) is cls


def test_an_edited_file_that_registers_its_layer(file):
    for value in (1, 2):
        write(file, value, "from lipref.layers import register")
        file.write_text(file.read_text().replace("class My", '@register("mine")\nclass My'))
        try:
            assert resolved(file)[0] == value
            spec = resolve("mine")
        finally:
            LAYERS.pop("mine", None)
        assert (spec.cls.value, spec.source_sha256) == resolved(file)


def test_the_sha256_is_that_of_what_was_executed(file):
    """The file changes while it is imported."""
    write(file, imports="import pathlib; p = pathlib.Path(__file__); p.write_text(p.read_text() + '# more')")
    executed = hashlib.sha256(file.read_bytes()).hexdigest()
    assert resolved(file)[1] == executed


@pytest.mark.parametrize(
    ("helper", "statement"),
    [
        ("helper.py", "from helper import VALUE"),
        ("parts/__init__.py", "from parts import VALUE"),
        ("parts/inner.py", "from parts.inner import VALUE"),
        ("parts/inner.py", "import importlib; VALUE = importlib.import_module('parts.inner').VALUE"),
    ],
)
def test_what_lies_beside_is_imported_and_hashed(file, tmp_path, helper, statement):
    write(file, "VALUE", statement)
    (tmp_path / helper).parent.mkdir(exist_ok=True)
    path, modules, found = list(sys.path), set(sys.modules), []
    for value in (1, 2, 1):
        (tmp_path / helper).write_text(f"VALUE = {value}\n")
        found.append(resolved(file))
        assert found[-1][0] == value
        assert resolved(file) == found[-1]
    assert found[0] == found[2]
    assert found[0][1] != found[1][1]
    assert sys.path == path
    assert modules - {"parts", "parts.inner", "helper"} <= sys.modules.keys()
    (tmp_path / helper).unlink()
    with pytest.raises(LiprefError, match="could not be imported"):
        resolved(file)


def test_modules_of_one_name_beside_two_files(tmp_path):
    for value in (1, 2):
        folder = tmp_path / str(value)
        folder.mkdir()
        (folder / "helper.py").write_text(f"VALUE = {value}\n")
        write(folder / "mine.py", "VALUE", "from helper import VALUE")
    assert [resolved(tmp_path / str(value) / "mine.py")[0] for value in (1, 2, 1)] == [1, 2, 1]


def test_what_was_imported_before_stays(file, tmp_path, monkeypatch):
    """The SHA-256 does not depend on what the process has imported, and the user's own modules are left alone."""
    (tmp_path / "beside_mine.py").write_text("VALUE = 1\n")
    write(file, "VALUE", "from beside_mine import VALUE")
    monkeypatch.syspath_prepend(str(tmp_path))
    import beside_mine

    one = resolved(file)
    assert sys.modules["beside_mine"] is beside_mine
    del sys.modules["beside_mine"]
    write(file, "VALUE + 0", "from beside_mine import VALUE")
    resolved(file)
    write(file, "VALUE", "from beside_mine import VALUE")
    assert resolved(file) == one


def test_another_file_is_not_executed(file):
    write(file)
    sha256 = resolved(file)[1]
    assert resolve(f"{file}:My", sha256).source_sha256 == sha256
    file.write_text("raise SystemExit('executed')")
    with pytest.raises(LiprefError, match="SHA-256"):
        resolve(f"{file}:My", sha256)


def test_training_with_a_file_beside_in_processes(file, tmp_path):
    (tmp_path / "helper.py").write_text("PADDING = 'same'\n")
    write(file, "PADDING", "from helper import PADDING")
    cli("reproduce", "--dataset", "digits", "--limit-train", "60", "--limit-test", "20", "--batch-size", "20",
        "--epochs", "1", "--learning-rate", "0.01", "--layers", f"{file}:My", "--sizes", "XS", "--seeds", "0,1",
        "--jobs", "2", "--no-measure", "--no-figures", "--out", tmp_path / "out")  # fmt: skip
    (run, _) = (path.parent for path in (tmp_path / "out").glob("*/record.json"))
    assert lipref.load(run, layer=f"{file}:My").config.layer == "My"
    (tmp_path / "helper.py").write_text("PADDING = 'valid'\n")
    with pytest.raises(LiprefError, match="SHA-256"):
        lipref.load(run, layer=f"{file}:My")
