"""Freed memory that a process keeps while it trains on a CPU.

By default glibc gives large blocks back to the system once they are free, and the system fills them with zeros when a
step asks for them again: thousands of page faults a step.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import platform
import threading
from collections.abc import Callable, Iterator

TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4  # of malloc.h
NEVER = -1
MIB = 2**20
SETTINGS = ("MALLOC_", "GLIBC_TUNABLES")  # how a user sets the allocator

_lock = threading.RLock()  # a finalizer may come while this very thread holds it
_holders = 0


@contextlib.contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Within it what is freed stays with the process, for what it allocates next; afterwards it is given back.

    Of glibc's own allocator alone, and where the user has not set it by the environment (``MALLOC_...``,
    ``GLIBC_TUNABLES``): elsewhere nothing happens. May be entered again within itself. Afterwards blocks of 32 MiB and
    more go back at once, and 64 MiB may stay: what glibc itself arrives at in a process with large tensors.
    """
    global _holders
    call = _glibc()
    if call is None:
        yield
        return
    with _lock:
        _holders += 1
        if _holders == 1:
            call("mallopt", MMAP_MAX, 0)
            call("mallopt", TRIM_THRESHOLD, NEVER)
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if _holders == 0:
                call("mallopt", MMAP_THRESHOLD, 32 * MIB)
                call("mallopt", MMAP_MAX, 65536)
                call("mallopt", TRIM_THRESHOLD, 64 * MIB)
                call("malloc_trim", 0)


@functools.cache
def _glibc() -> Callable[..., int] | None:
    if platform.libc_ver()[0] != "glibc" or any(name.startswith(SETTINGS) for name in os.environ):
        return None
    library = ctypes.CDLL(None)
    if not (hasattr(library, "mallopt") and hasattr(library, "malloc_trim")):
        return None
    library.malloc_trim.argtypes = [ctypes.c_size_t]
    return lambda name, *given: getattr(library, name)(*given)
