"""Vectors of power iteration that a layer keeps as buffers and updates once in each training pass."""

from __future__ import annotations

import torch
from torch import Tensor

from lipref.errors import LiprefError
from lipref.layers.base import LipschitzConv2d, in_backward, under_torch_func


class PowerIterationConv2d(LipschitzConv2d):
    """A layer with such vectors; a recomputation by checkpointing repeats a pass, and updates none."""

    def _start_of_pass(self, *vectors: Tensor) -> tuple[Tensor, ...]:
        """Where power iteration starts: at ``vectors``, and in a recomputation where the pass did."""
        if torch.compiler.is_compiling() or under_torch_func():  # whose tensors do not outlive the pass
            return vectors
        if not in_backward():
            self._started = tuple(vector.clone() for vector in vectors)
        return self._started

    @torch.no_grad()
    def _update(self, buffers: tuple[Tensor, ...], vectors: tuple[Tensor, ...]) -> None:
        """Copy ``vectors`` into ``buffers``, unless the pass is a recomputation.

        Raises:
            LiprefError: a transform of torch.func that the buffers are no argument of.
        """
        if in_backward():
            return
        try:
            for buffer, vector in zip(buffers, vectors, strict=True):
                buffer.copy_(vector)
        except RuntimeError:
            if not under_torch_func():
                raise
            raise LiprefError(
                f"{type(self).__name__} updates its buffers in training: give torch.func.functional_call the buffers "
                "too, or set track_power_vectors=False"
            ) from None
