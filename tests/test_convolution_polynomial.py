"""The exponential of a convolution, with all partial sums kept or made again, against Horner's scheme."""

import pytest
import torch

from lipref.layers import LAYERS
from lipref.linalg import convolution_polynomial as module
from lipref.linalg import matrix_polynomial, torus_chains
from lipref.linalg.convolution_polynomial import convolution_polynomial
from lipref.linalg.padding import adjoint_kernel, conv2d_same

F64 = torch.float64


def slow_exponential(x, weight, ratios, mode):
    y = x
    for ratio in ratios.flip(0):
        y = x + ratio * conv2d_same(y, weight, None, mode)
    return y


@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize("size", [(5, 6), (1, 1), (2, 3)])
@pytest.mark.parametrize("terms", [1, 2, 5])
@pytest.mark.parametrize("recompute", [False, True])
def test_the_exponential_and_its_gradient_are_horners(mode, size, terms, recompute):
    torch.manual_seed(0)
    weight = torch.randn(3, 3, 3, 3, dtype=F64)
    weight = (0.2 * (weight - adjoint_kernel(weight))).requires_grad_()
    x = torch.randn(2, 3, *size, dtype=F64, requires_grad=True)
    ratios = 1 / torch.arange(1, terms + 1, dtype=F64)
    results = []
    for function, options in ((convolution_polynomial, (recompute,)), (slow_exponential, ())):
        y = function(x, weight, ratios, mode, *options)
        results.append(
            (y, *torch.autograd.grad(y, (x, weight), torch.linspace(-1, 1, y.numel(), dtype=F64).view_as(y)))
        )
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("needed", ["x", "weight"])
@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize("recompute", [False, True])
def test_the_exponential_gives_one_gradient_alone(needed, mode, recompute):
    torch.manual_seed(0)
    arguments = {"x": torch.randn(2, 3, 4, 4), "weight": 0.1 * torch.randn(3, 3, 3, 3)}
    arguments[needed].requires_grad_()
    ratios = 1 / torch.arange(1.0, 4.0)
    results = []
    for function, options in ((convolution_polynomial, (recompute,)), (slow_exponential, ())):
        y = function(arguments["x"], arguments["weight"], ratios, mode, *options)
        results.append(torch.autograd.grad(y.square().sum(), arguments[needed])[0])
    assert torch.allclose(*results, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize("trained", [("x",), ("x", "weight")])
def test_the_exponential_that_recomputes_has_second_derivatives(mode, trained):
    torch.manual_seed(0)
    given = {"x": torch.randn(1, 2, 3, 4, dtype=F64), "weight": 0.3 * torch.randn(2, 2, 3, 3, dtype=F64)}
    inputs = tuple(given[name].requires_grad_() for name in trained)
    ratios = 1 / torch.arange(1, 4, dtype=F64)

    def function(*inputs):
        return convolution_polynomial(*(given | dict(zip(trained, inputs, strict=True))).values(), ratios, mode, True)

    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)
    found = torch.autograd.functional.jacobian(function, inputs, vectorize=True)
    for one, other in zip(found, torch.autograd.functional.jacobian(function, inputs), strict=True):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-12)


def test_what_recomputes_makes_no_more_convolutions_than_it_has_to(monkeypatch):
    """All terms forward, all but the last anew, and one call for both gradients of each."""
    x, weight = (torch.randn(*shape, requires_grad=True) for shape in ((2, 3, 9, 9), (3, 3, 3, 3)))
    calls = []
    function = module.conv2d_same
    monkeypatch.setattr(module, "conv2d_same", lambda *given: calls.append(1) or function(*given))
    y = convolution_polynomial(x, weight, 1 / torch.arange(1.0, 6.0), "zeros", recompute=True)
    assert len(calls) == 5
    y.sum().backward()
    assert len(calls) == 5 + 4


