"""Same-size convolution with zero or circular padding, for images of any size."""

import torch
import torch.nn.functional as F
from torch import Tensor


def circular_pad(x: Tensor, pad: int) -> Tensor:
    """Pad the last two axes of ``x`` ``(..., H, W)`` periodically by ``pad`` on each side.

    ``pad`` may exceed the image.
    """
    if pad == 0:
        return x
    height, width = x.shape[-2:]
    if pad <= min(height, width):
        return F.pad(x, (pad,) * 4, mode="circular")
    rows = torch.arange(-pad, height + pad, device=x.device) % height
    columns = torch.arange(-pad, width + pad, device=x.device) % width
    return x[..., rows[:, None], columns]


def conv2d_same(x: Tensor, weight: Tensor, bias: Tensor | None, padding_mode: str) -> Tensor:
    """Cross-correlate ``x`` ``(N, I, H, W)`` with ``weight`` ``(O, I, k, k)``, k odd, centred, output ``(N, O, H, W)``.

    ``padding_mode`` is ``"zeros"`` or ``"circular"``. On images smaller than the kernel, circular taps wrap around
    more than once.
    """
    pad = weight.shape[-1] // 2
    if padding_mode == "zeros":
        return F.conv2d(x, weight, bias, padding=pad)
    return F.conv2d(circular_pad(x, pad), weight, bias)


def adjoint_kernel(weight: Tensor) -> Tensor:
    """Kernel ``(I, O, k, k)`` of the adjoint of `conv2d_same` with ``weight`` ``(O, I, k, k)``, same padding."""
    return weight.transpose(0, 1).flip(2, 3)
