"""What a layer costs in the paper's networks: seconds per batch and peak memory, measured on random pictures."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

import lipref
from lipref.bench import rounds as measuring  # beside the number of them
from lipref.bench.memory import DEVICES
from lipref.bench.rounds import PEAKS, QUANTITIES, SECONDS, Network, Progress
from lipref.errors import LiprefError, whole_number
from lipref.layers import LayerSpec
from lipref.nets import convnet
from lipref.runs.provenance import COST, cores, environment, fingerprint, machine, write_json
from lipref.runs.records import Config, NotDone, make_folder
from lipref.training.speed import Speed, usual

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class CostConfig(Config):
    """Everything that decides a measurement: on another machine or with other threads it is another one.

    ``channels`` are those of the pictures, ``image_size`` their side in pixels; ``machine`` the CPU's model or the
    GPU's name; ``cores`` the CPU cores that could be used; ``threads`` those of one torch operation; ``repeats`` the
    timed calls per quantity, spread over ``rounds``; ``speed`` the options of the training step, of which CUDA graphs
    are for evaluation too, or None; ``quantities`` what is measured, None for everything.
    """

    image_size: int
    channels: int
    num_classes: int
    batch_size: int
    machine: str
    cores: int
    threads: int
    repeats: int
    rounds: int
    speed: dict | None = None
    quantities: list[str] | None = None

    @property
    def folder(self) -> str:
        """Name of the measurement's folder: readable, and unique by the digest's first digits."""
        side = f"{self.image_size}x{self.image_size}"
        return f"cost-{side}-{self.size}-{self.layer}-batch{self.batch_size}-{self.digest[:10]}"


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
    rounds: int = 3,
    speed: Speed | Mapping | None = None,
    quantities: Sequence[str] | None = None,
) -> CostConfig:
    """The configuration of measuring ``spec`` here: on this machine, with the threads that torch has now.

    ``repeats`` calls are timed in all ``rounds`` together; fewer repeats than rounds are as many rounds. ``speed``: the
    options of the training step; None: `lipref.training.speed.usual` ones of the device. ``quantities``: of
    `lipref.bench.rounds.QUANTITIES`; None: all.

    Raises:
        LiprefError: a number below 1, a network that does not exist, a device that is unknown or not there.
    """
    batch_size, repeats = whole_number("batch_size", batch_size), whole_number("repeats", repeats)
    rounds = whole_number("rounds", rounds)
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
        num_classes=num_classes, batch_size=batch_size, repeats=repeats, rounds=min(rounds, repeats),
        device=parsed.type, machine=machine(parsed), **_here(),
        speed=(usual(parsed.type) if speed is None else Speed.of(speed)).as_dict() or None,
        quantities=_some(quantities),
    )  # fmt: skip


def _some(quantities: Sequence[str] | None) -> list[str] | None:
    """In the order of `QUANTITIES`; None where they are all of them."""
    chosen = [name for name in QUANTITIES if quantities is None or name in quantities]
    return None if len(chosen) == len(QUANTITIES) else chosen


def _here() -> dict:
    """What of a configuration is this process's own."""
    return {
        "cores": cores(), "threads": torch.get_num_threads(), "version": lipref.__version__, "code": fingerprint(COST),
        "torch": str(torch.__version__),
    }  # fmt: skip


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
    """Measure in ``root / config.folder``, or what of it is missing, one round after the other; return the record.

    The network has random weights from a fixed seed, the batch random pictures (uniform, mean 0) and labels.

    * ``train_seconds``: a step of `lipref.training` with the options ``speed``: forward, loss, backward, SGD with
      momentum.
    * ``infer_seconds``: a batch in evaluation, without gradients, the operators kept.
    * ``folded_seconds``: the same with every layer replaced by its ``fold(size)``; None where the layer has none.
    * ``prepare_seconds``: preparing the operators of all layers for evaluation, in float64, once: what the first batch
      after a change of the weights takes longer. It is timed by itself, since as a difference of two batches it would
      drown in their spread where it is small. None where the layer has no ``operator(size)``.
    * ``train_peak_bytes``, ``infer_peak_bytes``, ``folded_peak_bytes``: the most that three steps or batches hold
      (`lipref.bench.memory.peak_bytes`), weights and batch included; training with gradients and momenta, inference
      with the preparation of the operators, as Prach et al. (CVPR 2024, arXiv 2311.16833) do it. Not included are the
      temporaries of initialisation and, for the folded network, those of folding.

    Seconds are dicts (`lipref.bench.rounds.combine`): ``median``, ``low`` and ``high`` (the quartiles of all timed
    calls, or the least and largest median of a round where that is further out), ``repeats`` (how many calls were
    timed, each on its own, after two per round that were not) and ``rounds`` (the median of each). Memory that runs out
    is a result: ``status`` is then ``out_of_memory`` in place of ``done``, and what could not be measured is None.

    Args:
        on_progress: called before each quantity.
        read_only: raise `lipref.runs.NotDone` in place of measuring.
        max_seconds: per timed quantity, an equal part for each round, after which no repeat is begun, except for the
            first three (of all rounds; at least one in each).

    Raises:
        LiprefError: a configuration made elsewhere, a damaged record, a folder that cannot be written, a layer that
        fails.
    """
    path = Path(root) / config.folder / "record.json"
    record = _read(path, config)
    if record is not None:
        return record
    if read_only:
        raise NotDone(config.folder)
    for number in range(config.rounds):
        execute_round(
            config, spec, root, number, device=device, on_progress=on_progress, max_seconds=max_seconds
        )  # fmt: skip
    parts = [_round_path(path.parent, number) for number in range(config.rounds)]
    measured = measuring.combine([_read_round(part, config, number)["result"] for number, part in enumerate(parts)])
    record = {"format": FORMAT, "kind": "cost", "digest": config.digest, "config": config.as_dict()} | measured
    write_json(path, record | {"environment": environment(device)})
    for part in parts:  # only now: whatever ends this process, nothing is measured twice
        part.unlink(missing_ok=True)
    return _read(path, config)