@pytest.mark.parametrize("trained", [True, False])
def test_what_recomputes_within_an_autocast(trained):
    """Of images that a layer before made in few digits; the backward pass within it or not."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, 9, 9).bfloat16().requires_grad_()
    weight = (0.1 * torch.randn(3, 3, 3, 3)).requires_grad_(trained)
    inputs = (x, weight) if trained else (x,)
    ratios, found = 1 / torch.arange(1.0, 6.0), []
    for recompute in (True, False):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = convolution_polynomial(x, weight, ratios, "zeros", recompute)
            within = torch.autograd.grad(y.sum(), inputs, retain_graph=True)
        after = torch.autograd.grad(y.sum(), inputs)
        assert recompute is False or all(map(torch.equal, within, after))
        found.append(after)
    for one, other in zip(*found, strict=True):
        assert (one.float() - other.float()).norm() < 3e-2 * other.float().norm()


@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(2, 8, 9, 7), (3, 4, 1, 1), (2, 1, 4, 4)])
def test_without_gradients_the_exponential_is_the_same_function(mode, order, shape, monkeypatch):
    """On images that lie in another order; certificates bound the rounding of sums in any order."""
    torch.manual_seed(0)
    x, weight = torch.randn(shape).contiguous(memory_format=order), 0.1 * torch.randn(shape[1], shape[1], 3, 3)
    ratios, given, orders = 1 / torch.arange(1.0, 10.0), x.clone(), []
    function = module.conv2d_same

    def seen(y, *others):
        orders.append(y.is_contiguous(memory_format=torch.channels_last))
        return function(y, *others)

    expected = slow_exponential(x.double(), weight.double(), ratios.double(), mode)
    monkeypatch.setattr(module, "conv2d_same", seen)
    with torch.no_grad():
        y = convolution_polynomial(x, weight, ratios, mode)
    assert all(orders)
    assert len(orders) == 9
    assert y.is_contiguous()
    assert torch.equal(x, given)
    assert (y - expected).norm() <= 1e-6 * expected.norm()


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")  # torch's own, at its first forward derivative
def test_what_recomputes_has_forward_derivatives_and_maps():
    """By the direct way, which keeps all."""
    x, weight = (torch.randn(*shape, requires_grad=True) for shape in ((2, 3, 9, 9), (3, 3, 3, 3)))
    ratios = 1 / torch.arange(1.0, 4.0)
    expected = convolution_polynomial(x, weight, ratios, "zeros")
    found = torch.func.vmap(lambda x: convolution_polynomial(x[None], weight, ratios, "zeros", True)[0])(x)
    assert torch.allclose(found, expected, atol=1e-5)
    with torch.autograd.forward_ad.dual_level():
        dual = convolution_polynomial(torch.autograd.forward_ad.make_dual(x, x), weight, ratios, "zeros", True)
        tangent = torch.autograd.forward_ad.unpack_dual(dual).tangent
        with torch.no_grad():
            dual = convolution_polynomial(torch.autograd.forward_ad.make_dual(x, x), weight, ratios, "zeros")
            other = torch.autograd.forward_ad.unpack_dual(dual).tangent
    for each in (tangent, other):
        assert torch.allclose(each, expected, atol=1e-5)  # it is linear in x


def kept_for(function):
    """What a function gives, and the tensors that autograd keeps for it, by their addresses."""
    kept = {}

    def pack(tensor):
        kept[tensor.data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        return function(), list(kept.values())


@pytest.mark.parametrize(("channels", "size", "k"), [(3, 8, 3), (64, 4, 3), (8, 2, 1), (8, 4, 1)])
def test_the_exponential_keeps_one_tensor(channels, size, k):
    """Directly, in the Fourier basis, as a product of matrices, and directly with one tap."""
    x = torch.randn(64, channels, size, size, requires_grad=True)
    weight = torch.randn(channels, channels, k, k, requires_grad=True)
    ratios = 1 / torch.arange(1.0, 6.0)
    in_basis, by_places = torus_chains.pays(x, weight, "zeros", 5), matrix_polynomial.pays(x, weight)
    assert (in_basis, by_places) == (channels == 64, size == 2)
    y, kept = kept_for(lambda: convolution_polynomial(x, weight, ratios, "zeros", recompute=True))
    assert y.requires_grad
    assert sum(tensor.numel() for tensor in kept) == x.numel() + weight.numel() + (not (in_basis or by_places)) * 5


@pytest.mark.parametrize(("channels", "side", "k"), [(8, 8, 3), (64, 4, 3), (8, 2, 1), (8, 4, 1)])
def test_soc_that_recomputes_is_the_same_function(channels, side, k):
    torch.manual_seed(0)
    layer = LAYERS["soc"](channels, channels, k)
    layer.track_power_vectors = False
    x = torch.randn(64, channels, side, side, requires_grad=True)
    found, many = [], []
    for layer.recompute in (False, True):
        y, kept = kept_for(lambda: layer(x))
        many.append(sum(tensor.numel() >= x.numel() for tensor in kept))
        found.append((y, *torch.autograd.grad(y.square().sum(), (x, *layer.parameters()))))
    assert many[1] == 1
    assert many[0] == (2 if torus_chains.pays(x, layer.weight, "zeros", 5) or side == 2 else 5)  # there as one for all
    for one, other in zip(*found, strict=True):
        assert (one - other).norm() <= 1e-5 * other.norm()
