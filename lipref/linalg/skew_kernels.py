"""A skew kernel divided by its estimated norm, with few passes over memory, for training on a CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lipref.linalg.by_hand import again, asked_otherwise, derives_backwards, in_full, is_usual
from lipref.linalg.padding import adjoint_kernel


def applies(weight: Tensor) -> bool:
    """Whether `normalised` may take the place of operations that autograd knows."""
    return is_usual(weight) and torch.is_grad_enabled() and weight.requires_grad and derives_backwards()


def _spread(vector: Tensor, k: int) -> Tensor:
    """``(k, m k k)``: the map from (i h w) to h that for each h is the ``vector`` over (i w)."""
    rows = vector.new_zeros(k, len(vector) // k, k, k)
    rows.diagonal(0, 0, 2).copy_(vector.view(-1, k, 1))
    return rows.flatten(1)


def power_iteration(kernel: Tensor, u1: Tensor, u2: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], ...]:
    """``v = A u / ||A u||`` and ``u <- A^T v / ||A^T v||`` for two unfoldings A of a kernel ``(m, m, k, k)``.

    Both at once, by one product each way with the kernel as it lies in memory: of a vector over (i w) the unfolding
    (o h, i w) is k products of (o, i h w).

    Args:
        u1: over (i w), ``(m k,)``, for the unfolding (o h, i w).
        u2: over (i h w), ``(m k k,)``, for the unfolding (o, i h w).

    Returns:
        u, v and ``v^T A u`` for each of the two.
    """
    m, _, k, _ = kernel.shape
    flat = kernel.flatten(1)
    images = flat @ torch.cat((u2[None], _spread(u1, k))).mT
    v2, v1 = F.normalize(images[:, 0], dim=0), F.normalize(images[:, 1:].flatten(), dim=0)
    images = torch.cat((v2[None], v1.view(m, k).mT)) @ flat
    found = []
    for image, v in ((images[1:].view(k, m, k, k).diagonal(0, 0, 2).sum(-1).flatten(), v1), (images[0], v2)):
        u = F.normalize(image, dim=0)
        found.append((u, v, image.dot(u)))
    return tuple(found)


class _Normalised(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight: Tensor, u1: Tensor, u2: Tensor, norm: float) -> tuple[Tensor, ...]:
        difference = _minus_adjoint(weight)
        (u1, v1, first), (u2, v2, second) = power_iteration(difference, u1, u2)
        sigma = torch.minimum(first, second)  # not a number where one of them is not
        ctx.first, ctx.norm, ctx.factor = bool(first < second), norm, _factor(norm, sigma)
        kernel = difference.mul_(ctx.factor)
        # All vectors, so that what is kept has the same shapes where it is computed anew.
        ctx.save_for_backward(weight, kernel, u1, v1, u2, v2)
        ctx.mark_non_differentiable(u1, v1, u2, v2)
        ctx.set_materialize_grads(False)
        return kernel, u1, v1, u2, v2

    @staticmethod
    @in_full
    def backward(ctx, grad: Tensor, *_: None) -> tuple[Tensor | None, ...]:
        """``f (G - G~)`` of ``G = grad - <grad, K> v u^T / norm``: it is ``K = norm D / (v^T D u)``, ``D = M - M~``."""
        weight, kernel, *vectors = ctx.saved_tensors
        u, v = vectors[:2] if ctx.first else vectors[2:]
        if asked_otherwise(grad):
            return *again(ctx, grad, lambda weight: _of_constant_vectors(weight, u, v, ctx.norm), weight), *[None] * 3
        flat = grad.flatten(1)
        share = flat.flatten().dot(kernel.flatten()) / -ctx.norm * ctx.factor  # a tensor, which may be infinite
        if len(v) == len(kernel):
            of_difference = torch.addr(flat, v * share, u, beta=ctx.factor)
        else:
            of_difference = torch.addmm(flat, *_sides(u, v * share, kernel), beta=ctx.factor)
        return _minus_adjoint(of_difference.view(kernel.shape)), None, None, None


def _minus_adjoint(kernel: Tensor) -> Tensor:
    """``M - M~``, twice the skew part, whose norms are twice those of it."""
    if kernel.shape[-1] > 1:
        return kernel - adjoint_kernel(kernel)
    # A copy along its rows, which is nobody else's.
    adjoint = kernel.flatten(1).mT.clone(memory_format=torch.contiguous_format).view(kernel.shape)
    return kernel - adjoint if torch.is_grad_enabled() else torch.sub(kernel, adjoint, out=adjoint)


def _factor(norm: float, sigma: Tensor) -> float:
    """0 for a kernel of zeros, as with one channel and one tap."""
    if sigma == 0:
        return 0.0
    largest, factor = torch.finfo(sigma.dtype).max, norm / float(sigma)
    return largest if factor > largest else factor  # as it is, where it is not a number


def _sides(u: Tensor, v: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
    """``v u^T`` of an unfolding as a product ``(m, r) (r, m k k)``, r = 1 or k."""
    m, _, k, _ = kernel.shape
    return (v[:, None], u[None]) if len(v) == m else (v.view(m, k), _spread(u, k))


def _of_constant_vectors(weight: Tensor, u: Tensor, v: Tensor, norm: float) -> Tensor:
    difference = _minus_adjoint(weight)
    left, right = _sides(u, v, difference)
    sigma = ((difference.flatten(1) @ right.mT) * left).sum()
    vanishing = sigma == 0
    return difference * torch.where(vanishing, 0.0, norm / torch.where(vanishing, 1.0, sigma))


def normalised(weight: Tensor, u1: Tensor, u2: Tensor, norm: float) -> tuple[Tensor, ...]:
    """``norm S / sigma`` of the skew part S of a kernel ``(m, m, k, k)``, after a `power_iteration`.

    sigma is the smaller of the two estimates ``v^T A u``, and differentiated with its vectors constant.

    Returns:
        The kernel, and u1, v1, u2 and v2 without gradient: copies, because a layer's own move on at its next pass.
    """
    return _Normalised.apply(weight, u1, u2, norm)
