"""Same-size convolution with zero or circular padding, for images of any size."""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from lipref.linalg import cuda_kernels
from lipref.linalg.by_hand import trains_on_cpu

FEW_PLACES = 4


class _CircularPad(torch.autograd.Function):
    """PyTorch's circular padding, with a backward pass that is a third of the time of its own.

    On a GPU one kernel each way, which keeps the memory layout.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, pad: int) -> Tensor:
        if cuda_kernels.serves(x):
            return cuda_kernels.circular_padded(x, pad)
        if _channels_innermost(x):
            return _padded_innermost(x, pad)
        return F.pad(x, (pad,) * 4, mode="circular")

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor, int], output: Tensor) -> None:
        ctx.pad = inputs[1]

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        pad = ctx.pad
        if cuda_kernels.serves(grad):
            return _CircularPadAdjoint.apply(grad, pad), None
        if _channels_innermost(grad):
            return _padded_innermost_adjoint(grad, pad), None
        height, width = (side - 2 * pad for side in grad.shape[-2:])
        # What wrapped around goes back: first the rows, then the columns.
        rows = grad[..., pad : pad + height, :].clone()
        rows[..., :pad, :] += grad[..., pad + height :, :]
        rows[..., height - pad :, :] += grad[..., :pad, :]
        whole = rows[..., pad : pad + width].clone(memory_format=torch.contiguous_format)
        whole[..., :pad] += rows[..., pad + width :]
        whole[..., width - pad :] += rows[..., :pad]
        return whole, None


def _channels_innermost(x: Tensor) -> bool:
    """In memory, and not in NCHW order too."""
    if x.dim() != 4 or x.device.type != "cpu" or cuda_kernels.stands_for_others(x) or x.is_contiguous():
        return False
    return x.is_contiguous(memory_format=torch.channels_last)


def _padded_innermost(x: Tensor, pad: int) -> Tensor:
    """Of images whose channels are innermost, which stay so: PyTorch's own padding would turn them."""
    images, (height, width) = x.permute(0, 2, 3, 1), x.shape[-2:]
    padded = images.new_empty(len(images), height + 2 * pad, width + 2 * pad, images.shape[-1])
    rows = padded[:, pad : pad + height]
    rows[:, :, pad : pad + width] = images
    rows[:, :, :pad], rows[:, :, pad + width :] = images[:, :, width - pad :], images[:, :, :pad]
    padded[:, :pad], padded[:, pad + height :] = rows[:, height - pad :], rows[:, :pad]
    return padded.permute(0, 3, 1, 2)


def _padded_innermost_adjoint(grad: Tensor, pad: int) -> Tensor:
    images, (height, width) = grad.permute(0, 2, 3, 1), (side - 2 * pad for side in grad.shape[-2:])
    whole = images[:, pad : pad + height, pad : pad + width].clone(memory_format=torch.contiguous_format)
    pieces = itertools.product(_pieces(height, pad), _pieces(width, pad))
    for (to_rows, rows), (to_columns, columns) in list(pieces)[1:]:
        whole[:, to_rows, to_columns] += images[:, rows, columns]
    return whole.permute(0, 3, 1, 2)


def _pieces(size: int, pad: int) -> list[tuple[slice, slice]]:
    """Along one axis places of an image, and those of the padded one that came from them: itself, and what wrapped."""
    return [
        (slice(size), slice(pad, pad + size)),
        (slice(pad), slice(pad + size, None)),
        (slice(size - pad, size), slice(pad)),
    ]


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
    if pad == 0 and trains_by_places(x):
        return _of_places(x, weight.flatten(1).mT, bias)
    if padding_mode == "zeros":
        return F.conv2d(x, weight, bias, padding=pad)
    return F.conv2d(circular_pad(x, pad), weight, bias)


def conv2d_same_adjoint(y: Tensor, weight: Tensor, padding_mode: str) -> Tensor:
    """The adjoint of `conv2d_same` with ``weight`` ``(O, I, k, k)``: ``y`` ``(N, O, H, W)`` to ``(N, I, H, W)``.

    For training on a CPU: neither its forward nor its backward pass makes an `adjoint_kernel`.
    """
    pad = weight.shape[-1] // 2
    if pad == 0 and trains_by_places(y):
        return _of_places(y, weight.flatten(1), None)
    if padding_mode == "zeros":
        return F.conv_transpose2d(y, weight, padding=pad)
    return F.conv_transpose2d(circular_pad(y, pad), weight, padding=2 * pad)


def trains_by_places(x: Tensor) -> bool:
    """Whether a 1x1 convolution of ``x`` is quicker as one product of a matrix with all places of all images."""
    return trains_on_cpu(x) and x.shape[2] * x.shape[3] <= FEW_PLACES


def places(x: Tensor) -> Tensor:
    """``(N H W, C)`` of images ``(N, C, H, W)``."""
    return x.flatten(2).mT.reshape(-1, x.shape[1])


def images_of(y: Tensor, size: torch.Size) -> Tensor:
    """Images ``(N, C', H, W)`` of `places` ``(N H W, C')``, for ``size`` ``(N, C, H, W)``."""
    return y.unflatten(0, (size[0], size[2] * size[3])).mT.contiguous().unflatten(2, size[2:])


def _of_places(x: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
    y = places(x) @ matrix if bias is None else torch.addmm(bias, places(x), matrix)
    return images_of(y, x.shape)


def adjoint_kernel(weight: Tensor) -> Tensor:
    """Kernel ``(I, O, k, k)`` of the adjoint of `conv2d_same` with ``weight`` ``(O, I, k, k)``, same padding."""
    return weight.transpose(0, 1).flip(2, 3)
