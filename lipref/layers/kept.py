"""Whether the weights are still those that a kept operator was made from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

TOGETHER = 8  # tensors whose differences are in memory at once


def same_values(pairs: Sequence[tuple[Mapping[str, Tensor], Mapping[str, Tensor]]]) -> bool:
    """Whether all tensors of the same name are equal in dtype, device, shape and every value.

    NaN differs from itself, so an operator made from NaN is never kept. For all tensors on CUDA together one answer is
    waited for; there an infinity counts as a change.
    """
    tensors = []
    for one, other in pairs:
        if one.keys() != other.keys():
            return False
        tensors += [(tensor, other[name]) for name, tensor in one.items()]
    if any((a.dtype, a.device, a.shape) != (b.dtype, b.device, b.shape) for a, b in tensors):
        return False
    if not all(torch.equal(a, b) for a, b in tensors if not a.is_cuda):
        return False
    on_cuda = [(a, b) for a, b in tensors if a.is_cuda and a.numel()]
    return not on_cuda or not bool(distance(on_cuda) != 0)


@torch.no_grad()
def distance(pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """A number ``()`` that is 0 where all pairs are equal, and anything else, NaN among it, where not.

    The two of a pair have one shape, dtype and device. Nothing waits for the device; an infinity counts as a change.
    """
    real = [
        tuple(torch.view_as_real(each) for each in pair) if pair[0].is_complex() else pair
        for pair in pairs
        if pair[0].is_floating_point() or pair[0].is_complex()
    ]
    others = [pair for pair in pairs if not (pair[0].is_floating_point() or pair[0].is_complex())]
    sizes = [(a != b).any().double() for a, b in others]
    for number in range(0, len(real), TOGETHER):
        differences = torch._foreach_sub(*map(list, zip(*real[number : number + TOGETHER], strict=True)))
        sizes += torch._foreach_norm(differences, 1)  # squares might underflow
    return torch.stack([size if size.dtype == torch.float64 else size.double() for size in sizes]).sum()


@contextmanager
def checked(layers: Iterable[nn.Module]) -> Iterator[None]:
    """Within it layers in evaluation take their kept operators unseen, because all of them were looked at at once.

    Where anything has changed each layer looks for itself. Not looked at are layers that somebody answers for already.
    """
    # Each read once: another thread may replace it.
    found = [(layer, layer._kept) for layer in layers if "_checked" not in layer.__dict__]
    kept = {layer: operator[2] for layer, operator in found if operator is not None}
    fresh = bool(kept) and same_values([(layer._state(), made_from) for layer, made_from in kept.items()])
    try:
        for layer in kept if fresh else ():
            layer.__dict__["_checked"] = True  # not by setattr, which drops what is kept
        yield
    finally:
        for layer in kept if fresh else ():
            layer.__dict__.pop("_checked", None)
