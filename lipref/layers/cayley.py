"""Cayley: orthogonal convolution by the Cayley transform of every frequency."""

from __future__ import annotations

import math

import torch
from torch import Tensor, empty, nn

from lipref.layers.complexity import Complexity, symbols
from lipref.layers.frequency import FrequencyConv2d
from lipref.layers.registry import register
from lipref.linalg.cayley import cayley_transform, of_norm


@register("cayley")
class CayleyConv2d(FrequencyConv2d):
    """Cayley transform in the frequency domain.

    Source: Trockman and Kolter, "Orthogonalizing Convolutional Layers with the Cayley Transform", ICLR 2021.

    Parameters: ``weight`` K ``(C_out, C_in, k, k)``, ``scale`` ``(1,)``, ``bias``. At each frequency of the image the
    symbol V of ``scale K / ||K||_F`` becomes ``(I + A)^-1 (I - A)`` with ``A = V - V^H``
    (`lipref.linalg.cayley.cayley_transform`; tall and wide matrices included). Orthogonal under circular padding, to
    rounding; ``padding_mode="zeros"`` pads, works on the larger torus and crops. Training and evaluation are the same
    function.

    Differences from the authors' code: ``scale`` is a trained parameter from the start, initially the Frobenius norm of
    the kernel, where theirs appears at the first forward pass, after the optimizer was built, and stays untrained; it
    multiplies the kernel divided by its own norm, where theirs divides by the norm of the half spectrum, which depends
    on the image size. Odd image sides work.

    Initialisation: PyTorch's default for convolutions.

    Args and errors: those of `LipschitzConv2d`.

    Example:
        >>> import torch
        >>> from lipref import CayleyConv2d
        >>> layer = CayleyConv2d(8, 16, 3)
        >>> layer(torch.rand(2, 8, 16, 16)).shape
        torch.Size([2, 16, 16, 16])
    """

    def make_parameters(self) -> None:
        shape = (self.out_channels, self.in_channels, self.kernel_size, self.kernel_size)
        self.weight = nn.Parameter(empty(shape, **self._factory))
        self.scale = nn.Parameter(empty((1,), **self._factory))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        with torch.no_grad():
            self.scale.copy_(torch.linalg.vector_norm(self.weight))
        self._uniform_bias(self.in_channels * self.kernel_size**2)

    def raw_kernel(self) -> Tensor:
        return of_norm(self.weight, self.scale)

    def constrain(self, matrices: Tensor) -> Tensor:
        return cayley_transform(matrices)

    @staticmethod
    def complexity() -> Complexity:
        v = symbols()
        b, s, c = v["b"], v["s"], v["c"]
        return Complexity(
            "FFTs, matrix-vector products", b * s**2 * c**2, 5 * v["half"] * v["M"],
            "FFTs, inversions", s**2 * c**3, 3 * v["half"] * s**2 * c**2,
        )  # fmt: skip
