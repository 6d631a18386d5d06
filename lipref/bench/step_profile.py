"""Where the time of a training step goes: convolutions, products of matrices, factorisations, and the rest."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch.profiler import ProfilerActivity, profile

import lipref
from lipref.bench import workloads
from lipref.errors import LiprefError
from lipref.layers import LayerSpec
from lipref.nets import convnet
from lipref.runs.provenance import COST, cores, environment, fingerprint, machine, write_json
from lipref.runs.records import Config, make_folder
from lipref.tensor_files import replace_file
from lipref.training.speed import usual

# The first whose word is in an operation's name; what has none is the rest: passes over memory, and Python.
KINDS = {
    "convolutions": ("conv",),
    "products": ("aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm", "aten::dot"),
    "factorisations": ("linalg_eigh", "cholesky", "linalg_lu", "linalg_inv", "linalg_solve", "triangular"),
    "Fourier transforms": ("aten::_fft",),
}
# The same for the kernels of a GPU, in small letters; a convolution may be called a product too, so it comes first.
KERNELS = {
    "convolutions": ("fprop", "dgrad", "wgrad", "conv", "cudnn", "nchw", "nhwc"),
    "factorisations": ("getrf", "getri", "getrs", "potrf", "trsm", "trsv", "syev", "laswp", "larf", "chol"),
    "products": ("gemm", "gemv", "splitk", "cutlass"),
    "Fourier transforms": ("fft",),
}
REST, WHOLE = "rest", "whole step"
_SHORT = {"convolutions": "conv.", "factorisations": "factor.", "Fourier transforms": "Fourier", WHOLE: "step"}
IMAGE_SIZE, CHANNELS, CLASSES = 32, 3, 10
PLAIN = "standard"
LONG = 5.0  # seconds: a step that takes longer has warmed everything up
COLUMNS = (
    "layer", "kind", "milliseconds", "low", "high", "times_standard", "times_standard_low", "times_standard_high"
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ProfileConfig(Config):
    """What decides the profile of one layer's network, and through its digest the file of its rounds."""

    batch_size: int
    steps: int
    machine: str
    cores: int
    threads: int

    @property
    def file(self) -> str:
        """Name of the file of rounds: readable, and unique by the digest's first digits."""
        return f"rounds-{self.size}-{self.layer}-batch{self.batch_size}-{self.digest[:10]}.json"


def configure(spec: LayerSpec, size: str, batch_size: int, steps: int, device: str = "cpu") -> ProfileConfig:
    """The configuration of profiling ``spec`` here, with the threads that torch has now.

    Raises:
        LiprefError: a number below 1.
    """
    for name, value in (("batch_size", batch_size), ("steps", steps)):
        if value < 1:
            raise LiprefError(f"{name}={value}: give a whole number, at least 1")
    return ProfileConfig(
        layer=spec.label, layer_sha256=spec.source_sha256, size=size, device=torch.device(device).type,
        batch_size=batch_size, steps=steps, machine=machine(device), cores=cores(), threads=torch.get_num_threads(),
        version=lipref.__version__, code=fingerprint((*COST, "bench/step_profile")), torch=str(torch.__version__),
    )  # fmt: skip


def measure(
    specs: Sequence[LayerSpec], size: str, batch_size: int, steps: int = 3, rounds: int = 3, *, out: Path,
    device: str = "cpu", on_task: Callable[[int, int, str], None] = lambda *task: None,
) -> pd.DataFrame:  # fmt: skip
    """Milliseconds per step by kind of operation and as a whole: the median over rounds, the lowest and the highest.

    The layers take turns, `lipref.bench.workloads.training` on 32x32 pictures; whole steps are also compared with the
    plain network's in the same round, where it is among the layers. Every round is kept in ``out`` as it is measured,
    and not measured again. Profiling itself slows what is made of many small operations.

    On a GPU the step is that of `lipref.training.speed.usual`; the time is that of its kernels, and the rest has what
    is none of these: other passes over memory, and the time in which no kernel runs.

    Args:
        specs: Which layers.
        size: Of the network.
        batch_size: Images of a step.
        steps: Profiled in each round, after two that are not, or one that takes longer than `LONG`.
        rounds: Of all layers.
        out: Folder of the rounds.
        device: As of torch.device.
        on_task: Called before each network of a round with how many are done, of how many, and its layer.

    Returns:
        A row per layer and kind, with the columns `COLUMNS`.

    Raises:
        LiprefError: a number below 1, an unknown size, a layer that fails, a damaged file of rounds.
    """
    if rounds < 1:
        raise LiprefError(f"rounds={rounds}: give a whole number, at least 1")
    lines = []
    for number in range(rounds):
        for place, spec in enumerate(specs):
            on_task(number * len(specs) + place, rounds * len(specs), spec.label)
            config = configure(spec, size, batch_size, steps, device)
            found = _round(spec, config, number, make_folder(Path(out)), torch.device(device))
            lines += [{"round": number, "layer": spec.label, "kind": kind, "ms": ms} for kind, ms in found.items()]
    return table(pd.DataFrame(lines))


