"""Memory that a training keeps is not asked from the system again, and is given back at its end."""

import gc
import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from lipref import allocator
from lipref.allocator import freed_memory_kept
from lipref.training import RepeatedStep, TrainingConfig, train

glibc = pytest.mark.skipif(allocator._glibc() is None, reason="glibc's allocator alone is told to keep memory")
BYTES = 40 * 2**20
# In a process of its own, because what others have done to the allocator stays.
SCRIPT = f"""
import json, resource, torch
from lipref.allocator import freed_memory_kept

def faults():  # of filling memory, now and then with something small in the place of what was freed
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(40):
        torch.ones({BYTES}, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

found = {{"before": faults()}}
with freed_memory_kept():
    with freed_memory_kept():
        found["inner"] = faults()
    found["outer"] = faults()
    inside = resident()
found["given back"] = inside - resident()
print(json.dumps(found))
"""


@glibc
def test_what_is_freed_is_used_again_within_and_given_back_afterwards():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    # The outer one holds when the inner one is left.
    assert max(found["inner"], found["outer"]) < found["before"] / 3
    assert found["given back"] > BYTES // 2


@glibc
def test_a_repeated_step_keeps_it_for_as_long_as_it_lives():
    gc.collect()
    before = allocator._holders
    step = RepeatedStep(
        nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.zeros(2, 1, 2, 2), torch.zeros(2, dtype=torch.int64),
        TrainingConfig(epochs=1, learning_rate=0.1, batch_size=2),
    )  # fmt: skip
    step()
    assert allocator._holders == before + 1
    del step
    gc.collect()
    assert allocator._holders == before


@glibc
def test_a_training_keeps_it_and_lets_go_whatever_happens():
    gc.collect()
    before, seen = allocator._holders, []

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
            TrainingConfig(epochs=1, learning_rate=0.1, batch_size=2), on_progress=stop,
        )  # fmt: skip
    assert seen == [before + 1]
    assert allocator._holders == before


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_what_the_user_has_set_stays(name, monkeypatch):
    monkeypatch.setenv(name, "131072")
    allocator._glibc.cache_clear()
    try:
        assert allocator._glibc() is None
    finally:
        allocator._glibc.cache_clear()


def test_a_finalizer_that_comes_while_the_lock_is_held_does_not_wait():
    with allocator._lock:
        assert allocator._lock.acquire(blocking=False)
        allocator._lock.release()


def test_elsewhere_nothing_happens(monkeypatch):
    before = allocator._holders
    monkeypatch.setattr(allocator, "_glibc", lambda: None)
    with freed_memory_kept():
        assert allocator._holders == before
