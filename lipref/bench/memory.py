"""Peak of the memory that a function allocates through torch, on any device."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable, Iterable, Iterator

import torch
from torch.autograd import _profiler_enabled
from torch.profiler import ProfilerActivity, profile

from lipref.errors import LiprefError

DEVICES = ("cpu", "cuda")


def peak_bytes(function: Callable[[], object], device: str | torch.device) -> int:
    """The most bytes of tensors on ``device`` that ``function`` holds at any one time, beyond what was there before.

    The function runs twice, and the second run is measured: what libraries and layers make at their first call and keep
    (plans, workspaces, caches) is there by then, so the result does not depend on earlier calls. In between and during
    the measured run no garbage is collected but by reference counts: cyclic garbage counts until the function returns.

    On a CPU the torch profiler records every allocation and release of torch's allocator, with its address. The peak is
    that of the running sum in the order of time. Only blocks that were allocated since the start enter it, so a block
    that is older neither counts nor, once it is released, makes room. Temporaries inside kernels and what autograd
    keeps are seen. Not seen is memory that does not come from torch's allocator (scratch memory of oneDNN, MKL and
    OpenMP, NumPy arrays, Python objects), nor what threads that the function itself starts allocate.

    On CUDA it is ``torch.cuda.max_memory_allocated`` less what was allocated before: memory in tensors, rounded up to
    the allocator's blocks of 512 bytes, without the allocator's reserve and the CUDA context. Here blocks from before
    that the function releases do make room: it should release none.

    Args:
        function: Called without arguments; its result is dropped.
        device: The device whose memory counts, of type cpu or cuda.

    Returns:
        Bytes, at least 0.

    Raises:
        LiprefError: another kind of device, a torch profiler that is running already, or a torch that records nothing.
    """
    device = torch.device(device)
    if device.type not in DEVICES:
        raise LiprefError(f"device {str(device)!r}: memory is measured on {' and '.join(DEVICES)} only; choose one")
    function()
    with _no_cyclic_collection():
        return _cuda_peak(function, device) if device.type == "cuda" else _cpu_peak(function)


def _cuda_peak(function: Callable[[], object], device: torch.device) -> int:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    function()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _cpu_peak(function: Callable[[], object]) -> int:
    if _profiler_enabled():
        raise LiprefError("a torch profiler is running: memory is measured with that very profiler; stop it first")
    with _quiet_kineto(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        torch.empty(1, dtype=torch.uint8, device="cpu")  # must show up, or nothing is being recorded
        function()
    changes = sorted(_changes(profiler.profiler.kineto_results.experimental_event_tree()), key=lambda change: change[0])
    if [size for _, _, size in changes[:2]] != [1, -1]:
        raise LiprefError(f"torch {torch.__version__} records no allocations: use a build with Kineto (the usual one)")
    return _peak((address, size) for _, address, size in changes[2:])


def _changes(roots: Iterable[object]) -> Iterator[tuple[int, int, int]]:
    """Time (ns), address and bytes (negative: released) of every change of CPU memory in a tree of profiler events."""
    allocation = torch._C._profiler._EventType.Allocation
    left = list(roots)[::-1]
    while left:
        event = left.pop()
        if event.tag == allocation:
            fields = event.extra_fields
            if fields.device.type == "cpu":
                yield event.start_time_ns, fields.ptr, fields.alloc_size
        else:
            left.extend(event.children[::-1])


def _peak(changes: Iterable[tuple[int, int]]) -> int:
    """Largest sum of the blocks that are held at once, from the address and the bytes of every change."""
    held: dict[int, int] = {}
    now = peak = 0
    for address, size in changes:
        # Whatever was there is gone, also where its release went unseen: an address holds one block.
        now -= held.pop(address, 0)
        if size > 0:
            held[address] = size
            now += size
            peak = max(peak, now)
    return peak


@contextlib.contextmanager
def _no_cyclic_collection() -> Iterator[None]:
    """When the collector runs depends on all that the process did before; now, and then not until the end."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextlib.contextmanager
def _quiet_kineto() -> Iterator[None]:
    """Keep Kineto from reporting its start, its stop and missing GPUs on standard error.

    It reads the variable once, when it first starts. That allocations are recorded is checked in another way.
    """
    name = "KINETO_LOG_LEVEL"
    given = os.environ.get(name)
    os.environ.setdefault(name, "99")
    try:
        yield
    finally:
        if given is None:
            os.environ.pop(name, None)
