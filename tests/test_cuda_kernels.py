"""The kernels of a GPU against plain PyTorch on the CPU: in Triton's interpreter, and on CUDA where there is one.

Run as a program, with ``TRITON_INTERPRET=1``, this file does all of its checks in the interpreter.
"""

import itertools
import os
import subprocess
import sys
from contextlib import contextmanager, nullcontext

import pytest
import torch
from torch.nn import functional as F

from lipref.activations import MaxMin, _Exchange
from lipref.errors import LiprefError
from lipref.linalg import cuda_kernels
from lipref.linalg.padding import circular_pad

LAYOUTS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}
BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
# More than one block, blocks that end within an image, images within a block, single pixels, rows and columns.
SHAPES = [(1, 2, 1, 1), (3, 6, 1, 1), (3, 4, 2, 3), (5, 2, 3, 1), (1, 8, 2, 2), (3, 10, 7, 5), (1, 2, 40, 33)]
ON_CUDA = [(3, 6, 1, 1), (3, 10, 7, 5), (5, 16, 8, 8)]
cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


def laid_out(x, layout):
    """Also where `contiguous` leaves the strides of the other order, as for single pixels."""
    return torch.empty_like(x, memory_format=layout).copy_(x)


def numbers(shape, dtype, layout, seed=0):
    """With ties, zeros of both signs, infinities, NaN and the smallest numbers among them."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    smallest = torch.finfo(dtype).smallest_normal / 4
    if dtype == torch.bfloat16 and os.environ.get("TRITON_INTERPRET") == "1":
        smallest *= 4  # the interpreter takes 0 for what is below
    odd = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan, smallest, 2 * smallest, 1.0], dtype=dtype)
    chosen = torch.randint(3 * len(odd), shape, generator=generator)
    return laid_out(torch.where(chosen < len(odd), odd[chosen % len(odd)], x), layout)


def ordinary(shape, dtype, layout, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return laid_out(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype), layout)


def same_bits(found, expected):
    found, expected = found.detach().cpu(), expected.detach()
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert torch.equal(found.view(BITS[found.element_size()]), expected.view(BITS[expected.element_size()]))


def padded_shape(shape, pad):
    return (*shape[:2], shape[2] + 2 * pad, shape[3] + 2 * pad)


def pads(shape):
    return [pad for pad in (1, 2, 3) if pad <= min(shape[2:])]


def folded(grad, pad, height, width):
    """The adjoint of circular padding in float64, place by place."""
    rows = torch.arange(-pad, height + pad) % height
    columns = torch.arange(-pad, width + pad) % width
    whole = torch.zeros(*grad.shape[:2], height, grad.shape[3], dtype=torch.float64).index_add_(2, rows, grad.double())
    return torch.zeros(*grad.shape[:2], height, width, dtype=torch.float64).index_add_(3, columns, whole)


def is_the_sum(found, grad, pad):
    """``found`` is `folded`, up to the rounding of float32 or better on the way, and once to its own dtype."""
    height, width = found.shape[2:]
    exact, size = folded(grad, pad, height, width), folded(grad.abs(), pad, height, width)
    eps = torch.finfo(found.dtype).eps
    last = 0 if eps < 1e-4 else eps / 2 if found.is_cuda else eps  # the interpreter cuts bfloat16 off
    allowed = 1.01 * last * exact.abs() + 4 * min(eps, 2**-23) * size
    assert ((found.detach().cpu().double() - exact).abs() <= allowed + torch.finfo(found.dtype).tiny).all()


def check_pairs(device, shape, dtype, layout):
    x = numbers(shape, dtype, layout)
    swap = x[:, 0::2] <= x[:, 1::2]
    y, found = cuda_kernels.sorted_pairs(x.to(device))
    same_bits(y, _Exchange.apply(x, swap))
    assert found.dtype == torch.uint8
    assert torch.equal(found.cpu(), swap.to(torch.uint8))
    assert all(tensor.is_contiguous(memory_format=layout) for tensor in (y, found))
    other = LAYOUTS["nchw" if layout == torch.channels_last else "channels_last"]
    n, channels, height, width = shape
    wide = numbers((n, channels, height, 2 * width), dtype, layout, seed=1)
    for grad in (numbers(shape, dtype, layout, 2), numbers(shape, dtype, other, 3), wide[..., ::2],
                 numbers((1, 1, 1, 1), dtype, layout, 4).expand(shape)):  # fmt: skip
        back = cuda_kernels.exchanged(grad.to(device), found)
        same_bits(back, _Exchange.apply(grad.contiguous(), swap))
        assert back.is_contiguous(memory_format=layout) or channels == 2  # one mask has no order of channels
    same_bits(cuda_kernels.exchanged(y, found.bool()), x)


def check_padding(device, shape, dtype, layout):
    for pad in pads(shape):
        x = numbers(shape, dtype, layout)
        y = cuda_kernels.circular_padded(x.to(device), pad)
        same_bits(y, F.pad(x, (pad,) * 4, mode="circular").contiguous(memory_format=layout))
        grad = ordinary(padded_shape(shape, pad), dtype, layout)
        back = cuda_kernels.circular_padded_adjoint(grad.to(device), pad)
        is_the_sum(back, grad, pad)
        assert back.dtype == dtype
        assert torch.equal(back, cuda_kernels.circular_padded_adjoint(grad.to(device), pad))
        assert all(tensor.is_contiguous(memory_format=layout) for tensor in (y, back))
        if dtype == torch.float64:
            x = ordinary(shape, dtype, layout, 1)
            one = (cuda_kernels.circular_padded(x.to(device), pad).cpu() * grad).sum()
            assert torch.allclose(one, (x * back.cpu()).sum(), rtol=1e-12, atol=1e-12)


def check_sliced(device):
    """What is dense in neither order."""
    x = numbers((3, 6, 5, 8), torch.float32, torch.contiguous_format)[:, :4, :, 1:6]
    assert not x.is_contiguous()
    same_bits(cuda_kernels.sorted_pairs(x.to(device).clone().permute(0, 1, 3, 2))[0],
              _Exchange.apply(x, x[:, 0::2] <= x[:, 1::2]).permute(0, 1, 3, 2))  # fmt: skip
    same_bits(cuda_kernels.circular_padded(x.to(device)[:, ::2], 2), F.pad(x[:, ::2], (2,) * 4, mode="circular"))
    grad = ordinary((3, 6, 7, 9), torch.float32, torch.contiguous_format)[:, 1:4, :, ::2]
    is_the_sum(cuda_kernels.circular_padded_adjoint(grad.to(device), 1), grad, 1)
    for empty in (x[:0], x[:, :0]):
        assert cuda_kernels.sorted_pairs(empty.to(device))[0].shape == empty.shape
        assert cuda_kernels.circular_padded(empty.to(device), 1).shape == padded_shape(empty.shape, 1)
    with pytest.raises(LiprefError, match="pad=3 for an image of 2x9"):
        cuda_kernels.circular_padded(torch.zeros(1, 1, 2, 9, device=device), 3)


@contextmanager
def on_the_cpu():
    """The kernels take CPU tensors too, so that autograd around them can be tried in the interpreter."""

    def serves(x, *others):
        calls.append(x)
        plain = not any(wrapped(tensor) for tensor in (x, *others) for wrapped in cuda_kernels._WRAPPED)
        return plain and x.dim() == 4 and x.dtype in cuda_kernels.DTYPES

    calls, before = [], cuda_kernels.serves
    cuda_kernels.serves = serves
    try:
        yield calls
    finally:
        cuda_kernels.serves = before


def block(x):
    return MaxMin()(circular_pad(MaxMin()(x), 1) * 3)


def check_gradients(device, dtype, layout):
    """MaxMin and circular_pad as they are used, against the exchange of bits and padding on the CPU."""
    x, pad = numbers((3, 6, 4, 5), dtype, layout), 2
    grads = [ordinary(x.shape, dtype, LAYOUTS["nchw"]), ordinary(padded_shape(x.shape, pad), dtype, layout)]
    found = []
    with kernels(device) as place:
        for function, grad in zip((MaxMin(), lambda x: circular_pad(x, pad)), grads, strict=True):
            leaf = x.detach().to(place).requires_grad_()
            kept = []
            with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t) or t, lambda t: t):
                y = function(leaf)
            assert sum(t.numel() * t.element_size() for t in kept) in (0, x.numel() // 2)
            assert y.is_contiguous(memory_format=layout)
            found.append((y, *torch.autograd.grad(y, leaf, grad.to(place))))
    leaf = x.clone().requires_grad_()
    y = _Exchange.apply(leaf, x[:, 0::2] <= x[:, 1::2])
    same_bits(found[0][0], y)
    same_bits(found[0][1], torch.autograd.grad(y, leaf, grads[0])[0])
    same_bits(found[1][0], circular_pad(x, pad))
    is_the_sum(found[1][1], grads[1], pad)


def check_transforms(device):
    """Second derivatives, batches of gradients and torch.func, odd channels and other dimensions: all as on the CPU."""
    x = ordinary((2, 3, 2, 3), torch.float64, torch.channels_last)
    direction = ordinary((2, 3, 4, 5), torch.float64, torch.contiguous_format, 1)

    def curved(x):
        return (block(x.sin()) ** 3 * direction.to(x.device)).sum()

    def second(x):
        x = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(curved(x), x, create_graph=True)
        return torch.autograd.grad((slope**2).sum(), x)[0]

    def batched(x):
        x = x.clone().requires_grad_()
        y = circular_pad(x, 2)
        many = torch.linspace(-1, 1, 3 * y.numel(), dtype=x.dtype, device=x.device).view(3, *y.shape)
        return torch.autograd.grad(y, x, many, is_grads_batched=True)[0]

    ways = [
        block, second, batched, torch.func.vmap(lambda x: block(x[None])[0]), torch.func.grad(curved),
        torch.func.grad(lambda x: torch.func.grad(curved)(x).square().sum()), torch.func.jacrev(lambda x: block(x)[0]),
        torch.func.vmap(torch.func.grad(lambda x: (block(x[None]) ** 3).sum())), lambda x: MaxMin()(x.flatten(2)),
        lambda x: MaxMin()(x.flatten(1)), lambda x: torch.func.vmap(lambda scale: block(x) * scale)(x[0, 0, 0]),
    ]  # fmt: skip
    for number, way in enumerate(ways):
        try:
            expected = way(x)
        except RuntimeError as error:
            if "Batching rule" not in str(error):  # which older versions of PyTorch lack
                raise
            continue
        with kernels(device) as place:
            found = way(x.to(place))
        assert torch.allclose(found.cpu(), expected, rtol=1e-12, atol=1e-12), number
    with kernels(device) as place:
        leaf = ordinary((1, 4, 2, 1), torch.float64, torch.channels_last).to(place).requires_grad_()
        assert torch.autograd.gradcheck(block, leaf)
        assert torch.autograd.gradgradcheck(lambda x: block(x.sin()), leaf)


@contextmanager
def kernels(device):
    """The kernels at work on ``device``, in the interpreter where it is the CPU."""
    with on_the_cpu() if device == "cpu" else nullcontext() as calls:
        yield device
        assert calls is None or calls


def every_check():
    assert "triton" not in sys.modules  # lipref does without it until it is used
    assert not cuda_kernels.serves(torch.zeros(1, 2, 3, 3))
    for shape, dtype, layout in itertools.product(SHAPES, cuda_kernels.DTYPES, LAYOUTS.values()):
        check_pairs("cpu", shape, dtype, layout)
        check_padding("cpu", shape, dtype, layout)
    check_sliced("cpu")
    for dtype, layout in itertools.product(cuda_kernels.DTYPES, LAYOUTS.values()):
        check_gradients("cpu", dtype, layout)
    check_transforms("cpu")
    print("all checks passed")


@pytest.mark.skipif(not cuda_kernels.available(), reason="Triton is not installed")
def test_the_kernels_in_the_interpreter_are_plain_pytorch():
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    found = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True, timeout=600)
    assert found.returncode == 0, found.stderr[-4000:]
    assert found.stdout.endswith("all checks passed\n")


def test_on_a_cpu_the_kernels_take_nothing():
    assert not cuda_kernels.serves(torch.zeros(1, 2, 3, 3))


@cuda
@pytest.mark.skipif(not cuda_kernels.available(), reason="Triton is not installed")
def test_on_cuda_the_kernels_work():
    for dtype in cuda_kernels.DTYPES:
        assert cuda_kernels.serves(torch.zeros(1, 2, 3, 3, dtype=dtype, device="cuda"))
    assert not cuda_kernels.serves(torch.zeros(1, 2, 3, device="cuda"))
    assert not cuda_kernels.serves(torch.zeros(1, 2, 3, 3, dtype=torch.int32, device="cuda"))


@cuda
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("dtype", cuda_kernels.DTYPES, ids=str)
def test_on_cuda_the_kernels_are_plain_pytorch(dtype, layout):
    for shape in ON_CUDA if dtype in (torch.float32, torch.bfloat16) else ON_CUDA[1:2]:
        check_pairs("cuda", shape, dtype, layout)
        check_padding("cuda", shape, dtype, layout)


@cuda
def test_on_cuda_what_is_not_dense_is_copied():
    check_sliced("cuda")


@cuda
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_on_cuda_gradients_are_those_of_the_cpu(dtype, layout):
    check_gradients("cuda", dtype, layout)


@cuda
def test_on_cuda_gradients_have_gradients_and_transforms():
    check_transforms("cuda")


@cuda
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_cuda_graph_replays_forward_and_backward(dtype, layout):
    """Whole numbers, whose sums are exact."""
    shape = (4, 8, 6, 7)
    x = laid_out(torch.randint(-4, 5, shape).to(dtype), layout)
    grad = laid_out(torch.randint(-4, 5, padded_shape(shape, 1)).to(dtype), layout)
    leaf, pulled = torch.zeros_like(x, device="cuda").requires_grad_(), torch.zeros_like(grad, device="cuda")

    def step():
        y = block(leaf)
        return y, torch.autograd.grad(y, leaf, pulled)[0]

    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = step()
    with torch.no_grad():
        leaf.copy_(x)
        pulled.copy_(grad)
    graph.replay()
    torch.cuda.synchronize()
    here = x.clone().requires_grad_()
    y = block(here)
    assert torch.equal(found[0].cpu(), y)
    assert torch.equal(found[1].cpu(), torch.autograd.grad(y, here, grad)[0])


@cuda
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_on_cuda_more_than_32_bits_of_elements(layout):
    if torch.cuda.mem_get_info()[0] < 20e9:
        pytest.skip("needs 20 GB of GPU memory")
    size = (2**13 + 1, 4, 256, 256)
    assert torch.Size(size).numel() > 2**31
    ends = ordinary((2, *size[1:]), torch.bfloat16, layout).cuda()

    def spread(ends, size):
        whole = torch.empty(size, dtype=ends.dtype, device="cuda", memory_format=layout).zero_()
        whole[:1], whole[-1:] = ends[:1], ends[1:]
        return whole

    def at_the_ends(whole):
        return torch.cat((whole[:1], whole[-1:]))

    expected, _ = cuda_kernels.sorted_pairs(ends)
    y, swapped = cuda_kernels.sorted_pairs(spread(ends, size))
    assert torch.equal(at_the_ends(y), expected)
    back = cuda_kernels.exchanged(y, swapped)
    assert torch.equal(at_the_ends(back), ends)
    del y, swapped
    padded = cuda_kernels.circular_padded(back, 1)
    assert torch.equal(at_the_ends(padded), cuda_kernels.circular_padded(ends, 1))
    del back
    folded_ = cuda_kernels.circular_padded_adjoint(padded, 1)
    assert torch.equal(at_the_ends(folded_), cuda_kernels.circular_padded_adjoint(at_the_ends(padded), 1))


if __name__ == "__main__":
    every_check()
