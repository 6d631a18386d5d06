"""The self-correlation of a kernel, and the row sums that bound its norm."""

import torch.nn.functional as F
from torch import Tensor


def input_gram(weight: Tensor) -> Tensor:
    """``G[i, j, delta] = sum_o sum_p weight[o, i, p] weight[o, j, p + delta]`` for ``weight`` ``(O, I, k, k)``.

    Returns ``(I, I, 2k-1, 2k-1)``: the kernel of (adjoint convolution) o (convolution), over all shifts where the
    taps overlap.
    """
    transposed = weight.transpose(0, 1)
    return F.conv2d(transposed, transposed, padding=weight.shape[-1] - 1).transpose(0, 1)


def output_gram(weight: Tensor) -> Tensor:
    """``G[o, o', delta] = sum_i sum_p weight[o, i, p] weight[o', i, p + delta]``: ``(O, O, 2k-1, 2k-1)``."""
    return input_gram(weight.transpose(0, 1))
