"""A polynomial of a 1x1 convolution on images of few places, by products of matrices, for training on a CPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lipref.linalg.by_hand import again, asked_otherwise, derives_backwards, in_full
from lipref.linalg.padding import images_of, places, trains_by_places


def pays(x: Tensor, weight: Tensor) -> bool:
    """Whether it is quicker than one convolution after the other."""
    return derives_backwards() and weight.shape[-1] == 1 and x.dtype == weight.dtype and trains_by_places(x)


def _partial_sums(x: Tensor, weight: Tensor, ratios: Sequence[float]) -> Tensor:
    """Of Horner's scheme, ``(T, M, C)``: x, and what follows it but for the result."""
    sums = x.new_empty(len(ratios), *x.shape)
    sums[0] = x
    for y, following, ratio in zip(sums, sums[1:], reversed(ratios), strict=False):
        torch.addmm(x, y, weight.mT, alpha=ratio, out=following)
    return sums


class _Polynomial(torch.autograd.Function):
    """Of ``x`` ``(M, C)``; the gradient of ``weight`` ``(C, C)`` is one product for all terms."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, ratios: Sequence[float], recompute: bool) -> Tensor:
        ctx.ratios = ratios
        if recompute:
            ctx.save_for_backward(x, weight, None)
            return _horner(x, weight, ratios)
        sums = _partial_sums(x, weight, ratios)
        ctx.save_for_backward(x, weight, sums)
        return torch.addmm(x, sums[-1], weight.mT, alpha=ratios[0])

    @staticmethod
    @in_full
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, sums = ctx.saved_tensors
        if asked_otherwise(grad):
            return *again(ctx, grad, lambda x, weight: _horner(x, weight, ctx.ratios), x, weight), None, None
        for_x, for_weight, *_ = ctx.needs_input_grad
        if for_weight and sums is None:
            sums = _partial_sums(x, weight, ctx.ratios)
        scaled = x.new_empty(len(ctx.ratios), *x.shape)
        each = total = grad
        for term, ratio in enumerate(ctx.ratios, 1):
            each = torch.mul(each, ratio, out=scaled[-term])
            if for_x or term < len(ctx.ratios):
                each = each @ weight
                total = total + each
        of_weight = scaled.flatten(0, 1).mT @ sums.flatten(0, 1) if for_weight else None
        return total if for_x else None, of_weight, None, None


def _horner(x: Tensor, weight: Tensor, ratios: Sequence[float]) -> Tensor:
    y = x
    for ratio in reversed(ratios):
        y = torch.addmm(x, y, weight.mT, alpha=ratio)
    return y


def matrix_polynomial(x: Tensor, weight: Tensor, ratios: Sequence[float], recompute: bool = False) -> Tensor:
    """`lipref.linalg.convolution_polynomial.convolution_polynomial` of a 1x1 kernel ``(C, C, 1, 1)``."""
    return images_of(_Polynomial.apply(places(x), weight.flatten(1), ratios, recompute), x.shape)
