"""Passes over memory on a GPU, each of them one kernel that reads and writes every byte once: pairs and padding.

They are in Triton, which comes with PyTorch where it is built for CUDA on Linux, and is imported at the first use.
Images are ``(N, C, H, W)``, dense in NCHW or in channels_last order: results are in the order of what came in, and what
is in neither order is copied into NCHW first. Nothing here is seen by autograd, and nothing waits for the device.
"""

import functools
import importlib.util
import warnings

import torch
from torch import Tensor, nn

from lipref.errors import LiprefError

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
BLOCK = 1024  # elements, or pairs of them, of one program
MOST = 2**26  # elements of one image: within a program numbers are 32 bits wide
_FUNCTORCH = ("is_functorch_wrapped_tensor", "is_legacy_batchedtensor")
_WRAPPED = [getattr(torch._C._functorch, name) for name in _FUNCTORCH if hasattr(torch._C._functorch, name)]


@functools.cache
def available() -> bool:
    """Whether Triton is installed."""
    return importlib.util.find_spec("triton") is not None


def stands_for_others(tensor: Tensor) -> bool:
    """Whether it is one of torch.func's."""
    return any(wrapped(tensor) for wrapped in _WRAPPED)


def serves(x: Tensor, *others: Tensor) -> bool:
    """Whether the kernels take ``x``, and with it ``others``, on the same device.

    They do not while torch.compile looks, which makes a better whole of plain operations, nor within torch.func, where
    a tensor stands for others, nor where Triton does not work: then there is a warning, once.
    """
    if not x.is_cuda or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    for tensor in (x, *others):
        if type(tensor) not in (Tensor, nn.Parameter) or stands_for_others(tensor):
            return False
    fits = x.dim() == 4 and x.dtype in DTYPES and x.numel() < MOST * x.shape[0]
    return fits and available() and _works(x.dtype, x.get_device())


def sorted_pairs(x: Tensor) -> tuple[Tensor, Tensor]:
    """Channels ``(2j, 2j+1)`` of ``x`` ``(N, 2C, H, W)`` as their maximum and minimum, bit for bit.

    Returns:
        The sorted channels, and uint8 ``(N, C, H, W)``: 1 where ``x[:, 2j] <= x[:, 2j+1]``, so that the two changed
        places. What does not compare stays where it is.
    """
    layout = _layout(x)
    n, channels, height, width = x.shape
    size = (n, channels // 2, height, width)
    swap = torch.empty(size, dtype=torch.uint8, device=x.device, memory_format=layout)
    return _exchange(x, swap, layout, sort=True), swap


def exchanged(x: Tensor, swap: Tensor) -> Tensor:
    """``x`` ``(N, 2C, H, W)``, its channels 2j and 2j+1 exchanged where ``swap`` ``(N, C, H, W)`` is not 0.

    ``swap`` is uint8 or bool; the result is in its order.
    """
    layout = _layout(swap)
    return _exchange(x, swap.contiguous(memory_format=layout).view(torch.uint8), layout, sort=False)


def circular_padded(x: Tensor, pad: int) -> Tensor:
    """``(N, C, H + 2 pad, W + 2 pad)`` of ``x`` ``(N, C, H, W)``, periodically.

    Raises:
        LiprefError: ``pad`` exceeds the image.
    """
    return _padding("pad", x, pad, x.shape[2], x.shape[3])


def circular_padded_adjoint(grad: Tensor, pad: int) -> Tensor:
    """The adjoint of `circular_padded`: ``(N, C, H, W)`` of ``grad`` ``(N, C, H + 2 pad, W + 2 pad)``.

    Every pixel is the sum over its places, always in the same order; half precision is summed in float32.

    Raises:
        LiprefError: ``pad`` exceeds the image.
    """
    return _padding("fold", grad, pad, grad.shape[2] - 2 * pad, grad.shape[3] - 2 * pad)


def _layout(x: Tensor) -> torch.memory_format:
    """The order of ``x``; where both are the same, as for a single pixel, that which its strides were made for."""
    last = x.is_contiguous(memory_format=torch.channels_last)
    if last and (not x.is_contiguous() or x.stride(3) == x.shape[1] > 1):
        return torch.channels_last
    return torch.contiguous_format


def _exchange(x: Tensor, swap: Tensor, layout: torch.memory_format, sort: bool) -> Tensor:
    x = x.contiguous(memory_format=layout)
    y = torch.empty_like(x, memory_format=layout)
    # Between the two of a pair there is a plane, or nothing.
    plane = 1 if layout == torch.channels_last else x.shape[2] * x.shape[3]
    _launch("exchange", swap.numel(), x, y, swap, PLANE=plane, SORT=sort)
    return y


def _padding(kernel: str, x: Tensor, pad: int, height: int, width: int) -> Tensor:
    """Images of ``height`` and ``width``, to padded ones or from them."""
    if not 0 <= pad <= min(height, width):
        raise LiprefError(f"pad={pad} for an image of {height}x{width}: give at most its smaller side")
    layout = _layout(x)
    x = x.contiguous(memory_format=layout)
    n, channels = x.shape[:2]
    grown = 2 * pad if kernel == "pad" else 0
    size = (n, channels, height + grown, width + grown)
    y = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=layout)
    together = channels if layout == torch.channels_last else 1  # planes are images of one channel
    _launch(kernel, y.numel(), x, y, H=height, W=width, C=together, PAD=pad)
    return y


