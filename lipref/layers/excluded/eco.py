"""ECO: explicitly constructed orthogonal convolution."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, empty, nn

from lipref.errors import LiprefError
from lipref.layers.base import LipschitzConv2d, Operator, Size
from lipref.linalg.float_error import RoundingBound, conv_rounding
from lipref.linalg.norms import conv_norm_bound


class ECOConv2d(LipschitzConv2d):
    """Explicitly constructed orthogonal convolution (ECO): dilated, orthogonal only where k divides the image's sides.

    Source: Yu et al., "Constructing Orthogonal Convolutions in an Explicit Manner", ICLR 2022.

    With ``m = max(C_in, C_out)``, parameters: ``weight`` ``((k^2 + 1) / 2, m, m)``, one matrix for each frequency of
    the k x k torus, those of a conjugate pair sharing theirs, and ``bias``. The skew part of each, divided by its
    spectral norm, goes through the exponential series cut after T terms; the inverse DFT of the k x k matrices is the
    kernel. It is applied with circular padding and the dilation ``ceil(side / k)``.

    On sides that k divides, the taps are a k-th of the torus apart: every frequency of the image sees one of the k x k
    matrices, and the layer is orthogonal. On any other side it sees trigonometric interpolations between them,
    which expand: norms of about 1.7 for k = 3, so those sides are refused. Feature maps of the paper's networks have
    powers of two as their sides. ``allow_any_side=True`` evaluates them as published; `lipschitz_bound`, the norm of
    the executed convolution, is rigorous there as well. For C_in != C_out the kernel's first rows and columns are used.

    Training: ``train_terms`` (5) terms, which expand by up to 0.1 %. Evaluation: ``eval_terms`` (10).

    Differences from the authors' code: the dtype of the weights in place of half precision; the spectral norms are
    exact, where theirs are tracked by power iteration; sides that are no multiple of k are refused; any odd k.

    Initialisation: weight normal with standard deviation 1 / sqrt(m), bias uniform within 1 / sqrt(C_out).

    Raises:
        LiprefError: by `prepare`, for an image with a side that k does not divide, unless ``allow_any_side``.
    """

    padding_modes = ("circular",)

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
        allow_any_side: bool = False,
        train_terms: int = 5,
        eval_terms: int = 10,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode,
            device=device, dtype=dtype,
        )  # fmt: skip
        self._store_counts(train_terms=train_terms, eval_terms=eval_terms)
        self.allow_any_side = allow_any_side
        self.proved = not allow_any_side or self.kernel_size == 1

    def make_parameters(self) -> None:
        m = max(self.in_channels, self.out_channels)
        self.weight = nn.Parameter(empty(((self.kernel_size**2 + 1) // 2, m, m), **self._factory))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=self.weight.shape[-1] ** -0.5)
        self._uniform_bias(self.out_channels)

    def prepare(self, size: Size) -> Operator:
        k = self.kernel_size
        if not self.allow_any_side and (size[0] % k or size[1] % k):
            raise LiprefError(
                f"ECOConv2d: images of {size} have a side that kernel_size={k} does not divide, where it is not "
                f"1-Lipschitz; use multiples of {k}, or allow_any_side=True to study the failure"
            )
        matrices = self._exponentials()[_frequencies(k)]  # (k, k, m, m)
        kernel = torch.fft.ifft2(matrices, dim=(0, 1)).real.permute(2, 3, 0, 1)
        operator = {"weight": kernel[: self.out_channels, : self.in_channels]}
        return operator if self.bias is None else operator | {"bias": self.bias}

    def _exponentials(self) -> Tensor:
        """Nearly orthogonal matrices ``((k^2 + 1) / 2, m, m)``."""
        skew = 0.5 * (self.weight - self.weight.mT)
        sigma = torch.linalg.eigvalsh(1j * skew)[:, -1]  # Hermitian; the spectral norm is the largest, a simple one
        vanishing = sigma <= 0  # as with one channel: the exponential is the identity
        scale = torch.where(vanishing, 0.0, torch.where(vanishing, 1.0, sigma).reciprocal())
        skew = skew * scale[:, None, None]
        eye = torch.eye(skew.shape[-1], dtype=skew.dtype, device=skew.device).expand_as(skew)
        total = eye
        for j in range(self.train_terms if self.training else self.eval_terms, 0, -1):  # Horner
            total = eye + skew @ total / j
        return total

    def transform(self, x: Tensor, operator: Operator) -> Tensor:
        k = operator["weight"].shape[-1]
        spread = dilation((x.shape[-2], x.shape[-1]), k)
        x = _circular(x, spread[0] * (k // 2), spread[1] * (k // 2))
        return F.conv2d(x, operator["weight"], operator.get("bias"), dilation=spread)

    def lipschitz_bound(self, size: Size) -> float:
        return self.operator_bound(self.float64_twin().prepare(size), size)

    def operator_bound(self, operator: Operator, size: Size) -> float:
        """The norm of the dilated convolution, plus a rounding allowance: that of its kernel with zeros in between."""
        return conv_norm_bound(dilated(operator["weight"], size), size, "circular")

    def rounding_error(self, operator: Operator, size: Size, unit: float) -> RoundingBound:
        return conv_rounding(operator["weight"], operator.get("bias"), size, unit)


def dilation(size: Size, k: int) -> tuple[int, int]:
    """The distance of the taps on images of ``size``, along both axes."""
    return (-(-size[0] // k), -(-size[1] // k))


def dilated(weight: Tensor, size: Size) -> Tensor:
    """``weight`` ``(O, I, k, k)`` with zeros between its taps: the square, odd kernel that is executed on ``size``."""
    k = weight.shape[-1]
    if k == 1:
        return weight
    rows, columns = dilation(size, k)
    centre = (k // 2) * max(rows, columns)
    offsets = torch.arange(k, device=weight.device) - k // 2
    wide = weight.new_zeros(*weight.shape[:2], 2 * centre + 1, 2 * centre + 1)
    wide[:, :, (centre + rows * offsets)[:, None], centre + columns * offsets] = weight
    return wide


def _frequencies(k: int) -> Tensor:
    """``(k, k)``: which matrix belongs to each frequency; a frequency and its negative have the same."""
    place: dict[tuple[int, int], int] = {}
    for row in range(k):
        for column in range(k):
            twin = (-row % k, -column % k)
            place[row, column] = place[twin] if twin in place else len(set(place.values()))
    return torch.tensor([[place[row, column] for column in range(k)] for row in range(k)])


def _circular(x: Tensor, rows: int, columns: int) -> Tensor:
    """Pad ``x`` ``(..., H, W)`` periodically, also by more than its sides."""
    height, width = x.shape[-2:]
    if rows <= height and columns <= width:
        return F.pad(x, (columns, columns, rows, rows), mode="circular")
    down = torch.arange(-rows, height + rows, device=x.device) % height
    across = torch.arange(-columns, width + columns, device=x.device) % width
    return x[..., down[:, None], across]
