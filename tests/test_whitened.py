"""LOT's inverse roots by few products, as a GPU computes them: the defined steps' function, value and gradient."""

import math

import pytest
import torch

from lipref.linalg import newton
from lipref.linalg.lyapunov import degree, lyapunov
from lipref.linalg.minimax import ENOUGH, minimax, steps_to_inverse_root
from lipref.linalg.newton import whitened, whitened_by_products

F64 = torch.float64
DTYPES = {"real": (F64, torch.float32), "complex": (torch.complex128, torch.complex64)}


def relative(one, other):
    return float((one.detach() - other.detach()).norm() / other.detach().norm())


def matrices(kind, shape, dtype):
    torch.manual_seed(0)
    noise = torch.randn(*shape, dtype=dtype) / (2 * max(shape[-2:])) ** 0.5
    if isinstance(kind, str):
        size, share = {"identity": (1, 0), "near": (1, 0.01), "farther": (1, 0.15), "far": (1, 0.5), "random": (0, 1)}[
            kind
        ]
        return size * torch.eye(*shape[-2:], dtype=dtype) + share * noise
    left, _, right = torch.linalg.svd(noise, full_matrices=False)
    return (left * torch.logspace(0, -math.log10(kind), min(shape[-2:]), dtype=F64).to(dtype)) @ right


def quick(v, terms=10, ridge=1e-4):
    """`whitened` as on a GPU."""
    if v.shape[-2] > v.shape[-1]:
        return quick(v.mH, terms, ridge).mH
    return newton._WhitenedByProducts.apply(v, terms, ridge)


def value_and_gradient(function, v, weights):
    v = v.detach().requires_grad_()
    q = function(v)
    return q.detach(), torch.autograd.grad(q, v, weights.to(v.dtype))[0]


@pytest.mark.parametrize("kind", ["identity", "near", "farther", "far", "random", 2, 10, 100, 1000])
@pytest.mark.parametrize("shape", [(3, 24, 24), (2, 2, 9, 21), (3, 21, 9), (64, 64), (2, 1, 1)])
@pytest.mark.parametrize("dtypes", DTYPES.values(), ids=DTYPES)
def test_the_quick_way_is_the_defined_one(kind, shape, dtypes):
    precise = matrices(kind, shape, dtypes[0])
    weights = torch.randn_like(precise)
    value, gradient = value_and_gradient(lambda v: whitened(v, 10), precise, weights)
    found, slope = value_and_gradient(quick, precise.to(dtypes[1]), weights)
    # V V^H itself, rounded, says no more of small eigenvalues: the defined steps are as far off.
    assert relative(found, value) < (1e-5 if kind != 1000 else 2e-5)
    if shape[-1] > 1:
        assert relative(slope, gradient) < 1e-4
    else:  # what the ridge leaves of a sign's derivative is the difference of two numbers near 1
        assert torch.allclose(slope.to(gradient.dtype), gradient, rtol=1e-4, atol=1e-6 * 57.7)
    assert float(torch.linalg.matrix_norm(found.to(dtypes[0]), 2).amax()) <= 1 + 1e-6


@pytest.mark.parametrize("scale", [0, 1e-9, 1e-3, 1e3, 1e8])
def test_at_every_scale(scale):
    precise = scale * matrices("farther", (3, 12, 12), torch.complex128)
    weights = torch.randn_like(precise)
    value, gradient = value_and_gradient(lambda v: whitened_by_products(v, 10), precise, weights)
    found, slope = value_and_gradient(quick, precise.to(torch.complex64), weights)
    assert torch.allclose(found, value.to(found.dtype), atol=1e-5 * float(value.abs().amax()))
    assert relative(slope, gradient) < 1e-4
    assert float(torch.linalg.matrix_norm(found, 2).amax()) <= 1 + 2e-6


@pytest.mark.parametrize("terms", [1, 2, 6, 7, 8, 12, 20])
@pytest.mark.parametrize("kind", ["near", "far", 30])
def test_whatever_the_number_of_steps(terms, kind):
    precise = matrices(kind, (3, 16, 16), torch.complex128)
    weights = torch.randn_like(precise)
    value, gradient = value_and_gradient(lambda v: whitened(v, terms), precise, weights)
    found, slope = value_and_gradient(lambda v: quick(v, terms), precise.to(torch.complex64), weights)
    assert relative(found, value) < 1e-5
    assert relative(slope, gradient) < 1e-4


def test_the_ridge_is_in_it():
    precise = 0.1 * matrices("near", (3, 16, 16), F64)
    for ridge in (0.0, 1e-4, 1e-2):
        found = quick(precise.float(), 10, ridge)
        assert relative(found, whitened(precise, 10, ridge)) < 1e-5
        assert relative(found, whitened(precise, 10, ridge + 1e-3)) > 1e-3


