"""Inverses of many matrices on a device that is slow at factorising large ones."""

import torch
from torch import Tensor

LARGEST = 1024  # a side up to which Cholesky's factorisation was the quickest on an H200


def inverse_on_device(matrix: Tensor) -> Tensor:
    """Inverse of ``matrix`` ``(..., m, m)`` whose Hermitian part is at least I, as that of ``I + A``, A skew."""
    invert = by_cholesky if matrix.shape[-1] <= LARGEST else by_factorising
    return invert(matrix.reshape(-1, *matrix.shape[-2:])).view(matrix.shape)


def by_cholesky(matrix: Tensor) -> Tensor:
    """``M^H (M M^H)^-1`` by one factorisation; of ``I + A`` that is ``(I - A) (I - A^2)^-1``.

    For norms well below 1000 in float32: the condition of what is factorised is the square of the matrix's. Where the
    factorisation fails the result is not finite.
    """
    inverse_lower = _inverse_factor(matrix @ matrix.mH)
    return (matrix.mH @ inverse_lower.mH) @ inverse_lower


def inverse_of_positive(matrix: Tensor) -> Tensor:
    """Inverse of symmetric positive definite matrices ``(..., m, m)``; not finite where they are not."""
    inverse_lower = _inverse_factor(matrix)
    return inverse_lower.mT @ inverse_lower


def _inverse_factor(matrix: Tensor) -> Tensor:
    """``L^-1`` of ``matrix = L L^H``; not finite where it is not positive definite."""
    lower, failed = torch.linalg.cholesky_ex(matrix)
    lower = torch.where((failed == 0)[..., None, None], lower, torch.nan)
    eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    return torch.linalg.solve_triangular(lower, eye.expand_as(matrix), upper=False)


def by_factorising(matrix: Tensor) -> Tensor:
    """By the library's LU factorisation."""
    return torch.linalg.inv_ex(matrix)[0]
