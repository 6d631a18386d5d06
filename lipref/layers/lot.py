"""LOT: layer-wise orthogonal training."""

from __future__ import annotations

import torch
from torch import Tensor, empty, nn

from lipref.layers.complexity import Complexity, symbols
from lipref.layers.frequency import FrequencyConv2d
from lipref.layers.registry import register
from lipref.linalg.inverse_sqrt import whitened


@register("lot")
class LOTConv2d(FrequencyConv2d):
    """Layer-wise orthogonal training (LOT).

    Source: Xu, Li, Li, "LOT: Layer-wise Orthogonal Training on Improving l2 Certified Robustness", NeurIPS 2022.

    Parameters: ``weight`` K ``(C_out, C_in, k, k)``, ``bias``. At each frequency of the zero-padded image the symbol V
    becomes ``(V V^H + 1e-4 I)^(-1/2) V``, the inverse root by ``terms`` coupled Newton steps
    (`lipref.linalg.inverse_sqrt.whitened`); for C_out > C_in the root of ``V^H V`` acts from the right.

    The norm is at most 1 whether or not the iteration has converged: it moves a singular value t of V / sqrt(nu) to
    ``t (3 - t^2) / 2``, which maps [0, 1] into itself. It is not orthogonal: padding and cropping, the 1e-4, and small
    singular values stand in between. ``padding_mode="circular"`` works on the image's own torus instead. Training and
    evaluation are the same function.

    Differences from the authors' code: half of the spectrum only, and one real matrix where k = 1; the same function.

    Initialisation: identity (Dirac), bias 0.

    Args:
        in_channels, ..., dtype: those of `LipschitzConv2d`, with its errors.
        terms: Newton steps, at least 1.

    Example:
        >>> import torch
        >>> from lipref import LOTConv2d
        >>> layer = LOTConv2d(8, 16, 3)
        >>> layer(torch.rand(2, 8, 16, 16)).shape
        torch.Size([2, 16, 16, 16])
    """

    default_padding = "zeros"

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
        terms: int = 10,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode,
            device=device, dtype=dtype,
        )  # fmt: skip
        self._store_counts(terms=terms)

    def make_parameters(self) -> None:
        shape = (self.out_channels, self.in_channels, self.kernel_size, self.kernel_size)
        self.weight = nn.Parameter(empty(shape, **self._factory))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.dirac_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def raw_kernel(self) -> Tensor:
        return self.weight

    def constrain(self, matrices: Tensor) -> Tensor:
        return whitened(matrices, self.terms)

    @staticmethod
    def complexity() -> Complexity:
        v = symbols()
        b, s, c, t = v["b"], v["s"], v["c"], v["t"]
        return Complexity(
            "FFTs, matrix-vector products", b * s**2 * c**2, 3 * v["M"],
            "FFTs, matrix products", 4 * s**2 * c**3 * t, 4 * s**2 * c**2 * t,
        )  # fmt: skip
