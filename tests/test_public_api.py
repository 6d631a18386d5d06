"""`from lipref import ...`: every name is there, documented by an example that runs, and does what it says."""

import ast
import doctest
import pickle
import pkgutil
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_runs import CPU, EXAMPLE, tiny
from torch import nn

import lipref
from lipref import convnet, fold, layers, lipschitz_bound, load, paths
from lipref.layers import LAYERS, resolve
from lipref.layers.excluded import EXCLUDED
from lipref.runs import experiment

FUNCTIONS = sorted(name for name in lipref.__all__ if name.islower())
METHODS = sorted(name for name in lipref.__all__ if name.endswith("Conv2d"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a trained network."""
    root = tmp_path_factory.mktemp("runs") / "digits"
    config, data, spec = tiny()
    experiment.execute(config, data, spec, root, device=CPU)
    return root / config.folder


@pytest.mark.parametrize("name", lipref.__all__)
def test_a_name_stands_for_the_same_thing_at_every_access(name):
    first = getattr(lipref, name)
    assert callable(first)
    assert first.__module__.startswith("lipref.")
    assert first.__name__ == name
    assert getattr(lipref, name) is first
    assert name in dir(lipref)


def test_no_name_is_that_of_a_module():
    modules = {module.name for module in pkgutil.iter_modules(lipref.__path__)}
    assert "layers" in modules
    assert not modules & set(lipref.__all__)


def test_type_checkers_see_the_names_that_there_are():
    tree = ast.parse(Path(lipref.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert sorted(seen) == sorted(lipref.__all__)
    for name, module in seen.items():
        assert getattr(sys.modules[module], name) is getattr(lipref, name)


def test_an_unknown_name_is_refused():
    with pytest.raises(AttributeError, match="module 'lipref' has no attribute 'AOLConv3d'"):
        _ = lipref.AOLConv3d


@pytest.mark.parametrize(
    ("statement", "unneeded"),
    [
        ("import lipref", ("torch", "numpy", "pandas", "matplotlib", "typer", "lipref.layers")),
        ("from lipref import AOLConv2d, train, certify, fold", ("pandas", "matplotlib", "typer", "scipy", "sklearn")),
        (
            "import lipref.cli.main, lipref.paper.style, lipref.report.items",
            ("matplotlib", "seaborn", "optuna", "art", "orthogonium"),
        ),  # the extras come when they are used
    ],
)
def test_an_import_brings_no_more_than_it_needs(statement, unneeded):
    code = f"{statement}; import sys; print(*sorted(set({unneeded!r}) & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("name", lipref.__all__)
def test_the_example_of_its_docstring_runs(name, run):
    taken = dict(LAYERS)
    try:
        (test,) = doctest.DocTestFinder(recurse=False).find(getattr(lipref, name), name, globs={"run": run})
        assert any(line.source.startswith("from lipref import") and name in line.source for line in test.examples)
        report: list[str] = []
        doctest.DocTestRunner().run(test, out=report.append)
        assert not report, "".join(report)
    finally:
        LAYERS.clear()
        LAYERS.update(taken)


@pytest.mark.parametrize("name", lipref.__all__)
def test_docstrings_have_their_parts(name):
    text = getattr(lipref, name).__doc__
    expected = ["Example:"]
    if name in FUNCTIONS:
        expected += ["Args:", "Returns:", "Raises:"]
    if name in METHODS and name not in ("LipschitzConv2d", "StandardConv2d"):
        expected += ["Source:", "LipschitzConv2d"]
    assert [part for part in expected if part not in text] == []


# --- lipschitz_bound


def test_the_bound_is_the_audits():
    model = convnet("XS", "cpl", num_classes=10, in_channels=1, image_size=8)
    assert lipschitz_bound(model, (1, 8, 8)) == lipref.audit(model, (1, 8, 8)).bound
    double = nn.Sequential(nn.Flatten(), nn.Linear(16, 16))
    nn.init.eye_(double[1].weight.data).mul_(2)
    assert 2 <= lipschitz_bound(double, torch.zeros(1, 4, 4).shape) <= 2 + 1e-9


@pytest.mark.parametrize(
    ("module", "shape", "match"),
    [
        (nn.Sequential(lipref.AOLConv2d(3, 4, 3), nn.GELU()), (3, 8, 8), r"Sequential: 1 \(GELU\): of an unknown type"),
        (nn.Sequential(nn.GELU(), nn.SiLU()), (3, 8, 8), r"0 \(GELU\): .* \(and 1 more, see lipref\.audit\)"),
        (convnet("XS", resolve(EXAMPLE).cls, image_size=8).append(nn.Softsign()), (3, 8, 8), r"\(Softsign\)"),
        (convnet("XS", "aol", image_size=8), (3, 16, 16), r"takes images of \(3, 8, 8\), not \(3, 16, 16\)"),
        (lipref.AOLConv2d(3, 4, 3), (4, 8, 8), "in_channels=3"),
        (lipref.AOLConv2d(3, 4, 3), (2, 3, 8, 8), r"shape=\(2, 3, 8, 8\) is not \(C, H, W\) of one image"),
        (lipref.AOLConv2d(3, 4, 3), 8, "shape=8 is not"),
        (lipref.AOLConv2d(3, 4, 3), (3, 8, 0), "at least 1"),
        (lipref.AOLConv2d, (3, 8, 8), "give a torch.nn.Module"),
    ],
)
def test_what_proves_nothing_is_named(module, shape, match):
    with pytest.raises(lipref.LiprefError, match=match) as caught:
        lipschitz_bound(module, shape)
    assert "\n" not in str(caught.value)


# --- fold


@pytest.mark.parametrize("name", [*LAYERS, *EXCLUDED])
def test_a_folded_network_is_the_evaluated_one_without_its_layers(name):
    torch.manual_seed(0)
    options = {"allow_any_side": True} if name == "eco" else {}
    model = convnet("XS_1x1" if name == "bnb" else "XS", name, 10, 1, 8, **options)
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    folded, x = fold(model, 8), torch.rand(3, 1, 8, 8)
    assert model.training
    assert not any(module.training for module in folded.modules())
    assert not any(isinstance(module, layers.LipschitzConv2d) for module in folded.modules())
    assert folded.first is not model.first
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in weights.items())
    expected = model.eval()(x)
    assert (folded(x) - expected).norm() <= 1e-5 * expected.norm()
    with torch.no_grad():
        next(model.parameters()).mul_(2)
    again = pickle.loads(pickle.dumps(folded))
    assert torch.equal(again(x), folded(x))
    assert (again(x) - expected).norm() <= 1e-5 * expected.norm()


class Branches(nn.Module):
    """Not a chain; the second layer is applied twice, and at half of the side."""

    def __init__(self, shared=True):
        super().__init__()
        self.first = nn.Sequential(lipref.AOLConv2d(2, 4, 3), lipref.MaxMin())
        self.second = lipref.SOCConv2d(4, 4, 3)
        self.unused = None if shared else lipref.SOCConv2d(4, 4, 3)

    def forward(self, x):
        x = nn.functional.avg_pool2d(self.first(x), 2)
        return self.second(self.second(x))


def test_any_module_is_folded_and_also_rectangles():
    model, x = Branches().double().eval(), torch.rand(2, 2, 6, 8, dtype=torch.float64)
    folded = fold(model, (6, 8))
    torch.testing.assert_close(folded(x), model(x), rtol=1e-9, atol=1e-9)
    assert not any(isinstance(module, layers.LipschitzConv2d) for module in folded.modules())
    layer = lipref.BCOPConv2d(2, 4, 3).double().eval()
    torch.testing.assert_close(fold(layer, (6, 8))(x), layer(x), rtol=1e-9, atol=1e-9)


def test_layers_without_a_fold_are_copied():
    model, x = convnet("XS", resolve(EXAMPLE).cls, 10, 1, 8), torch.rand(2, 1, 8, 8)
    folded = fold(model, 8)
    assert folded is not model
    assert torch.equal(folded(x), model.eval()(x))


class Twice(Branches):
    def forward(self, x):
        return self.second(nn.functional.avg_pool2d(self.second(self.first(x)), 2))


@pytest.mark.parametrize(
    ("module", "size", "match"),
    [
        (convnet("XS", "aol", image_size=8), 16, r"ConvNet does not take an image of \(3, 16, 16\)"),
        (convnet("XS", "aol", image_size=8), (3, 8, 8), "give the side of square images, or"),
        (convnet("XS", "aol", image_size=8), 8.0, r"image_size=8\.0"),
        (convnet("XS", "aol", image_size=8), 0, "image_size=0"),
        (nn.Sequential(nn.PixelUnshuffle(2), lipref.AOLConv2d(4, 4, 3)), 8, "their channels as its attribute in_chann"),
        (nn.Flatten(), "8", r"image_size='8'"),
        (lipref.AOLConv2d, 8, "give a torch.nn.Module"),
        (Branches(shared=False), 8, r"unused \(SOCConv2d\) is applied to no images"),
        (Twice(), 8, r"second \(SOCConv2d\) is applied to 4x4, 8x8: a folded layer has one size"),
    ],
)
def test_what_cannot_be_folded_is_named(module, size, match):
    with pytest.raises(lipref.LiprefError, match=match) as caught:
        fold(module, size)
    assert "\n" not in str(caught.value)


def test_channels_of_a_network_that_does_not_begin_with_a_layer():
    model = nn.Sequential(nn.PixelUnshuffle(2), lipref.AOLConv2d(4, 4, 3)).eval()
    model.in_channels = 1
    x = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(fold(model, 8)(x), model(x))


# --- load


def test_a_saved_network_comes_back(run):
    classifier = load(run)
    model = convnet("XS", "aol", 10, 1, 8)
    model.load_state_dict(classifier.model.state_dict())
    x = torch.rand(4, 1, 8, 8) - 0.5
    assert torch.equal(model.eval()(x), classifier.model(x))
    assert classifier.bound == lipschitz_bound(classifier.model, (1, 8, 8))


def test_a_run_is_found_by_its_name(run, monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "RUNS", run.parent.parent)
    assert load(run.name).sha256 == load(run).sha256
    shutil.copytree(run, tmp_path / "other" / run.name)
    shutil.copytree(run, tmp_path / "digits" / run.name)
    monkeypatch.setattr(paths, "RUNS", tmp_path)
    with pytest.raises(lipref.LiprefError, match=f"named {run.name} there are several: .*digits.*, .*other"):
        load(run.name)
    with pytest.raises(lipref.LiprefError, match="named digits-XS-none there are none, and there is no such file"):
        load("digits-XS-none")
