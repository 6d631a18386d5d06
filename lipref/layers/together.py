"""Operators of several layers, prepared in one batched call where their method can."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from lipref.layers.base import LipschitzConv2d, Size


@contextmanager
def prepared_together(
    layers: Iterable[LipschitzConv2d], sizes: Mapping[LipschitzConv2d, Size] | None = None
) -> Iterator[None]:
    """Within it the training passes of layers that are alike use operators that were prepared in one call.

    The same function, to rounding, in fewer and larger operations. The layers' gradients flow through that call: one
    backward pass for each entry. Layers in evaluation, and those without a `LipschitzConv2d.likeness`, are left alone.

    Args:
        layers: Which ones.
        sizes: (H, W) of their images, where known: some methods ask for it.
    """
    sizes = {} if sizes is None else sizes
    groups: dict[object, list[LipschitzConv2d]] = {}
    for layer in dict.fromkeys(layers):
        key = layer.likeness(sizes.get(layer)) if layer.training else None
        if key is not None:
            groups.setdefault((type(layer), key), []).append(layer)
    given: list[LipschitzConv2d] = []
    try:
        for group in groups.values():
            if len(group) > 1:
                operators = type(group[0]).prepare_alike(group, sizes.get(group[0]))
                for layer, operator in zip(group, operators, strict=True):
                    layer.__dict__["_prepared"] = operator  # not by setattr, which drops what is kept
                    given.append(layer)
        yield
    finally:
        for layer in given:
            layer.__dict__.pop("_prepared", None)
