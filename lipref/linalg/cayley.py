"""The Cayley transform of square and rectangular matrices, real or complex."""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lipref.linalg.asking import allows
from lipref.linalg.constants import kept
from lipref.linalg.device_inverse import inverse_on_device
from lipref.linalg.elimination import inverse_by_elimination

EXACT = 2e-6  # relative residual of an inverse in float32 that a Newton step does not make much smaller
SMALL = 16.0  # squared norm of a row of I + A: rounding times that does not show
MANY = 16  # matrices from which on elimination, of all of them at once, is quicker than factorising one after the other


class _Inverse(torch.autograd.Function):
    """Inverse of matrices ``(..., m, m)`` whose Hermitian part is positive definite; ``shifted`` says that it is I.

    Without LU: PyTorch's batched one on the CPU has returned wrong numbers for large sides (pytorch issue 142815).
    """

    @staticmethod
    def forward(ctx, matrix: Tensor, shifted: bool) -> Tensor:
        if matrix.is_cuda:
            inverse = _on_device(matrix)
            ctx.save_for_backward(inverse)
            return inverse
        many = matrix.shape[:-2].numel() >= MANY
        if many and matrix.is_complex() and matrix.device.type == "cpu":
            inverse = inverse_by_elimination(matrix)
            small = _is_small(matrix)
        else:
            inverse, small = _inverse_of_shifted(matrix) if shifted else (_inverse_of_positive(matrix), False)
        if not small:  # a Newton step squares the error
            eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
            inverse = inverse + inverse @ (eye - matrix @ inverse)
        ctx.save_for_backward(inverse)
        return inverse

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        (inverse,) = ctx.saved_tensors
        return -(inverse.mH @ grad @ inverse.mH), None


def _on_device(matrix: Tensor) -> Tensor:
    """With the Newton step, two of the five products forward, only where the device says that rounding shows.

    The norms of rows do not tell: a few long directions show rounding as well.
    """
    inverse = inverse_on_device(matrix)
    if matrix.dtype in (torch.float32, torch.complex64) and allows(_residual(matrix, inverse) < EXACT):
        return inverse
    eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    if matrix.dim() != 3:
        return inverse + inverse @ (eye - matrix @ inverse)
    return torch.baddbmm(inverse, inverse, torch.baddbmm(eye, matrix, inverse, alpha=-1))


def _residual(matrix: Tensor, inverse: Tensor) -> Tensor:
    """How far ``matrix inverse`` is from I on some vectors, relative to them: the largest of all matrices, ``()``."""
    probes = _probes(matrix.shape[-1], matrix.dtype, str(matrix.device))
    rest = matrix @ (inverse @ probes) - probes
    return torch.linalg.matrix_norm(rest).amax() / probes.numel() ** 0.5


@kept
def _probes(side: int, dtype: torch.dtype, device: str) -> Tensor:
    """Vectors of random signs, ``(side, 4)``."""
    signs = torch.randint(2, (side, 4), generator=torch.Generator().manual_seed(0))
    return (2 * signs - 1).to(dtype).to(device)


def _is_small(matrix: Tensor) -> bool:
    """Whether rounding of float32 does not show; asked on the CPU alone, elsewhere the answer would be waited for."""
    if matrix.dtype in (torch.float64, torch.complex128) or matrix.device.type != "cpu":
        return False
    real = torch.view_as_real(matrix).flatten(-2) if matrix.is_complex() else matrix  # forty times as quick
    return float(torch.linalg.vector_norm(real, dim=-1).amax()) ** 2 < SMALL


def _inverse_of_shifted(matrix: Tensor) -> tuple[Tensor, bool]:
    """``(I + A)^-1 = (I - A^2)^-1 (I - A)``, A skew-Hermitian, and whether it needs no Newton step.

    One Cholesky factorisation, of a matrix whose condition is the square of that of ``I + A``.
    """
    eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    core = torch.cholesky_inverse(torch.linalg.cholesky(matrix @ matrix.mH))
    return core @ (2 * eye - matrix), _is_small(matrix)


def _inverse_of_positive(matrix: Tensor) -> Tensor:
    """M = H + S with H = L L^H the Hermitian and S the skew part, so M = L (I + T) L^H with T = L^-1 S L^-H skew."""
    hermitian = 0.5 * (matrix + matrix.mH)
    skew = 0.5 * (matrix - matrix.mH)
    eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    lower = torch.linalg.cholesky(hermitian)
    inverse_lower = torch.linalg.solve_triangular(lower, eye.expand_as(matrix), upper=False)
    t = inverse_lower @ skew @ inverse_lower.mH
    core = _inverse_of_shifted(eye + t)[0]
    return inverse_lower.mH @ core @ inverse_lower


def of_norm(weight: Tensor, scale: Tensor) -> Tensor:
    """``scale K / ||K||_F`` of kernels ``(..., O, I, k, k)`` and numbers ``(...)``; 0 for K = 0, gradients finite."""
    norm = torch.linalg.vector_norm(weight, dim=(-4, -3, -2, -1))
    norm = norm + (norm < torch.finfo(norm.dtype).tiny)
    return weight * (scale / norm)[..., None, None, None, None]


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
        return 2 * _Inverse.apply(eye + skew, True) - eye
    inverse = _Inverse.apply(eye + skew + lower.mH @ lower, False)
    return torch.cat((2 * inverse - eye, -2 * lower @ inverse), dim=-2)
