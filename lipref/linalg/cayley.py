"""The Cayley transform of square and rectangular matrices, real or complex."""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

SMALL = 16.0  # squared norm of a column of I + A: rounding times that does not show


class _InverseOfShifted(torch.autograd.Function):
    """``(I + A)^-1`` of skew-Hermitian A ``(..., m, m)``, ``(I - A^2)^-1 (I - A)``: one Cholesky factorisation.

    ``I - A^2`` has the square of the condition of ``I + A``. In float64, and where A is not small, a Newton step takes
    back what that has cost.
    """

    @staticmethod
    def forward(ctx, skew: Tensor) -> Tensor:
        eye = torch.eye(skew.shape[-1], dtype=skew.dtype, device=skew.device)
        square = eye - skew @ skew
        core = torch.cholesky_inverse(torch.linalg.cholesky(square))
        inverse = core - core @ skew
        precise = skew.dtype in (torch.float64, torch.complex128)
        # Asked on the CPU alone: elsewhere the answer would be waited for.
        if precise or skew.device.type != "cpu" or not float(square.diagonal(dim1=-2, dim2=-1).real.amax()) < SMALL:
            inverse = inverse + inverse @ (eye - (inverse + skew @ inverse))
        ctx.save_for_backward(inverse)
        return inverse

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> Tensor:
        (inverse,) = ctx.saved_tensors
        return -(inverse.mH @ grad @ inverse.mH)


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
    skew = upper - upper.mH
    if rows == columns:
        return 2 * _InverseOfShifted.apply(skew) - eye
    inverse = _InverseOfPositive.apply(eye + skew + lower.mH @ lower)
    return torch.cat((2 * inverse - eye, -2 * lower @ inverse), dim=-2)
