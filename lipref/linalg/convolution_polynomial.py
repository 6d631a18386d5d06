"""A polynomial of a convolution, whose backward pass may keep one tensor in place of one per term."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor

from lipref.linalg import matrix_polynomial, torus_chains
from lipref.linalg.by_hand import again, asked_otherwise, derives_backwards, in_full, is_usual
from lipref.linalg.padding import circular_pad, conv2d_same


class _Polynomial(torch.autograd.Function):
    """Horner: from ``y_T = x`` by ``y_{j-1} = x + r_j L y_j`` to ``y_0``.

    Saves the kernel, and x where the kernel is trained.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, ratios: Tensor, padding_mode: str) -> Tensor:
        ctx.padding_mode, ctx.shape = padding_mode, x.shape
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight, ratios)
        return _horner(x, weight, ratios, padding_mode)

    @staticmethod
    @in_full
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight, ratios = ctx.saved_tensors
        mode, (wants_x, wants_weight, *_) = ctx.padding_mode, ctx.needs_input_grad
        if asked_otherwise(grad):
            # The gradient of x, which alone is wanted where x was not saved, does not depend on it.
            given = weight.new_zeros(ctx.shape).requires_grad_() if x is None else x, weight
            return *again(ctx, grad, lambda *given: _horner(*given, ratios, mode), *given), None, None
        sums: list[Tensor] = []
        if wants_weight:
            sums = list(islice(_partial_sums(x, weight, ratios, mode), len(ratios)))
        total, of_weight = grad, torch.zeros_like(weight) if wants_weight else None
        for place, ratio in enumerate(ratios):
            y = sums.pop() if wants_weight else grad  # not read then
            wanted = wants_x or place + 1 < len(ratios), wants_weight
            grad, of_kernel = _gradients(y, grad, weight * ratio, mode, wanted)
            if wants_weight:
                of_weight.addcmul_(of_kernel, ratio)
            if wanted[0]:
                total = total + grad
        return total if wants_x else None, of_weight, None, None


def convolution_polynomial(
    x: Tensor, weight: Tensor, ratios: Tensor, padding_mode: str, recompute: bool = False
) -> Tensor:
    """``sum_j c_j L^j x``, ``c_0 = 1``, for the convolution L with ``weight`` ``(C, C, k, k)``; x ``(N, C, H, W)``.

    Args:
        ratios: ``c_j / c_{j-1}`` of the polynomial, ``(T,)``, without gradient: 1, 1/2, ..., 1/T for the exponential.
        padding_mode: of `conv2d_same`.
        recompute: the backward pass computes the partial sums anew: T - 1 more convolutions, for T - 1 fewer tensors of
            the size of x that are kept.
    """
    if weight.requires_grad:
        if torus_chains.pays(x, weight, padding_mode, len(ratios)):
            return torus_chains.polynomial(x, weight, ratios.tolist(), padding_mode, recompute)
        if matrix_polynomial.pays(x, weight):
            return matrix_polynomial.matrix_polynomial(x, weight, ratios.tolist(), recompute)
    if _evaluates_on_cpu(x, weight):
        # The library turns images around in each convolution, unless they lie so for all of them.
        innermost = x.contiguous(memory_format=torch.channels_last)
        return _horner(innermost, weight, ratios, padding_mode).contiguous()
    if recompute and derives_backwards():
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(weight.dtype)  # as its sum with what is convolved then; the backward pass is outside of autocast
        return _Polynomial.apply(x, weight, ratios, padding_mode)
    return _horner(x, weight, ratios, padding_mode)


def _partial_sums(x: Tensor, weight: Tensor, ratios: Tensor, padding_mode: str) -> Iterator[Tensor]:
    """``y_T`` to ``y_0``."""
    y = x
    yield y
    # On CUDA, and where the kernel is trained, the smaller of the two is scaled: a factor of the images is a pass over
    # memory each way. The sum is in place: nobody else has what a convolution gives.
    scaled = (x.is_cuda or weight.requires_grad) and weight.numel() < x.numel()
    for ratio in ratios.flip(0):
        if scaled:
            product = conv2d_same(y, weight * ratio, None, padding_mode)
            y = product.add_(x) if product.dtype == x.dtype else x + product
        else:
            y = torch.addcmul(x, ratio, conv2d_same(y, weight, None, padding_mode))
        yield y


def _horner(x: Tensor, weight: Tensor, ratios: Tensor, padding_mode: str) -> Tensor:
    # The last of them, while nobody holds those before it.
    return deque(_partial_sums(x, weight, ratios, padding_mode), maxlen=1).pop()


def _evaluates_on_cpu(x: Tensor, weight: Tensor) -> bool:
    """Without gradients, where images with channels innermost are convolved quicker."""
    here = is_usual(x) and x.dim() == 4 and x.dtype == weight.dtype == torch.float32 and weight.shape[-1] > 1
    return here and not torch.is_grad_enabled() and derives_backwards()


def _gradients(
    x: Tensor, grad: Tensor, weight: Tensor, padding_mode: str, wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Of `conv2d_same` by ``x`` and by its kernel, both by one call of the library, where they are ``wanted``."""
    pad, padded = weight.shape[-1] // 2, x
    circular = padding_mode == "circular" and pad > 0
    if circular:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            padded = circular_pad(x, pad)
        pad = 0
    of_padded, of_weight, _ = torch.ops.aten.convolution_backward(
        grad, padded.detach(), weight, None, (1, 1), (pad, pad), (1, 1), False, (0, 0), 1, (*wanted, False)
    )
    of_x = torch.autograd.grad(padded, x, of_padded)[0] if circular and wanted[0] else of_padded
    return of_x, of_weight
