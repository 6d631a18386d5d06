"""The page on a layer of one's own: its class keeps the contract, trains, and is certified."""

import copy
import re
from pathlib import Path

import pytest
import torch
from jacobian import impulse_jacobian
from torch._subclasses.fake_tensor import FakeTensorMode

from lipref import convnet, fold, lipschitz_bound
from lipref.layers import LAYERS
from lipref.layers.batched import prepare_batched

PAGE = (Path(__file__).parents[1] / "docs" / "your-own-layer.md").read_text()
FIRST, SECOND = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def cls():
    before, names = dict(LAYERS), {}
    exec(compile(FIRST, "tapsum.py", "exec"), names)
    yield names["TapSumConv2d"]
    LAYERS.clear()
    LAYERS.update(before)


def test_it_has_forty_lines():
    assert len(FIRST.splitlines()) <= 40


@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize("shape", [(3, 5, 3), (5, 3, 3), (4, 4, 1)])
def test_it_keeps_the_contract(cls, shape, mode):
    torch.manual_seed(0)
    layer = cls(*shape, padding_mode=mode, dtype=torch.float64)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    trained = layer(x := torch.randn(2, shape[0], 5, 6, dtype=torch.float64))
    torch.testing.assert_close(layer.eval()(x), trained, rtol=1e-12, atol=1e-12)
    norm = float(torch.linalg.matrix_norm(impulse_jacobian(layer, shape[0], (5, 6)), 2))
    assert norm <= layer.lipschitz_bound((5, 6))
    assert lipschitz_bound(layer, (shape[0], 5, 6)) >= norm
    torch.testing.assert_close(fold(layer, (5, 6))(x), trained)
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))


def test_a_gpu_needs_no_declaration(cls):
    with FakeTensorMode():  # whose tensors have no values
        assert cls(4, 4, 3, device="cuda").prepare((8, 8))["weight"].is_cuda
        cls(4, 4, 3).prepare((8, 8))["weight"].sum().backward()
    layers = [cls(4, 4, 3) for _ in range(3)]
    for layer, operator in zip(layers, prepare_batched(layers, (8, 8)), strict=True):
        torch.testing.assert_close(operator["weight"], layer.prepare((8, 8))["weight"])


def test_it_trains_and_is_certified(cls, capsys):
    exec(compile(SECOND, "your-own-layer.md", "exec"), {})
    assert "Fraction" in capsys.readouterr().out
    assert type(convnet("XS", "tapsum").head) is cls
