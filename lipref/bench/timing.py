"""What is measured of other people's network: as of ours (`lipref.bench.rounds`), in as many calls as time allows."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lipref.bench import rounds, workloads
from lipref.bench.foreign import Foreign
from lipref.bench.memory import peak_bytes
from lipref.errors import LiprefError
from lipref.layers import LayerSpec
from lipref.runs.records import Config

PARTS = ("train", "infer", "folded", "memory")
SECONDS = {"train": "train_seconds", "infer": "infer_seconds", "folded": "folded_seconds"}
SEED = 0  # of weights and pictures, as of ours
LEAST_PEAK_STEPS = 2  # a first step makes the gradients, a second meets them


@dataclass(frozen=True, kw_only=True)
class ForeignConfig(Config):
    """Everything that decides a measurement of other people's network, as `lipref.bench.cost.CostConfig` does of ours.

    ``against`` names the code, ``source_sha256`` is the fingerprint of its files; ``max_seconds`` the time, per
    quantity and round, after which no repeat is begun.
    """

    against: str
    source_sha256: str
    image_size: int
    channels: int
    num_classes: int
    batch_size: int
    machine: str
    cores: int
    threads: int
    repeats: int
    rounds: int
    max_seconds: float

    @property
    def folder(self) -> str:
        """Name of the measurement's folder: readable, and unique by the digest's first digits."""
        side = f"{self.image_size}x{self.image_size}"
        return f"{self.against}-{side}-{self.size}-{self.layer}-batch{self.batch_size}-{self.digest[:10]}"


def measure(code: Foreign, config: ForeignConfig, part: str, number: int, device: torch.device) -> dict:
    """One of `PARTS` of round ``number``, from 0; sets the global random state.

    Returns:
        ``status``, ``done`` or ``out_of_memory``; of a time ``times`` (seconds of every timed call; empty where memory
        ran out) and ``warm_up`` (calls before them); of ``memory`` the bytes by the names of `rounds.PEAKS` and
        ``steps``, over how many a peak was taken.

    Raises:
        LiprefError: its code fails, or does not give logits of the right shape.
    """
    spec = LayerSpec("it", nn.Module)  # whose failure is told behind its name
    value, exhausted = rounds._attempt(spec, part, lambda: _measure(code, config, part, number, device))
    if exhausted:
        value = dict.fromkeys(rounds.PEAKS) | {"steps": 0} if part == "memory" else {"times": [], "warm_up": 0}
    return {"status": "out_of_memory" if exhausted else "done"} | value


def _measure(code: Foreign, config: ForeignConfig, part: str, number: int, device: torch.device) -> dict:
    torch.manual_seed(SEED)
    model = code.build(config.layer, config.size, config.image_size, config.channels, config.num_classes)
    model.layer = f"{code.name} {config.layer}"  # whom an error names
    shape = (config.batch_size, config.channels, config.image_size, config.image_size)
    images, labels = torch.rand(shape) - 0.5, torch.randint(config.num_classes, shape[:1])

    def start(make: Callable[[nn.Module, Tensor, Tensor], Callable], fold: bool) -> Callable[[], object]:
        source = code.fold(model) if fold else model  # what is folded last stays folded
        return make(copy.deepcopy(source).to(device), images.to(device, copy=True), labels.to(device, copy=True))

    if part == "memory":
        return _peaks(code, start, config.max_seconds, device)
    if part == "train" and number == 0:
        _check_logits(copy.deepcopy(model).to(device), images[:2].to(device), config)
    step = start(workloads.training if part == "train" else workloads.evaluation, part == "folded")
    share = config.repeats // config.rounds + (number < config.repeats % config.rounds)
    return seconds(step, device, share, config.max_seconds)


def seconds(function: Callable[[], object], device: torch.device, repeats: int, max_seconds: float) -> dict:
    """Time ``function``, each call on its own, after two that are not timed, within ``max_seconds`` where it can be.

    Returns:
        ``times``: at least one, at most ``repeats``; ``warm_up``: how many calls were not timed, one where that takes
        ``max_seconds`` by itself: some code is compiled in its first call, which is never a time.
    """

    def once() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        started = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    first = [once()]
    while len(first) < workloads.WARM_UP and sum(first) < max_seconds:
        first.append(once())
    times = [once()]
    while len(times) < repeats and sum(times) < max_seconds:
        times.append(once())
    return {"times": times, "warm_up": len(first)}


def _peaks(code: Foreign, start: Callable, max_seconds: float, device: torch.device) -> dict:
    """As of ours: the most that three steps or batches hold, weights and batch included; two where they take long."""
    fewest = rounds.PEAK_BATCHES

    def several(make: Callable, fold: bool) -> None:
        nonlocal fewest
        step, started = start(make, fold), time.perf_counter()
        for done in range(1, rounds.PEAK_BATCHES + 1):
            step()
            if done >= LEAST_PEAK_STEPS and time.perf_counter() - started > max_seconds:
                fewest = min(fewest, done)
                break

    asked = {"train_peak_bytes": (workloads.training, False), "infer_peak_bytes": (workloads.evaluation, False)}
    asked |= {"folded_peak_bytes": (workloads.evaluation, True)} if code.folds else {}
    peaks = {name: peak_bytes(lambda which=which: several(*which), device) for name, which in asked.items()}
    return dict.fromkeys(rounds.PEAKS) | peaks | {"steps": fewest}


@torch.no_grad()
def _check_logits(model: nn.Module, images: Tensor, config: ForeignConfig) -> None:
    shape, wanted = tuple(model.eval()(images).shape), (len(images), config.num_classes)
    if shape != wanted:
        raise LiprefError(f"{config.against} {config.layer} {config.size} gives logits of shape {shape}, not {wanted}")
