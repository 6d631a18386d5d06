"""Matrices times the inverse square root of their Gram matrices, by coupled Newton-Schulz steps."""

import torch
from torch import Tensor


def whitened(v: Tensor, steps: int, ridge: float = 1e-4) -> Tensor:
    """``(V V^H + ridge I)^(-1/2) V`` after ``steps`` coupled Newton steps; for O > I ``V (V^H V + ridge I)^(-1/2)``.

    With ``S = V V^H + ridge I`` and ``nu = ||S||_F + ridge``: Y = S / nu, Z = I; repeat ``T = (3 I - Z Y) / 2``,
    ``Y <- Y T``, ``Z <- T Z``. Y tends to the root and Z to the inverse root of ``S / nu``; the result is
    ``Z V / sqrt(nu)``. Where eigenvalues are far below nu it has not converged, and is too small, never too large.

    Every iterate is a polynomial in S. On a CPU it is evaluated on the eigenvalues, which costs less than the products
    and gives the same function and gradient; on other devices by the products, differentiated step by step.

    Source: Xu, Li, Li, "LOT", NeurIPS 2022.

    Args:
        v: V, ``(..., O, I)``, real or complex.
        steps: their number, at least 1.
        ridge: added to the diagonal, and to the norm.

    Returns:
        ``(..., O, I)``.
    """
    if v.shape[-2] > v.shape[-1]:
        return whitened(v.mH, steps, ridge).mH
    return _OnEigenvalues.apply(v, steps, ridge)[0] if v.device.type == "cpu" else by_products(v, steps, ridge)


def by_products(v: Tensor, steps: int, ridge: float = 1e-4) -> Tensor:
    """`whitened` of ``v`` ``(..., O, I)``, O <= I, as it is defined."""
    eye = torch.eye(v.shape[-2], dtype=v.dtype, device=v.device)
    shifted = v @ v.mH + ridge * eye
    nu = torch.linalg.matrix_norm(shifted, keepdim=True) + ridge
    y = shifted / nu
    t = z = 1.5 * eye - 0.5 * y  # the first step, where Z = I
    for _ in range(steps - 1):
        y = y @ t
        t = 1.5 * eye - 0.5 * (z @ y)
        z = t @ z
    return z @ v / nu.sqrt()


class _OnEigenvalues(torch.autograd.Function):
    """`whitened` for O <= I; the eigenvalues of S and their vectors U are returned for the backward pass alone."""

    generate_vmap_rule = True

    @staticmethod
    def forward(v: Tensor, steps: int, ridge: float) -> tuple[Tensor, Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(v @ v.mH)
        values = values.clamp_min(0) + ridge  # below 0 by rounding only
        nu = torch.linalg.vector_norm(values, dim=-1, keepdim=True) + ridge
        roots = _iterates(values / nu, steps)[-1] / nu.sqrt()
        return vectors @ (roots[..., None] * (vectors.mH @ v)), values, vectors

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor, int, float], output: tuple[Tensor, Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)  # no zeros for what has no gradient
        ctx.save_for_backward(inputs[0], *output[1:])
        ctx.steps, ctx.ridge = inputs[1:]

    @staticmethod
    def backward(ctx, grad: Tensor | None, *_: None) -> tuple[Tensor | None, None, None]:
        if grad is None:
            return None, None, None
        v, values, vectors = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated again, which equal eigenvalues do not allow
            _, gradient = torch.func.vjp(lambda v: by_products(v, ctx.steps, ctx.ridge), v)
            return gradient(grad)[0], None, None
        norm = torch.linalg.vector_norm(values, dim=-1, keepdim=True)
        nu = norm + ctx.ridge
        x = values / nu
        iterates = _iterates(x, ctx.steps)
        roots = iterates[-1] / nu.sqrt()
        inner, grad = vectors.mH @ v, vectors.mH @ grad
        of_root = grad @ inner.mH
        # Daleckii and Krein: in the eigenbasis the derivative multiplies by the function's divided differences.
        slopes = _divided_differences(x, iterates) * nu[..., None] ** -1.5
        by_nu = -(0.5 * roots + values * slopes.diagonal(dim1=-2, dim2=-1)) / nu
        through_nu = (of_root.diagonal(dim1=-2, dim2=-1).real * by_nu).sum(-1, keepdim=True) * values / norm
        of_gram = slopes * of_root + torch.diag_embed(through_nu)
        return vectors @ ((of_gram + of_gram.mH) @ inner + roots[..., None] * grad), None, None


def _iterates(x: Tensor, steps: int) -> list[Tensor]:
    """Z before the first and after every step, of numbers ``x`` in [0, 1]: there ``Y = x Z``."""
    iterates = [torch.ones_like(x)]
    for _ in range(steps):
        z = iterates[-1]
        iterates.append(z * (1.5 - 0.5 * x * z * z))
    return iterates


def _divided_differences(x: Tensor, iterates: list[Tensor]) -> Tensor:
    """Of the last iterate as a function of ``x`` ``(..., m)``, ascending, for all pairs: ``(..., m, m)``.

    By the product rule: from those D of z to those of ``(3 z - x z^3) / 2``. With x the smaller of a pair and z^3 that
    of the larger, whose iterate is the smaller, the factor of D and what is added keep their signs: nothing cancels.
    So pairs below the diagonal, where rows have the larger number, are taken from above it.
    """
    found = torch.zeros_like(x[..., :, None] + x[..., None, :])
    for z in iterates[:-1]:
        row, other = (-0.5 * x)[..., :, None], z[..., None, :]
        linear = torch.addcmul(row * z[..., :, None], row, other)
        factor = torch.addcmul(1.5 + row * z[..., :, None] ** 2, linear, other)
        found = torch.addcmul(-0.5 * other**3, factor, found)
    return found.triu() + found.triu(1).mT
