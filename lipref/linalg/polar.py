"""The polar factor of a matrix: the nearest matrix with orthonormal columns (or rows)."""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

MAX_STEPS = 100


def _norm_scale(a: Tensor) -> Tensor:
    """A rigorous upper bound of the spectral norms of ``a`` ``(..., n, m)``, n >= m: ``(..., 1, 1)``.

    Exact where the columns are orthogonal. The smaller of the largest row sum (Gershgorin) and the Frobenius norm of
    the Gram matrix bounds the squared norm.
    """
    gram = a.mT @ a
    row_sum = gram.abs().sum(-1).amax(-1)
    frobenius = torch.linalg.matrix_norm(gram)
    slack = 1 + 4 * a.shape[-2] * torch.finfo(a.dtype).eps  # the products' own rounding
    return (torch.minimum(row_sum, frobenius) * slack).sqrt()[..., None, None]


def _scaled(a: Tensor) -> Tensor:
    """``a`` ``(..., n, m)``, n >= m, divided by a constant so that no spectral norm exceeds 1."""
    with torch.no_grad():
        tiny = torch.finfo(a.dtype).tiny
        magnitude = a.abs().amax((-2, -1), keepdim=True).clamp_min(tiny)  # squares neither overflow nor underflow
        scale = _norm_scale(a / magnitude).clamp_min(tiny)
    return a / magnitude / scale


def _bjorck_bowie(a: Tensor) -> Tensor:
    """Iterate ``Q <- Q (3 I - Q^T Q) / 2`` from ``a / bound`` to convergence; ``a`` is ``(..., n, m)``, n >= m.

    A singular value t in [0, 1] moves to t (3 - t^2) / 2, which stays in [0, 1] and grows: from a start of norm at
    most 1 the iteration can neither diverge nor exceed 1. Zero singular values stay zero.
    """
    q = _scaled(a)
    tolerance = 4 * torch.finfo(a.dtype).eps * a.shape[-1] ** 0.5
    for _ in range(MAX_STEPS):
        step = 0.5 * (q - q @ (q.mT @ q))
        q = q + step
        if torch.linalg.matrix_norm(step).amax() <= tolerance:
            break
    return q


class _PolarFactor(torch.autograd.Function):
    """Exact derivative of the polar factor, whatever the number of iterations; saves Q and A only."""

    @staticmethod
    def forward(ctx, a: Tensor) -> Tensor:
        q = _bjorck_bowie(a)
        ctx.save_for_backward(a, q)
        return q

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> Tensor:
        a, q = ctx.saved_tensors
        # A = Q H. With Omega = Q^T dQ: H Omega + Omega H = Q^T dA - dA^T Q, and the part of dQ outside range(Q) is
        # (I - Q Q^T) dA H^-1.
        h = q.mT @ a
        values, vectors = torch.linalg.eigh(0.5 * (h + h.mT))
        floor = values.amax(-1, keepdim=True).clamp_min(torch.finfo(a.dtype).tiny) * torch.finfo(a.dtype).eps
        values = values.clamp_min(floor)
        inner = q.mT @ grad
        skew = vectors.mT @ (inner - inner.mT) @ vectors
        omega = vectors @ (skew / (values[..., :, None] + values[..., None, :])) @ vectors.mT
        outer = (grad - q @ inner) @ (vectors / values[..., None, :]) @ vectors.mT
        return q @ omega + outer


def polar_factor(a: Tensor, steps: int | None = None) -> Tensor:
    """Polar factor of ``a`` ``(..., n, m)``, real: orthonormal columns (n >= m) or rows (n < m).

    Differentiable once. Computed by the Bjorck-Bowie iteration ("An iterative algorithm for computing the best estimate
    of an orthogonal matrix", 1971) from a rigorously scaled start; where ``a`` has a zero singular value the result is
    not orthonormal, but its norm is still at most 1.

    Args:
        a: the matrices.
        steps: None iterates to convergence, with the exact derivative; a number does that many steps and differentiates
            through them, the scale constant.
    """
    if a.numel() == 0:
        return a.clone()
    if a.shape[-2] < a.shape[-1]:
        return polar_factor(a.mT, steps).mT
    if steps is None:
        return _PolarFactor.apply(a)
    q = _scaled(a)
    for _ in range(steps):
        q = 1.5 * q - 0.5 * q @ (q.mT @ q)
    return q
