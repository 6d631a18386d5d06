"""The inverse square root of positive semidefinite matrices by coupled Newton steps, in three equal ways."""

import functools

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lipref.linalg.inverse_root import inverse_root
from lipref.linalg.lyapunov import lyapunov

CONVERGED = 1e-6  # of I - Z Y, after which the steps' number does not matter
FEW = 6  # steps up to which they are done as defined


def whitened(v: Tensor, terms: int, ridge: float = 1e-4) -> Tensor:
    """``(V V^H + ridge I)^(-1/2) V`` after ``terms`` coupled Newton steps; for O > I ``V (V^H V + ridge I)^(-1/2)``.

    With ``S = V V^H + ridge I`` and ``nu = ||S||_F + ridge``: Y = S / nu, Z = I; repeat ``T = (3 I - Z Y) / 2``,
    ``Y <- Y T``, ``Z <- T Z``. Y tends to the root and Z to the inverse root of ``S / nu``; the result is
    ``Z V / sqrt(nu)``. Where eigenvalues are far below nu it has not converged, and is too small, never too large.

    All iterates are polynomials in S. On the CPU they are evaluated on its eigenvalues, which costs less than the
    products and gives the same function and gradient; elsewhere by products, which suit the device better: in float32
    by fewer than the steps have, where these converge.

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
    if v.is_cuda and v.dtype in (torch.float32, torch.complex64):
        return _WhitenedByProducts.apply(v, terms, ridge)
    return whitened_by_products(v, terms, ridge)


def whitened_by_products(v: Tensor, terms: int, ridge: float = 1e-4) -> Tensor:
    """`whitened` of ``v`` ``(..., O, I)``, O <= I, by matrix products as it is defined."""
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


class _WhitenedByProducts(torch.autograd.Function):
    """`whitened` for O <= I by products, of which three tensors of V's size are kept.

    Where the steps converge the result is ``S^(-1/2) V`` itself, found by `inverse_root`, and nu has no gradient. Those
    matrices whose eigenvalues are too small for that go the defined way, and keep two tensors for each step.

    Counted in products of the size of ``V V^H``: forward those of `inverse_root`, and 2; backward those of `lyapunov`,
    and 4. Where S differs from a multiple of I by 0.03 of it: 4 and 6; by 0.4: 7 and 8; by 0.8: 9 and 9; with
    eigenvalues that differ by 50: 9 to 13 and 9 to 12. By the defined way, with 10 steps: 29 and 49, beside the attempt
    that failed; autograd makes 29 and 58, and keeps three tensors for each step.
    """

    @staticmethod
    def forward(ctx, v: Tensor, terms: int, ridge: float) -> Tensor:
        shape, v = v.shape, v.reshape(-1, *v.shape[-2:])
        s = _shifted_gram(v, ridge)
        nu = torch.linalg.matrix_norm(s, keepdim=True) + ridge
        root = inverse_root(s, _converging(terms) * nu) if terms > FEW else None
        ctx.converges, ctx.ridge = root is not None and len(root.missed) < len(v), ridge
        if not ctx.converges:
            steps = _steps_of_matrices(s / nu, terms)
            q = steps[-1][1] @ v / nu.sqrt()
            ctx.save_for_backward(v, *(tensor for step in steps for tensor in step))
        else:
            q, missed, steps = root.inverse @ v, root.missed, []
            if len(missed):
                some, norms = s.index_select(0, missed), nu.index_select(0, missed)
                steps = _steps_of_matrices(some / norms, terms)
                q.index_copy_(0, missed, steps[-1][1] @ v.index_select(0, missed) / norms.sqrt())
            saved = (v, q, *root[:2], missed)
            ctx.save_for_backward(*saved, *(tensor for step in steps for tensor in step))
            ctx.interval = root.interval
        return q.view(shape)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        shape, grad = grad.shape, grad.reshape(-1, *grad.shape[-2:])
        if not ctx.converges:
            v, *steps = ctx.saved_tensors
            return _defined_gradient(v, grad, steps, ctx.ridge).view(shape), None, None
        v, q, inverse, scale, missed, *steps = ctx.saved_tensors
        # With R = S^(1/2): dQ = dR^-1 V + R^-1 dV and dR^-1 = -R^-1 dR R^-1, where R dR + dR R = dS.
        result = inverse @ grad
        of_root = _hermitian(result @ q.mH, -0.5)
        r = torch.baddbmm(inverse, v, q.mH, beta=ctx.ridge)
        x = lyapunov(of_root, r, inverse, scale, ctx.interval)  # the derivative of R is its own adjoint
        result = torch.baddbmm(result, x, v, alpha=2)
        if len(missed):
            some = (each.index_select(0, missed) for each in (v, grad))
            result.index_copy_(0, missed, _defined_gradient(*some, steps, ctx.ridge))
        return result.view(shape), None, None


def _shifted_gram(v: Tensor, ridge: float) -> Tensor:
    """``V V^H + ridge I``."""
    s = v @ v.mH
    s.diagonal(dim1=-2, dim2=-1).add_(ridge)
    return s


def _hermitian(a: Tensor, factor: float) -> Tensor:
    """``factor (A + A^H)``."""
    return (a + a.mH).mul_(factor)


@functools.cache
def _converging(terms: int) -> float:
    """The smallest eigenvalue of Y = S / nu whose 1 - z y is at most `CONVERGED` after that many steps."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        e = 1 - middle
        for _ in range(terms):
            e = e * e * (3 + e) / 4
        low, high = (low, middle) if e <= CONVERGED else (middle, high)
    return high


