"""A layer without its parametrisation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lipref.errors import LiprefError

if TYPE_CHECKING:
    from lipref.layers.base import LipschitzConv2d, Size


class Folded(nn.Module):
    """The evaluated function of a layer at one image size: constants, an input transformation, nothing to train."""

    def __init__(self, layer: LipschitzConv2d, size: Size) -> None:
        super().__init__()
        self.size = size
        bare = object.__new__(type(layer))  # the layer's plain attributes, for its transform
        bare.__dict__.update(layer.__dict__)
        bare.__dict__.update(_cached=None, _given=None, training=False, _parameters={}, _buffers={})
        self.__dict__["_bare"] = bare  # no submodule: there is no layer in here any more
        operator = layer.operator(size)
        self._complex = {name for name, value in operator.items() if value.is_complex()}
        for name, value in operator.items():
            # Complex numbers as pairs, so that they follow .float() and .double() as everything else does.
            self.register_buffer(name, (torch.view_as_real(value) if value.is_complex() else value).clone())

    def forward(self, x: Tensor) -> Tensor:
        if tuple(x.shape[-2:]) != self.size:
            given = tuple(x.shape[-2:])
            raise LiprefError(f"folded for images of {self.size}, not {given}; fold the layer again for this size")
        operator = {name: torch.view_as_complex(b) if name in self._complex else b for name, b in self._buffers.items()}
        return self._bare.transform(x, operator)

    def extra_repr(self) -> str:
        return f"{type(self._bare).__name__}, size={self.size}"
