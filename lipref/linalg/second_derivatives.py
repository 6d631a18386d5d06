"""Backward passes written by hand: gradients with a graph of their own, and their dtype."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor


def again(ctx, grad: Tensor, function: Callable[..., Tensor], *given: Tensor | None) -> list[Tensor | None]:
    """Gradients with a graph of their own, by the direct way ``function``."""
    places = [place for place, value in enumerate(given) if value is not None and ctx.needs_input_grad[place]]
    found: list[Tensor | None] = [None] * len(given)
    # By other names: one of them may be made of another, as a step of its kernel, and that way is not this function's.
    names = [None if value is None else value.view_as(value) for value in given]
    gradients = torch.autograd.grad(function(*names), [names[place] for place in places], grad, create_graph=True)
    for place, gradient in zip(places, gradients, strict=True):
        found[place] = gradient
    return found


def in_full(backward: Callable[..., tuple[Tensor | None, ...]]) -> Callable[..., tuple[Tensor | None, ...]]:
    """In the dtype of the forward pass, also where an autocast is on when the backward pass is asked for."""

    @functools.wraps(backward)
    def full(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast("cpu", enabled=False):
            return backward(ctx, grad)

    return full
