"""Operators of layers of equal shape, prepared in one batched call."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from lipref.layers.base import LipschitzConv2d, Operator, Size


class _Prepare(nn.Module):
    """`prepare` of a layer as a forward pass, which is what `functional_call` calls."""

    def __init__(self, layer: LipschitzConv2d) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, size: Size) -> Operator:
        return self.layer.prepare(size)


def prepare_batched(layers: Sequence[LipschitzConv2d], size: Size) -> list[Operator]:
    """`LipschitzConv2d.prepare` of several layers, vectorised by `torch.func.vmap` over their stacked parameters.

    The same operators, gradients and updated buffers as one by one, to rounding, in fewer and larger operations; one
    backward pass goes through all of them.

    Args:
        layers: Of one class, with equal settings, shapes, dtypes and devices; `begin_pass` is the caller's.
        size: (H, W) of their images.
    """
    parameters = {name: torch.stack([layer.get_parameter(name) for layer in layers])
                  for name, _ in layers[0].named_parameters()}  # fmt: skip
    buffers = {name: torch.stack([layer.get_buffer(name) for layer in layers])
               for name, _ in layers[0].named_buffers()}  # fmt: skip
    module = _Prepare(layers[0])

    def prepare(*tensors: Mapping[str, Tensor]) -> Operator:
        return functional_call(module, {f"layer.{name}": x for each in tensors for name, x in each.items()}, (size,))

    stacked = vmap(prepare)(parameters, buffers)
    with torch.no_grad():
        for name, values in buffers.items():
            torch._foreach_copy_([layer.get_buffer(name) for layer in layers], list(values.unbind()))
    rows = {name: value.unbind() for name, value in stacked.items()}
    return [{name: values[number] for name, values in rows.items()} for number in range(len(layers))]


def prepare_together(sizes: Mapping[LipschitzConv2d, Size]) -> dict[LipschitzConv2d, Operator]:
    """Operators of all these layers for training, those of equal shape and image size in one call each."""
    groups: dict[Hashable, list[LipschitzConv2d]] = {}
    for layer, size in sizes.items():
        # A user's own may decide by values, which a batched call cannot.
        ours = type(layer).__module__.startswith("lipref.")
        groups.setdefault((_likeness(layer), size) if ours else id(layer), []).append(layer)
    operators = {}
    for group in groups.values():
        size = sizes[group[0]]
        alone = len(group) == 1
        operators |= zip(group, [group[0].prepare(size)] if alone else prepare_batched(group, size), strict=True)
    return operators


def _likeness(layer: LipschitzConv2d) -> Hashable:
    """Class, settings, and the tensors' names, shapes, dtypes and devices."""
    tensors = [*layer.named_parameters(), *layer.named_buffers()]
    settings = {name: value for name, value in vars(layer).items() if isinstance(value, int | float | str | None)}
    return (
        type(layer),
        *sorted(settings.items()),
        *((name, each.shape, each.dtype, each.device, each.requires_grad) for name, each in tensors),
    )