def table(lines: pd.DataFrame) -> pd.DataFrame:
    """`measure`'s table, from a row per round, layer and kind: ``round``, ``layer``, ``kind`` and ``ms``."""
    plain = lines[(lines.layer == PLAIN) & (lines.kind == WHOLE)].set_index("round").ms
    whole = lines.kind == WHOLE
    lines = lines.assign(times=(lines.ms / lines["round"].map(plain)).where(whole))
    groups = lines.groupby(["layer", "kind"], sort=False)
    found = groups.agg(
        milliseconds=("ms", "median"), low=("ms", "min"), high=("ms", "max"), times_standard=("times", "median"),
        times_standard_low=("times", "min"), times_standard_high=("times", "max"),
    )  # fmt: skip
    return found.reset_index()[list(COLUMNS)]


def _round(spec: LayerSpec, config: ProfileConfig, number: int, folder: Path, device: torch.device) -> dict[str, float]:
    """Round ``number`` of one network, from its file, or measured and added to it."""
    path = folder / config.file
    kept = _read(path, config)
    if str(number) not in kept:
        kept[str(number)] = _profiled(spec, config, device)
        write_json(path, {"digest": config.digest, "config": config.as_dict(), "rounds": kept})
    return kept[str(number)]


def _read(path: Path, config: ProfileConfig) -> dict[str, dict[str, float]]:
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text())
        rounds = found["rounds"]
        whole = found["digest"] == config.digest
        whole = whole and all(set(each) == {*KINDS, REST, WHOLE} for each in rounds.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise LiprefError(f"{path} is damaged ({type(error).__name__}: {error}); delete it to measure again") from error
    if not whole:
        raise LiprefError(f"{path} does not hold the rounds of this profile; delete it to measure again")
    return rounds


def _profiled(spec: LayerSpec, config: ProfileConfig, device: torch.device) -> dict[str, float]:
    """Milliseconds per step of every kind, and of the whole."""
    on_cuda = device.type == "cuda"

    def wait() -> None:
        if on_cuda:
            torch.cuda.synchronize(device)

    with torch.random.fork_rng(devices=[device] if on_cuda else []):
        torch.manual_seed(0)
        model = convnet(config.size, spec, CLASSES, CHANNELS, IMAGE_SIZE, device=device if on_cuda else None)
        images = torch.rand(config.batch_size, CHANNELS, IMAGE_SIZE, IMAGE_SIZE) - 0.5
        labels = torch.randint(CLASSES, (config.batch_size,))
        step = workloads.training(model, images.to(device), labels.to(device), usual(device.type))
        workloads.warm_up(step, math.inf if on_cuda else LONG)
        wait()
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_cuda else [])]
        with profile(activities=activities) as found:
            started = time.perf_counter()
            for _ in range(config.steps):
                step()
            wait()
            whole = (time.perf_counter() - started) * 1e3 / config.steps
    sums = dict.fromkeys(KINDS, 0.0)
    for name, microseconds in _kernels(found) if on_cuda else _operations(found):
        if (kind := kind_of(name, KERNELS if on_cuda else KINDS)) != REST:
            sums[kind] += microseconds / 1e3 / config.steps
    return sums | {REST: whole - sum(sums.values()), WHOLE: whole}


def _operations(found: profile) -> Iterator[tuple[str, float]]:
    return ((event.key, event.self_cpu_time_total) for event in found.key_averages())


def _kernels(found: profile) -> Iterator[tuple[str, float]]:
    for event in found.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            yield event.name.lower(), event.time_range.elapsed_us()


def kind_of(operation: str, kinds: Mapping[str, tuple[str, ...]] = KINDS) -> str:
    """The kind of an operation by its name, such as ``aten::mm``, or that of a kernel in small letters."""
    return next((kind for kind, words in kinds.items() if any(word in operation for word in words)), REST)


def people(found: pd.DataFrame) -> pd.DataFrame:
    """A row per layer: whole milliseconds by kind, and where it is known the multiple of the plain network's step.

    The names of the columns are short: eight of them fit a terminal's 80 characters.
    """
    names = list(dict.fromkeys(found.layer))
    wide = found.pivot(index="layer", columns="kind", values="milliseconds").loc[names, [*KINDS, REST, WHOLE]]
    wide = wide.round(0).astype(int)
    times = found[found.kind == WHOLE].set_index("layer").times_standard
    if times.notna().any():
        wide["x standard"] = [f"{value:.2f}" for value in times[names]]
    return wide.rename(columns=_SHORT).reset_index()


def write(found: pd.DataFrame, question: dict, out: Path) -> list[Path]:
    """``profile.csv``, and ``profile.json`` with what was asked and where it was measured."""
    folder = make_folder(Path(out))
    replace_file(folder / "profile.csv", found.to_csv(index=False, lineterminator="\n").encode())
    write_json(folder / "profile.json", question | {"environment": environment(question.get("device", "cpu"))})
    return [folder / "profile.csv", folder / "profile.json"]
