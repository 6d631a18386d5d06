"""The polar factor, its gradient and what they are made of, against slow ways: on a CPU, and as a GPU computes them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from lipref.linalg import cayley, device_inverse, polar, sylvester
from lipref.linalg.minimax import cubic_steps
from lipref.linalg.polar import polar_factor
from lipref.linalg.sylvester import skew_sylvester

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
@pytest.mark.parametrize("on_cpu", [True, False])
def test_the_polar_factor_in_float32_is_that_of_float64(values, shape, scale, on_cpu, monkeypatch):
    monkeypatch.setattr(polar, "_on_cpu", lambda a: on_cpu)
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
@pytest.mark.parametrize("on_cpu", [True, False])
def test_one_small_singular_value_is_not_taken_for_none(least, shape, on_cpu, monkeypatch):
    """A step moves it by little, and yet it is far from 1."""
    monkeypatch.setattr(polar, "_on_cpu", lambda a: on_cpu)
    a = with_values(shape, lambda m: torch.cat((torch.ones(m - 1, dtype=F64), torch.full((1,), least, dtype=F64))))
    q = polar_factor(a.float())
    assert float(torch.linalg.svdvals(q)[-1]) > 0.9999
    assert relative(q, slow_polar_factor(a)) < 1e-7 / least


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("on_cpu", [True, False])
def test_singular_values_of_zero_stay_and_end_it(dtype, on_cpu, monkeypatch):
    monkeypatch.setattr(polar, "_on_cpu", lambda a: on_cpu)
    steps = []
    monkeypatch.setattr(polar, "_distance", lambda gram, of=polar._distance: steps.append(1) or of(gram))
    a = torch.eye(30, dtype=dtype)
    a[3, 3] = 0
    q = polar_factor(torch.stack((a, torch.zeros_like(a))))
    assert torch.allclose(q, torch.stack((a, torch.zeros_like(a))), atol=1e-6)
    assert len(steps) < 20


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


@given(st.integers(1, 12), st.floats(0, 0.2), st.integers(0, 99))
def test_the_sylvester_equation_is_solved(count, deviation, seed):
    torch.manual_seed(seed)
    s = torch.randn(2, count, count)
    s = s - s.mT
    basis = torch.linalg.qr(torch.randn(2, count, count))[0]
    h = (basis * (1 + deviation * torch.linspace(-1, 1, count))) @ basis.mT
    x = skew_sylvester(h, s)
    assert x is not None
    assert torch.equal(x, -x.mT)
    assert relative(h @ x + x @ h, s + torch.finfo(s.dtype).tiny) < 1e-5 if count > 1 else not x.any()


@pytest.mark.parametrize("h", [torch.diag(torch.tensor([1.0, 9.0])), torch.full((2, 2), float("nan"))])
def test_the_sylvester_equation_far_from_the_identity_is_left_to_others(h):
    assert skew_sylvester(h, torch.tensor([[0.0, 1.0], [-1.0, 0.0]])) is None


@pytest.mark.parametrize("largest", [device_inverse.LARGEST, 0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5, 5), (2, 2, 40, 40), (3, 70, 70)])
@pytest.mark.parametrize("scale", [0.0, 0.5, 3.0])
def test_inverses_as_a_gpu_computes_them(largest, dtype, shape, scale, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(device_inverse, "LARGEST", largest)
    a = scale * torch.randn(*shape, dtype=dtype) / shape[-1] ** 0.5
    matrix = torch.eye(shape[-1]) + a - a.mH
    exact = torch.linalg.inv(matrix.to(torch.complex128))
    assert relative(device_inverse.inverse_on_device(matrix), exact) < 1e-5
    assert relative(cayley._on_device(matrix), exact) < 2e-6
    half = torch.randn(*shape, dtype=dtype) / shape[-1] ** 0.5
    matrix = matrix + half.mH @ half
    assert relative(cayley._on_device(matrix), torch.linalg.inv(matrix.to(torch.complex128))) < 2e-6


@pytest.mark.parametrize("side", [32, 256])
def test_rounding_of_a_few_long_directions_is_noticed(side):
    """Rows are short, but the condition of what Cholesky factorises is large: as of weights after some training."""
    turn = torch.arange(side) * 2 * torch.pi / side
    skew = torch.outer(turn.cos(), turn.sin()) - torch.outer(turn.sin(), turn.cos())
    matrix = (torch.eye(side) + 3.8 * skew / skew.norm(dim=-1).max())[None]
    exact = torch.linalg.inv(matrix.double())
    assert relative(device_inverse.inverse_on_device(matrix), exact) > 4e-6
    assert relative(cayley._on_device(matrix), exact) < 1e-6


def test_an_inverse_that_cannot_be_had_is_not_a_number():
    matrix = torch.eye(33).repeat(2, 1, 1)
    matrix[1, 0, 1], matrix[1, 1, 0] = 1e4, -1e4
    for found in (device_inverse.by_cholesky(matrix), device_inverse.inverse_of_positive(matrix + matrix.mT)):
        assert found[0].isfinite().all()
    for found in (device_inverse.by_cholesky(matrix), device_inverse.inverse_of_positive(-torch.eye(3)[None])):
        assert found[-1].isnan().any() or torch.allclose(found[-1] @ matrix[-1], torch.eye(33), atol=1e-3)


@pytest.mark.parametrize("invert", [device_inverse.by_cholesky, device_inverse.by_factorising])
def test_the_inverse_of_what_is_not_a_number_is_none(invert):
    matrix = torch.eye(40).repeat(2, 1, 1)
    matrix[0, 3, 2] = torch.nan
    assert invert(matrix)[0].isnan().any()


@pytest.mark.parametrize(("low", "steps"), [(0.7, 1), (0.25, 2), (1 / 64, 5), (1e-4, 10)])
def test_cubics_bring_an_interval_near_one_and_never_above(low, steps):
    found = cubic_steps(low, 0.75)
    assert len(found) <= steps
    x = torch.cat((torch.logspace(-9, 0, 4001, dtype=F64), torch.linspace(low, 1, 4001, dtype=F64)))
    y = x
    for linear, cubic in found:
        y = linear * y - cubic * y**3
        assert y.min() >= 0
        assert y.max() <= 1 + 1e-15
    assert y[x >= low].min() >= 0.75
    assert cubic_steps(0.8, 0.75) == ()


@pytest.mark.parametrize("values", VALUES)
def test_the_sylvester_equation_with_few_questions_and_far_from_the_identity(values):
    torch.manual_seed(0)
    h = with_values((2, 24, 24), VALUES[values])
    h = torch.linalg.eigh(h @ h.mT)
    h = (h[1] * h[0].sqrt()[..., None, :]) @ h[1].mT
    s = torch.randn(2, 24, 24, dtype=F64)
    s = s - s.mT
    x, _ = sylvester.skew_sylvester_on_device(h.float(), s.float())
    condition = float(torch.linalg.cond(h).amax())
    assert (x is None) == (condition > 1.01 * sylvester.FARTHEST)
    if x is None:
        return
    eye = torch.eye(24, dtype=F64)
    exact = torch.stack([
        torch.linalg.solve(torch.kron(one, eye) + torch.kron(eye, one), other.flatten()).view(24, 24)
        for one, other in zip(h, s, strict=True)
    ])  # fmt: skip
    assert relative(x, exact) < 1e-4


def products(function, side):
    """Counted in products of two matrices of this side."""
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops() / (2 * side**3)


def test_heads_after_training_take_fewer_products_on_a_gpu(monkeypatch):
    """A quarter of the singular values long, up to 40 times the others: as in trained networks of size XS."""
    side = 256
    a = with_values(
        (side, side),
        lambda m: torch.cat((torch.logspace(1.6, 0, m // 4, dtype=F64), torch.ones(m - m // 4, dtype=F64))),
    ).float()
    quick = products(lambda: polar._found_on_device(a), side)
    monkeypatch.setattr(polar, "WIDE", float("inf"))
    assert quick <= 0.8 * products(lambda: polar._found_on_device(a), side)
    q = polar._found_on_device(a)
    h, grad = q.mT @ a, torch.zeros(side, side)
    grad[:10] = torch.linspace(-1, 2, 10 * side).sin().view(10, side)
    s = q.mT @ grad
    quick = products(lambda: sylvester.skew_sylvester_on_device(h, s - s.mT), side)
    assert quick <= 18
    assert 2 * quick <= products(lambda: sylvester._solved(h, s - s.mT, 1000, 3, sylvester.SMALLER_RESIDUAL), side)
