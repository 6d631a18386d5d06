"""Polynomials of a convolution and residual layers on a small torus are those made of direct convolutions."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lipref.layers import LAYERS
from lipref.linalg import torus_chains
from lipref.linalg.padding import adjoint_kernel, conv2d_same
from lipref.linalg.torus_chains import pays, polynomial, residual

MODES = ("circular", "zeros")
RATIOS = [1.0, 0.5, 1 / 3, 0.25, 0.2]


def slow_polynomial(x, weight, ratios, mode):
    y = term = x
    for ratio in ratios:
        term = ratio * conv2d_same(term, weight, None, mode)
        y = y + term
    return y


def slow_residual(x, weight, step, bias, mode):
    hidden = conv2d_same(x, weight, bias, mode).relu()
    step = step[:, None, None] if step.dim() else step
    return x - conv2d_same(step * hidden, adjoint_kernel(weight), None, mode)


def results(function, tensors, *others):
    """Value and gradients, of a sum with weights of its own."""
    tensors = [value.detach().requires_grad_() for value in tensors]
    y = function(*tensors, *others)
    return y, *torch.autograd.grad(y, tensors, torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view_as(y))


def drawn(count, channels, k, size, dtype=torch.float64, seed=0, scale=1.0):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(count, channels, *size, dtype=dtype, generator=draw)
    weight = scale * torch.randn(channels, channels, k, k, dtype=dtype, generator=draw) / (k * k * channels) ** 0.5
    return (
        x,
        weight,
        torch.rand(channels, dtype=dtype, generator=draw),
        torch.randn(channels, dtype=dtype, generator=draw),
    )


SHAPES = (
    st.tuples(st.integers(1, 7), st.integers(1, 7)), st.sampled_from((3, 5)), st.sampled_from(MODES),
    st.tuples(st.integers(1, 3), st.integers(1, 4)), st.integers(0, 9),
)  # fmt: skip


@given(*SHAPES, st.integers(1, 5), st.booleans())
def test_a_polynomial_is_that_of_direct_convolutions_with_its_gradients(size, k, mode, counts, seed, terms, recompute):
    x, weight, *_ = drawn(*counts, k, size, seed=seed)
    found = results(polynomial, (x, weight), RATIOS[:terms], mode, recompute)
    for one, other in zip(found, results(slow_polynomial, (x, weight), RATIOS[:terms], mode), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


@given(*SHAPES, st.booleans(), st.booleans())
def test_a_residual_layer_is_that_of_direct_convolutions_with_its_gradients(
    size, k, mode, counts, seed, one_step, biased
):
    x, weight, step, bias = drawn(*counts, k, size, seed=seed)
    tensors = (x, weight, step[0] if one_step else step, *([bias] if biased else []))
    others = (mode,) if biased else (None, mode)
    found, expected = (results(function, tensors, *others) for function in (residual, slow_residual))
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("side", [4, 8])
@pytest.mark.parametrize("scale", [1e-3, 1.0])
def test_in_float32_value_and_gradients_are_those_of_float64(mode, side, scale):
    x, weight, step, bias = drawn(4, 64, 3, (side, side), torch.float32, scale=scale)
    for fast, slow, tensors, others in (
        (polynomial, slow_polynomial, (x, weight), (RATIOS, mode)),
        (residual, slow_residual, (x, weight, step, bias), (mode,)),
    ):
        precise = results(slow, [value.double() for value in tensors], *others)
        for tolerance, one, other in zip((1e-5, *[1e-4] * 4), results(fast, tensors, *others), precise, strict=False):
            assert (one - other).norm() < tolerance * other.norm()


@pytest.mark.parametrize("mode", MODES)
def test_they_have_second_derivatives(mode):
    x, weight, step, bias = (value.requires_grad_() for value in drawn(2, 2, 3, (3, 4)))
    for function, given_ in (
        (lambda *given: polynomial(*given, RATIOS[:3], mode), (x, weight)),
        (lambda *given: polynomial(*given, RATIOS[:3], mode, recompute=True), (x, weight)),
        (lambda *given: residual(*given, mode), (x, weight, step, bias)),
        (lambda *given: residual(*given, None, mode), (x, weight, step)),
    ):
        assert torch.autograd.gradcheck(function, given_)
        assert torch.autograd.gradgradcheck(function, given_)


@pytest.mark.parametrize("terms", [1, 3, 5])
@pytest.mark.parametrize("count", [torus_chains.ENOUGH // 3, torus_chains.ENOUGH])
@pytest.mark.parametrize("recompute", [False, True])
def test_a_polynomial_of_many_images(count, terms, recompute):
    """Whose gradients are gathered in several parts."""
    x, weight, *_ = drawn(count, 2, 3, (2, 3))
    found = results(polynomial, (x, weight), RATIOS[:terms], "zeros", recompute)
    for one, other in zip(found, results(slow_polynomial, (x, weight), RATIOS[:terms], "zeros"), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("count", [3, torus_chains.ENOUGH])
@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_may_be_asked_for_twice(count, recompute):
    """What is kept is not written again."""
    x, weight, step, bias = (value.requires_grad_() for value in drawn(count, 2, 3, (2, 3)))
    for y in (polynomial(x, weight, RATIOS, "zeros", recompute), residual(x, weight, step, bias, "zeros")):
        first, second = (torch.autograd.grad(y.square().sum(), (x, weight), retain_graph=True) for _ in range(2))
        for one, other in zip(first, second, strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("mode", MODES)
def test_batches_of_gradients(mode):
    x, weight, step, bias = drawn(1, 2, 3, (2, 3))
    jacobian = torch.autograd.functional.jacobian
    for function, slow, given_ in (
        (lambda *given: polynomial(*given, RATIOS[:3], mode), lambda *given: slow_polynomial(*given, RATIOS[:3], mode),
         (x, weight)),
        (lambda *given: residual(*given, mode), lambda *given: slow_residual(*given, mode), (x, weight, step, bias)),
    ):  # fmt: skip
        found, expected = jacobian(function, given_, vectorize=True), jacobian(slow, given_)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("layer", ["aol", "soc", "cpl", "sll"])
def test_results_may_be_changed_in_place(layer):
    module, x = LAYERS[layer](64, 64, 3, bias=False), torch.randn(64, 64, 4, 4)
    if layer == "aol":
        assert torus_chains.torus_convolution.pays(x, module.weight, module.padding_mode)
    else:
        assert pays(x, module.weight, module.padding_mode, 5 if layer == "soc" else 2)
    module(x).relu_().sum().backward()


@pytest.mark.parametrize("layer", ["soc", "cpl", "sll"])
def test_a_layers_gradient_is_the_same_with_a_graph_of_its_own(layer, monkeypatch):
    """Its step is made of its kernel, so one way must not be gone twice."""
    torch.manual_seed(0)
    module, x = LAYERS[layer](4, 4, 3).double(), torch.randn(2, 4, 4, 4, dtype=torch.float64)
    module.track_power_vectors = False
    found = []
    for graph, here in ((False, True), (True, True), (True, False)):
        monkeypatch.setattr(torus_chains, "pays", lambda *given, here=here: here)
        y = module(x.requires_grad_())
        inputs = (x, *module.parameters())
        gradients = torch.autograd.grad(y.square().sum(), inputs, create_graph=graph)
        penalty = torch.autograd.grad(gradients[0].square().sum(), inputs[1:]) if graph else ()
        found.append((gradients, penalty))
    for gradients, _ in found[:2]:
        for one, other in zip(gradients, found[2][0], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    for one, other in zip(found[1][1], found[2][1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_the_backward_pass_is_in_full_within_an_autocast():
    x, weight, step, bias = (value.requires_grad_() for value in drawn(2, 4, 3, (4, 4), torch.float32))
    for y in (polynomial(x, weight, RATIOS, "zeros"), residual(x, weight, step, bias, "zeros")):
        expected = torch.autograd.grad(y.sum(), (x, weight), retain_graph=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = torch.autograd.grad(y.sum(), (x, weight))
        for one, other in zip(found, expected, strict=True):
            assert torch.equal(one, other)


def test_what_is_not_trained_gets_no_gradient():
    x, weight, step, bias = drawn(2, 3, 3, (4, 4))
    for trained in (x, weight):
        trained.requires_grad_()
        for function, given_ in ((polynomial, (RATIOS, "zeros")), (residual, (step, bias, "zeros"))):
            y = function(x, weight, *given_)
            slow = {polynomial: slow_polynomial, residual: slow_residual}[function](x, weight, *given_)
            found, expected = (torch.autograd.grad(each.square().sum(), trained)[0] for each in (y, slow))
            torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
        trained.requires_grad_(False)


def test_they_pay_for_small_images_of_many_channels_and_more_so_the_longer_the_chain():
    x, weight = torch.zeros(32, 256, 4, 4), torch.zeros(256, 256, 3, 3)
    assert pays(x, weight, "zeros", 5)
    assert pays(x, weight, "zeros", 2)
    assert not pays(x, weight, "zeros", 1)
    assert not pays(x[:2], weight, "zeros", 5)
    assert not pays(torch.zeros(32, 256, 16, 16), weight, "zeros", 5)
    with torch.no_grad():
        assert not pays(x, weight, "zeros", 5)
    with torch.autograd.forward_ad.dual_level():
        assert not pays(x, weight, "zeros", 5)
    seen = []
    torch.func.vmap(lambda x: seen.append(pays(x, weight, "zeros", 5)) or x)(x[None])
    assert seen == [False]


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")  # torch's own, at its first forward derivative
@pytest.mark.parametrize(
    ("layer", "options", "name", "count"),
    [
        ("soc", {}, "polynomial", 32), ("soc", {"recompute": True}, "polynomial", 32), ("cpl", {}, "residual", 64),
        ("sll", {}, "residual", 64),
    ],
)  # fmt: skip
def test_layers_take_them_in_training_and_not_in_evaluation(layer, options, name, count, monkeypatch):
    """Where it pays; the function and its gradients stay the same."""
    torch.manual_seed(0)
    module, x = LAYERS[layer](256, 256, 3, **options), torch.randn(count, 256, 4, 4)
    calls = []
    function = getattr(torus_chains, name)
    monkeypatch.setattr(torus_chains, name, lambda *given: calls.append(1) or function(*given))
    module.track_power_vectors = False
    y = module(x)
    gradients = torch.autograd.grad(y.square().sum(), tuple(module.parameters()))
    assert calls == [1]
    monkeypatch.setattr(torus_chains, "pays", lambda *given: False)
    direct = module(x)
    expected = torch.autograd.grad(direct.square().sum(), tuple(module.parameters()))
    assert calls == [1]
    assert (y - direct).norm() < 1e-5 * direct.norm()
    for one, other in zip(gradients, expected, strict=True):
        assert (one - other).norm() < 1e-4 * other.norm()
    monkeypatch.undo()
    monkeypatch.setattr(torus_chains, name, lambda *given: pytest.fail("in evaluation"))
    module.eval()(x)
    with torch.autograd.forward_ad.dual_level():  # for which there is the direct way
        module.train()(torch.autograd.forward_ad.make_dual(x, x))
