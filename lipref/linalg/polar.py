"""The polar factor of a matrix: the nearest matrix with orthonormal columns (or rows)."""

import functools

import torch
from torch import Tensor

# Singular values from this share of the largest on reach 1; smaller ones stay smaller.
SMALLEST = {torch.float32: 2.0**-14, torch.float64: 2.0**-24}

FOLD = 0.15


@functools.cache
def cubic_steps(low: float, error: float) -> tuple[tuple[float, float], ...]:
    """Pairs (a, b): one after the other ``x -> a x - b x^3`` take ``[low, 1]`` into ``[1 - error, 1]``.

    All of [0, 1] stays in [0, 1], and what is below ``low`` grows as fast, by 2.4 a step at first. Each is the cubic
    nearest to a constant on the interval that the ones before have left, divided by its maximum; the last ones are
    nearly those of Bjorck and Bowie, (3/2, 1/2), and converge quadratically. (As Amsel et al., "The Polar Express",
    2025, do it for degree 5.) Where the interval begins below `FOLD` it counts as beginning there: else 1 would be
    thrown back to near 0, and its rounding with it magnified.
    """
    steps = []
    while 1 - low > error:
        start = max(low, FOLD)
        # Equal at both ends, and so far below its mean there as its maximum, at the root of s / 3, is above.
        s = 1 + start + start**2
        most = 2 / 3 * s * (s / 3) ** 0.5
        steps.append((s / most, 1 / most))
        low = (s * low - low**3) / most
    return tuple(steps)


@torch.no_grad()
def _norm_bound(a: Tensor) -> Tensor:
    """A rigorous upper bound of the spectral norms of ``a`` ``(..., n, m)``, n >= m: ``(..., 1, 1)``; 1 where a is 0.

    From the Gram matrix G: the smallest of its largest row sum (Gershgorin), which is exact for orthogonal columns, and
    of ``mean + ||(G - mean I)^2||_F^(1/2)``, which is sharper where columns are not orthogonal.
    """
    magnitude = a.abs().amax((-2, -1), keepdim=True)  # of a / magnitude squares neither overflow nor underflow
    magnitude = magnitude + (magnitude == 0)
    a = a / magnitude
    gram = a.mT @ a
    mean = gram.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    rest = gram - mean * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    by_squares = mean + torch.linalg.matrix_norm(rest @ rest, keepdim=True).sqrt()
    square = torch.minimum(gram.abs().sum(-1, keepdim=True).amax(-2, keepdim=True), by_squares)
    slack = 1 + 4 * a.shape[-2] * torch.finfo(a.dtype).eps  # the products' own rounding
    return magnitude * ((square + (square == 0)) * slack).sqrt()


def _iterated(q: Tensor, steps: tuple[tuple[float, float], ...]) -> Tensor:
    for linear, cubic in steps:
        q = torch.add(linear * q, q @ (q.mT @ q), alpha=-cubic)
    return q


class _PolarFactor(torch.autograd.Function):
    """The iteration from ``a`` of norm at most 1, with the exact derivative of the polar factor, for CPUs.

    An eigendecomposition costs there a fifth of the iteration's products, differentiated one by one.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(a: Tensor, steps: tuple[tuple[float, float], ...]) -> Tensor:
        return _iterated(a, steps)

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor, tuple], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], output)
        ctx.steps = inputs[1]

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        a, q = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated again
            return torch.autograd.grad(_iterated(a, ctx.steps), a, grad, create_graph=True)[0], None
        # With Omega = Q^T dQ: H Omega + Omega H = Q^T dA - dA^T Q, and outside range(Q) dQ = (I - Q Q^T) dA H^-1.
        h = q.mT @ a
        values, vectors = torch.linalg.eigh(0.5 * (h + h.mT))
        values = values.clamp_min(SMALLEST[a.dtype])  # below, where the steps do not converge: about their derivative
        q, grad = q @ vectors, grad @ vectors
        inner = q.mT @ grad
        omega = (inner - inner.mT) / (values[..., :, None] + values[..., None, :])
        found = q @ omega
        if q.shape[-2] > q.shape[-1]:
            found = found + (grad - q @ inner) / values[..., None, :]
        return found @ vectors.mT, None


def polar_factor(a: Tensor, steps: int | None = None) -> Tensor:
    """Polar factor of ``a`` ``(..., n, m)``, real: orthonormal columns (n >= m) or rows (n < m).

    By a fixed number of steps from a rigorously scaled start, so that the norm is at most 1 and no value on the device
    is waited for. Singular values below `SMALLEST` of the bound of the largest do not reach 1; those of 0 stay.

    Args:
        a: the matrices.
        steps: None: to convergence, with the exact derivative; a number: that many steps of Bjorck and Bowie ("An
            iterative algorithm for computing the best estimate of an orthogonal matrix", 1971), differentiated one by
            one. The scale is a constant for the derivative.
    """
    if a.numel() == 0:
        return a.clone()
    if a.shape[-2] < a.shape[-1]:
        return polar_factor(a.mT, steps).mT
    a = a / _norm_bound(a)
    if steps is not None:
        return _iterated(a, ((1.5, 0.5),) * steps)
    found = cubic_steps(SMALLEST[a.dtype], torch.finfo(a.dtype).eps)
    return _PolarFactor.apply(a, found) if a.device.type == "cpu" else _iterated(a, found)
