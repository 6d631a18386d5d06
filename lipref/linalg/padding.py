"""Same-size convolution with zero or circular padding, for images of any size."""

import torch
import torch.nn.functional as F
from torch import Tensor

from lipref.linalg import cuda_kernels


class _CircularPad(torch.autograd.Function):
    """PyTorch's circular padding, with a backward pass that is a third of the time of its own.

    On a GPU one kernel each way, which keeps the memory layout.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, pad: int) -> Tensor:
        if cuda_kernels.serves(x):
            return cuda_kernels.circular_padded(x, pad)
        return F.pad(x, (pad,) * 4, mode="circular")

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor, int], output: Tensor) -> None:
        ctx.pad = inputs[1]

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        pad = ctx.pad
        if cuda_kernels.serves(grad):
            return _CircularPadAdjoint.apply(grad, pad), None
        height, width = (side - 2 * pad for side in grad.shape[-2:])
        # What wrapped around goes back: first the rows, then the columns.
        rows = grad[..., pad : pad + height, :].clone()
        rows[..., :pad, :] += grad[..., pad + height :, :]
        rows[..., height - pad :, :] += grad[..., :pad, :]
        whole = rows[..., pad : pad + width].clone(memory_format=torch.contiguous_format)
        whole[..., :pad] += rows[..., pad + width :]
        whole[..., width - pad :] += rows[..., :pad]
        return whole, None


class _CircularPadAdjoint(torch.autograd.Function):
    """The backward pass of `_CircularPad` on a GPU, with a gradient of its own."""

    generate_vmap_rule = True

    @staticmethod
    def forward(grad: Tensor, pad: int) -> Tensor:
        return cuda_kernels.circular_padded_adjoint(grad, pad)

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor, int], output: Tensor) -> None:
        ctx.pad = inputs[1]

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return _CircularPad.apply(grad, ctx.pad), None


def circular_pad(x: Tensor, pad: int) -> Tensor:
    """Pad the last two axes of ``x`` ``(..., H, W)`` periodically by ``pad`` on each side.

    ``pad`` may exceed the image.
    """
    if pad == 0:
        return x
    height, width = x.shape[-2:]
    if pad <= min(height, width):
        # Without gradients nothing has to be kept, and the call costs half as much.
        return _CircularPad.apply(x, pad) if torch.is_grad_enabled() else _CircularPad.forward(x, pad)
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
