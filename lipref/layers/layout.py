"""How images lie in memory while a network is trained on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lipref.layers.base import LipschitzConv2d
from lipref.linalg.cuda_kernels import stands_for_others

# Where what a convolution does to reorder its images costs the most.
FEW_CHANNELS, MANY_PLACES = 64, 16 * 16


def laid_out(x: Tensor, module: nn.Module) -> Tensor:
    """Images ``(N, C, H, W)`` as ``module`` trains quickest on them: the same values.

    Large images of few channels with these innermost, for this library's convolutions; all others, and those for
    modules of the user's own or with hooks, row by row, because ``Tensor.view`` counts on it. What is neither, as an
    activation, gets them as they are.
    """
    if x.dim() != 4 or x.device.type != "cpu" or stands_for_others(x) or torch.compiler.is_compiling():
        return x
    if "forward" in module.__dict__:  # `lipref.forward` decides
        return x
    if not isinstance(module, LipschitzConv2d) and all(map(_ours, module.modules())):
        return x
    few = x.shape[1] <= FEW_CHANNELS and x.shape[2] * x.shape[3] >= MANY_PLACES
    innermost = few and _trains_innermost(module) and x.dtype == torch.float32 and torch.is_grad_enabled()
    order = torch.channels_last if innermost else torch.contiguous_format
    return x if x.is_contiguous(memory_format=order) else _InOrder.apply(x, order)


def _ours(module: nn.Module) -> bool:
    return type(module).__module__.startswith(("lipref.", "torch."))


def _trains_innermost(module: nn.Module) -> bool:
    """Whether it is a layer in training whose pass is this library's own convolutions."""
    if not isinstance(module, LipschitzConv2d) or not (module.convolves and module.training):
        return False
    own = all(getattr(type(module), name).__module__.startswith("lipref.") for name in ("forward", "transform"))
    return own and not (module._forward_hooks or module._forward_pre_hooks)


class _InOrder(torch.autograd.Function):
    """Images in an order in memory, and their gradient in the order that they had: sums of gradients mix no orders."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, order: torch.memory_format) -> Tensor:
        return x.contiguous(memory_format=order)

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor, torch.memory_format], output: Tensor) -> None:
        ctx.order = order_of(inputs[0])

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return in_order(grad, ctx.order), None


def order_of(x: Tensor) -> torch.memory_format:
    """Of images in memory: channels innermost, or row by row."""
    innermost = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if innermost else torch.contiguous_format


def in_order(grad: Tensor, order: torch.memory_format) -> Tensor:
    """A gradient in the order of the images that it is for: with it, no sum or product mixes two."""
    return grad if stands_for_others(grad) else grad.contiguous(memory_format=order)
