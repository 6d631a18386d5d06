"""SOC's kernels by few passes over memory are those that autograd's operations make, with their gradients."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lipref.layers import SOCConv2d
from lipref.linalg import skew_kernels
from lipref.linalg.by_hand import direct_ways, trains_on_cpu
from lipref.linalg.padding import adjoint_kernel
from lipref.linalg.skew_kernels import applies, normalised

NORM = 0.7
SHAPES = st.tuples(st.integers(2, 6), st.sampled_from((1, 3, 5)))


def drawn(m, k, seed=0, dtype=torch.float64, separable=False):
    """``separable``: almost a product over (o h) and (i w), so that the norm of the first unfolding is the larger."""
    draw = torch.Generator().manual_seed(seed)
    weight, u1, u2, rows, columns = (
        torch.randn(*size, dtype=dtype, generator=draw)
        for size in ((m, m, k, k), (m * k,), (m * k * k,), (m, 1, k, 1), (1, m, 1, k))
    )
    if separable:
        weight = 0.1 * weight + rows * columns
    return weight.requires_grad_(), u1, u2


def unfoldings(kernel):
    m, _, k, _ = kernel.shape
    return kernel.permute(0, 2, 1, 3).reshape(m * k, m * k), kernel.reshape(m, m * k * k)


def slow(weight, u1, u2):
    """The vectors after one power iteration, and the kernel with them constant."""
    skew = (weight - adjoint_kernel(weight)) / 2
    vectors, sigmas = [], []
    for matrix, u in zip(unfoldings(skew), (u1, u2), strict=True):
        with torch.no_grad():
            v = torch.nn.functional.normalize(matrix @ u, dim=0)
            u = torch.nn.functional.normalize(matrix.mT @ v, dim=0)
        sigmas.append(v @ matrix @ u)
        vectors += [u, v]
    return NORM * skew / torch.stack(sigmas).min(), *vectors


def gradient(kernel, weight, **options):
    return torch.autograd.grad(
        kernel, weight, torch.linspace(-1, 2, kernel.numel()).to(kernel).view_as(kernel), **options
    )


@given(SHAPES, st.integers(0, 9), st.sampled_from((1e-6, 1.0, 1e6)), st.booleans())
def test_kernel_vectors_and_gradient(shape, seed, scale, separable):
    weight, *vectors = drawn(*shape, seed, separable=separable)
    weight = (scale * weight).detach().requires_grad_()
    found, expected = normalised(weight, *vectors, NORM), slow(weight, *vectors)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    assert not any(vector.requires_grad for vector in found[1:])
    one, other = (scale * gradient(each[0], weight)[0] for each in (found, expected))
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("separable", [True, False])
def test_either_norm_may_be_the_smaller(separable):
    """In what the other tests draw."""
    for size in ((4, 3), (64, 3)):
        weight, *vectors = drawn(*size, separable=separable)
        for _ in range(20):
            (u1, _, first), (u2, _, second) = skew_kernels.power_iteration(weight.detach(), *vectors)
            vectors = u1, u2
        assert (first > second) == separable


@pytest.mark.parametrize(("m", "k"), [(64, 3), (96, 1)])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("separable", [True, False])
def test_in_float32_they_are_those_of_float64(m, k, scale, separable):
    given_ = [value.detach() for value in drawn(m, k, dtype=torch.float32, separable=separable)]
    weight = (scale * given_[0]).requires_grad_()
    exact = weight.detach().double().requires_grad_()
    found = normalised(weight, *given_[1:], NORM)
    expected = slow(exact, *(value.double() for value in given_[1:]))
    for one, other in zip(found, expected, strict=True):
        assert (one - other).norm() < 1e-5 * other.norm()
    one, other = gradient(found[0], weight)[0], gradient(expected[0], exact)[0]
    assert (one - other).norm() < 1e-4 * other.norm()


@pytest.mark.parametrize("separable", [True, False])
def test_derivatives_of_second_order_and_batches_of_gradients(separable):
    weight, *vectors = drawn(4, 3, separable=separable)
    _, u1, v1, u2, v2 = normalised(weight, *vectors, NORM)
    # With the vectors constant, as the backward pass has them: those that the power iteration ends with.
    kernel = normalised(weight, *vectors, NORM)[0]
    skew = (weight - adjoint_kernel(weight)) / 2
    sigmas = [v @ matrix @ u for matrix, u, v in zip(unfoldings(skew), (u1, u2), (v1, v2), strict=True)]
    expected = NORM * skew / torch.stack(sigmas).min()
    first = [gradient(each, weight, create_graph=True)[0] for each in (kernel, expected)]
    torch.testing.assert_close(*first, rtol=1e-9, atol=1e-11)
    second = [torch.autograd.grad((each**2).sum(), weight, retain_graph=True)[0] for each in first]
    torch.testing.assert_close(*second, rtol=1e-9, atol=1e-11)
    rows = torch.eye(kernel.numel(), dtype=kernel.dtype).view(-1, *kernel.shape)
    jacobians = [torch.autograd.grad(each, weight, rows, is_grads_batched=True)[0] for each in (kernel, expected)]
    torch.testing.assert_close(*jacobians, rtol=1e-9, atol=1e-11)


def test_a_kernel_without_skew_part_is_zero():
    weight = torch.ones(1, 1, 1, 1, requires_grad=True)
    kernel, *vectors = normalised(weight, torch.ones(1), torch.ones(1), NORM)
    assert kernel == 0
    assert gradient(kernel, weight)[0] == 0
    assert all(vector.isfinite().all() for vector in vectors)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_not_a_number_stays_one(place):
    given_ = drawn(3, 3)
    given_[place].data.flatten()[1] = torch.nan
    assert normalised(*given_, NORM)[0].isnan().any()


@pytest.mark.parametrize("separable", [True, False])
def test_gradients_too_large_are_infinite_or_not_numbers(separable):
    weight, *vectors = drawn(4, 3, dtype=torch.float32, separable=separable)
    weight = (1e-3 * weight).detach().requires_grad_()
    kernel = normalised(weight, *vectors, NORM)[0]
    assert not torch.autograd.grad(kernel, weight, 1e37 * kernel.detach())[0].isfinite().all()
    tiny = (1e-42 * weight).detach().requires_grad_()
    assert normalised(tiny, *vectors, NORM)[0].isfinite().all()


def test_gradients_of_any_layout_as_often_as_the_graph_is_kept():
    weight, *vectors = drawn(4, 3)
    weight = weight.detach().transpose(0, 1).requires_grad_()
    kernel, expected = normalised(weight, *vectors, NORM)[0], slow(weight, *vectors)[0]
    draw = torch.Generator().manual_seed(1)
    for grad in (
        torch.randn(3, 3, 4, 4, generator=draw).double().permute(2, 3, 0, 1),
        torch.ones(()).double().expand(4, 4, 3, 3),
    ):
        for _ in range(2):
            one, other = (torch.autograd.grad(each, weight, grad, retain_graph=True)[0] for each in (kernel, expected))
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def test_a_checkpoint_may_choose_the_other_norm(monkeypatch):
    """Computed anew after the vectors have moved, what is kept has the same shapes."""
    layer, x = SOCConv2d(4, 4, 3), torch.randn(2, 4, 5, 5)
    weight, *_ = drawn(4, 3, dtype=torch.float32)
    layer.weight.data.copy_(weight)
    factors, function = iter((0.1, 10.0)), skew_kernels.power_iteration

    def unequal(*given):
        (u1, v1, first), second = function(*given)
        return (u1, v1, first * next(factors)), second

    monkeypatch.setattr(skew_kernels, "power_iteration", unequal)
    torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=False).sum().backward()
    assert layer.weight.grad.isfinite().all()


@pytest.mark.parametrize("k", [1, 3])
def test_soc_trains_with_it_as_without(k, monkeypatch):
    torch.manual_seed(0)
    layer = SOCConv2d(6, 4, k, dtype=torch.float64)
    monkeypatch.setattr(SOCConv2d, "PERIOD", 3)
    other = copy.deepcopy(layer)
    calls, function = [], skew_kernels.normalised
    monkeypatch.setattr(skew_kernels, "normalised", lambda *given: calls.append(1) or function(*given))
    for step in range(5):
        x, results = torch.randn(2, 6, 5, 5, dtype=torch.float64), []
        for each in (layer, other):
            with monkeypatch.context() as patch:
                if each is other:
                    patch.setattr(skew_kernels, "applies", lambda weight: False)
                each.zero_grad()
                y = each(x)
                y.square().sum().backward()
                results.append((y, each.weight.grad.clone(), each.u1, each.v1, each.u2, each.v2, each.updates))
                with torch.no_grad():
                    each.weight -= 0.01 * each.weight.grad
        for one, expected in zip(*results, strict=True):
            torch.testing.assert_close(one, expected, rtol=1e-8, atol=1e-10)
        assert len(calls) == step + 1
    assert layer.updates == 5


def test_what_takes_it():
    weight = torch.randn(2, 2, 3, 3, requires_grad=True)
    assert applies(weight)
    assert applies(torch.nn.Parameter(weight.detach()))
    assert not applies(weight.detach())
    with torch.no_grad():
        assert not applies(weight)
    with torch.autocast("cpu"):
        assert not applies(weight)
    with torch.autograd.forward_ad.dual_level():
        assert not applies(weight)
    with torch._subclasses.FakeTensorMode() as mode:
        assert not applies(mode.from_tensor(weight))


@pytest.mark.parametrize("name", SOCConv2d._DONE_BY_HAND)
def test_mathematics_of_a_subclass_are_its_own(name, monkeypatch):
    calls, function = [], getattr(SOCConv2d, name)
    static = isinstance(vars(SOCConv2d)[name], staticmethod)

    def own(*given):
        calls.append(name)
        return function(*given)

    changed = type("Changed", (SOCConv2d,), {name: staticmethod(own) if static else own})(3, 3, 3)
    calls.clear()
    monkeypatch.setattr(skew_kernels, "normalised", lambda *given: pytest.fail("not the subclass's own"))
    changed.prepare((4, 4))
    assert calls


def test_settings_of_a_subclass(monkeypatch):
    class Settings(SOCConv2d):
        def extra_repr(self):
            return "the same"

    class Longer(SOCConv2d):
        SHORT = 2

    calls, function = [], skew_kernels.normalised
    monkeypatch.setattr(skew_kernels, "normalised", lambda *given: calls.append(1) or function(*given))
    Settings(3, 3, 3).prepare((4, 4))
    assert calls == [1]
    Longer(3, 3, 3).prepare((4, 4))
    assert calls == [1]


def test_power_vectors_that_do_not_move(monkeypatch):
    monkeypatch.setattr(skew_kernels, "normalised", lambda *given: pytest.fail("they are used as they are"))
    layer = SOCConv2d(3, 3, 3)
    layer.track_power_vectors = False
    layer(torch.randn(1, 3, 4, 4))
    assert layer.updates == 0
    layer.eval()(torch.randn(1, 3, 4, 4))


def test_direct_ways_are_asked_for_by_what_counts_operations():
    weight = torch.randn(2, 2, 3, 3, requires_grad=True)
    with direct_ways():
        assert not applies(weight)
        assert not trains_on_cpu(weight)
    assert applies(weight)
    assert trains_on_cpu(weight)
