"""The Cayley transform of square and rectangular matrices, real or complex."""

import torch
from torch import Tensor

from lipref.linalg.elimination import inverse_by_elimination

MANY = 16  # matrices from which on elimination, of all of them at once, is quicker than factorising one after the other


class _Inverse(torch.autograd.Function):
    """Inverse of matrices ``(..., m, m)`` whose Hermitian part is at least I."""

    @staticmethod
    def forward(matrix: Tensor) -> Tensor:
        if matrix.device.type != "cpu":
            return torch.linalg.inv_ex(matrix)[0]
        # Not by LU: PyTorch's batched one has returned wrong numbers on a CPU for large sides (pytorch issue 142815).
        if matrix.is_complex() and matrix.shape[:-2].numel() >= MANY:
            return inverse_by_elimination(matrix)
        factor, failed = torch.linalg.cholesky_ex(matrix @ matrix.mH)
        inverse = matrix.mH @ torch.cholesky_inverse(torch.where(failed[..., None, None] == 0, factor, torch.nan))
        # The condition of what was factorised is the square of the matrix's: a Newton step squares the error.
        eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
        return inverse + inverse @ (eye - matrix @ inverse)

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def vmap(info, in_dims: tuple[int], matrix: Tensor) -> tuple[Tensor, int]:
        return _Inverse.apply(matrix.movedim(in_dims[0], 0)), 0

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        (inverse,) = ctx.saved_tensors
        return -(inverse.mH @ grad @ inverse.mH)


def of_norm(weight: Tensor, scale: Tensor) -> Tensor:
    """``scale K / ||K||_F`` of a kernel ``(O, I, k, k)`` and a number ``(1,)``; 0 for K = 0, gradients finite."""
    norm = torch.linalg.vector_norm(weight)
    return weight * (scale / (norm + (norm < torch.finfo(norm.dtype).tiny)))


def cayley_transform(v: Tensor) -> Tensor:
    """Matrices with orthonormal columns (``O >= I``) or rows (``O < I``) from any ``v`` ``(..., O, I)``.

    ``v`` is real or complex. Square: ``Q = (I + A)^-1 (I - A) = 2 (I + A)^-1 - I`` with ``A = V - V^H``. Tall,
    ``V = [U; W]``: ``A = U - U^H + W^H W`` and ``Q = [2 (I + A)^-1 - I; -2 W (I + A)^-1]``. Wide: the transpose of the
    transform of the transpose.

    Source: Trockman and Kolter, "Orthogonalizing Convolutional Layers with the Cayley Transform", ICLR 2021.
    """
    rows, columns = v.shape[-2:]
    if rows < columns:
        return cayley_transform(v.mT).mT
    upper, lower = v[..., :columns, :], v[..., columns:, :]
    eye = torch.eye(columns, dtype=v.dtype, device=v.device)
    skew = upper - upper.mH
    if rows == columns:
        return 2 * _Inverse.apply(eye + skew) - eye
    inverse = _Inverse.apply(eye + skew + lower.mH @ lower)
    return torch.cat((2 * inverse - eye, -2 * lower @ inverse), dim=-2)
