"""Methods whose operator is a matrix per frequency."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from lipref.layers.base import LipschitzConv2d, Operator, Size
from lipref.linalg.float_error import SAFETY, RoundingBound, absolute_norm, conv_rounding, gamma, spread_bias
from lipref.linalg.norms import nan_max, norm_bound
from lipref.linalg.padding import conv2d_same
from lipref.linalg.spectrum import apply_symbol, constrained_symbol


class FrequencyConv2d(LipschitzConv2d):
    """The symbol of a raw kernel, constrained matrix by matrix, and multiplication by it in the frequency domain.

    ``"circular"`` padding works on the image's own torus. ``"zeros"`` pads the image by ``k // 2`` zeros on each
    side, works on the torus of side ``n + 2 (k // 2)`` and crops: padding and cropping do not expand, but the result
    is no longer orthogonal. Both are defined for every image size; taps that meet on a small torus add up. A kernel
    of one tap has the same real matrix at every frequency and needs no transform.
    """

    def raw_kernel(self) -> Tensor:
        """The unconstrained kernel ``(C_out, C_in, k, k)``."""
        raise NotImplementedError

    def constrain(self, matrices: Tensor) -> Tensor:
        """Matrices of norm at most 1 from any ``(..., C_out, C_in)``, real or complex."""
        raise NotImplementedError

    @property
    def margin(self) -> int:
        """Zeros added on each side of the image."""
        return self.kernel_size // 2 if self.padding_mode == "zeros" else 0

    def prepare(self, size: Size) -> Operator:
        kernel = self.raw_kernel()
        if self.kernel_size == 1:
            return self.with_bias({"weight": self.constrain(kernel[:, :, 0, 0])[:, :, None, None]})
        return self.with_bias({"symbol": constrained_symbol(kernel, self._torus(size), self.constrain)})

    def _torus(self, size: Size) -> Size:
        return size[0] + 2 * self.margin, size[1] + 2 * self.margin

    def transform(self, x: Tensor, operator: Operator) -> Tensor:
        bias = operator.get("bias")
        if "weight" in operator:
            return conv2d_same(x, operator["weight"], bias, self.padding_mode)
        margin, (height, width) = self.margin, x.shape[-2:]
        symbol = operator["symbol"]
        x = x.to(symbol.real.dtype)  # Fourier transforms have no lower precision
        y = apply_symbol(F.pad(x, (margin,) * 4), symbol)
        y = y[..., margin : margin + height, margin : margin + width]
        return y if bias is None else y + bias[:, None, None]

    def lipschitz_bound(self, size: Size) -> float:
        operator = self.float64_twin().prepare(size)
        matrices = operator["weight"][:, :, 0, 0] if "weight" in operator else operator["symbol"]
        # At most 1 in real arithmetic; the executed matrices' own norm covers the rounding of their preparation.
        return nan_max(1.0, norm_bound(matrices))

    def rounding_error(self, operator: Operator, size: Size, unit: float) -> RoundingBound:
        bias = operator.get("bias")
        if "weight" in operator:
            return conv_rounding(operator["weight"], bias, size, unit)
        return symbol_rounding(operator["symbol"], bias, self._torus(size), unit, spread_bias(bias, size))


def symbol_rounding(
    symbol: Tensor, bias: Tensor | None, torus: Size, unit: float, constant: float | None = None
) -> RoundingBound:
    """Of `apply_symbol` in float64 and the addition of a bias, on images of size ``torus``.

    ``constant`` is the norm of the spread bias where the image is cropped afterwards.
    """
    height, width = torus
    waves = 32 * unit  # the error of one entry of the transforms' matrices
    # Five products, one after the other: the transforms along width and height, the symbol, and back. The norm of
    # a transform's absolute values is the root of its side times its own norm; a complex inner product is two real
    # ones of twice the length, which costs sqrt(2); half a spectrum stands for the whole, which costs sqrt(2) more.
    along_width = math.sqrt(2 * width) * (gamma(2 * width + 8, unit) + waves)
    along_height = math.sqrt(2 * height) * (gamma(2 * height + 6, unit) + waves)
    channels = math.sqrt(2) * gamma(2 * symbol.shape[-1] + 6, unit)
    relative = (1 + along_width) ** 2 * (1 + along_height) ** 2 * (1 + channels) - 1
    slope = math.sqrt(2) * absolute_norm(symbol) * relative
    constant = spread_bias(bias, torus) if constant is None else constant
    # The addition of the bias: what it is added to has a norm of at most absolute_norm ||x||.
    return RoundingBound((slope + 2 * unit * absolute_norm(symbol)) * SAFETY, 2 * unit * constant * SAFETY, constant)