def _launch(kernel: str, total: int, x: Tensor, *others: Tensor, **constants: int) -> None:
    if total:
        with torch.cuda.device_of(x):
            _kernels()[kernel][(-(-total // BLOCK),)](x, *others, total, BLOCK=BLOCK, num_warps=8, **constants)


@functools.cache
def _works(dtype: torch.dtype, device: int) -> bool:
    """Whether Triton compiles here: it wants a C compiler, and not too old a device."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Triton's own, of its first use
            sorted_pairs(torch.zeros(1, 2, 1, 1, dtype=dtype, device=f"cuda:{device}"))
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "")
        warnings.warn(f"Triton does not work here, others will do: {type(error).__name__}: {reason}", stacklevel=2)
        return False
    return True


@functools.cache
def _kernels() -> dict:
    """The kernels by name. Sizes are constants of theirs, so that no number is divided by one that is not known."""
    global tl  # where Triton looks for it
    import triton
    import triton.language as tl

    @triton.jit
    def exchange(x_ptr, y_ptr, swap_ptr, total, PLANE: tl.constexpr, SORT: tl.constexpr, BLOCK: tl.constexpr):
        start = tl.program_id(0).to(tl.int64) * BLOCK
        lane = tl.arange(0, BLOCK)
        inside = start + lane < total
        compared: tl.constexpr = tl.float64 if x_ptr.dtype.element_ty == tl.float64 else tl.float32
        if PLANE == 1:
            both = 2 * lane[:, None] + tl.arange(0, 2)[None, :]
            pairs = tl.load(x_ptr + 2 * start + both, mask=inside[:, None])
            first, second = tl.split(pairs)
        else:
            pair = start // PLANE
            within = (start - pair * PLANE).to(tl.int32) + lane
            place = within // PLANE * (2 * PLANE) + within % PLANE
            first = tl.load(x_ptr + pair * (2 * PLANE) + place, mask=inside)
            second = tl.load(x_ptr + pair * (2 * PLANE) + place + PLANE, mask=inside)
        if SORT:
            swap = first.to(compared) <= second.to(compared)
            tl.store(swap_ptr + start + lane, swap.to(tl.uint8), mask=inside)
        else:
            swap = tl.load(swap_ptr + start + lane, mask=inside) != 0
        upper = tl.where(swap, second, first)
        lower = tl.where(swap, first, second)
        if PLANE == 1:
            tl.store(y_ptr + 2 * start + both, tl.join(upper, lower), mask=inside[:, None])
        else:
            tl.store(y_ptr + pair * (2 * PLANE) + place, upper, mask=inside)
            tl.store(y_ptr + pair * (2 * PLANE) + place + PLANE, lower, mask=inside)

    @triton.jit
    def pad(
        x_ptr, y_ptr, total,
        H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, PAD: tl.constexpr, BLOCK: tl.constexpr,
    ):  # fmt: skip
        ROWS: tl.constexpr = H + 2 * PAD
        COLUMNS: tl.constexpr = W + 2 * PAD
        start = tl.program_id(0).to(tl.int64) * BLOCK
        lane = tl.arange(0, BLOCK)
        inside = start + lane < total
        image = start // (ROWS * COLUMNS * C)
        within = (start - image * (ROWS * COLUMNS * C)).to(tl.int32) + lane
        pixel = within // C  # first, so that it is seen that C neighbours lie together
        i = pixel % (ROWS * COLUMNS) // COLUMNS - PAD
        j = pixel % COLUMNS - PAD
        i = tl.where(i < 0, i + H, tl.where(i >= H, i - H, i))
        j = tl.where(j < 0, j + W, tl.where(j >= W, j - W, j))
        place = ((pixel // (ROWS * COLUMNS) * H + i) * W + j) * C + within % C
        value = tl.load(x_ptr + image * (H * W * C) + place, mask=inside)
        tl.store(y_ptr + start + lane, value, mask=inside)

    @triton.jit
    def fold(
        grad_ptr, y_ptr, total,
        H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, PAD: tl.constexpr, BLOCK: tl.constexpr,
    ):  # fmt: skip
        ROWS: tl.constexpr = H + 2 * PAD
        COLUMNS: tl.constexpr = W + 2 * PAD
        start = tl.program_id(0).to(tl.int64) * BLOCK
        lane = tl.arange(0, BLOCK)
        inside = start + lane < total
        image = start // (H * W * C)
        within = (start - image * (H * W * C)).to(tl.int32) + lane
        pixel = within // C
        i = pixel % (H * W) // W + PAD
        j = pixel % W + PAD
        # Its other place is a turn away; where the borders are wider than half the image there may be a third.
        turn_i = tl.where(i < 2 * PAD, H, -H)
        turn_j = tl.where(j < 2 * PAD, W, -W)
        summed: tl.constexpr = tl.float64 if y_ptr.dtype.element_ty == tl.float64 else tl.float32
        value = tl.zeros((BLOCK,), dtype=summed)
        for a in tl.static_range(3 if 2 * PAD > H else 2):
            row = i + turn_i * (a % 2 - a // 2)  # 0, 1 and -1 turns
            for b in tl.static_range(3 if 2 * PAD > W else 2):
                column = j + turn_j * (b % 2 - b // 2)
                there = inside & (row >= 0) & (row < ROWS) & (column >= 0) & (column < COLUMNS)
                place = ((pixel // (H * W) * ROWS + row) * COLUMNS + column) * C + within % C
                part = tl.load(grad_ptr + image * (ROWS * COLUMNS * C) + place, mask=there, other=0.0)
                value += part.to(summed)
        tl.store(y_ptr + start + lane, value.to(y_ptr.dtype.element_ty), mask=inside)

    return {"exchange": exchange, "pad": pad, "fold": fold}
