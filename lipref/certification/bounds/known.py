"""Lipschitz constants, in l2 and per image, of modules whose exact type is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from operator import index

import torch
import torch.nn.functional as F
from torch import nn

from lipref.activations import MaxMin
from lipref.certification.bounds.linear import Shape, dense_matrix
from lipref.certification.bounds.tampering import Refused
from lipref.certification.bounds.users import LIBRARY
from lipref.linalg.norms import UNIT_ROUNDOFF, conv_norm_bound, nan_max, norm_bound
from lipref.nets import FirstChannels, PadChannels

# Constant 1 in exact arithmetic, whatever their settings.
NOT_EXPANDING = {
    MaxMin,  # permutes each pair
    PadChannels,  # zeros added (or channels dropped)
    FirstChannels,  # a projection
    nn.Identity,
    nn.Flatten,  # the same numbers; one that mixes images is refused by its shape
    nn.PixelUnshuffle,  # a permutation
    nn.PixelShuffle,  # its inverse
    nn.ZeroPad2d,  # constants added, or pixels dropped
    nn.Dropout,  # the identity in evaluation
    nn.Dropout2d,  # likewise
    nn.ReLU,  # slope 0 or 1
    nn.ReLU6,  # slope 0 or 1
    nn.Hardtanh,  # slope 0 or 1, continuous
    nn.Tanh,  # slope 1 - tanh^2
}

# Where a tensor of three axes is one image, not a batch.
NEEDS_IMAGES = {
    nn.Conv2d, nn.ConvTranspose2d, nn.MaxPool2d, nn.AvgPool2d, nn.PixelShuffle, nn.PixelUnshuffle, nn.ZeroPad2d,
    nn.BatchNorm2d, nn.Dropout2d, PadChannels,
}  # fmt: skip


LARGEST = 1e70


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    """As torch reads it: one number, also alone in a tuple, stands for both axes."""
    values = tuple(map(index, value)) if isinstance(value, tuple | list) else (index(value),)
    if len(values) not in (1, 2):
        raise Refused(f"{value} is no number and no pair of them")
    return values[0], values[-1]


def _up(value: float) -> float:
    """Above the rounding of a quotient and a root."""
    return value * (1 + 8 * UNIT_ROUNDOFF)


def moderate(module: nn.Module) -> None:
    """Refuse weights whose fourth powers overflow: operators would not be finite."""
    for name, value in (*module.named_parameters(), *module.named_buffers()):
        largest = float(value.abs().max()) if value.numel() else 0.0
        if not largest <= LARGEST:
            raise Refused(f"{name} has an entry of {largest:g}, above {LARGEST:g}; its training diverged")


def _elu(module: nn.ELU, shape: Shape) -> float:
    # Slope 1 on the right, alpha e^x on the left; continuous.
    return nan_max(abs(module.alpha), 1.0)


def _leaky_relu(module: nn.LeakyReLU, shape: Shape) -> float:
    # Slope 1 on the right, negative_slope on the left.
    return nan_max(abs(module.negative_slope), 1.0)


def _softplus(module: nn.Softplus, shape: Shape) -> float:
    # log(1 + e^(beta x)) / beta has the slope sigmoid(beta x), but the implemented one jumps down to x at the
    # threshold; from 40 on the jump is below float64's rounding there, and from 709 on the exponential overflows.
    if not module.beta > 0:
        raise Refused(f"beta={module.beta} is not positive")
    if not 40 <= module.threshold <= 700:
        raise Refused(f"it jumps at threshold={module.threshold}, so no constant holds; use threshold=40")
    return 1.0


def _sigmoid(module: nn.Sigmoid, shape: Shape) -> float:
    # Slope s (1 - s), largest at s = 1/2.
    return 0.25


def _zero_pad(module: nn.ZeroPad2d, shape: Shape) -> float:
    # Constants added, or pixels dropped; more numbers than four shift channels, or the pictures of a batch.
    if len(module.padding) != 4:
        raise Refused(f"padding={module.padding} is not (left, right, top, bottom)")
    return 1.0


def _disjoint(module: nn.MaxPool2d | nn.AvgPool2d) -> None:
    kernel = _pair(module.kernel_size)
    stride = kernel if module.stride == () else _pair(module.stride)
    if any(s < k for s, k in zip(stride, kernel, strict=True)):
        raise Refused(f"its windows overlap (kernel_size={kernel}, stride={stride}); use stride=kernel_size")


def _max_pool(module: nn.MaxPool2d, shape: Shape) -> float:
    # A maximum is 1-Lipschitz, and no pixel is in two windows, with padding (which never wins) or without.
    _disjoint(module)
    if _pair(module.dilation) != (1, 1):
        raise Refused(f"dilation={module.dilation} interleaves its windows; use dilation=1")
    return 1.0


def _avg_pool(module: nn.AvgPool2d, shape: Shape) -> float:
    # m equal weights 1 / d have the norm sqrt(m) / d, and no pixel is in two windows.
    _disjoint(module)
    pixels = math.prod(_pair(module.kernel_size))
    if module.divisor_override is not None:
        return _up(math.sqrt(pixels) / abs(module.divisor_override))
    if _pair(module.padding) == (0, 0) and not module.ceil_mode:
        return _up(1 / math.sqrt(pixels))
    return 1.0  # windows cut at the border may have as few as one pixel


def _linear(module: nn.Linear, shape: Shape) -> float:
    # Along the last axis: one matrix on every row.
    return norm_bound(module.weight.detach())


def _conv(module: nn.Conv2d, shape: Shape) -> float:
    k, pad = module.kernel_size, module.padding
    same = k[0] == k[1] and k[0] % 2 == 1 and pad in ("same", (k[0] // 2,) * 2)
    plain = module.stride == (1, 1) and module.dilation == (1, 1) and module.groups == 1
    if same and plain and module.padding_mode in ("zeros", "circular"):
        return conv_norm_bound(module.weight, shape[1:], module.padding_mode)
    if module.padding_mode != "zeros":
        raise Refused(f"padding_mode={module.padding_mode!r} with these settings has no bound; use 'zeros'")
    weight, settings = module.weight.detach(), (module.stride, pad, module.dilation, module.groups)
    return _dense(lambda x: F.conv2d(x, weight, None, *settings), shape)


def _conv_transpose(module: nn.ConvTranspose2d, shape: Shape) -> float:
    weight = module.weight.detach()
    settings = (module.stride, module.padding, module.output_padding, module.groups, module.dilation)
    return _dense(lambda x: F.conv_transpose2d(x, weight, None, *settings), shape)


def _dense(apply: Callable, shape: Shape) -> float:
    """Norm of a map that is linear by its type, zero-padded: every entry of its matrix is one weight."""
    out = tuple(apply(torch.zeros(1, *shape, dtype=torch.float64)).shape[1:])
    matrix = dense_matrix(apply, shape, out)
    if matrix is None:
        raise Refused("it is linear, but too large for a dense matrix; use stride 1, padding 'same' and one group")
    return norm_bound(matrix, 4 * UNIT_ROUNDOFF * float(matrix.norm()))


def _batch_norm(module: nn.BatchNorm2d, shape: Shape) -> float:
    # In evaluation one factor per channel, |gamma| / sqrt(var + eps).
    if module.running_var is None:
        raise Refused("without running statistics it mixes the images of a batch; use track_running_stats=True")
    variance = module.running_var + module.eps
    if not bool((variance > 0).all()):
        raise Refused("running_var + eps is not positive")
    factors = variance.rsqrt() if module.weight is None else module.weight.detach().abs() / variance.sqrt()
    return _up(float(factors.max()))


def _library(module: nn.Module, shape: Shape) -> float:
    # Its own proof, in its docstring.
    moderate(module)
    return float(module.lipschitz_bound(shape[1:]))


CONSTANTS: dict[type[nn.Module], Callable[[nn.Module, Shape], float]] = {
    **dict.fromkeys(NOT_EXPANDING, lambda module, shape: 1.0),
    **dict.fromkeys(LIBRARY, _library),
    nn.ZeroPad2d: _zero_pad,
    nn.ELU: _elu,
    nn.LeakyReLU: _leaky_relu,
    nn.Softplus: _softplus,
    nn.Sigmoid: _sigmoid,
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _avg_pool,
    nn.Linear: _linear,
    nn.Conv2d: _conv,
    nn.ConvTranspose2d: _conv_transpose,
    nn.BatchNorm2d: _batch_norm,
}
