"""Methods whose operator is a convolution kernel."""

from __future__ import annotations

from torch import Tensor, nn

from lipref.layers.base import LipschitzConv2d, Operator, Size
from lipref.linalg.float_error import RoundingBound, conv_rounding
from lipref.linalg.norms import conv_norm_bound
from lipref.linalg.padding import conv2d_same


class KernelConv2d(LipschitzConv2d):
    """A parameter transformation to a kernel ``(C_out, C_in, k, k)``, and a plain convolution with it.

    Under circular padding, images smaller than the kernel are read around the torus more than once, as the periodic
    image demands.
    """

    def effective_kernel(self) -> Tensor:
        """The kernel ``(C_out, C_in, k, k)`` that the parameters stand for, differentiable."""
        raise NotImplementedError

    def prepare(self, size: Size) -> Operator:
        return self.with_bias({"weight": self.effective_kernel()})

    def transform(self, x: Tensor, operator: Operator) -> Tensor:
        return conv2d_same(x, operator["weight"], operator.get("bias"), self.padding_mode)

    def lipschitz_bound(self, size: Size) -> float:
        return conv_norm_bound(self.float64_twin().effective_kernel(), size, self.padding_mode)

    def rounding_error(self, operator: Operator, size: Size, unit: float) -> RoundingBound:
        return conv_rounding(operator["weight"], operator.get("bias"), size, unit)

    def fold(self, size: Size) -> nn.Module:
        pad = self.kernel_size // 2
        if self.padding_mode == "circular" and pad > min(size):  # more than nn.Conv2d can wrap
            return super().fold(size)
        operator = self.operator(size)
        weight, bias = operator["weight"], operator.get("bias")
        folded = nn.utils.skip_init(  # no draws: they would move the caller's random state
            nn.Conv2d, self.in_channels, self.out_channels, self.kernel_size, padding=pad,
            padding_mode=self.padding_mode, bias=bias is not None, device=weight.device, dtype=weight.dtype,
        )  # fmt: skip
        folded.load_state_dict(operator)
        return folded.eval()
