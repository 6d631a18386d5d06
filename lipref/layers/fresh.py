"""Copies of networks that keep no operators."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn

from lipref.layers.base import LipschitzConv2d

M = TypeVar("M", bound=nn.Module)


def fresh_copy(model: M) -> M:
    """A copy in evaluation whose layers prepare their operators anew, whatever the original has kept."""
    twin = copy.deepcopy(model).eval()
    for module in twin.modules():
        if isinstance(module, LipschitzConv2d):
            module._kept = None
    return twin
