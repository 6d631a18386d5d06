"""The polar factor by eigenvectors of the Gram matrix, and its gradient in their basis: for CPUs, in float32.

With G = A^T A = V D^2 V^T, the columns of M = A V are orthogonal up to rounding, ``M = Y D`` with D their lengths. What
is left, ``E = Y^T Y - I``, is some roundoffs times the ratio of squared singular values, and is taken out to first
order: the polar factor of ``Y D`` is ``Y (I - X)`` with ``X[i, j] = d_i E[i, j] / (d_i + d_j)``, since
``(D (I + E) D)^(1/2) = D + D X`` up to E^2. For equal lengths that is a step of Bjorck and Bowie. Then ``Q = Q_V V^T``.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

LARGEST = 3e-3  # Frobenius norm of E up to which its square does not matter
CLEAN = 1e-3  # above that, a step of Bjorck and Bowie follows
FEW = 0.25  # share of a gradient's rows
EXACT = 1e-4  # below that, H is D for the gradient's purposes


class Basis(NamedTuple):
    """Of A = Q H: ``rotated`` Q V ``(..., n, m)``, and H = V (diag(values) + rest) V^T.

    ``values`` ``(..., m)``, ``vectors`` ``(..., m, m)``; ``rest`` ``(..., m, m)`` is small, or missing where it is 0.
    """

    rotated: Tensor
    values: Tensor
    vectors: Tensor
    rest: Tensor | None = None


def polar_factor(a: Tensor, gram: Tensor) -> tuple[Tensor, Basis] | None:
    """Q of ``a`` ``(..., n, m)``, n >= m, finite, ``gram`` being A^T A; None where eigenvectors are not near enough."""
    vectors = torch.linalg.eigh(gram)[1]
    rotated = a @ vectors
    lengths = torch.linalg.vector_norm(rotated, dim=-2)
    if not bool((lengths > 0).all()):
        return None
    rotated = rotated.div_(lengths[..., None, :])
    rest = _without_identity(rotated)
    size = torch.linalg.matrix_norm(rest).amax()
    if not bool(size <= LARGEST):
        return None
    half = rest / (lengths[..., :, None] + lengths[..., None, :])
    rotated = rotated - rotated @ (lengths[..., :, None] * half)
    if bool(size > CLEAN):
        rotated = torch.add(rotated, rotated @ _without_identity(rotated), alpha=-0.5)
    rest = half.mul_(lengths[..., :, None]).mul_(lengths[..., None, :]) if bool(size > EXACT) else None
    return rotated @ vectors.mT, Basis(rotated, lengths, vectors, *([] if rest is None else [rest]))


def gradient(basis: Basis, grad: Tensor) -> Tensor:
    """Of the loss with respect to A, from ``grad``, that with respect to Q, both ``(..., n, m)``.

    In the basis V, with ``Omega = Q^T dQ``: ``H Omega + Omega H = Q^T dA - dA^T Q``, and outside range(Q)
    ``dQ = (I - Q Q^T) dA H^-1``.
    """
    q, values, vectors, rest = basis
    grad, inner = _in_basis(grad, q, vectors)
    sums = values[..., :, None] + values[..., None, :]
    omega = _skew(inner).div_(sums)
    if rest is not None:  # once more with what the diagonal left
        omega = omega - _skew(rest @ omega).div_(sums)
    if q.shape[-2] == q.shape[-1]:
        return q @ omega @ vectors.mT
    # H^-1 is the inverse of the diagonal, less what the rest changes.
    outer = grad / values[..., None, :]
    inner = inner / values[..., None, :]
    if rest is not None:
        outer = outer - (outer @ rest) / values[..., None, :]
        inner = inner - (inner @ rest) / values[..., None, :]
    return (q @ (omega - inner) + outer) @ vectors.mT


def _in_basis(grad: Tensor, q: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """``grad V`` and ``Q^T grad V``: of the head of a network few rows are not 0, and the others take no part."""
    if grad.ndim == 2:
        rows = torch.linalg.vector_norm(grad, 1, -1).nonzero()[:, 0]
        if len(rows) <= FEW * len(grad):
            some = grad[rows] @ vectors
            return torch.zeros_like(grad).index_copy_(0, rows, some), q[rows].mT @ some
    grad = grad @ vectors
    return grad, q.mT @ grad


def _skew(a: Tensor) -> Tensor:
    """``A - A^T``, a new tensor; of a large matrix the copy and the sum are quicker than reading along columns."""
    return torch.sub(a, a.mT.contiguous()) if a.ndim == 2 else a - a.mT


def _without_identity(rotated: Tensor) -> Tensor:
    """``Y^T Y - I``."""
    gram = rotated.mT @ rotated
    gram.diagonal(dim1=-2, dim2=-1).sub_(1)
    return gram