def execute_round(
    config: CostConfig,
    spec: LayerSpec,
    root: Path,
    number: int,
    *,
    device: str | torch.device,
    on_progress: Callable[[Progress], None] | None = None,
    max_seconds: float = 20.0,
) -> None:
    """Measure round ``number``, from 0, unless it lies in ``root / config.folder``; `execute` makes the record of all.

    Arguments and errors are those of `execute`.
    """
    path = _round_path(Path(root) / config.folder, number)
    if _read_round(path, config, number) is not None:
        return
    device = torch.device(device)
    here = {
        "layer": spec.label, "layer_sha256": spec.source_sha256, "device": device.type, "machine": machine(device),
        **_here(),
    }  # fmt: skip
    for name, value in here.items():
        if getattr(config, name) != value:
            raise LiprefError(
                f"configured for {name}={getattr(config, name)!r}, but here it is {value!r}: configure anew"
            )
    make_folder(path.parent)
    network = Network(
        spec=spec, size=config.size, image_size=config.image_size, channels=config.channels,
        num_classes=config.num_classes, batch_size=config.batch_size, speed=Speed.of(config.speed or {}),
        quantities=QUANTITIES if config.quantities is None else tuple(config.quantities),
    )  # fmt: skip
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        result = measuring.measure(
            network, device, number=number, rounds=config.rounds, repeats=config.repeats, max_seconds=max_seconds,
            on_progress=on_progress,
        )  # fmt: skip
    write_json(path, {"format": FORMAT, "digest": config.digest, "round": number, "result": result})


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


def _round_path(folder: Path, number: int) -> Path:
    return folder / f"round{number}.json"


def _read_round(path: Path, config: CostConfig, number: int) -> dict | None:
    remedy = "delete that file to measure again"
    if not path.exists():
        return None
    try:
        part = json.loads(path.read_text())
        whole = (part["format"], part["digest"], part["round"]) == (FORMAT, config.digest, number)
        wanted = {"parameters", "exhausted", *SECONDS, *(PEAKS if number == 0 else ())}
        whole = whole and wanted <= set(part["result"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LiprefError(f"{path} is damaged ({type(error).__name__}: {error}); {remedy}") from error
    if not whole:
        raise LiprefError(f"{path} is no round of this measurement; {remedy}")
    return part
