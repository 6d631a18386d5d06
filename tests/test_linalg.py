"""The shared mathematics against dense or naive forms."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lipref.linalg import eigenvalues
from lipref.linalg.cayley import cayley_transform
from lipref.linalg.eigenvalues import largest_eigenvalue_bound
from lipref.linalg.exponential import (
    economised,
    from_ratios,
    non_expanding_terms,
    polynomial_bound,
    ratios,
    taylor,
    truncated_exponential_bound,
    truncation_error,
)
from lipref.linalg.gram import absolute_gram
from lipref.linalg.inverse_sqrt import by_products, whitened
from lipref.linalg.norms import conv_norm_bound, norm_bound
from lipref.linalg.padding import adjoint_kernel, circular_pad, conv2d_same
from lipref.linalg.polar import polar_factor
from lipref.linalg.spectrum import apply_symbol, kernel_symbol

F64 = torch.float64


def gaussian(*shape, dtype=F64):
    return torch.randn(*shape, dtype=dtype)


@pytest.mark.parametrize("shape", [(3, 3), (5, 2), (2, 5), (4, 6, 3), (1, 1), (2, 0)])
def test_polar_factor_is_that_of_the_svd(shape):
    a = gaussian(*shape)
    u, _, vh = torch.linalg.svd(a, full_matrices=False)
    assert torch.allclose(polar_factor(a), u @ vh, atol=1e-10)


@pytest.mark.parametrize("shape", [(3, 3), (5, 2), (2, 4), (2, 4, 2)])
def test_polar_factor_gradient(shape):
    assert torch.autograd.gradcheck(polar_factor, gaussian(*shape).requires_grad_())


def test_enough_steps_are_convergence_and_few_stay_below_one():
    a = gaussian(3, 5, 4)
    leaves = [a.clone().requires_grad_() for _ in range(2)]
    weights = gaussian(3, 5, 4)
    for leaf, steps in zip(leaves, (None, 60), strict=True):
        (polar_factor(leaf, steps) * weights).sum().backward()
    assert torch.allclose(polar_factor(a), polar_factor(a, 60), atol=1e-12)
    assert torch.allclose(leaves[0].grad, leaves[1].grad, atol=1e-8)
    for steps in (0, 1, 3):
        assert torch.linalg.matrix_norm(polar_factor(a, steps), 2).max() <= 1 + 1e-14


@given(st.integers(0, 10**6), st.sampled_from([1e-30, 1e-3, 1.0, 1e3, 1e30]), st.sampled_from([torch.float32, F64]))
def test_polar_factor_never_exceeds_one(seed, scale, dtype):
    generator = torch.Generator().manual_seed(seed)
    a = scale * torch.randn(6, 4, generator=generator, dtype=F64)
    a[:, 0] = a[:, 1] * (seed % 3)  # rank deficient, or a zero column
    q = polar_factor(a.to(dtype)).to(F64)
    assert torch.linalg.matrix_norm(q, 2) <= 1 + 8 * torch.finfo(dtype).eps
    assert torch.isfinite(q).all()


@pytest.mark.parametrize("dtype", [F64, torch.complex128])
@pytest.mark.parametrize("shape", [(1, 1), (4, 4), (3, 5, 5), (2, 6, 3), (2, 3, 6)])
def test_cayley_is_orthogonal_and_the_textbook_formula(dtype, shape):
    v = gaussian(*shape, dtype=dtype)
    q = cayley_transform(v)
    tall = q if shape[-2] >= shape[-1] else q.mH
    assert torch.allclose(tall.mH @ tall, torch.eye(tall.shape[-1], dtype=dtype), atol=1e-12)
    if shape[-1] == shape[-2]:
        eye, a = torch.eye(shape[-1], dtype=dtype), v - v.mH
        expected = torch.stack([torch.linalg.solve(eye + m, eye - m) for m in a.reshape(-1, *a.shape[-2:])])
        assert torch.allclose(q, expected.reshape(q.shape), atol=1e-12)


@pytest.mark.parametrize("side", [160, 256])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_cayley_of_large_batches_is_right_on_many_threads(side, dtype):
    # PyTorch's batched LU on the CPU returns wrong numbers here (pytorch issue 142815).
    v = gaussian(3, side, side, dtype=dtype) / math.sqrt(side)
    q = cayley_transform(v)
    assert torch.linalg.matrix_norm(q.mH @ q - torch.eye(side), 2).max() < 1e-4
    eye, a = torch.eye(side), v - v.mH
    assert torch.linalg.matrix_norm((eye + a) @ q - (eye - a)).max() < 1e-3


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3, 1e5])
def test_cayley_stays_orthogonal_at_large_scales(scale):
    q = cayley_transform(scale * gaussian(4, 8, 8, dtype=torch.complex128))
    assert torch.linalg.matrix_norm(q, 2).max() <= 1 + 1e-8


@pytest.mark.parametrize("dtype", [F64, torch.complex128])
@pytest.mark.parametrize("shape", [(3, 3), (2, 4, 2)])
def test_cayley_gradient(dtype, shape):
    assert torch.autograd.gradcheck(cayley_transform, gaussian(*shape, dtype=dtype).requires_grad_())


@pytest.mark.parametrize("dtype", [F64, torch.complex128])
@pytest.mark.parametrize("terms", [1, 2, 5, 10])  # at 30, rounding makes the products diverge
@pytest.mark.parametrize("columns", [5, 7])
@pytest.mark.parametrize("plain", [True, False])  # without the small values, ten steps converge
def test_whitening_on_eigenvalues_is_that_by_products(dtype, terms, columns, plain):
    v = gaussian(3, 5, columns, dtype=dtype)
    v[0] = torch.eye(5, columns, dtype=dtype)  # equal eigenvalues
    if plain:
        v = v + 4 * torch.eye(5, columns, dtype=dtype)
    else:
        v[1, 0] = 0  # an eigenvalue that is the ridge alone
    weights = gaussian(3, 5, columns, dtype=dtype)
    results = []
    for function in (whitened, by_products):
        leaf = v.clone().requires_grad_()
        result = function(leaf, terms)
        (result * weights).real.sum().backward()
        results.append((result.detach(), leaf.grad))
    for ours, slow in zip(*results, strict=True):
        assert torch.allclose(ours, slow, rtol=1e-9, atol=1e-9 * float(slow.abs().max()))


def test_whitening_converges_and_the_tall_are_the_wide_transposed():
    v = gaussian(4, 4, 4) + 8 * torch.eye(4, dtype=F64)
    white = whitened(v, 60)
    assert torch.allclose(white @ white.mT, torch.eye(4, dtype=F64), atol=1e-4)  # but for the ridge
    tall = gaussian(2, 6, 3, dtype=torch.complex128)
    assert torch.allclose(whitened(tall, 5), by_products(tall.mH, 5).mH)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 5), (8, 8), (7, 6)])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_symbol_applies_the_circular_convolution(size, k):
    weight, x = gaussian(3, 2, k, k), gaussian(4, 2, *size)
    direct = conv2d_same(x, weight, None, "circular")
    assert torch.allclose(apply_symbol(x, kernel_symbol(weight, size)), direct, atol=1e-12)


def test_circular_padding_wraps_as_often_as_needed():
    x = torch.arange(3.0).reshape(1, 1, 1, 3)
    assert circular_pad(x, 4)[0, 0, 0].tolist() == [2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0]
    y = gaussian(1, 1, 4, 4)
    assert torch.equal(circular_pad(y, 2), torch.nn.functional.pad(y, (2, 2, 2, 2), mode="circular"))


@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (6, 5)])
def test_adjoint_kernel(mode, size):
    weight, x, y = gaussian(3, 2, 5, 5), gaussian(1, 2, *size), gaussian(1, 3, *size)
    forward = (conv2d_same(x, weight, None, mode) * y).sum()
    backward = (x * conv2d_same(y, adjoint_kernel(weight), None, mode)).sum()
    assert torch.allclose(forward, backward)


def dense(weight, size, mode):
    inputs = torch.eye(weight.shape[1] * size[0] * size[1], dtype=F64).reshape(-1, weight.shape[1], *size)
    return conv2d_same(inputs, weight, None, mode).flatten(1).mT


@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (4, 3), (6, 6)])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_conv_norm_bound(mode, size, k):
    weight = gaussian(3, 4, k, k)
    exact = float(torch.linalg.matrix_norm(dense(weight, size, mode), 2))
    bound = conv_norm_bound(weight, size, mode)
    assert exact <= bound
    if mode == "circular" or k == 1:
        assert bound <= exact * (1 + 1e-9)


@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 6))
def test_norm_bound_is_above_the_norm_and_close(seed, rows, columns):
    a = torch.randn(2, rows, columns, generator=torch.Generator().manual_seed(seed), dtype=F64)
    exact = float(torch.linalg.matrix_norm(a, 2).max())
    assert exact <= norm_bound(a) <= exact * (1 + 1e-10) + 1e-12


def test_norm_bound_of_large_orthogonal_matrices_is_tight():
    q = torch.linalg.qr(gaussian(256, 256)).Q
    assert 1 <= norm_bound(q) <= 1 + 1e-8


def test_gram_is_the_definition():
    weight = gaussian(2, 3, 3, 3)
    w = weight.numpy()
    outputs, channels, k, _ = w.shape
    expected = np.zeros((channels, channels, 2 * k - 1, 2 * k - 1))
    for i, j, p, q, r, s in np.ndindex(channels, channels, k, k, k, k):
        expected[i, j, r - p + k - 1, s - q + k - 1] += sum(w[o, i, p, q] * w[o, j, r, s] for o in range(outputs))
    assert np.allclose(absolute_gram(weight).numpy(), np.abs(expected).sum((2, 3)))


def modulus(terms, theta):
    return abs(sum((1j * theta) ** j / math.factorial(j) for j in range(terms + 1)))


@given(st.integers(1, 20), st.floats(0, 5))
def test_truncated_exponential_bound_is_above_a_dense_sample_and_close(terms, radius):
    sample = max(modulus(terms, theta) for theta in np.linspace(0, radius, 200))
    bound = truncated_exponential_bound(terms, radius)
    assert sample <= bound * (1 + 1e-14)
    finer = max(modulus(terms, theta) for theta in np.linspace(0, radius, 20_000)[-400:])
    assert bound <= max(sample, finer, 1.0) * (1 + 1e-3)


def test_where_the_truncated_exponential_does_not_expand():
    for terms, limit in ((3, math.sqrt(3)), (4, 2 * math.sqrt(2)), (8, 3.395), (12, 3.379)):
        assert truncated_exponential_bound(terms, limit - 1e-3) <= 1 + 1e-9
        assert truncated_exponential_bound(terms, limit + 1e-2) > 1 + 1e-6
    assert truncated_exponential_bound(5, 2.1) == pytest.approx(1.004741, abs=1e-6)
    assert (non_expanding_terms(2.1, 12), non_expanding_terms(1.0, 12)) == (12, 12)
    assert truncated_exponential_bound(non_expanding_terms(4.9, 12), 4.9) <= 1 + 1e-9


@given(st.floats(0.1, 5), st.floats(1e-9, 1e-2))
def test_the_economised_exponential_is_accurate_and_never_expands(radius, error):
    coefficients = economised(radius, error)
    theta = np.linspace(0, radius, 5000)
    values = sum(c * (1j * theta) ** j for j, c in enumerate(coefficients))
    assert np.abs(values - np.exp(1j * theta)).max() <= 2 * error + 1e-11
    assert np.abs(values).max() <= 1
    assert polynomial_bound(from_ratios(*ratios(coefficients)), radius) <= 1


def test_the_economised_exponential_takes_fewer_terms():
    for radius, terms in ((1.0, 12), (2.1, 12), (3.5, 13)):
        error = truncation_error(terms, radius)
        theta = np.linspace(0, radius, 5000)
        cut = sum(float(c) * (1j * theta) ** j for j, c in enumerate(taylor(terms)))
        assert np.abs(cut - np.exp(1j * theta)).max() <= error
        assert len(economised(radius, error)) - 1 < terms


def test_squared_modulus_is_exact():
    from lipref.linalg.exponential import _squared_modulus

    # |1 + i t - t^2 / 2|^2 = 1 + t^4 / 4
    assert _squared_modulus(taylor(2)) == (Fraction(1), Fraction(0), Fraction(1, 4))


@pytest.mark.parametrize("kind", [F64, torch.complex128])
@pytest.mark.parametrize("spectrum", ["flat", "spread", "pair", "zero", "low"])
def test_the_largest_eigenvalue_is_bounded_closely(kind, spectrum):
    """Above the truth, and within 1e-6 of it, with more columns than are solved directly."""
    torch.manual_seed(0)
    n = 100
    values = {
        "flat": torch.ones(5, n, dtype=F64) * 3,
        "spread": torch.rand(5, n, dtype=F64),
        "pair": torch.cat([torch.rand(5, n - 2, dtype=F64), torch.tensor([[1.5, 1.5 - 1e-9]] * 5, dtype=F64)], 1),
        "zero": torch.zeros(5, n, dtype=F64),
        "low": torch.cat([torch.rand(5, 2, dtype=F64), torch.zeros(5, n - 2, dtype=F64)], 1),
    }[spectrum]
    q, _ = torch.linalg.qr(torch.randn(5, n, n, dtype=kind))
    matrices = (q * values[:, None].to(kind)) @ q.mH
    found, truth = largest_eigenvalue_bound(matrices), float(values.max())
    rounding = 1e-14 * truth  # of making the matrices
    assert truth - rounding <= found <= truth * (1 + 1e-6)


def test_a_candidate_that_is_too_small_is_not_proved():
    q, _ = torch.linalg.qr(torch.randn(2, 80, 80, dtype=F64))
    matrices = (q * torch.linspace(0, 1, 80, dtype=F64)) @ q.mT
    for shift in (0.5, 1 - 1e-9):
        assert len(eigenvalues._not_below(matrices, shift)[0]) == 2
    left, bound = eigenvalues._not_below(matrices, 1 + 1e-9)
    assert not len(left)
    assert 1 < bound < 1 + 1e-8


@pytest.mark.parametrize("n", [65, 100, 256])
@pytest.mark.parametrize("spectrum", [[0.5], [1 - 1e-8], [0.0, 0.5], [1 - 1e-7, 1 - 2e-7, 1 - 2e-7]])
@pytest.mark.parametrize("rotated", [False, True])
def test_few_distinct_singular_values_are_no_trap(n, spectrum, rotated):
    """Lanczos ends early there, and what is left of its vectors is rounding."""
    values = torch.ones(n, dtype=F64)
    values[: len(spectrum)] = torch.tensor(spectrum, dtype=F64)
    matrix = torch.diag(values)
    if rotated:
        torch.manual_seed(0)
        (q, _), (p, _) = torch.linalg.qr(gaussian(n, n)), torch.linalg.qr(gaussian(n, n))
        matrix = q @ matrix @ p
    assert 1 - 1e-13 <= norm_bound(matrix) <= 1 + 1e-6


@pytest.mark.parametrize("n", [3, 80])
@pytest.mark.parametrize("scale", [1e-300, 1e-150, 1e150, 1.7e308 / 100])
def test_norms_of_extreme_matrices(n, scale):
    torch.manual_seed(0)
    q, _ = torch.linalg.qr(gaussian(n, n))
    assert 1 - 1e-12 <= norm_bound(q * scale) / scale <= 1 + 1e-6


def test_what_one_pass_has_proved_is_kept(monkeypatch):
    """Two matrices, proved in two passes: the bound is of both."""
    monkeypatch.setattr(eigenvalues, "SOLVED", 1)
    candidates = iter([1.0, 0.5, 0.5, 0.5])
    monkeypatch.setattr(eigenvalues, "_ritz", lambda gram: next(candidates))
    q, _ = torch.linalg.qr(gaussian(8, 8))
    near = (q * torch.linspace(0, 1 - 1e-12, 8, dtype=F64)) @ q.T
    assert largest_eigenvalue_bound(near[None]) >= 1 - 1e-11
    monkeypatch.setattr(eigenvalues, "_not_below", lambda gram, shift: (gram[1:], 2.0 if len(gram) == 2 else 1.0))
    candidates = iter([1.0, 2.0, 2.0, 2.0])
    assert largest_eigenvalue_bound(torch.stack([near, near])) == 2.0