def _steps_of_matrices(x: Tensor, terms: int) -> list[tuple[Tensor, Tensor]]:
    """``E = I - Z Y`` before, and Z after each of ``terms`` coupled steps from Y = x ``(n, m, m)`` and Z = I."""
    eye = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    e, y = eye - x, x
    z = t = eye + 0.5 * e
    steps = [(e, z)]
    for _ in range(terms - 1):
        y = y @ t
        e = torch.baddbmm(eye, z, y, alpha=-1)
        t = eye + 0.5 * e
        z = t @ z
        steps.append((e, z))
    return steps


def _defined_gradient(v: Tensor, grad: Tensor, steps: list[Tensor], ridge: float) -> Tensor:
    """Of the loss with respect to V ``(n, O, I)``, through all steps and through nu; ``grad`` is that to the result.

    The derivative of Z as a function of the Hermitian S is its own adjoint: it is taken in the gradient's direction.
    ``steps`` are those of `_steps_of_matrices`, one tensor after the other.
    """
    s = _shifted_gram(v, ridge)
    norm = torch.linalg.matrix_norm(s, keepdim=True)
    nu = norm + ridge
    of_z = _hermitian(grad @ v.mH, 0.5)
    dz = _derivative(of_z, steps[::2], steps[1::2])
    # Z(S) = z(S / nu) nu^(-1/2), and nu has the gradient S / ||S||.
    through_nu = -0.5 * _inner(of_z, steps[-1]) - _inner(dz, s / nu)
    of_s = torch.addcmul(dz, through_nu / norm, s) / (nu * nu.sqrt())
    return torch.baddbmm((steps[-1] @ grad) / nu.sqrt(), of_s, v, alpha=2)


def _derivative(dx: Tensor, rests: list[Tensor], roots: list[Tensor]) -> Tensor:
    """Of the last Z of `_steps_of_matrices` in the direction ``dx``, Hermitian, by 5 products each step.

    As functions of S, E becomes ``E^2 (3 I + E) / 4`` and Z becomes ``(I + E / 2) Z``.
    """
    de = -dx
    dz = 0.5 * de
    for before, e, z in zip(rests, rests[1:], roots, strict=False):
        once = before @ de
        twice = torch.baddbmm(once, before, once, beta=3)
        de = torch.baddbmm(twice + twice.mH, once, before).mul_(0.25)
        dz = torch.baddbmm(torch.baddbmm(dz, e, dz, alpha=0.5), de, z, alpha=0.5)
    return dz


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """The real inner product of each pair of matrices, ``(n, 1, 1)``."""
    a, b = (torch.view_as_real(each).flatten(-2) if each.is_complex() else each for each in (a, b))
    return (a * b).sum((-2, -1), keepdim=True)


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
