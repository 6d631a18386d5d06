"""Ways of training that are written by hand: where they are taken on a CPU, and what their backward passes share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from lipref.linalg.cuda_kernels import stands_for_others

_direct = ContextVar("direct", default=False)


@contextmanager
def direct_ways() -> Iterator[None]:
    """Within it nothing is done by hand: for what counts operations on numbers."""
    token = _direct.set(True)
    try:
        yield
    finally:
        _direct.reset(token)


def is_usual(value: Tensor) -> bool:
    """Whether it is PyTorch's own on a CPU, neither compiled nor within an autocast or `direct_ways`.

    Tensors of other classes, as of what counts operations, have shapes alone.
    """
    own = type(value) in (Tensor, nn.Parameter) and value.device.type == "cpu"
    return own and not (torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu") or _direct.get())


def trains_on_cpu(x: Tensor) -> bool:
    """Whether images ``x`` ``(N, C, H, W)`` that are `is_usual` take part in training.

    Evaluation without gradients is direct.
    """
    return is_usual(x) and x.dim() == 4 and x.numel() > 0 and torch.is_grad_enabled()


def derives_backwards() -> bool:
    """Whether derivatives are autograd's usual ones; torch.func and forward mode need the direct way."""
    return not torch._C._are_functorch_transforms_active() and forward_ad._current_level < 0


def asked_otherwise(grad: Tensor) -> bool:
    """Whether a backward pass needs operations that autograd knows: to be differentiated, or for many ``grad``."""
    return torch.is_grad_enabled() or stands_for_others(grad)


def again(ctx, grad: Tensor, function: Callable[..., Tensor], *given: Tensor | None) -> list[Tensor | None]:
    """The gradients where they are `asked_otherwise`, by the direct way ``function``."""
    places = [place for place, value in enumerate(given) if value is not None and ctx.needs_input_grad[place]]
    found: list[Tensor | None] = [None] * len(given)
    graph = torch.is_grad_enabled()
    with torch.enable_grad():
        # By other names: one may be made of another, as a step of its kernel, and that way is not this function's.
        if graph:
            names = [None if value is None else value.view_as(value) for value in given]
        else:
            names = [None if value is None else value.detach() for value in given]
            for place in places:
                names[place].requires_grad_()
        y = function(*names)
        gradients = torch.autograd.grad(y, [names[place] for place in places], grad, create_graph=graph)
    for place, gradient in zip(places, gradients, strict=True):
        found[place] = gradient
    return found


def in_full(backward: Callable[..., tuple[Tensor | None, ...]]) -> Callable[..., tuple[Tensor | None, ...]]:
    """In the dtype of the forward pass, also where an autocast is on when the backward pass is asked for."""

    @functools.wraps(backward)
    def full(ctx, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        device = next((grad.device.type for grad in grads if grad is not None), "cpu")
        with torch.autocast(device, enabled=False):
            return backward(ctx, *grads)

    return full
