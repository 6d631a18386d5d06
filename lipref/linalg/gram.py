"""The self-correlation of a kernel, and the row sums of its absolute values."""

from __future__ import annotations

import itertools

from torch import Tensor


def absolute_gram(weight: Tensor) -> Tensor:
    """``sum_delta | sum_o sum_p weight[o, i, p] weight[o, j, p + delta] |`` of kernels ``(..., O, I, k, k)``.

    The kernel inside the absolute values is that of (adjoint convolution) o (convolution), over all shifts delta where
    the taps overlap. Those of ``-delta`` are those of ``delta`` transposed, so that one product of matrices for each
    pair of taps, half of them, does it. Returns ``(..., I, I)``, symmetric.
    """
    k = weight.shape[-1]
    taps = weight.movedim((-2, -1), (0, 1)).contiguous()
    half: dict[tuple[int, int], Tensor] = {}
    for one, other in itertools.combinations_with_replacement(itertools.product(range(k), repeat=2), 2):
        shift = (other[0] - one[0], other[1] - one[1])
        product = taps[one].mT @ taps[other]
        half[shift] = half[shift] + product if shift in half else product
    middle = half.pop((0, 0)).abs()
    rest = sum(each.abs() for each in half.values())
    return middle + rest + rest.mT if half else middle
