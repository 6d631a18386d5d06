"""Places on a torus, as the taps of a kernel see them."""

from __future__ import annotations

import torch
from torch import Tensor

from lipref.linalg.constants import kept


@kept
def torus_shifts(side: int, k: int, sign: int, device: str) -> Tensor:
    """Flat places ``x + sign (p - (k - 1) / 2)`` on a torus of ``side x side``, int64, ``(k * k, side * side)``.

    For every tap p and every place x. With sign 1 a product with the taps is `conv2d_same`, with -1 its adjoint.
    """
    taps = sign * (torch.arange(k) - (k - 1) // 2)
    one = (torch.arange(side) + taps[:, None]) % side  # (k, side)
    places = one[:, None, :, None] * side + one[None, :, None, :]
    return places.reshape(k * k, side * side).to(device)
