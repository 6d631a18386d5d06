"""Places on a torus, as the taps of a kernel see them."""

from __future__ import annotations

import torch
from torch import Tensor

from lipref.linalg.constants import kept


@kept
def torus_shifts(size: tuple[int, int], k: int, sign: int, device: str) -> Tensor:
    """Flat places ``x + sign (p - (k - 1) / 2)`` on a torus of ``size`` ``(H, W)``, int64, ``(k * k, H * W)``.

    For every tap p and every place x. With sign 1 a product with the taps is `conv2d_same`, with -1 its adjoint.
    """
    taps = sign * (torch.arange(k) - (k - 1) // 2)
    rows, columns = ((torch.arange(side) + taps[:, None]) % side for side in size)  # (k, H), (k, W)
    places = rows[:, None, :, None] * size[1] + columns[None, :, None, :]
    return places.flatten(0, 1).flatten(1).to(device)
