"""The inverse square root of positive semidefinite matrices by coupled Newton steps, in two equal ways."""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def whitened(v: Tensor, terms: int, ridge: float = 1e-4) -> Tensor:
    """``(V V^H + ridge I)^(-1/2) V`` after ``terms`` coupled Newton steps; for O > I ``V (V^H V + ridge I)^(-1/2)``.

    With ``S = V V^H + ridge I`` and ``nu = ||S||_F + ridge``: Y = S / nu, Z = I; repeat ``T = (3 I - Z Y) / 2``,
    ``Y <- Y T``, ``Z <- T Z``. Y tends to the root and Z to the inverse root of ``S / nu``; the result is
    ``Z V / sqrt(nu)``. Where eigenvalues are far below nu it has not converged, and is too small, never too large.

    All iterates are polynomials in S. On the CPU they are evaluated on its eigenvalues, which costs less than the
    products and gives the same function and gradient; elsewhere by products, which suit the device better.

    Source: Xu, Li, Li, "LOT", NeurIPS 2022.

    Args:
        v: V, ``(..., O, I)``, real or complex.
        terms: number of steps, at least 1.
        ridge: added to the diagonal, and to the norm.

    Returns:
        ``(..., O, I)``, differentiable once.
    """
    if v.shape[-2] > v.shape[-1]:
        return whitened(v.mH, terms, ridge).mH
    if v.device.type == "cpu":
        return _SpectrallyWhitened.apply(v, terms, ridge)
    return whitened_by_products(v, terms, ridge)


def whitened_by_products(v: Tensor, terms: int, ridge: float = 1e-4) -> Tensor:
    """`whitened` of ``v`` ``(..., O, I)``, O <= I, by matrix products."""
    eye = torch.eye(v.shape[-2], dtype=v.dtype, device=v.device)
    shifted = v @ v.mH + ridge * eye
    nu = torch.linalg.matrix_norm(shifted, keepdim=True) + ridge
    y = shifted / nu
    t = z = 1.5 * eye - 0.5 * y  # the first step, where Z = I
    for _ in range(terms - 1):
        y = y @ t
        t = 1.5 * eye - 0.5 * (z @ y)
        z = t @ z
    return z @ v / nu.sqrt()


class _SpectrallyWhitened(torch.autograd.Function):
    """`whitened` for O <= I, on the eigenvalues of ``V V^H``: three products forward and four backward.

    In the basis U of the eigenvectors, ``U^H V`` is all that both passes need of V.
    """

    @staticmethod
    def forward(ctx, v: Tensor, terms: int, ridge: float) -> Tensor:
        values, vectors = torch.linalg.eigh(v @ v.mH)
        values = values.clamp_min(0) + ridge  # below 0 by rounding only
        nu = torch.linalg.vector_norm(values, dim=-1, keepdim=True) + ridge
        roots = _steps(values / nu, terms)[-1] / nu.sqrt()
        inner = vectors.mH @ v
        ctx.save_for_backward(values, vectors, inner, roots)
        ctx.terms, ctx.ridge = terms, ridge
        return vectors @ (roots[..., None] * inner)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        values, vectors, inner, roots = ctx.saved_tensors
        grad = vectors.mH @ grad
        of_root = grad @ inner.mH
        norm = torch.linalg.vector_norm(values, dim=-1, keepdim=True)
        nu = norm + ctx.ridge
        # Daleckii and Krein: the derivative multiplies, in the eigenbasis, by the divided differences of the scalar
        # function.
        slopes = _divided_differences(values / nu, ctx.terms) * nu[..., None] ** -1.5
        by_nu = -(0.5 * roots + values * slopes.diagonal(dim1=-2, dim2=-1)) / nu
        through_nu = (of_root.diagonal(dim1=-2, dim2=-1).real * by_nu).sum(-1, keepdim=True) * values / norm
        of_gram = slopes * of_root
        of_gram.diagonal(dim1=-2, dim2=-1).add_(through_nu)
        result = (of_gram + of_gram.mH) @ inner
        return vectors @ result.add_(grad.mul_(roots[..., None])), None, None


def _steps(x: Tensor, terms: int) -> tuple[Tensor, Tensor]:
    """Z after ``terms - 1`` and after ``terms`` coupled steps from the numbers Y = x and Z = 1."""
    y, z = x, torch.ones_like(x)
    before = z
    for _ in range(terms):
        t = 1.5 - 0.5 * z * y
        before, y, z = z, y * t, t * z
    return before, z


def _divided_differences(x: Tensor, terms: int) -> Tensor:
    """Of the function that takes x to Z after ``terms`` steps, for all pairs of ``x`` ``(..., m)``: ``(..., m, m)``."""
    before, z = _steps(x, terms)
    if bool((1 - x * before * before).abs().amax() <= 8 * torch.finfo(x.dtype).eps):
        # Converged a step earlier, the derivative too: z is 1 / sqrt(x).
        root = x * z
        return -z[..., :, None] * z[..., None, :] / (root[..., :, None] + root[..., None, :])
    # They follow the recurrence by the product rule D[fg] = f_i D[g] + D[f] g_j, without cancellation.
    y, z = x, torch.ones_like(x)
    dy = torch.ones_like(x[..., :, None] + x[..., None, :])
    dz = torch.zeros_like(dy)
    for _ in range(terms):
        t = 1.5 - 0.5 * z * y
        dt = -0.5 * (z[..., :, None] * dy + dz * y[..., None, :])
        dy = y[..., :, None] * dt + dy * t[..., None, :]
        dz = z[..., :, None] * dt + dz * t[..., None, :]
        y, z = y * t, t * z
    return dz
