"""Memory that a training keeps is not asked from the system again, and is given back at its end."""

import gc
import resource

import pytest
import torch
from torch import nn

from lipref import allocator
from lipref.allocator import freed_memory_kept
from lipref.training import RepeatedStep, Settings, train

glibc = pytest.mark.skipif(allocator._glibc() is None, reason="glibc's allocator alone is told to keep memory")
BYTES = 40 * 2**20
PAGES = BYTES // 2**21  # at least, even where pages are huge


def faults():
    """Of filling memory that was filled and freed before."""
    torch.ones(BYTES, dtype=torch.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(BYTES, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


@glibc
def test_what_is_freed_is_used_again_within_and_given_back_afterwards():
    assert faults() >= PAGES
    with freed_memory_kept():
        with freed_memory_kept():
            assert faults() < PAGES
        assert faults() < PAGES  # the outer one still holds
        inside = resident()
    assert resident() < inside - BYTES // 2
    assert faults() >= PAGES


@glibc
def test_a_repeated_step_keeps_it_for_as_long_as_it_lives():
    step = RepeatedStep(
        nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.zeros(2, 1, 2, 2), torch.zeros(2, dtype=torch.int64),
        Settings(epochs=1, learning_rate=0.1, batch_size=2),
    )  # fmt: skip
    step()
    assert allocator._holders == 1
    del step
    gc.collect()
    assert allocator._holders == 0


@glibc
def test_a_training_keeps_it_and_lets_go_whatever_happens():
    seen = []

    def stop(progress):
        seen.append(allocator._holders)
        raise KeyboardInterrupt

    batches = [(torch.zeros(2, 1, 2, 2), torch.zeros(2, dtype=torch.int64))]

    class Source(list):
        def epoch(self, epoch, start=0):
            return iter(self[start:])

    with pytest.raises(KeyboardInterrupt):
        train(
            nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), Source(batches),
            Settings(epochs=1, learning_rate=0.1, batch_size=2), on_progress=stop,
        )  # fmt: skip
    assert seen == [1]
    assert allocator._holders == 0


def test_elsewhere_nothing_happens(monkeypatch):
    monkeypatch.setattr(allocator, "_glibc", lambda: None)
    with freed_memory_kept():
        assert allocator._holders == 0
