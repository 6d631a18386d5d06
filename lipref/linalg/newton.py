"""The inverse square root of positive semidefinite matrices by coupled Newton steps, in two equal ways."""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def inverse_root(gram: Tensor, terms: int, ridge: float = 1e-4) -> Tensor:
    """``(G + ridge I)^(-1/2)`` for Hermitian positive semidefinite G, after ``terms`` coupled Newton steps.

    With ``S = G + ridge I`` and ``nu = ||S||_F + ridge``: Y = S / nu, Z = I; repeat ``T = (3 I - Z Y) / 2``,
    ``Y <- Y T``, ``Z <- T Z``. Y tends to the root and Z to the inverse root of ``S / nu``; the result is
    ``Z / sqrt(nu)``. Where eigenvalues are far below nu it has not converged, and is too small, never too large.

    All iterates are polynomials in S. On the CPU they are evaluated on its eigenvalues, which costs less than the
    products and gives the same function and gradient; elsewhere by products, which suit the device better.

    Source: Xu, Li, Li, "LOT", NeurIPS 2022.

    Args:
        gram: G, ``(..., m, m)``, real or complex.
        terms: number of steps, at least 1.
        ridge: added to the diagonal, and to the norm.

    Returns:
        ``(..., m, m)``, differentiable once.
    """
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    shifted = gram + ridge * eye
    nu = torch.linalg.matrix_norm(shifted, keepdim=True) + ridge
    steps = _SpectralNewton.apply if gram.device.type == "cpu" else newton_by_products
    return steps(shifted / nu, terms) / nu.sqrt()


def newton_by_products(y: Tensor, terms: int) -> Tensor:
    """Z after ``terms`` coupled steps from Y ``(..., m, m)`` and Z = I, by matrix products."""
    eye = torch.eye(y.shape[-1], dtype=y.dtype, device=y.device)
    t = z = 1.5 * eye - 0.5 * y  # the first step, where Z = I
    for _ in range(terms - 1):
        y = y @ t
        t = 1.5 * eye - 0.5 * (z @ y)
        z = t @ z
    return z


class _SpectralNewton(torch.autograd.Function):
    """`newton_by_products` of a Hermitian matrix, on its eigenvalues; saves the eigendecomposition only."""

    @staticmethod
    def forward(ctx, matrix: Tensor, terms: int) -> Tensor:
        values, vectors = torch.linalg.eigh(matrix)
        ctx.save_for_backward(values, vectors)
        ctx.terms = terms
        y, z = values, torch.ones_like(values)
        for _ in range(terms):
            t = 1.5 - 0.5 * z * y
            y, z = y * t, t * z
        return (vectors * z[..., None, :]) @ vectors.mH

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        values, vectors = ctx.saved_tensors
        # Daleckii and Krein: the derivative multiplies, in the eigenbasis, by the divided differences of the scalar
        # function. They follow the recurrence by the product rule D[fg] = f_i D[g] + D[f] g_j, without cancellation.
        y, z = values, torch.ones_like(values)
        dy = torch.ones_like(grad.real)
        dz = torch.zeros_like(dy)
        for _ in range(ctx.terms):
            t = 1.5 - 0.5 * z * y
            dt = -0.5 * (z[..., :, None] * dy + dz * y[..., None, :])
            dy = y[..., :, None] * dt + dy * t[..., None, :]
            dz = z[..., :, None] * dt + dz * t[..., None, :]
            y, z = y * t, t * z
        inner = vectors.mH @ grad @ vectors
        return vectors @ (dz * inner) @ vectors.mH, None
