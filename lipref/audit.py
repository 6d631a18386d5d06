"""The Lipschitz bound of a network from those of its layers."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import nn

from lipref.activations import MaxMin
from lipref.errors import LiprefError
from lipref.layers import LipschitzConv2d
from lipref.nets import ConvNet, FirstChannels, PadChannels

# Constant 1 in exact arithmetic: permutations, projections, isometric embeddings.
NOT_EXPANDING = (MaxMin, PadChannels, FirstChannels, nn.PixelUnshuffle, nn.Flatten)


# A network that is constant still needs something to divide by.
TINY = 1e-30


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

    The product of its layers' bounds, rounded upwards. Each is for the real-arithmetic map that the stored weights
    define, in float64. A user's layer takes part with its own ``lipschitz_bound(size)``. Nothing is proved where a
    layer has none, where its bound is inherited but its map overridden, or where a hook could change a module's result.

    Raises:
        LiprefError: not a plain `ConvNet`, or a layer that fails in float64.
    """
    if type(model) is not ConvNet or "forward" in vars(model):
        raise LiprefError(
            f"{type(model).__name__} is not a plain ConvNet; only the networks of lipref.nets are audited"
        )
    model = copy.deepcopy(model).to("cpu").double().eval()
    x = torch.zeros(1, model.in_channels, model.image_size, model.image_size, dtype=torch.float64)
    rows, unproved, product = [], ["hooks"] if _hooked(model) else [], 1.0
    for name, module in model._modules.items():  # not named_children(): that leaves out a module that comes twice
        size = (x.shape[-2], x.shape[-1])
        if _hooked(module):
            unproved.append(name)
        elif type(module) not in NOT_EXPANDING:
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


# What a bound speaks of. A class that overrides one of these must bring a bound of its own.
_MAP = {
    "__call__", "forward", "transform", "prepare", "operator", "float64_twin",
    "_skew", "_sigma", "_unfoldings", "_terms", "_estimate", "margin",
}  # fmt: skip


def _layer_bound(module: nn.Module, size: tuple[int, int]) -> float | None:
    if not callable(getattr(module, "lipschitz_bound", None)):
        return None
    for cls in type(module).__mro__:
        if _MAP & vars(cls).keys() and "lipschitz_bound" not in vars(cls) and not cls.__module__.startswith("lipref."):
            return None
        if "lipschitz_bound" in vars(cls):
            break
    if (_MAP | {"lipschitz_bound"}) & vars(module).keys():  # overridden on the instance
        return None
    try:
        bound = float(module.lipschitz_bound(size))
    except NotImplementedError:
        return None
    return max(bound, TINY) if math.isfinite(bound) and bound >= 0 else None


def _hooked(module: nn.Module) -> bool:
    """Whether a hook of this module, of one inside it, or of all modules could change what it computes."""
    everywhere = (nn.modules.module._global_forward_hooks, nn.modules.module._global_forward_pre_hooks)
    inside = (hooks for m in module.modules() for hooks in (m._forward_hooks, m._forward_pre_hooks))
    return any(everywhere) or any(inside)
