"""How images lie in memory while a network is trained on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lipref.layers.base import LipschitzConv2d

FEW, MANY = 64, 16 * 16  # channels, and places: then what a convolution does to reorder its images costs the most


def laid_out(x: Tensor, module: nn.Module) -> Tensor:
    """Images ``(N, C, H, W)`` as ``module`` trains quickest on them: the same values.

    Large images of few channels with these innermost, for this library's convolutions; all others, and those for
    modules of the user's own, row by row. What is neither, as an activation, gets them as they are.
    """
    if x.dim() != 4 or x.device.type != "cpu" or torch.compiler.is_compiling() or "forward" in module.__dict__:
        return x
    if not isinstance(module, LipschitzConv2d):
        return x if type(module).__module__.startswith(("lipref.", "torch.")) else x.contiguous()  # view() counts on it
    ours = module.convolves and type(module).transform.__module__.startswith("lipref.")
    few = x.shape[1] <= FEW and x.shape[2] * x.shape[3] >= MANY
    innermost = ours and few and x.dtype == torch.float32 and torch.is_grad_enabled()
    order = torch.channels_last if innermost else torch.contiguous_format
    return x if x.is_contiguous(memory_format=order) else _InOrder.apply(x, order)


class _InOrder(torch.autograd.Function):
    """Images in an order in memory, and their gradient in the order that they had: sums of gradients mix no orders."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, order: torch.memory_format) -> Tensor:
        return x.contiguous(memory_format=order)

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor, torch.memory_format], output: Tensor) -> None:
        innermost = not inputs[0].is_contiguous() and inputs[0].is_contiguous(memory_format=torch.channels_last)
        ctx.order = torch.channels_last if innermost else torch.contiguous_format

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return grad.contiguous(memory_format=ctx.order), None
