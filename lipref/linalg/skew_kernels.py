"""A skew kernel divided by its estimated norm, with few passes over memory, for training on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from lipref.linalg.by_hand import again, asked_otherwise, derives_backwards, in_full, is_usual

TINY = 1e-12  # of `torch.nn.functional.normalize`


def pays(weight: Tensor) -> bool:
    """Whether `normalised` is quicker than operations that autograd knows."""
    return is_usual(weight) and torch.is_grad_enabled() and weight.requires_grad and derives_backwards()


def _normalise(vector: Tensor) -> Tensor:
    return vector / torch.linalg.vector_norm(vector).clamp_min(TINY)


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
    v2, v1 = _normalise(images[:, 0]), _normalise(images[:, 1:].flatten())
    images = torch.cat((v2[None], v1.view(m, k).mT)) @ flat
    found = []
    for image, v in ((images[1:].view(k, m, k, k).diagonal(0, 0, 2).sum(-1).flatten(), v1), (images[0], v2)):
        u = _normalise(image)
        found.append((u, v, image.dot(u)))
    return tuple(found)


class _Normalised(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight: Tensor, u1: Tensor, u2: Tensor, norm: float) -> tuple[Tensor, ...]:
        difference = _minus_adjoint(weight)  # twice the skew part, and so are its norms
        found = power_iteration(difference, u1, u2)
        u, v, sigma = min(found, key=lambda each: float(each[2]))
        ctx.norm, ctx.factor = norm, _factor(norm, sigma)
        kernel = difference.mul_(ctx.factor)
        ctx.save_for_backward(weight, kernel, u, v)
        vectors = [each for u, v, _ in found for each in (u, v)]
        ctx.mark_non_differentiable(*vectors)
        return kernel, *vectors

    @staticmethod
    @in_full
    def backward(ctx, grad: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
        weight, kernel, u, v = ctx.saved_tensors
        if asked_otherwise(grad):
            return *again(ctx, grad, lambda weight: _of_constant_vectors(weight, u, v, ctx.norm), weight), *[None] * 3
        # The kernel is norm D / (v^T D u) of the difference D.
        flat = grad.flatten(1)
        share = -ctx.factor / ctx.norm * float(flat.flatten().dot(kernel.flatten()))
        if len(v) == len(kernel):
            of_difference = torch.addr(flat, v, u, beta=ctx.factor, alpha=share)
        else:
            of_difference = torch.addmm(flat, *_sides(u, v, kernel), beta=ctx.factor, alpha=share)
        return _minus_adjoint(of_difference.view(kernel.shape)), None, None, None


def _minus_adjoint(kernel: Tensor) -> Tensor:
    """In two passes over memory, one of them along its rows."""
    if kernel.shape[-1] == 1:
        return kernel - kernel.flatten(1).mT.contiguous().view(kernel.shape)
    return kernel - kernel.flip(2, 3).transpose(0, 1)


def _factor(norm: float, sigma: Tensor) -> float:
    """0 for a kernel of zeros, as with one channel and one tap."""
    return norm / float(sigma) if sigma != 0 else 0.0


def _sides(u: Tensor, v: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
    """``v u^T`` of an unfolding as a product ``(m, r) (r, m k k)``."""
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
        The kernel, and u1, v1, u2 and v2 without gradient.
    """
    return _Normalised.apply(weight, u1, u2, norm)
