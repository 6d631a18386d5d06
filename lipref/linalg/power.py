"""Power iteration for the norms of convolutions on a torus."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

from lipref.linalg.constants import kept
from lipref.linalg.torus import torus_shifts


@kept
def _seen_places(size: tuple[int, int], k: int, device: str) -> Tensor:
    return torus_shifts(size, k, 1, device).flatten()


@kept
def _sent_places(size: tuple[int, int], k: int, device: str) -> Tensor:
    """In ``(k k, H W)`` products of all taps: those that arrive at each place, tap by tap."""
    places = torus_shifts(size, k, -1, device)
    return (places + places.shape[1] * torch.arange(k * k, device=device)[:, None]).flatten()


class _Form(torch.autograd.Function):
    """``v^T K u`` of each kernel, whose value is known, as a function of K alone."""

    generate_vmap_rule = True

    @staticmethod
    def forward(weights: Tensor, v: Tensor, seen: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1], inputs[2])
        ctx.shape = inputs[0].shape

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        v, seen = ctx.saved_tensors
        return ((grad[:, None, None] * v) @ seen.mT).view(ctx.shape), None, None, None


def power_iterations(weights: Tensor, u: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """``u <- K^T v / ||K^T v||`` with ``v = K u / ||K u||``, and the last ``||K^T v||``, an estimate from below.

    The estimate is ``v^T K u`` with the new u, and differentiated by K with both vectors constant. Convolutions are
    products with what every tap sees of the maps.

    Args:
        weights: L kernels ``(L, O, I, k, k)``.
        u: feature maps on a torus, ``(L, I, H, W)``.

    Returns:
        u, without gradient, and the estimates ``(L,)``.
    """
    count, _, inputs, k, _ = weights.shape
    size, tiny = tuple(u.shape[-2:]), torch.finfo(u.dtype).tiny
    there, back = (each(size, k, str(u.device)) for each in (_seen_places, _sent_places))

    def seen(maps: Tensor) -> Tensor:
        """``(L, I k k, H W)`` from maps ``(L, I, H W)``."""
        return maps.index_select(2, there).view(count, inputs * k * k, -1)

    forwards = forward_ad._current_level >= 0
    with torch.no_grad():
        known = forward_ad.unpack_dual(weights).primal if forwards else weights
        matrices, u = known.flatten(2), u.flatten(2)
        for _ in range(iterations):
            v = matrices @ seen(u)
            v = v / torch.linalg.vector_norm(v, dim=(1, 2), keepdim=True).clamp_min(tiny)
            sent = (matrices.mT @ v).view(count, inputs, -1).index_select(2, back)
            image = sent.view(count, inputs, k * k, -1).sum(2)
            sigma = torch.linalg.vector_norm(image, dim=(1, 2))
            u = image / sigma[:, None, None].clamp_min(tiny)
        by_taps = seen(u)
    if forwards:  # which needs the form itself
        return u.unflatten(2, size), (v * (weights.flatten(2) @ by_taps)).sum((1, 2))
    return u.unflatten(2, size), _Form.apply(weights, v, by_taps, sigma)
