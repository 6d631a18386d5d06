"""The self-correlation of a kernel."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

WIDE = 128  # channels from which products of taps are quicker than one convolution on a CPU


def input_gram(weight: Tensor) -> Tensor:
    """``G[i, j, delta] = sum_o sum_p weight[o, i, p] weight[o, j, p + delta]`` for ``weight`` ``(O, I, k, k)``.

    Returns ``(I, I, 2k-1, 2k-1)``: the kernel of (adjoint convolution) o (convolution), over all shifts where the
    taps overlap.
    """
    if max(weight.shape[:2]) >= WIDE or weight.is_cuda:  # there a convolution may round to TF32
        return _products(weight)
    transposed = weight.transpose(0, 1)
    return F.conv2d(transposed, transposed, padding=weight.shape[-1] - 1).transpose(0, 1)


def _products(weight: Tensor) -> Tensor:
    """`input_gram` by one product per pair of taps, half of them: ``G[j, i, -delta] = G[i, j, delta]``."""
    k = weight.shape[-1]
    taps = weight.permute(2, 3, 0, 1).contiguous()
    places = list(itertools.product(range(k), repeat=2))
    half: dict[tuple[int, int], Tensor] = {}
    for (row, column), (other_row, other_column) in itertools.combinations_with_replacement(places, 2):
        shift = (other_row - row, other_column - column)
        product = taps[row, column].T @ taps[other_row, other_column]
        half[shift] = half[shift] + product if shift in half else product
    shifts = itertools.product(range(1 - k, k), repeat=2)
    whole = [half[shift] if shift in half else half[-shift[0], -shift[1]].T for shift in shifts]
    return torch.stack(whole, -1).unflatten(-1, (2 * k - 1, 2 * k - 1))
