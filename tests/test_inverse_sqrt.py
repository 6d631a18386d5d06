"""LOT's matrices by eigenvalues, as on a CPU, and by products, as elsewhere: values and derivatives."""

import math

import pytest
import torch

from lipref.linalg.inverse_sqrt import by_products, whitened

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


def value_and_gradient(function, v, weights):
    v = v.detach().requires_grad_()
    q = function(v)
    return q.detach(), torch.autograd.grad(q, v, weights.to(v.dtype))[0]


def products(v, steps=10, ridge=1e-4):
    """`whitened` as on a GPU."""
    if v.shape[-2] > v.shape[-1]:
        return products(v.mH, steps, ridge).mH
    return by_products(v, steps, ridge)


FORMS = pytest.mark.parametrize("form", [whitened, products])


@FORMS
@pytest.mark.parametrize("kind", ["identity", "near", "farther", "far", "random", 2, 10, 100, 1000])
@pytest.mark.parametrize("shape", [(3, 24, 24), (2, 2, 9, 21), (3, 21, 9), (64, 64), (2, 1, 1)])
@pytest.mark.parametrize("dtypes", DTYPES.values(), ids=DTYPES)
def test_single_precision_is_double_precision(kind, shape, dtypes, form):
    precise = matrices(kind, shape, dtypes[0])
    weights = torch.randn_like(precise)
    value, gradient = value_and_gradient(lambda v: products(v), precise, weights)
    found, slope = value_and_gradient(lambda v: form(v, 10), precise.to(dtypes[1]), weights)
    # V V^H itself, rounded, says no more of small eigenvalues: the defined steps are nearly as far off.
    rough = kind in (100, 1000)
    assert relative(found, value) < (2e-5 if rough else 1e-5)
    if shape[-1] > 1:
        assert relative(slope, gradient) < (2e-4 if rough else 1e-4)
    else:  # what the ridge leaves of a sign's derivative is the difference of two numbers near 1
        assert torch.allclose(slope.to(gradient.dtype), gradient, rtol=1e-4, atol=1e-6 * 57.7)
    assert float(torch.linalg.matrix_norm(found.to(dtypes[0]), 2).amax()) <= 1 + 1e-6


@FORMS
@pytest.mark.parametrize("scale", [0, 1e-9, 1e-3, 1e3, 1e8])
def test_at_every_scale(scale, form):
    precise = scale * matrices("farther", (3, 12, 12), torch.complex128)
    weights = torch.randn_like(precise)
    value, gradient = value_and_gradient(lambda v: by_products(v, 10), precise, weights)
    found, slope = value_and_gradient(lambda v: form(v, 10), precise.to(torch.complex64), weights)
    assert torch.allclose(found, value.to(found.dtype), atol=1e-5 * float(value.abs().amax()))
    assert relative(slope, gradient) < 1e-4
    assert float(torch.linalg.matrix_norm(found, 2).amax()) <= 1 + 2e-6


@FORMS
@pytest.mark.parametrize("steps", [1, 2, 6, 7, 8, 12, 20])
@pytest.mark.parametrize("kind", ["near", "far", 30])
def test_whatever_the_number_of_steps(steps, kind, form):
    precise = matrices(kind, (3, 16, 16), torch.complex128)
    weights = torch.randn_like(precise)
    value, gradient = value_and_gradient(lambda v: by_products(v, steps), precise, weights)
    found, slope = value_and_gradient(lambda v: form(v, steps), precise.to(torch.complex64), weights)
    assert relative(found, value) < 1e-5
    assert relative(slope, gradient) < 1e-4


@FORMS
def test_the_ridge_is_in_it(form):
    precise = 0.1 * matrices("near", (3, 16, 16), F64)
    for ridge in (0.0, 1e-4, 1e-2):
        found = form(precise.float(), 10, ridge)
        assert relative(found, by_products(precise, 10, ridge)) < 1e-5
        assert relative(found, by_products(precise, 10, ridge + 1e-3)) > 1e-3


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so(value):
    v = matrices("near", (3, 8, 8), torch.complex64)
    v[1, 2, 3] = value
    found, slope = value_and_gradient(products, v, torch.ones_like(v))
    assert found[1].isnan().any()
    assert slope[1].isnan().any()
    assert found[[0, 2]].isfinite().all()


@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize("shape", [(2, 3, 3), (2, 2, 4), (3, 4, 2)])
def test_both_derivatives(shape, complex_):
    dtype = torch.complex128 if complex_ else F64
    v = matrices("far", shape, dtype).requires_grad_()
    torch.autograd.gradcheck(lambda v: whitened(v, 5), v)
    torch.autograd.gradgradcheck(lambda v: whitened(v, 5), v)


def test_equal_eigenvalues_have_both_derivatives():
    v = torch.eye(3, dtype=F64).requires_grad_()
    torch.autograd.gradcheck(lambda v: whitened(v, 10), v)
    torch.autograd.gradgradcheck(lambda v: whitened(v, 10), v)


@pytest.mark.parametrize("steps", [10, 20, 30])
def test_gradient_where_singular_values_differ_by_far(steps):
    """Rounding must not grow with the steps that small eigenvalues take."""
    torch.manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(3, 3, dtype=F64))[0] for _ in range(2))
    v = ((left * torch.tensor([1e2, 1.0, 1e-2], dtype=F64)) @ right).requires_grad_()
    torch.autograd.gradcheck(lambda v: whitened(v, steps), v, eps=1e-5, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [F64, torch.complex128])
def test_vmap_and_its_gradient(dtype):
    v = matrices("far", (4, 3, 5), dtype)
    weights = torch.randn_like(v)
    for found, expected in zip(
        value_and_gradient(torch.func.vmap(lambda v: whitened(v, 10)), v, weights),
        value_and_gradient(lambda v: by_products(v, 10), v, weights), strict=True,
    ):  # fmt: skip
        assert torch.allclose(found, expected, atol=1e-10)


def test_jacobians_of_both_orders():
    v = torch.eye(2, 3, dtype=F64)  # equal eigenvalues
    first, second = (torch.func.jacrev(lambda v, form=form: form(v, 10)) for form in (whitened, by_products))
    assert torch.allclose(first(v), second(v), atol=1e-10)
    assert torch.allclose(torch.func.jacrev(first)(v), torch.func.jacrev(second)(v), atol=1e-8)