@pytest.mark.parametrize("smallest", [0.5, 0.8, 0.95, 1.05, 1.3])
def test_around_the_smallest_eigenvalue_that_converges(smallest):
    """The test for it is a soft one: on both sides value and gradient are the defined ones."""
    count = 32
    values = torch.ones(4, count, dtype=F64)
    limit = newton._converging(10) * (count**0.5 + 1e-4)
    values[1, -1] = values[2, -3:] = smallest * limit
    torch.manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(4, count, count, dtype=F64))[0] for _ in range(2))
    precise = (left * (values - 1e-4).sqrt()[:, None]) @ right
    weights = torch.randn_like(precise)
    value, gradient = value_and_gradient(lambda v: whitened(v, 10), precise, weights)
    found, slope = value_and_gradient(quick, precise.float(), weights)
    for index in range(4):
        assert relative(found[index], value[index]) < 1e-5
        assert relative(slope[index], gradient[index]) < 1e-4


def test_only_matrices_that_do_not_converge_go_the_defined_way(monkeypatch):
    counts = []
    original = newton._steps_of_matrices
    monkeypatch.setattr(newton, "_steps_of_matrices", lambda x, terms: counts.append(len(x)) or original(x, terms))
    v = matrices("far", (5, 16, 16), torch.complex64)
    v[[1, 4]] = matrices("random", (5, 16, 16), torch.complex64)[[1, 4]]
    quick(v)
    quick(matrices("near", (5, 16, 16), torch.complex64))
    assert counts == [2]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so(value):
    v = matrices("near", (3, 8, 8), torch.complex64)
    v[1, 2, 3] = value
    found, slope = value_and_gradient(quick, v, torch.ones_like(v))
    assert found[1].isnan().any()
    assert slope[1].isnan().any()
    assert found[[0, 2]].isfinite().all()


def kept_bytes(function, v):
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = function(v)
    assert result.requires_grad
    return sum(kept.values())


def test_three_tensors_are_kept():
    v = matrices("near", (3, 32, 32), torch.complex64).requires_grad_()
    whole = v.numel() * v.element_size()
    assert kept_bytes(quick, v) < 3.1 * whole
    assert kept_bytes(lambda v: whitened_by_products(v, 10), v) > 20 * whole


@pytest.mark.parametrize("low", [1.0, 0.99, 0.7, 0.2, 0.05])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_lyapunov_equation_is_solved(low, scale):
    torch.manual_seed(0)
    count = 12
    basis = torch.linalg.qr(torch.randn(3, count, count, dtype=torch.complex128))[0]
    values = scale * torch.linspace(low, 1, count, dtype=F64).to(basis.dtype)
    r, inverse = (basis * values) @ basis.mH, (basis / values) @ basis.mH
    c = torch.randn(3, count, count, dtype=torch.complex128)
    c = c + c.mH
    x = lyapunov(c, r, inverse, torch.full((3, 1, 1), scale, dtype=F64), (low, 1.0))
    expected = basis @ ((basis.mH @ c @ basis) / (values[:, None] + values)) @ basis.mH
    assert torch.allclose(x, x.mH)
    assert relative(x, expected) < 1e-5


def test_the_equation_near_the_identity_takes_few_steps():
    assert [degree(low, 1.0) for low in (1.0, 0.999, 0.9, 0.5)] == [1, 2, 4, 7]


@pytest.mark.parametrize(("low", "high", "half"), [(0.01, 1.0, 0.5), (0.3, 1.7, 1.0), (0.95, 1.05, 1.0)])
@pytest.mark.parametrize("order", [1, 2, 4])
def test_the_minimax_polynomial_has_errors_of_one_size(low, high, half, order):
    step, error = minimax(low, high, order, half)
    assert step.degree == order
    x = torch.linspace(low**0.5, high**0.5, 20001, dtype=F64).square()
    values = sum(c * (1 - x / half) ** k for k, c in enumerate(step.coefficients))
    errors = 1 - x.sqrt() * values
    assert float(errors.abs().amax()) == pytest.approx(error, rel=1e-2)
    peaks = errors[(errors.abs() > 0.98 * error)].sign()
    assert int((peaks[1:] != peaks[:-1]).sum()) == order + 1  # no polynomial of this degree does better


@pytest.mark.parametrize(
    ("low", "high", "half"), [(0.003, 1.0, 0.5), (0.1, 1.0, 0.5), (0.2, 1.8, 1.0), (0.999, 1.001, 1.0)]
)
def test_the_steps_end_at_the_inverse_root_and_never_above(low, high, half):
    x = torch.linspace(low**0.5, high**0.5, 5001, dtype=F64).square()
    y, z = x, torch.ones_like(x)
    for step in steps_to_inverse_root(low, high, half):
        f = 1 - z * y / step.half
        t = sum(c * f**k for k, c in enumerate(step.coefficients))
        y, z = y * t, t * z
    errors = 1 - z * x.sqrt()
    assert float(errors.amin()) >= -1e-12
    assert float(errors.amax()) <= 2.01 * ENOUGH
