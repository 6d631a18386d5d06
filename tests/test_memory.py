"""Peak memory: exactly the bytes that are known to be held at once, whatever happened before."""

import gc

import pytest
import torch
from contract import METHODS, build

from lipref.bench.memory import peak_bytes
from lipref.errors import LiprefError

KB = 1024


def kilobytes(count, device="cpu"):
    return torch.empty(count * KB, dtype=torch.uint8, device=device)


class Keep(torch.autograd.Function):
    """The identity, with a tensor of 100 kB for the backward pass and a temporary of 300 kB in it."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(kilobytes(100))
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        kilobytes(300)
        return gradient


def at_once():
    return kilobytes(3), kilobytes(5)


def one_after_the_other():
    for _ in range(4):
        kilobytes(5)
    return kilobytes(2)


def a_peak_in_the_middle():
    a = kilobytes(7)
    b = kilobytes(9)
    del a, b
    return kilobytes(1)


def kept_for_backward():
    x = kilobytes(4).view(torch.float32).requires_grad_()
    y = Keep.apply(x)
    kilobytes(50)
    return y


def temporary_in_backward():
    y = kept_for_backward()
    y.backward(y.detach())


def cycles():
    for _ in range(3):
        tensors = [kilobytes(10)]
        tensors.append(tensors)


@pytest.mark.parametrize(
    ("function", "least", "most"),
    [
        (lambda: None, 0, 0),
        (at_once, 8, 8),
        (one_after_the_other, 5, 5),
        (a_peak_in_the_middle, 16, 16),
        (kept_for_backward, 154, 154),
        (temporary_in_backward, 404, 404),
        (cycles, 30, 30),
        (lambda: (kilobytes(8) + kilobytes(8)) * kilobytes(8), 24, 24),
    ],
)
def test_known_bytes_are_known_exactly(function, least, most):
    assert least * KB <= peak_bytes(function, "cpu") <= most * KB


def test_a_temporary_inside_a_kernel_is_seen():
    matrix = torch.eye(64)
    with_workspace = peak_bytes(lambda: torch.linalg.lu_factor(matrix), "cpu")
    assert with_workspace > matrix.nbytes + 64 * 4  # more than the factors and the pivots that come out


def test_memory_from_before_neither_counts_nor_makes_room():
    held = [kilobytes(1000) for _ in range(2)]  # one for each of the two runs

    def function():
        held.pop()
        return kilobytes(20)

    assert peak_bytes(function, "cpu") == 20 * KB
    # Blocks that an earlier measurement saw being allocated are no different.
    kept = []
    peak_bytes(lambda: kept.append(kilobytes(1000)), "cpu")

    def release():
        kept.pop(0)  # in the measured run, the block from the measured run
        return kilobytes(20)

    assert peak_bytes(release, "cpu") == 20 * KB


@pytest.mark.parametrize("name", METHODS)
def test_it_repeats_to_the_byte(name):
    layer, x = build(name, dtype=torch.float32), torch.randn(2, 4, 8, 8)
    state = {key: value.clone() for key, value in layer.state_dict().items()}

    def function():
        layer.load_state_dict(state)
        layer.train()(x).sum().backward()
        layer.zero_grad()
        layer.eval()(x)
        layer.train()

    first = peak_bytes(function, "cpu")
    noise = [torch.fft.rfft2(torch.randn(3, 5 + i, 7)) for i in range(20)]
    assert peak_bytes(function, "cpu") == first > x.nbytes
    del noise
    assert peak_bytes(function, "cpu") == first


def test_nothing_is_printed_and_the_collector_is_as_before(capfd):
    for enabled in (True, False):
        (gc.enable if enabled else gc.disable)()
        try:
            seen = []
            peak_bytes(lambda seen=seen: seen.append(gc.isenabled()), "cpu")
            assert seen == [enabled, False]
            assert gc.isenabled() is enabled
        finally:
            gc.enable()
    assert capfd.readouterr() == ("", "")


def test_a_failure_passes_through_and_leaves_no_profiler_running():
    calls = []

    def function():
        calls.append(None)
        if len(calls) == 2:
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        peak_bytes(function, "cpu")
    assert peak_bytes(at_once, "cpu") == 8 * KB


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(LiprefError, match=r"'meta'.*cpu and cuda"):
        peak_bytes(at_once, "meta")
    with (
        torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]),
        pytest.raises(LiprefError, match="stop it first"),
    ):
        peak_bytes(at_once, "cpu")
    assert peak_bytes(at_once, "cpu") == 8 * KB


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_cuda_it_is_the_allocators_peak():
    before = kilobytes(100, "cuda")
    peak = peak_bytes(lambda: (kilobytes(512, "cuda"), kilobytes(1024, "cuda"))[0].zero_(), "cuda")
    assert peak == 1536 * KB
    del before
