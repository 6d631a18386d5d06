"""A polynomial of a convolution, whose backward pass may keep one tensor in place of one per term."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lipref.linalg import matrix_polynomial, torus_chains
from lipref.linalg.padding import adjoint_kernel, circular_pad, conv2d_same


class _Polynomial(torch.autograd.Function):
    """Horner: from ``y_T = x`` by ``y_{j-1} = x + r_j L y_j`` to ``y_0``; saves x and the kernel."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, ratios: Tensor, padding_mode: str) -> Tensor:
        ctx.padding_mode = padding_mode
        # x is for the gradient of the kernel alone.
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight, ratios)
        *_, y = _partial_sums(x, weight, ratios, padding_mode)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight, steps = ctx.saved_tensors
        wants_x, wants_weight = ctx.needs_input_grad[:2]
        mode = ctx.padding_mode
        sums: list[Tensor] = []
        if wants_weight:
            sums = [y for y, _ in zip(_partial_sums(x, weight, steps, mode), steps, strict=False)]
        adjoint = adjoint_kernel(weight)
        total, kernel = grad.clone(), torch.zeros_like(weight) if wants_weight else None
        for place, step in enumerate(steps):
            if wants_weight:
                kernel.addcmul_(_kernel_gradient(sums.pop(), grad, weight, mode), step)
            if wants_x or place + 1 < len(steps):
                grad = conv2d_same(grad, adjoint, None, mode).mul_(step)
                total += grad
        return total if wants_x else None, kernel, None, None


def convolution_polynomial(
    x: Tensor, weight: Tensor, ratios: Tensor, padding_mode: str, recompute: bool = False
) -> Tensor:
    """``sum_j c_j L^j x``, ``c_0 = 1``, for the convolution L with ``weight`` ``(C, C, k, k)``; x ``(N, C, H, W)``.

    Args:
        ratios: ``c_j / c_{j-1}`` of the polynomial, ``(T,)``, without gradient: 1, 1/2, ..., 1/T for the exponential.
        padding_mode: of `conv2d_same`.
        recompute: the backward pass computes the partial sums anew: T - 1 more convolutions, for T - 1 fewer tensors of
            the size of x that are kept. Differentiable once.
    """
    if recompute:
        return _Polynomial.apply(x, weight, ratios, padding_mode)
    if weight.requires_grad:
        if torus_chains.pays(x, weight, padding_mode, len(ratios)):
            return torus_chains.polynomial(x, weight, ratios.tolist(), padding_mode)
        if matrix_polynomial.pays(x, weight):
            return matrix_polynomial.matrix_polynomial(x, weight, ratios.tolist())
    *_, y = _partial_sums(x, weight, ratios, padding_mode)
    return y


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


def _kernel_gradient(x: Tensor, grad: Tensor, weight: Tensor, padding_mode: str) -> Tensor:
    """Of `conv2d_same` by its kernel."""
    pad = weight.shape[-1] // 2
    if padding_mode == "circular":
        x, pad = circular_pad(x, pad), 0
    return torch.nn.grad.conv2d_weight(x, weight.shape, grad, padding=pad)
