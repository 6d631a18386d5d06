"""AOL: almost-orthogonal Lipschitz layer."""

from __future__ import annotations

from torch import Tensor, empty, nn

from lipref.layers.base import Size
from lipref.layers.complexity import Complexity, symbols
from lipref.layers.kernel import KernelConv2d
from lipref.layers.registry import register
from lipref.linalg.gram import absolute_gram
from lipref.linalg.norms import UNIT_ROUNDOFF


@register("aol")
class AOLConv2d(KernelConv2d):
    """Almost-orthogonal Lipschitz layer (AOL).

    Source: Prach and Lampert, "Almost-Orthogonal Layers for Efficient General-Purpose Lipschitz Networks", ECCV 2022.

    Parameters: ``weight`` P ``(C_out, C_in, k, k)``, ``bias``. The kernel is ``W[o, i] = P[o, i] d_i`` with

        d_i = ( sum_{j, delta} | sum_{o, p} P[o, i, p] P[o, j, p + delta] | + 1e-6 )^(-1/2)

    Its norm is at most 1 for every P (a Gershgorin-type bound on the Gram operator), under circular and zero padding,
    for any image size and for ``C_in != C_out`` alike: the sum runs over input channels, whatever the number of
    outputs. It may fall well below 1. Training and evaluation are the same function.

    Initialisation: Dirac, bias 0; a network's first layer and head: random orthogonal.

    Args and errors: those of `LipschitzConv2d`.

    Example:
        >>> import torch
        >>> from lipref import AOLConv2d
        >>> layer = AOLConv2d(8, 16, 3)
        >>> layer(torch.rand(2, 8, 16, 16)).shape
        torch.Size([2, 16, 16, 16])
    """

    EPSILON = 1e-6

    def make_parameters(self) -> None:
        shape = (self.out_channels, self.in_channels, self.kernel_size, self.kernel_size)
        self.weight = nn.Parameter(empty(shape, **self._factory))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.dirac_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def init_head(self) -> None:
        nn.init.orthogonal_(self.weight)

    def effective_kernel(self) -> Tensor:
        row_sums = absolute_gram(self.weight).sum(1)
        return self.weight * (row_sums + self.EPSILON).rsqrt()[:, None, None]

    def lipschitz_bound(self, size: Size) -> float:
        # Below 1, so the rounding of the scaling itself counts: sums of squares of this many terms, then a root.
        terms = self.out_channels * self.kernel_size**2 + self.in_channels * (2 * self.kernel_size - 1) ** 2 + 8
        return super().lipschitz_bound(size) * (1 + terms * UNIT_ROUNDOFF)

    @staticmethod
    def complexity() -> Complexity:
        v = symbols()
        return Complexity("conv", v["C"], v["M"], "conv", v["c"] ** 3 * v["k"] ** 4, 5 * v["P"])
