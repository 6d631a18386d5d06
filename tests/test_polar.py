"""The polar factor and its gradient against the singular value decomposition."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lipref.linalg import polar
from lipref.linalg.polar import cubic_steps, polar_factor

F64 = torch.float64


def relative(one, other):
    return float((one.detach() - other.detach()).norm() / other.detach().norm())


def slow_polar_factor(a):
    if a.shape[-2] < a.shape[-1]:
        return slow_polar_factor(a.mT).mT
    left, _, right = torch.linalg.svd(a, full_matrices=False)
    return left @ right


def with_values(shape, values, seed=0):
    """A matrix of ``shape`` with these singular values."""
    torch.manual_seed(seed)
    left, _, right = torch.linalg.svd(torch.randn(*shape, dtype=F64), full_matrices=False)
    return (left * values(min(shape[-2:]))) @ right


VALUES = {
    "equal": lambda m: torch.ones(m, dtype=F64),
    "near each other": lambda m: torch.linspace(0.8, 1.2, m, dtype=F64),
    "after training": lambda m: torch.linspace(1, 4, m, dtype=F64),
    "one large": lambda m: torch.cat((torch.full((1,), 5.0, dtype=F64), torch.ones(m - 1, dtype=F64))),
    "steep": lambda m: torch.logspace(0, 1.5, m, dtype=F64),
    "too steep": lambda m: torch.logspace(0, 3, m, dtype=F64),
}


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("shape", [(24, 24), (3, 40, 20), (9, 21), (1, 5), (5, 1)])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_the_polar_factor_in_float32_is_that_of_float64(values, shape, scale):
    precise = with_values(shape, values)
    weight = (scale * precise).float().requires_grad_()
    precise = (weight.detach().double() / scale).requires_grad_()

    def pulled(function, argument):
        weights = torch.linspace(-1, 2, argument.numel(), dtype=argument.dtype).sin().view_as(argument)
        return torch.autograd.grad((function(argument) * weights).sum(), argument)[0]

    assert relative(polar_factor(weight), slow_polar_factor(precise)) < 1e-5
    assert relative(scale * pulled(polar_factor, weight), pulled(slow_polar_factor, precise)) < 1e-4


@pytest.mark.parametrize("least", [1e-3, 1e-4])
@pytest.mark.parametrize("shape", [(64, 64), (64, 32), (256, 256)])
def test_one_small_singular_value_is_not_taken_for_none(least, shape):
    """A step moves it by little, and yet it is far from 1."""
    a = with_values(shape, lambda m: torch.cat((torch.ones(m - 1, dtype=F64), torch.full((1,), least, dtype=F64))))
    q = polar_factor(a.float())
    assert float(torch.linalg.svdvals(q)[-1]) > 0.9999
    assert relative(q, slow_polar_factor(a)) < 1e-7 / least


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_singular_values_of_zero_stay(dtype):
    a = torch.eye(30, dtype=dtype)
    a[3, 3] = 0
    q = polar_factor(torch.stack((a, torch.zeros_like(a))))
    assert torch.allclose(q, torch.stack((a, torch.zeros_like(a))), atol=1e-6)


@pytest.mark.parametrize("values", ["equal", "after training", "steep"])
def test_the_gradient_of_few_rows_is_that_of_all(values):
    weight = with_values((24, 24), VALUES[values]).float().requires_grad_()
    precise = weight.detach().double().requires_grad_()
    weights = torch.zeros(24, 24, dtype=F64)
    weights[[2, 5]] = torch.linspace(-1, 2, 48, dtype=F64).sin().view(2, 24)
    found = torch.autograd.grad((polar_factor(weight) * weights.float()).sum(), weight)[0]
    expected = torch.autograd.grad((slow_polar_factor(precise) * weights).sum(), precise)[0]
    assert relative(found, expected) < 1e-4
    nothing = torch.autograd.grad((polar_factor(weight) * 0).sum(), weight)[0]
    assert not nothing.any()


@given(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12), st.integers(0, 99))
def test_the_polar_factor_of_any_matrix(batch, rows, columns, seed):
    a = torch.randn(batch, rows, columns, dtype=F64, generator=torch.Generator().manual_seed(seed))
    q = polar_factor(a)
    assert float(torch.linalg.matrix_norm(q, 2).amax()) <= 1 + 1e-12
    assert torch.allclose(q, slow_polar_factor(a), atol=1e-9)


@pytest.mark.parametrize(("low", "count"), [(0.7, 4), (0.25, 6), (1 / 64, 9), (1e-4, 15)])
def test_cubics_bring_an_interval_to_one_and_never_above(low, count):
    found = cubic_steps(low, 1e-7)
    assert len(found) <= count
    x = torch.cat((torch.logspace(-9, 0, 4001, dtype=F64), torch.linspace(low, 1, 4001, dtype=F64)))
    y = x
    for linear, cubic in found:
        y = linear * y - cubic * y**3
        assert y.min() >= 0
        assert y.max() <= 1 + 1e-15
    assert y[x >= low].min() >= 1 - 1e-7
    assert cubic_steps(1.0, 1e-7) == ()


@pytest.mark.parametrize("shape", [(6, 6), (8, 5)])
def test_the_gradient_of_the_steps_is_that_of_the_polar_factor(shape):
    """What other devices than a CPU differentiate, one product after the other."""
    steps = cubic_steps(polar.SMALLEST[F64], 1e-15)
    a = with_values(shape, VALUES["after training"]) / 4
    a.requires_grad_()
    weights = torch.linspace(-1, 2, a.numel(), dtype=F64).sin().view(shape)
    slopes = [
        torch.autograd.grad((f(a) * weights).sum(), a)[0] for f in (lambda x: polar._iterated(x, steps), polar_factor)
    ]
    assert relative(*slopes) < 1e-10


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_orthogonal_for_conditions_up_to_1000(dtype):
    q = polar_factor(with_values((3, 40, 20), VALUES["too steep"]).to(dtype)).double()
    assert float((q.mT @ q - torch.eye(20, dtype=F64)).abs().amax()) < 1e-5


def test_second_derivatives():
    assert torch.autograd.gradgradcheck(polar_factor, with_values((4, 3), VALUES["after training"]).requires_grad_())
