"""What a layer costs in the paper's networks: seconds per batch and peak memory, measured on random pictures."""

from __future__ import annotations

import copy
import gc
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

import lipref
from lipref import workloads
from lipref.errors import LiprefError
from lipref.layers import LayerSpec
from lipref.memory import DEVICES, peak_bytes
from lipref.nets import ConvNet, convnet, count_parameters
from lipref.provenance import environment, machine, write_json
from lipref.runs import NotDone, make_folder

FORMAT = 1
SECONDS = ("train_seconds", "infer_seconds", "folded_seconds", "prepare_seconds")
PEAKS = ("train_peak_bytes", "infer_peak_bytes", "folded_peak_bytes")
PEAK_BATCHES = 3  # a first step makes the gradients, a second meets them; a third to be sure


@dataclass(frozen=True, kw_only=True)
class CostConfig:
    """Everything that decides a measurement: on another machine or with other threads it is another one.

    ``layer_sha256`` is the fingerprint of a user's source file (None for the built-in layers); ``channels`` those of
    the pictures, ``image_size`` their side in pixels; ``device`` the kind of device, ``cpu`` or ``cuda``; ``machine``
    the CPU's model or the GPU's name; ``threads`` those of one torch operation; ``version`` that of the library.
    """

    layer: str
    layer_sha256: str | None
    size: str
    image_size: int
    channels: int
    num_classes: int
    batch_size: int
    device: str
    machine: str
    threads: int
    repeats: int
    version: str

    def as_dict(self) -> dict:
        return asdict(self)

    @property
    def digest(self) -> str:
        """SHA-256 over the canonical JSON of the configuration."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()

    @property
    def folder(self) -> str:
        """Name of the measurement's folder: readable, and unique by the digest's first digits."""
        side = f"{self.image_size}x{self.image_size}"
        return f"cost-{side}-{self.size}-{self.layer}-batch{self.batch_size}-{self.digest[:10]}"


@dataclass(frozen=True)
class Progress:
    """Where a measurement is: ``quantity`` is about to be measured, ``done`` of ``total`` are."""

    quantity: str
    done: int
    total: int


def configure(
    spec: LayerSpec,
    size: str,
    *,
    image_size: int,
    channels: int,
    num_classes: int,
    batch_size: int,
    device: str | torch.device,
    repeats: int = 10,
) -> CostConfig:
    """The configuration of measuring ``spec`` here: on this machine, with the threads that torch has now.

    Raises:
        LiprefError: a number below 1, a network that does not exist, a device that is unknown or not there.
    """
    for name, value in (("batch_size", batch_size), ("repeats", repeats)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise LiprefError(f"{name}={value!r}: give a whole number, at least 1")
    convnet(size, "standard", num_classes, channels, image_size, device="meta")  # refuses what it cannot build
    try:
        parsed = torch.device(device)
    except (RuntimeError, TypeError):
        parsed = None
    if parsed is None or parsed.type not in DEVICES:
        raise LiprefError(f"device {str(device)!r}: unknown here; choose one of {', '.join(DEVICES)}")
    if parsed.type == "cuda" and (parsed.index or 0) >= torch.cuda.device_count():
        raise LiprefError(f"device {str(device)!r} is not available on this machine; choose another, such as cpu")
    return CostConfig(
        layer=spec.label, layer_sha256=spec.source_sha256, size=size, image_size=image_size, channels=channels,
        num_classes=num_classes, batch_size=batch_size, device=parsed.type, machine=machine(parsed),
        threads=torch.get_num_threads(), repeats=repeats, version=lipref.__version__,
    )  # fmt: skip


def execute(
    config: CostConfig,
    spec: LayerSpec,
    root: Path,
    *,
    device: str | torch.device,
    on_progress: Callable[[Progress], None] | None = None,
    read_only: bool = False,
    max_seconds: float = 20.0,
) -> dict:
    """Measure in ``root / config.folder``, or read what was measured before, and return the record.

    The network has random weights from a fixed seed, the batch random pictures (uniform, mean 0) and labels.

    * ``train_seconds``: a step of `lipref.training`: forward, loss, backward, SGD with momentum.
    * ``infer_seconds``: a batch in evaluation, without gradients, the operators kept.
    * ``folded_seconds``: the same with every layer replaced by its ``fold(size)``; None where the layer has none.
    * ``prepare_seconds``: preparing the operators of all layers for evaluation, in float64, once: what the first batch
      after a change of the weights takes longer. It is timed by itself, since as a difference of two batches it would
      drown in their spread where it is small. None where the layer has no ``operator(size)``.
    * ``train_peak_bytes``, ``infer_peak_bytes``, ``folded_peak_bytes``: the most that three steps or batches hold
      (`lipref.memory.peak_bytes`), weights and batch included; training with gradients and momenta, inference with the
      preparation of the operators, as Prach et al. (CVPR 2024, arXiv 2311.16833) do it. Not included are the
      temporaries of initialisation and, for the folded network, those of folding.

    Seconds are dicts: ``median``, ``low`` and ``high`` (the quartiles), and ``repeats`` (how many were timed, each on
    its own, after two that were not). Memory that runs out is a result: ``status`` is then ``out_of_memory`` in place
    of ``done``, and what could not be measured is None.

    Args:
        on_progress: called before each quantity.
        read_only: raise `lipref.runs.NotDone` in place of measuring.
        max_seconds: per timed quantity, after which no repeat is begun, except for the first three.

    Raises:
        LiprefError: a configuration made elsewhere, a damaged record, a folder that cannot be written, a layer that
        fails.
    """
    folder = Path(root) / config.folder
    record = _read(folder / "record.json", config)
    if record is not None:
        return record
    if read_only:
        raise NotDone(config.folder)
    device = torch.device(device)
    here = {
        "layer": spec.label, "layer_sha256": spec.source_sha256, "device": device.type, "machine": machine(device),
        "threads": torch.get_num_threads(), "version": lipref.__version__,
    }  # fmt: skip
    for name, value in here.items():
        if getattr(config, name) != value:
            raise LiprefError(
                f"configured for {name}={getattr(config, name)!r}, but here it is {value!r}: configure anew"
            )
    make_folder(folder)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        measured = _measure(config, spec, device, max_seconds, on_progress)
    record = {"format": FORMAT, "kind": "cost", "digest": config.digest, "config": config.as_dict()} | measured
    write_json(folder / "record.json", record | {"environment": environment(device)})
    return _read(folder / "record.json", config)


def row(record: dict) -> dict:
    """One flat row of the table of costs. Its ``repeats`` are the fewest of any quantity."""
    names = ("layer", "size", "image_size", "channels", "num_classes", "batch_size", "device", "machine", "threads")
    line = {name: record["config"][name] for name in names}
    line |= {"status": record["status"], "parameters": record["parameters"]}
    for name in SECONDS:
        timed = record[name] or {}
        line[name] = timed.get("median")
        if name != "prepare_seconds":
            line |= {f"{name}_{end}": timed.get(end) for end in ("low", "high")}
    line |= {name: record[name] for name in PEAKS}
    return line | {"repeats": min((record[name]["repeats"] for name in SECONDS if record[name]), default=0)}


def _read(path: Path, config: CostConfig) -> dict | None:
    remedy = "delete that file to measure again"
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text())
        whole = record["format"] == FORMAT and record["kind"] == "cost" and record["digest"] == config.digest
        whole = whole and record["status"] in ("done", "out_of_memory") and record["config"] == config.as_dict()
        row(record)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise LiprefError(f"{path} is damaged ({type(error).__name__}: {error}); {remedy}") from error
    if not whole:
        raise LiprefError(f"{path} is not the record of this measurement; {remedy}")
    return record


def _measure(
    config: CostConfig,
    spec: LayerSpec,
    device: torch.device,
    max_seconds: float,
    on_progress: Callable[[Progress], None] | None,
) -> dict:
    torch.manual_seed(0)
    model = convnet(config.size, spec, config.num_classes, config.channels, config.image_size)
    shape = (config.batch_size, config.channels, config.image_size, config.image_size)
    images, labels = torch.rand(shape) - 0.5, torch.randint(config.num_classes, shape[:1])

    def start(make: Callable[[ConvNet, Tensor, Tensor], Callable | None], source: ConvNet) -> Callable | None:
        """A fresh copy of everything on the device, ready to go."""
        return make(copy.deepcopy(source).to(device), images.to(device, copy=True), labels.to(device, copy=True))

    def several(make: Callable, source: ConvNet) -> None:
        step = start(make, source)
        for _ in range(PEAK_BATCHES):
            step()

    def seconds(make: Callable, source: ConvNet | None) -> dict | None:
        step = None if source is None else start(make, source)
        return None if step is None else workloads.seconds(step, device, config.repeats, max_seconds)

    def peak(make: Callable, source: ConvNet | None) -> int | None:
        return None if source is None else peak_bytes(lambda: several(make, source), device)

    folded, exhausted = _attempt(spec, "folding", lambda: workloads.folded(copy.deepcopy(model).to(device)))
    folded = None if folded is None else folded.cpu()
    plan = {
        "train_seconds": (seconds, workloads.training, model),
        "infer_seconds": (seconds, workloads.evaluation, model),
        "folded_seconds": (seconds, workloads.evaluation, folded),
        "prepare_seconds": (seconds, workloads.preparation, model),
        "train_peak_bytes": (peak, workloads.training, model),
        "infer_peak_bytes": (peak, workloads.evaluation, model),
        "folded_peak_bytes": (peak, workloads.evaluation, folded),
    }
    values = {}
    for done, (name, (how, make, source)) in enumerate(plan.items()):
        if on_progress is not None:
            on_progress(Progress(name, done, len(plan)))
        values[name], failed = _attempt(spec, name, lambda how=how, make=make, source=source: how(make, source))
        exhausted = exhausted or failed
    return {"status": "out_of_memory" if exhausted else "done", "parameters": count_parameters(model)} | values


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
