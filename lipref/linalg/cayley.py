"""The Cayley transform of square and rectangular matrices, real or complex."""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _InverseOfPositive(torch.autograd.Function):
    """Inverse of matrices ``(..., m, m)`` whose Hermitian part is positive definite, without LU.

    M = H + S with H = L L^H the Hermitian and S the skew part, so M = L (I + T) L^H with T = L^-1 S L^-H skew, and

        (I + T)^-1 = (I - T^2)^-1 (I - T),

    where I - T^2 is Hermitian positive definite: two Cholesky factorisations. PyTorch's batched LU on the CPU has
    returned wrong numbers for large sides (pytorch issue 142815).
    """

    @staticmethod
    def forward(ctx, matrix: Tensor) -> Tensor:
        hermitian = 0.5 * (matrix + matrix.mH)
        skew = 0.5 * (matrix - matrix.mH)
        eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
        lower = torch.linalg.cholesky(hermitian)
        inverse_lower = torch.linalg.solve_triangular(lower, eye.expand_as(matrix), upper=False)
        t = inverse_lower @ skew @ inverse_lower.mH
        core = torch.cholesky_solve(eye - t, torch.linalg.cholesky(eye - t @ t))
        # One Newton step for the inverse of I + T squares the error that forming T^2 brought in.
        core = core + core @ (eye - (core + t @ core))
        inverse = inverse_lower.mH @ core @ inverse_lower
        ctx.save_for_backward(inverse)
        return inverse

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> Tensor:
        (inverse,) = ctx.saved_tensors
        return -(inverse.mH @ grad @ inverse.mH)


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
    a = upper - upper.mH
    if rows > columns:
        a = a + lower.mH @ lower
    inverse = _InverseOfPositive.apply(eye + a)
    square = 2 * inverse - eye
    return square if rows == columns else torch.cat((square, -2 * lower @ inverse), dim=-2)
