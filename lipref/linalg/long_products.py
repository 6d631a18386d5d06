"""Products of a small matrix with a long one, as a kernel's few taps are mapped to its many values.

A library's product shares the columns among the cores, which wait for each other block after block. Where they share no
cache, as on processors of several dies, they wait longer than they work: two cores then take longer than one. Some rows
at a time are a product that is not shared, and each core makes its own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

ROWS = 13  # of one product; measured with MKL
LONG = 2**12  # columns from which the waiting counts


def small_times_long(matrix: Tensor, values: Tensor) -> Tensor:
    """``matrix @ values``, ``(R, K)`` and ``(K, N)``, for N much larger than R and K."""
    rows, parts = len(matrix), _parts(matrix, values)
    if parts == 1:
        return matrix @ values
    each = -(-rows // parts)
    split = F.pad(matrix, (0, 0, 0, parts * each - rows)).view(parts, each, -1)
    return torch.bmm(split, values.expand(parts, -1, -1)).flatten(0, 1)[:rows]


def _parts(matrix: Tensor, values: Tensor) -> int:
    """An even number, for an even number of cores."""
    if len(matrix) <= ROWS or values.shape[1] < LONG or values.device.type != "cpu":
        return 1
    return 2 * -(-len(matrix) // (2 * ROWS))
