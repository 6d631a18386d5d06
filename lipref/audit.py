"""The Lipschitz bound of a network from those of its layers."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import nn

from lipref.activations import MaxMin
from lipref.layers import LipschitzConv2d
from lipref.nets import ConvNet, FirstChannels, PadChannels

# Constant 1 in exact arithmetic: permutations, projections, isometric embeddings.
NOT_EXPANDING = (MaxMin, PadChannels, FirstChannels, nn.PixelUnshuffle, nn.Flatten)


@dataclass(frozen=True)
class Audit:
    """Upper bounds per layer and their product.

    ``bound`` is None where a part of the network brings no bound; ``unproved`` then names those parts. ``layers`` is
    a list of ``(name, type, (H, W), bound)``, bound None where there is none.
    """

    bound: float | None
    layers: list[tuple[str, str, tuple[int, int], float | None]]
    unproved: list[str]


def network_bound(model: ConvNet) -> Audit:
    """Rigorous upper bound of a `ConvNet`'s Lipschitz constant in evaluation.

    It is the product of its layers' bounds, rounded upwards. Each bound is for the real-arithmetic map that the stored
    weights define, in float64. A user's layer takes part with its own ``lipschitz_bound(size)``; where it has none, or
    one that is not a positive finite number, nothing is proved about the network.
    """
    model = copy.deepcopy(model).to("cpu").double().eval()
    x = torch.zeros(1, model.in_channels, model.image_size, model.image_size, dtype=torch.float64)
    rows, unproved, product = [], [], 1.0
    for name, module in model.named_children():
        size = tuple(x.shape[-2:])
        if type(module) not in NOT_EXPANDING:
            bound = _layer_bound(module, size)
            rows.append((name, type(module).__name__, size, bound))
            if bound is None:
                unproved.append(name)
            else:
                product = math.nextafter(product * bound, math.inf)
        if not isinstance(module, LipschitzConv2d):  # those keep the image size
            with torch.no_grad():
                x = module(x)
        else:
            x = x.new_zeros(1, module.out_channels, *size)
    return Audit(None if unproved else product, rows, unproved)


def _layer_bound(module: nn.Module, size: tuple[int, int]) -> float | None:
    method = getattr(module, "lipschitz_bound", None)
    if method is None:
        return None
    try:
        bound = float(method(size))
    except NotImplementedError:
        return None
    return bound if math.isfinite(bound) and bound > 0 else None
