"""Every quick way of the shared mathematics against a slow, obvious one: 1e-5 in value, 1e-4 in gradient."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from lipref.layers import LAYERS
from lipref.linalg import self_correlation
from lipref.linalg.cayley import cayley_transform
from lipref.linalg.gram import input_gram
from lipref.linalg.padding import adjoint_kernel, conv2d_same
from lipref.linalg.self_correlation import absolute_gram, absolute_self_correlation
from lipref.linalg.skew_exponential import truncated_exponential
from lipref.linalg.spectrum import kernel_symbol, map_symbol

F64 = torch.float64


def slow_absolute_gram(weight):
    return input_gram(weight).abs().sum((2, 3))


def slow_exponential(x, weight, reciprocals, mode):
    y = x
    for reciprocal in reciprocals.flip(0):
        y = x + reciprocal * conv2d_same(y, weight, None, mode)
    return y


def relative(one, other):
    return float((one.detach() - other.detach()).norm() / other.detach().norm())


def gradient(function, argument):
    weights = torch.linspace(-1, 2, argument.shape[1] ** 2, dtype=argument.dtype).view(argument.shape[1], -1)
    return torch.autograd.grad((function(argument) * weights).sum(), argument)[0]


@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 9))
def test_absolute_self_correlation_is_the_sum_over_taps(outputs, inputs, seed):
    weight = torch.randn(outputs, inputs, 3, 3, dtype=F64, generator=torch.Generator().manual_seed(seed))
    weight.requires_grad_()
    assert torch.allclose(absolute_self_correlation(weight), slow_absolute_gram(weight), rtol=1e-12)
    assert torch.allclose(gradient(absolute_self_correlation, weight), gradient(slow_absolute_gram, weight), rtol=1e-10)


@pytest.mark.parametrize("shape", [(128, 128), (200, 130), (130, 200), (256, 256)])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_in_float32_value_and_gradient_are_those_of_float64(shape, scale):
    torch.manual_seed(0)
    weight = (scale * torch.randn(*shape, 3, 3)).requires_grad_()
    precise = weight.detach().double().requires_grad_()
    assert relative(absolute_gram(weight), slow_absolute_gram(precise)) < 1e-5
    assert relative(gradient(absolute_gram, weight), gradient(slow_absolute_gram, precise)) < 1e-4


@pytest.mark.parametrize("near", [0, 1e-9, 1e-7, 1e-3])
def test_zeros_of_the_self_correlation_have_no_sign(near):
    """Training starts from the identity, where all but the diagonal is 0: rounding must not decide the gradient."""
    torch.manual_seed(0)
    weight = torch.nn.init.dirac_(torch.empty(128, 128, 3, 3))
    weight = (weight + near * torch.randn_like(weight)).requires_grad_()
    precise = weight.detach().double().requires_grad_()
    assert relative(gradient(absolute_gram, weight), gradient(slow_absolute_gram, precise)) < 1e-4


def test_few_and_many_entries_near_zero_are_summed_alike(monkeypatch):
    torch.manual_seed(0)
    weight = torch.randn(40, 40, 3, 3) * (torch.rand(40, 1, 1, 1) < 0.1)
    weight[:, ::2, 1:] = 0
    results = []
    for many in (0, 10**9):
        monkeypatch.setattr(self_correlation, "MANY", many)
        results.append(absolute_self_correlation(weight))
    assert torch.allclose(*results, rtol=1e-6)


def test_a_nan_in_the_kernel_is_a_nan_in_the_gram():
    weight = torch.randn(128, 128, 3, 3)
    weight[3, 5, 0, 1] = torch.nan
    assert absolute_gram(weight)[5].isnan().all()


@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize("size", [(5, 6), (1, 1), (2, 3)])
@pytest.mark.parametrize("terms", [1, 2, 5])
@pytest.mark.parametrize("recompute", [False, True])
def test_the_exponential_and_its_gradient_are_horners(mode, size, terms, recompute):
    torch.manual_seed(0)
    weight = torch.randn(3, 3, 3, 3, dtype=F64)
    weight = (0.2 * (weight - adjoint_kernel(weight))).requires_grad_()
    x = torch.randn(2, 3, *size, dtype=F64, requires_grad=True)
    reciprocals = 1 / torch.arange(1, terms + 1, dtype=F64)
    results = []
    for function in (truncated_exponential, slow_exponential):
        y = function(x, weight, reciprocals, mode)
        results.append(
            (y, *torch.autograd.grad(y, (x, weight), torch.linspace(-1, 1, y.numel(), dtype=F64).view_as(y)))
        )
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("needed", [("x",), ("weight",)])
def test_the_exponential_gives_one_gradient_alone(needed):
    torch.manual_seed(0)
    arguments = {"x": torch.randn(2, 3, 4, 4), "weight": 0.1 * torch.randn(3, 3, 3, 3)}
    for name in needed:
        arguments[name].requires_grad_()
    reciprocals = 1 / torch.arange(1.0, 4.0)
    results = []
    for function in (truncated_exponential, slow_exponential):
        y = function(arguments["x"], arguments["weight"], reciprocals, "zeros")
        results.append(torch.autograd.grad(y.square().sum(), [arguments[name] for name in needed])[0])
    assert torch.allclose(*results, rtol=1e-5, atol=1e-5)


def test_the_exponential_keeps_one_tensor():
    x = torch.randn(4, 3, 8, 8, requires_grad=True)
    weight = torch.randn(3, 3, 3, 3, requires_grad=True)
    kept = {}

    def pack(tensor):
        kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = truncated_exponential(x, weight, 1 / torch.arange(1.0, 6.0), "zeros", recompute=True)
    assert y.requires_grad
    assert sum(kept.values()) == x.numel() + weight.numel() + 5


@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3, 5]))
def test_half_of_a_half_spectrum_is_mapped_to_the_whole(height, width, k):
    weight = torch.randn(3, 3, k, k, dtype=F64, generator=torch.Generator().manual_seed(0))
    symbol = kernel_symbol(weight, (height, width))
    seen = []

    def function(matrices):
        seen.append(matrices)
        return cayley_transform(matrices)

    mapped = map_symbol(symbol, width, function)
    assert torch.allclose(mapped, cayley_transform(symbol), atol=1e-12)
    real = [matrices for matrices in seen if not matrices.is_complex()]
    pairs = [matrices for matrices in seen if matrices.is_complex()]
    assert sum(map(len, real)) + 2 * sum(map(len, pairs)) == height * width  # every frequency is reckoned with once


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
@pytest.mark.parametrize("scale", [0.01, 0.3, 3.0, 30.0])
def test_the_square_cayley_transform_in_float32_is_that_of_float64(dtype, scale):
    torch.manual_seed(0)
    v = (scale * torch.randn(3, 16, 16, dtype=dtype)).requires_grad_()
    precise = v.detach().to(torch.complex128 if dtype.is_complex else F64).requires_grad_()
    one, other = cayley_transform(v), cayley_transform(precise)
    assert relative(one, other) < 1e-5 * max(1.0, scale)
    weights = torch.randn(3, 16, 16)
    first, second = (
        torch.autograd.grad((q.real * weights).sum(), argument)[0] for q, argument in ((one, v), (other, precise))
    )
    assert relative(first, second) < 1e-4 * max(1.0, scale)


def test_cpl_s_estimate_is_the_bilinear_form_and_so_is_its_gradient():
    torch.manual_seed(0)
    layer = LAYERS["cpl"](4, 4, 3).double().train()
    u, weight = layer.u.clone(), layer.weight
    with torch.no_grad():
        v = F.normalize(conv2d_same(u, weight, None, "circular").flatten(), dim=0).view_as(u)
        new = conv2d_same(v, adjoint_kernel(weight), None, "circular")
        new = new / new.norm()
    slow = (conv2d_same(new, weight, None, "circular") * v).sum()
    fast = layer._estimate(1)
    assert torch.allclose(fast, slow, rtol=1e-12)
    assert torch.allclose(layer.u, new, atol=1e-12)
    slopes = [torch.autograd.grad(value, weight)[0] for value in (fast, slow)]
    assert torch.allclose(*slopes, atol=1e-12)
