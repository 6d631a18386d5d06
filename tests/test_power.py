"""Power iteration by products is that of convolutions on a torus, and its estimate a bilinear form of the kernel."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import forward_ad

from lipref.linalg.norms import conv_norm_bound
from lipref.linalg.padding import adjoint_kernel, conv2d_same
from lipref.linalg.power import power_iterations


def slow(weight, u, iterations):
    """Of one kernel by convolutions; u without gradient, ``v^T K u`` with the vectors constant."""
    for _ in range(iterations):
        v = conv2d_same(u, weight.detach(), None, "circular")
        v = v / v.norm()
        u = conv2d_same(v, adjoint_kernel(weight.detach()), None, "circular")
        u = u / u.norm()
    return u, (conv2d_same(u, weight, None, "circular") * v).sum()


@given(
    st.tuples(st.integers(1, 7), st.integers(1, 7)), st.sampled_from((1, 3, 5)), st.integers(1, 3), st.integers(1, 3),
    st.integers(1, 3), st.integers(0, 9),
)  # fmt: skip
def test_it_is_power_iteration_by_convolutions(size, k, inputs, outputs, iterations, seed):
    torch.manual_seed(seed)
    weights = torch.randn(2, outputs, inputs, k, k, dtype=torch.float64, requires_grad=True)
    u = torch.randn(2, inputs, *size, dtype=torch.float64)
    found, sigma = power_iterations(weights, u, iterations)
    assert not found.requires_grad
    expected = [slow(weight, each[None], iterations) for weight, each in zip(weights, u, strict=True)]
    torch.testing.assert_close(found, torch.cat([each for each, _ in expected]), rtol=1e-9, atol=1e-9)
    slow_sigma = torch.stack([each for _, each in expected])
    torch.testing.assert_close(sigma, slow_sigma, rtol=1e-10, atol=1e-12)
    given_ = torch.tensor([1.0, -2.0], dtype=torch.float64)
    gradients = [torch.autograd.grad(each, weights, given_)[0] for each in (sigma, slow_sigma)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)


def test_it_tends_to_the_norm_from_below():
    torch.manual_seed(0)
    weights, u = torch.randn(1, 4, 4, 3, 3, dtype=torch.float64), torch.randn(1, 4, 5, 6, dtype=torch.float64)
    norm = conv_norm_bound(weights[0], (5, 6), "circular")
    estimates = [float(power_iterations(weights, u, iterations)[1]) for iterations in (1, 10, 1000)]
    assert estimates == sorted(estimates)
    assert 0.999 * norm < estimates[-1] <= norm


def test_the_zero_kernel_gives_zero_and_no_nan():
    weights = torch.zeros(1, 2, 2, 3, 3, requires_grad=True)
    u, sigma = power_iterations(weights, torch.randn(1, 2, 4, 4), 2)
    assert not u.any()
    assert not sigma.any()
    assert not torch.autograd.grad(sigma.sum(), weights)[0].any()


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")  # torch's own, at its first forward derivative
def test_it_goes_through_torch_func():
    torch.manual_seed(0)
    weights, u = torch.randn(1, 3, 3, 3, 3, dtype=torch.float64), torch.randn(1, 3, 4, 4, dtype=torch.float64)

    def estimate(weights):
        return power_iterations(weights, u, 1)[1][0]

    with forward_ad.dual_level():
        direction = torch.randn_like(weights)
        slope = forward_ad.unpack_dual(estimate(forward_ad.make_dual(weights, direction))).tangent
    gradient = torch.autograd.grad(estimate(weights.requires_grad_()), weights)[0]
    torch.testing.assert_close(slope, (gradient * direction).sum(), rtol=1e-10, atol=1e-12)
    several = torch.randn(2, *weights.shape, dtype=torch.float64, requires_grad=True)
    gradients = torch.func.vmap(torch.func.grad(estimate))(several)
    for weights, gradient in zip(several, gradients, strict=True):
        torch.testing.assert_close(gradient, torch.autograd.grad(estimate(weights), weights)[0], rtol=1e-10, atol=1e-12)
    values = torch.func.vmap(estimate)(several)
    torch.testing.assert_close(values, torch.stack([estimate(each) for each in several]), rtol=1e-10, atol=1e-12)
