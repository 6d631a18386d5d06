"""BnB: a 1x1 convolution made orthogonal by the iteration of Bjorck and Bowie."""

from __future__ import annotations

import torch
from torch import Tensor, empty, nn

from lipref.errors import LiprefError
from lipref.layers.base import Size
from lipref.layers.kernel import KernelConv2d
from lipref.linalg.norms import nan_max
from lipref.linalg.polar import polar_factor


class BnBConv2d(KernelConv2d):
    """1x1 convolution orthogonalised by Bjorck and Bowie's iteration (BnB), for the networks with 1x1 kernels only.

    Source: Bjorck and Bowie, "An iterative algorithm for computing the best estimate of an orthogonal matrix", SIAM
    Journal on Numerical Analysis, 1971; as a layer Anil, Lucas, Grosse, ICML 2019. In the paper it stands in the table
    of 1x1 kernels alone.

    Parameters: ``weight`` ``(C_out, C_in, 1, 1)``, ``bias``. The kernel is the polar factor of the weight: orthonormal
    columns or rows, one matrix on every pixel. The norm is at most 1 even where the iteration has not converged, as for
    a singular weight. Training and evaluation are the same function.

    Differences from the authors' code, which has no such convolution any more: to convergence, from a start scaled by a
    proved bound, with the exact derivative; ``iterations=15`` does that many steps, differentiated one by one.

    Initialisation: Dirac, bias 0; a network's first layer and head: random orthogonal.

    Raises:
        LiprefError: a kernel of more than one tap.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int = 1,
        padding: int | str = "same",
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str | None = None,
        *,
        iterations: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode,
            device=device, dtype=dtype,
        )  # fmt: skip
        self._store_counts(iterations=iterations)

    def make_parameters(self) -> None:
        if self.kernel_size != 1:
            raise LiprefError(
                f"BnBConv2d: kernel_size={self.kernel_size}: it orthogonalises one matrix, so only kernel_size=1 is; "
                "use a network with 1x1 kernels, such as XS_1x1"
            )
        self.weight = nn.Parameter(empty((self.out_channels, self.in_channels, 1, 1), **self._factory))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.dirac_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def init_head(self) -> None:
        nn.init.orthogonal_(self.weight)

    def effective_kernel(self) -> Tensor:
        return polar_factor(self.weight[:, :, 0, 0], self.iterations)[:, :, None, None]

    def lipschitz_bound(self, size: Size) -> float:
        # At most 1 in real arithmetic; the executed kernel's own norm covers the rounding of its preparation.
        return nan_max(1.0, super().lipschitz_bound(size))
