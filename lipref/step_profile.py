"""Where the time of a training step goes on a CPU: convolutions, products of matrices, factorisations, and the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import torch
from torch.profiler import ProfilerActivity, profile

from lipref import workloads
from lipref.checkpoint import replace_file
from lipref.errors import LiprefError
from lipref.layers import LayerSpec
from lipref.nets import convnet
from lipref.provenance import environment, write_json
from lipref.runs import make_folder

# The first whose word is in an operation's name; what has none is the rest: passes over memory, and Python.
KINDS = {
    "convolutions": ("conv",),
    "products": ("aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm", "aten::dot"),
    "factorisations": ("linalg_eigh", "cholesky", "linalg_lu", "linalg_inv", "linalg_solve", "triangular"),
    "Fourier transforms": ("aten::_fft",),
}
REST = "rest"
IMAGE_SIZE, CHANNELS, CLASSES = 32, 3, 10
COLUMNS = ("layer", "kind", "milliseconds", "low", "high")


def measure(
    specs: Sequence[LayerSpec], size: str, batch_size: int, steps: int = 3, rounds: int = 3,
    on_task: Callable[[int, int, str], None] = lambda *task: None,
) -> pd.DataFrame:  # fmt: skip
    """Milliseconds per step by kind of operation: the median over rounds, the lowest and the highest.

    The layers take turns, `lipref.workloads.training` on 32x32 pictures. Profiling itself slows what is made of many
    small operations, which all belong to the rest.

    Args:
        specs: Which layers.
        size: Of the network.
        batch_size: Images of a step.
        steps: Profiled in each round, after two that are not.
        rounds: Of all layers.
        on_task: Called before each network of a round with how many are done, of how many, and its layer.

    Raises:
        LiprefError: a number below 1, an unknown size, a layer that fails.
    """
    for name, value in (("batch_size", batch_size), ("steps", steps), ("rounds", rounds)):
        if value < 1:
            raise LiprefError(f"{name}={value}: give a whole number, at least 1")
    lines = []
    for number in range(rounds):
        for place, spec in enumerate(specs):
            on_task(number * len(specs) + place, rounds * len(specs), spec.label)
            for kind, milliseconds in _profiled(spec, size, batch_size, steps).items():
                lines.append({"layer": spec.label, "kind": kind, "milliseconds": milliseconds})
    groups = pd.DataFrame(lines).groupby(["layer", "kind"], sort=False).milliseconds
    return groups.agg(milliseconds="median", low="min", high="max").reset_index()[list(COLUMNS)]


def _profiled(spec: LayerSpec, size: str, batch_size: int, steps: int) -> dict[str, float]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = convnet(size, spec, CLASSES, CHANNELS, IMAGE_SIZE)
        images = torch.rand(batch_size, CHANNELS, IMAGE_SIZE, IMAGE_SIZE) - 0.5
        step = workloads.training(model, images, torch.randint(CLASSES, (batch_size,)))
        for _ in range(workloads.WARM_UP):
            step()
        with profile(activities=[ProfilerActivity.CPU]) as found:
            for _ in range(steps):
                step()
    sums = dict.fromkeys((*KINDS, REST), 0.0)
    for event in found.key_averages():
        sums[kind_of(event.key)] += event.self_cpu_time_total / 1e3 / steps
    return sums


def kind_of(operation: str) -> str:
    """The kind of an operation by its name, such as ``aten::mm``."""
    return next((kind for kind, words in KINDS.items() if any(word in operation for word in words)), REST)


def write(table: pd.DataFrame, question: dict, out: Path) -> list[Path]:
    """``profile.csv``, and ``profile.json`` with what was asked and where it was measured."""
    folder = make_folder(Path(out))
    replace_file(folder / "profile.csv", table.to_csv(index=False, lineterminator="\n").encode())
    write_json(folder / "profile.json", question | {"environment": environment("cpu")})
    return [folder / "profile.csv", folder / "profile.json"]
