"""The public names: they resolve, lightly, and each has an example that runs."""

import doctest
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import lipref
from lipref import AOLConv2d, CPLConv2d, LiprefError, MaxMin, SOCConv2d, convnet, fold, lipschitz_bound
from lipref.layers import LAYERS


@pytest.mark.parametrize("name", lipref.__all__)
def test_every_public_name_is_documented_by_an_example_that_runs(name):
    value = getattr(lipref, name)
    assert getattr(lipref, name) is value
    assert inspect.getdoc(value)
    module = importlib.import_module(value.__module__)
    tests = [test for test in doctest.DocTestFinder(recurse=False).find(value, name, module, globs={}) if test.examples]
    assert tests, f"{name} has no example"
    said = []
    for test in tests:
        doctest.DocTestRunner().run(test, out=said.append)
    LAYERS.pop("aol-example", None)
    assert not said, "".join(said)


def test_no_public_name_is_that_of_a_module():
    """The import of the module would put it in the name's place."""
    folder = Path(lipref.__file__).parent
    modules = {path.stem for path in folder.iterdir()}
    assert not modules & set(lipref.__all__)
    assert set(lipref.__all__) <= set(dir(lipref))
    with pytest.raises(AttributeError, match="nothing"):
        _ = lipref.nothing


def test_importing_the_library_loads_nothing():
    code = "import sys, lipref; assert not {'torch', 'pandas', 'matplotlib', 'typer'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def own_network():
    torch.manual_seed(0)
    inner = nn.Sequential(SOCConv2d(4, 8, 3), MaxMin())
    return nn.Sequential(AOLConv2d(3, 4, 3), MaxMin(), inner, nn.PixelUnshuffle(2), CPLConv2d(32, 32, 3)).eval()


@pytest.mark.parametrize("size", [8, (8, 8), (3, 8, 8), (8, 6)])
def test_fold_is_the_same_function_without_parametrisations(size):
    model = own_network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    folded = fold(model, size)
    height, width = (size, size) if isinstance(size, int) else size[-2:]
    x = torch.rand(2, 3, height, width)
    torch.testing.assert_close(folded(x), model(x))
    assert not [module for module in folded.modules() if isinstance(module, lipref.LipschitzConv2d)]
    assert isinstance(folded[0], nn.Conv2d)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("layer", LAYERS)
def test_folded_networks(layer):
    torch.manual_seed(0)
    model, x = convnet("XS", layer, 3, 1, 8).eval(), torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(fold(model, 8)(x), model(x))


def test_what_cannot_be_folded_is_refused():
    layer = AOLConv2d(4, 4, 3)
    twice = nn.Sequential(layer, nn.PixelUnshuffle(2), nn.Conv2d(16, 4, 1), layer)
    with pytest.raises(LiprefError, match=r"AOLConv2d gets images of several sizes"):
        fold(twice, 8)
    torch.testing.assert_close(fold(nn.Sequential(layer, layer), 8)(x := torch.rand(1, 4, 8, 8)), layer(layer(x)))
    unused = own_network()
    unused[0].spare = AOLConv2d(3, 3, 1)
    with pytest.raises(LiprefError, match="AOLConv2d is reached by no image"):
        fold(unused, 8)
    for size in (0, "8", (1, 2, 3, 4)):
        with pytest.raises(LiprefError, match="image_size"):
            fold(own_network(), size)
    with pytest.raises(LiprefError, match=r"give image_size=\(C, H, W\)"):
        fold(nn.Flatten(), 8)


def test_lipschitz_bound_names_what_proves_nothing():
    assert lipschitz_bound(nn.Sequential(AOLConv2d(3, 4, 3), nn.ReLU()), (3, 8, 8)) <= 1
    with pytest.raises(LiprefError, match=r"1 .*Softmax"):
        lipschitz_bound(nn.Sequential(AOLConv2d(3, 4, 3), nn.Softmax(1)), (3, 8, 8))
    with pytest.raises(LiprefError, match="shape="):
        lipschitz_bound(AOLConv2d(3, 4, 3), (8, 8))
