"""Operators of several layers, prepared in one batched call where their method can."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from lipref.layers.base import LipschitzConv2d


@contextmanager
def prepared_together(layers: Iterable[LipschitzConv2d]) -> Iterator[None]:
    """Within it the training passes of layers that are alike use operators that were prepared in one call.

    The same function, to rounding, in fewer and larger operations. The layers' gradients flow through that call: one
    backward pass for each entry. Layers in evaluation, and those without a `LipschitzConv2d.likeness`, are left alone.
    """
    groups: dict[object, list[LipschitzConv2d]] = {}
    for layer in dict.fromkeys(layers):
        key = layer.likeness() if layer.training else None
        if key is not None:
            groups.setdefault((type(layer), key), []).append(layer)
    given: list[LipschitzConv2d] = []
    try:
        for group in groups.values():
            if len(group) > 1:
                for layer, operator in zip(group, type(group[0]).prepare_alike(group), strict=True):
                    layer.__dict__["_prepared"] = operator  # not by setattr, which drops what is kept
                    given.append(layer)
        yield
    finally:
        for layer in given:
            layer.__dict__.pop("_prepared", None)
