"""SLL: SDP-based Lipschitz layer."""

from __future__ import annotations

from torch import Tensor, empty, nn

from lipref.layers.base import Size
from lipref.layers.complexity import Complexity, symbols
from lipref.layers.registry import register
from lipref.layers.residual import ResidualConv2d
from lipref.linalg.gram import absolute_gram
from lipref.linalg.norms import conv_norm_bound, nan_max


@register("sll")
class SLLConv2d(ResidualConv2d):
    """SDP-based Lipschitz layer (SLL).

    Source: Araujo et al., "A Unified Algebraic Perspective on Lipschitz Neural Networks", ICLR 2023.

    ``y = x - K^T ( T relu(K x + b) )``. Parameters: ``weight`` K ``(C, C, k, k)``, ``r`` ``(C,)``, ``bias``. With
    ``q = |r| + 1e-6``,

        T_o = 2 / ( (1 / q_o) sum_{o'} q_{o'} sum_delta | sum_{i, p} K[o, i, p] K[o', i, p + delta] | + 1e-6 ).

    1-Lipschitz for all parameters, under zero and circular padding and for any image size (``2 / T`` dominates
    ``K K^T``); exactly 1 where no ReLU is active. Training and evaluation are the same function.

    Initialisation: weight Xavier normal, bias uniform within 1 / sqrt(fan_in), r standard normal.

    Args and errors: those of `LipschitzConv2d`.

    Example:
        >>> import torch
        >>> from lipref import SLLConv2d
        >>> layer = SLLConv2d(8, 8, 3)
        >>> layer(torch.rand(2, 8, 16, 16)).shape
        torch.Size([2, 8, 16, 16])
    """

    EPSILON = 1e-6

    def make_parameters(self) -> None:
        channels, k = self.in_channels, self.kernel_size
        self.weight = nn.Parameter(empty((channels, channels, k, k), **self._factory))
        self.r = nn.Parameter(empty((channels,), **self._factory))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.xavier_normal_(self.weight)
        nn.init.normal_(self.r)
        self._uniform_bias(self.in_channels * self.kernel_size**2)

    def step(self, size: Size) -> Tensor:
        q = self.r.abs() + self.EPSILON
        row_sums = absolute_gram(self.weight.transpose(0, 1)) @ q / q
        return 2 / (row_sums + self.EPSILON)

    def lipschitz_bound(self, size: Size) -> float:
        twin = self.float64_twin()
        scaled = twin.weight * twin.positive_step(size).sqrt()[:, None, None, None]
        return nan_max(1.0, conv_norm_bound(scaled, size, self.padding_mode) ** 2 * (1 + 1e-14) - 1.0)

    @staticmethod
    def complexity() -> Complexity:
        v = symbols()
        return Complexity("2 convs, activation", 2 * v["C"], 3 * v["M"], "conv", v["c"] ** 3 * v["k"] ** 4, 5 * v["P"])
