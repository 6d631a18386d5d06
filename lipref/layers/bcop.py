"""BCOP: block convolution orthogonal parameterization."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, empty, nn

from lipref.layers.base import Size
from lipref.layers.complexity import Complexity, symbols
from lipref.layers.kernel import KernelConv2d
from lipref.layers.registry import register
from lipref.linalg.norms import nan_max
from lipref.linalg.polar import polar_factor


@register("bcop")
class BCOPConv2d(KernelConv2d):
    """Block convolution orthogonal parameterization (BCOP).

    Source: Li et al., "Preventing Gradient Attenuation in Lipschitz Constrained Convolutional Networks", NeurIPS 2019.

    With ``n = max(C_in, C_out)`` and ``m = min(C_in, C_out)``, parameters: ``matrix`` R_0 ``(m, n)``, ``frames`` R_1 ..
    R_{2(k-1)} ``(2(k-1), n, n // 2)``, None where that is empty, ``bias``. H is the polar factor of R_0; the polar
    factor U of a frame gives the projector ``P = U U^T`` of rank ``n // 2``. Pair (P, Q) gives the 2x2 kernel of
    matrices

        [[P Q, P (I - Q)], [(I - P) Q, (I - P)(I - Q)]];

    the product of the k - 1 pairs under matrix convolution, times H, is an orthogonal k x k kernel. An image is shifted
    by it towards one corner where k > 1: for one channel the kernel is a shift.

    Orthogonal under circular padding for every image size where C_in = C_out, and for C_in != C_out an isometry or its
    adjoint; under zero padding at most 1-Lipschitz. The norm is at most 1 even where a polar factor has not converged.
    Training and evaluation are the same function.

    Differences from the authors' code: only the half of each frame that matters is stored, k c^2 numbers in place of
    (2k - 1) c^2; Bjorck-Bowie runs to convergence, from a start scaled by a proved bound in place of a power-iteration
    estimate, so that it cannot diverge; its gradient is exact. ``iterations=20`` restores the published number of
    steps, differentiated one by one, from the safe start. The projectors' set is the same. As a network's head it
    is the same layer, with one tap.

    Initialisation: orthogonal with gain 1 / sqrt(n); bias uniform within 1 / sqrt(fan_in).

    Args:
        in_channels, ..., dtype: those of `LipschitzConv2d`, with its errors.
        iterations: Bjorck-Bowie steps, at least 1; None runs to convergence.

    Example:
        >>> import torch
        >>> from lipref import BCOPConv2d
        >>> layer = BCOPConv2d(8, 16, 3)
        >>> layer(torch.rand(2, 8, 16, 16)).shape
        torch.Size([2, 16, 16, 16])
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
        small, large = sorted((self.in_channels, self.out_channels))
        self.matrix = nn.Parameter(empty((small, large), **self._factory))
        frames = empty((2 * (self.kernel_size - 1), large, large // 2), **self._factory)
        # None for one tap or one channel: distributed training takes no parameter without elements.
        self.register_parameter("frames", nn.Parameter(frames) if frames.numel() else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        gain = max(self.in_channels, self.out_channels) ** -0.5
        with torch.no_grad():
            nn.init.orthogonal_(self.matrix, gain)
            for frame in self._frames():
                nn.init.orthogonal_(frame, gain)
        self._uniform_bias(self.in_channels * self.kernel_size**2)

    def _frames(self) -> Tensor:
        if self.frames is not None:
            return self.frames
        large = self.matrix.shape[1]
        return self.matrix.new_empty((2 * (self.kernel_size - 1), large, large // 2))

    # In a state dict there are frames always, as earlier versions wrote them.
    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.frames is None:
            destination[prefix + "frames"] = self._frames()

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        stored = state_dict.get(prefix + "frames")
        if self.frames is None and stored is not None and stored.numel() == 0:
            del state_dict[prefix + "frames"]
        super()._load_from_state_dict(state_dict, prefix, *args)

    def effective_kernel(self) -> Tensor:
        # The transposed H, from the left: the kernel's own order where C_in <= C_out.
        frames = polar_factor(self._frames(), self.iterations)
        kernel = _projector_products(polar_factor(self.matrix.mT, self.iterations), frames)
        return kernel.transpose(0, 1) if self.in_channels > self.out_channels else kernel

    def lipschitz_bound(self, size: Size) -> float:
        # At most 1 in real arithmetic; the executed kernel's own norm covers the rounding of its preparation.
        return nan_max(1.0, super().lipschitz_bound(size))

    @staticmethod
    def complexity() -> Complexity:
        v = symbols()
        c, k, t = v["c"], v["k"], v["t"]
        return Complexity(
            "conv", v["C"], v["M"], "BnB and matrix products", c**3 * k * t + c**3 * k**3, c**2 * k * t + c**2 * k**3
        )


def _projector_products(matrix: Tensor, frames: Tensor) -> Tensor:
    """``(..., n, m, k, k)``: the kernel ``(M_1 * M_2 * ... * M_{k-1}) H``, * being the convolution of taps of matrices.

    ``M_i`` has the 2x2 taps ``[[P Q, (I - P) Q], [P (I - Q), (I - P)(I - Q)]]`` transposed, P and Q the projectors on
    the ranges of two frames: each projector turns the taps B_t along one axis, the first along the columns, into
    ``P B_t + (I - P) B_{t-1}``, one more.

    Args:
        matrix: H, ``(..., n, m)``.
        frames: ``(..., 2 (k - 1), n, r)``, each with orthonormal columns.
    """
    blocks = matrix[..., None, None, :]
    for index, frame in enumerate(frames.unbind(-3)):
        projected = (frame @ (frame.mT @ blocks.flatten(-3))).view(blocks.shape)
        axis = (0, 0, 0, 0) if index % 2 else (0, 0)  # of `F.pad`, from the last one on: outputs, then columns
        blocks = F.pad(projected, (*axis, 0, 1)) + F.pad(blocks - projected, (*axis, 1, 0))
    return blocks.movedim(-1, -3).contiguous()
