"""A measurement in rounds: what one round measures, and what the rounds say together.

Between two measurements of one network some minutes apart a shared machine drifts by far more than the quartiles of
either tell. So the repeats are spread over rounds, and between two rounds of a network the others have theirs.
"""

from __future__ import annotations

import copy
import gc
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor

from lipref.bench import workloads
from lipref.bench.memory import peak_bytes
from lipref.errors import LiprefError
from lipref.layers import LayerSpec
from lipref.nets import ConvNet, convnet, count_parameters
from lipref.training.speed import Speed

SECONDS = ("train_seconds", "infer_seconds", "folded_seconds", "prepare_seconds")
PEAKS = ("train_peak_bytes", "infer_peak_bytes", "folded_peak_bytes")
QUANTITIES = ("train", "infer", "folded", "prepare", "memory")
PEAK_BATCHES = 3  # a first step makes the gradients, a second meets them; a third to be sure


@dataclass(frozen=True)
class Progress:
    """Where a measurement is: ``quantity`` is about to be measured, ``done`` of ``total`` are, over all its rounds."""

    quantity: str
    done: int
    total: int


@dataclass(frozen=True, kw_only=True)
class Network:
    """What is measured: the network of ``size`` from ``spec`` and a batch, see `lipref.bench.cost.CostConfig`.

    ``speed``: the options of its training step, of which CUDA graphs are for evaluation too. ``quantities``: of
    `QUANTITIES`; the others are not measured.
    """

    spec: LayerSpec
    size: str
    image_size: int
    channels: int
    num_classes: int
    batch_size: int
    speed: Speed = field(default_factory=Speed)
    quantities: tuple[str, ...] = QUANTITIES


def measure(
    network: Network,
    device: torch.device,
    *,
    number: int,
    rounds: int,
    repeats: int,
    max_seconds: float,
    on_progress: Callable[[Progress], None] | None = None,
) -> dict:
    """Round ``number``, from 0, of ``rounds``; sets the global random state.

    Args:
        repeats: of all rounds together, at least ``rounds``.
        max_seconds: per timed quantity in all rounds together.

    Returns:
        ``parameters``; ``exhausted``, whether memory ran out; every name of `SECONDS`: the list of the timed calls, in
        seconds; in the first round every name of `PEAKS`: bytes. None is what could not be measured, or was not to be.

    Raises:
        LiprefError: a layer that fails.
    """
    spec = network.spec
    share = repeats // rounds + (number < repeats % rounds)
    least = math.ceil(workloads.LEAST_REPEATS / rounds)
    torch.manual_seed(0)
    # Large networks are initialised on a GPU in a fraction of the time.
    where = device if device.type == "cuda" else None
    model = convnet(network.size, spec, network.num_classes, network.channels, network.image_size, device=where)
    shape = (network.batch_size, network.channels, network.image_size, network.image_size)
    images, labels = torch.rand(shape) - 0.5, torch.randint(network.num_classes, shape[:1])

    def start(make: Callable[[ConvNet, Tensor, Tensor], Callable | None], source: ConvNet) -> Callable | None:
        """A fresh copy of everything on the device, ready to go."""
        return make(copy.deepcopy(source).to(device), images.to(device, copy=True), labels.to(device, copy=True))

    def several(make: Callable, source: ConvNet) -> None:
        step = start(make, source)
        for _ in range(PEAK_BATCHES):
            step()

    def seconds(make: Callable, source: ConvNet | None) -> list[float] | None:
        step = None if source is None else start(make, source)
        return None if step is None else workloads.seconds(step, device, share, max_seconds / rounds, least)

    def peak(make: Callable, source: ConvNet | None) -> int | None:
        return None if source is None else peak_bytes(lambda: several(make, source), device)

    folded, exhausted = None, False
    if "folded" in network.quantities:
        folded, exhausted = _attempt(spec, "folding", lambda: workloads.folded(copy.deepcopy(model).to(device)))
        folded = None if folded is None else folded.cpu()
    training, evaluation = (partial(each, speed=network.speed) for each in (workloads.training, workloads.evaluation))
    plan = {
        "train_seconds": (seconds, training, model),
        "infer_seconds": (seconds, evaluation, model),
        "folded_seconds": (seconds, evaluation, folded),
        "prepare_seconds": (seconds, workloads.preparation, model),
    }
    if number == 0:  # they repeat to the byte, so once is enough
        plan |= {
            "train_peak_bytes": (peak, training, model),
            "infer_peak_bytes": (peak, evaluation, model),
            "folded_peak_bytes": (peak, evaluation, folded),
        }
    asked = {f"{name}_seconds" for name in network.quantities}
    if "memory" in network.quantities:
        asked |= {f"{name}_peak_bytes" for name in network.quantities}
    before = number * len(SECONDS) + (number > 0) * len(PEAKS)
    values = dict.fromkeys(plan)
    for done, (name, (how, make, source)) in enumerate(plan.items(), before):
        if name not in asked:
            continue
        if on_progress is not None:
            on_progress(Progress(name, done, rounds * len(SECONDS) + len(PEAKS)))
        values[name], failed = _attempt(spec, name, lambda how=how, make=make, source=source: how(make, source))
        exhausted = exhausted or failed
    return {"parameters": count_parameters(model), "exhausted": exhausted} | values


def combine(results: Sequence[dict]) -> dict:
    """What the rounds of one measurement say together: ``status``, ``parameters``, `SECONDS` and `PEAKS`.

    Seconds are dicts: ``median`` over the timed calls of all rounds; ``low`` and ``high``, at each end the outer one of
    their quartile and of the least or largest median of a round; ``repeats``, how many calls were timed; ``rounds``,
    the median of each. A quantity that a round could not measure is None.
    """
    exhausted = any(result["exhausted"] for result in results)
    values: dict[str, object] = {name: _seconds([result[name] for result in results]) for name in SECONDS}
    values |= {name: results[0][name] for name in PEAKS}
    return {"status": "out_of_memory" if exhausted else "done", "parameters": results[0]["parameters"]} | values


def _seconds(samples: list[list[float] | None]) -> dict | None:
    if not all(samples):
        return None
    medians = [float(np.median(times)) for times in samples]
    together = np.concatenate(samples)
    low, median, high = np.quantile(together, [0.25, 0.5, 0.75]).tolist()
    return {
        "median": median, "low": min(low, *medians), "high": max(high, *medians), "repeats": len(together),
        "rounds": medians,
    }  # fmt: skip


def _attempt(spec: LayerSpec, what: str, function: Callable[[], object]) -> tuple[object, bool]:
    """The function's result, and whether it ran out of memory instead."""
    try:
        return function(), False
    except LiprefError:
        raise
    except Exception as error:
        if not _out_of_memory(error):
            text = " ".join(f"{type(error).__name__}: {error}".split())
            raise LiprefError(f"{spec.label} fails at {what}: {text}; mend the layer, or leave it out") from error
    gc.collect()  # only here, where the exception no longer holds the tensors of its frames
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None, True


def _out_of_memory(error: Exception) -> bool:
    texts = ("can't allocate memory", "not enough memory", "_ALLOC_FAILED")  # the CPU's allocator, cuBLAS and cuSOLVER
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in texts)
    )
