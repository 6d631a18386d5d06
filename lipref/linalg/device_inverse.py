"""Inverses of many matrices on a device that is slow at factorising large ones, in several ways."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lipref.linalg.elimination import inverse_by_elimination

WAY = "cholesky"  # of `WAYS`: the quickest on an H200 (docs/performance.md), for sides up to
LARGEST = 1024
ABOVE = "lu"  # and for larger ones
LEAF = 32  # a side that the device's library factorises in one call for all matrices


def inverse_on_device(matrix: Tensor) -> Tensor:
    """Inverse of ``matrix`` ``(..., m, m)`` whose Hermitian part is at least I, as that of ``I + A``, A skew."""
    way = WAYS[WAY if matrix.shape[-1] <= LARGEST else ABOVE]
    return way(matrix.reshape(-1, *matrix.shape[-2:])).view(matrix.shape)


def by_cholesky(matrix: Tensor) -> Tensor:
    """``M^H (M M^H)^-1`` by one factorisation; of ``I + A`` that is ``(I - A) (I - A^2)^-1``.

    For norms well below 1000 in float32: the condition of what is factorised is the square of the matrix's.
    """
    lower = torch.linalg.cholesky_ex(matrix @ matrix.mH)[0]
    eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    inverse_lower = torch.linalg.solve_triangular(lower, eye.expand_as(matrix), upper=False)
    return (matrix.mH @ inverse_lower.mH) @ inverse_lower


def by_factorising(matrix: Tensor) -> Tensor:
    """By the library's LU factorisation."""
    return torch.linalg.inv_ex(matrix)[0]


def by_eliminating(matrix: Tensor) -> Tensor:
    """By blocks down to `LEAF`, which the library inverts: as many operations as one product, in smaller ones."""
    return inverse_by_elimination(matrix, LEAF, by_factorising)


def by_products(matrix: Tensor) -> Tensor:
    """``M^H (M M^H)^-1`` by ``P^-1 = (I + E) (I + E^2) (I + E^4) ... / b``, where ``E = I - P / b``.

    That is the iteration of Newton and Schulz, ``X <- X (2 I - M X)`` from ``X = M^H / b``. The eigenvalues of P lie
    between 1 and its norm, of which a bound is asked of the device: it decides the number of steps, of two products.
    The condition counts twice here too.
    """
    square = matrix @ matrix.mH
    bound = torch.minimum(torch.linalg.matrix_norm(square), torch.linalg.vector_norm(square, 1, -1).amax(-1))
    middle = 0.5 * (1 + bound[:, None, None])
    power = -square / middle
    power.diagonal(dim1=-2, dim2=-1).add_(1)
    inverse = (matrix.mH + matrix.mH @ power) / middle
    largest = float(bound.amax())
    distance = (largest - 1) / (largest + 1)
    if not distance < 1:
        return torch.full_like(matrix, math.nan)
    while distance**2 > torch.finfo(matrix.dtype).eps:
        distance = distance**2
        power = power @ power
        inverse = torch.baddbmm(inverse, inverse, power)
    return inverse


WAYS: dict[str, Callable[[Tensor], Tensor]] = {
    "cholesky": by_cholesky,
    "lu": by_factorising,
    "elimination": by_eliminating,
    "products": by_products,
}
