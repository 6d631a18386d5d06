"""Places on a torus, as the taps of a kernel see them."""

from __future__ import annotations

import functools

import torch
from torch import Tensor


@functools.lru_cache(maxsize=64)
def torus_shifts(side: int, k: int, sign: int, device: str) -> Tensor:
    """Flat places ``x + sign (p - (k - 1) / 2)`` on a torus of ``side x side``, int64, ``(k * k, side * side)``.

    For every tap p and every place x. With sign 1 a product with the taps is `conv2d_same`, with -1 its adjoint.
    """
    with torch.inference_mode(False):
        taps = sign * (torch.arange(k) - (k - 1) // 2)
        one = (torch.arange(side) + taps[:, None]) % side  # (k, side)
        places = one[:, None, :, None] * side + one[None, :, None, :]
        return places.reshape(k * k, side * side).to(device)
