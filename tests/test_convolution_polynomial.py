"""The polynomial of a convolution, and SOC that computes it anew in the backward pass."""

import copy

import pytest
import torch

from lipref.layers import LAYERS
from lipref.linalg.convolution_polynomial import convolution_polynomial
from lipref.linalg.padding import adjoint_kernel, conv2d_same

F64 = torch.float64


@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize("size", [(5, 6), (1, 1), (2, 3)])
@pytest.mark.parametrize("terms", [1, 2, 5])
def test_the_exponential_is_its_series(mode, size, terms):
    torch.manual_seed(0)
    weight = torch.randn(3, 3, 3, 3, dtype=F64)
    weight = 0.2 * (weight - adjoint_kernel(weight))
    x = torch.randn(2, 3, *size, dtype=F64)
    total = term = x
    for j in range(1, terms + 1):
        term = conv2d_same(term, weight, None, mode) / j
        total = total + term
    found = convolution_polynomial(x, weight, 1 / torch.arange(1, terms + 1, dtype=F64), mode)
    assert torch.allclose(found, total, rtol=1e-12, atol=1e-12)


def test_the_exponential_has_second_derivatives():
    torch.manual_seed(0)
    x = torch.randn(1, 2, 3, 4, dtype=F64, requires_grad=True)
    weight = (0.3 * torch.randn(2, 2, 3, 3, dtype=F64)).requires_grad_()
    ratios = 1 / torch.arange(1, 4, dtype=F64)
    assert torch.autograd.gradgradcheck(lambda *given: convolution_polynomial(*given, ratios, "circular"), (x, weight))


def saved_numbers(function):
    """What a function gives, and how many numbers autograd keeps for it."""
    saved = {}

    def pack(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        return function(), sum(saved.values())


@pytest.mark.parametrize(("channels", "side", "k"), [(8, 8, 3), (64, 4, 3), (8, 2, 1)])
def test_soc_that_recomputes_is_the_same_function_for_less_memory(channels, side, k):
    torch.manual_seed(0)
    plain = LAYERS["soc"](channels, channels, k).train()
    lean = copy.deepcopy(plain)
    lean.recompute = True
    x = torch.randn(64, channels, side, side, requires_grad=True)
    found, numbers = [], []
    for layer in (plain, lean):
        y, count = saved_numbers(lambda layer=layer: layer(x))
        found.append((y, *torch.autograd.grad(y.square().mean(), (x, *layer.parameters())), *layer.buffers()))
        numbers.append(count)
    assert all(map(torch.equal, *found))
    assert numbers[1] < 0.7 * numbers[0]


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")  # torch's own, at its first forward derivative
def test_soc_that_recomputes_has_forward_derivatives_and_maps():
    layer = LAYERS["soc"](3, 3, 3, bias=False, recompute=True).train()
    layer.track_power_vectors = False
    x = torch.randn(2, 3, 9, 9)
    expected = layer(x)
    assert torch.allclose(torch.func.vmap(lambda x: layer(x[None])[0])(x), expected, atol=1e-5)
    assert torch.allclose(torch.func.jvp(layer, (x,), (x,))[1], expected, atol=1e-5)  # it is linear in x
