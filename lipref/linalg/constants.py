"""Constant tensors, made once for each device and cached there: no call waits for a copy from the host."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")


def cached(make: Callable[P, T]) -> Callable[P, T]:
    """``make`` of hashable arguments, a device's name among them, called once for each; nobody may change the result.

    Cached for good: a CUDA graph may read it long after. Under a mode in which tensors have shapes alone, as when
    operations are counted, it is made anew at each call.
    """

    @functools.cache
    def once(*args: P.args, **kwargs: P.kwargs) -> T:
        with torch.inference_mode(False):  # else autograd could not use it later
            return make(*args, **kwargs)

    @functools.wraps(make)
    def found(*args: P.args, **kwargs: P.kwargs) -> T:
        usual = type(torch.empty(0, device="cpu")) is torch.Tensor
        return once(*args, **kwargs) if usual else make(*args, **kwargs)

    found.cache_clear, found.cache_info = once.cache_clear, once.cache_info
    return found
