"""The measurement of single layers in rounds: every step is kept, and the same plan goes on behind the last."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from lipref.bench.ceilings import spread
from lipref.bench.scaling import FORMAT, GrowthConfig, Plan, points, whole
from lipref.bench.scaling_parts import AXES, measure_part
from lipref.errors import LiprefError
from lipref.layers import LayerSpec
from lipref.runs.provenance import environment, write_json
from lipref.runs.records import make_folder

MAX_SECONDS = 2.0  # of one part at one point in one round


@dataclass(frozen=True)
class State:
    """How far a plan is: steps (a part at a point in a round) ``done`` of ``total``, and the finished ``records``."""

    done: int
    total: int
    records: list[dict]


def run(plan: Plan, seconds: float | None = None, on_step: Callable[[int, int, str], None] | None = None) -> State:
    """Measure what is missing, one round of all layers after the other.

    Every step is on disk before the next begins, so that a killed process loses the one at hand, and the same plan goes
    on behind the last. The record of a layer is made when its last round ends.

    Args:
        seconds: No step begins after so many; None: until all is done.
        on_step: Called before each step with how many are done, how many there are, and what it is.

    Raises:
        LiprefError: a layer that fails, a damaged file in ``plan.out``, or one that cannot be written.
    """
    if seconds is not None and not seconds > 0:
        raise LiprefError(f"seconds={seconds!r}: give a positive number")
    started, out = time.perf_counter(), make_folder(Path(plan.out))
    total = plan.rounds * sum(len(plan.steps(spec)) for spec in plan.specs)
    configs = {spec.label: plan.config(spec) for spec in plan.specs}
    records = {label: _read_record(out / config.folder, config) for label, config in configs.items()}
    done, late = 0, False
    for number in range(plan.rounds):
        for spec in plan.specs:
            config, steps = configs[spec.label], plan.steps(spec)
            folder = out / config.folder
            if records[spec.label] is not None:
                done += len(steps)
                continue
            entries = _read_round(folder, config, number)
            done += len(entries)
            for part, point in steps[len(entries) :]:
                late = late or (seconds is not None and time.perf_counter() - started >= seconds)
                if late:
                    break
                if on_step is not None:
                    where = ", ".join(f"{name} = {value}" for name, value in point.items())
                    on_step(done, total, f"{spec.label}, {part}, {where}; round {number + 1} of {plan.rounds}")
                entries.append(_step(plan, spec, part, point, number))
                _write_round(folder, config, number, entries)
                done += 1
            if number == plan.rounds - 1 and len(entries) == len(steps) and not late:
                records[spec.label] = _combine(folder, config, plan.device)
    return State(done, total, [record for record in records.values() if record is not None])


def _step(plan: Plan, spec: LayerSpec, part: str, point: dict[str, int], number: int) -> dict:
    device = torch.device(plan.device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        measured = measure_part(
            spec, part, point, device, repeats=plan.repeats, max_seconds=MAX_SECONDS, counted=number == 0
        )  # fmt: skip
    return {"part": part} | point | measured


def _combine(folder: Path, config: GrowthConfig, device: str) -> dict:
    """The record of a layer: its rounds, step by step."""
    rounds = [_read_round(folder, config, number) for number in range(config.rounds)]
    found = []
    for entries in zip(*rounds, strict=True):
        times = [entry["seconds"] for entry in entries]
        found.append(entries[0] | {"seconds": spread(times) if all(times) else None})
    record = {"format": FORMAT, "kind": "growth", "digest": config.digest, "config": config.as_dict(), "points": found}
    record |= {"environment": environment(device)}
    write_json(folder / "record.json", record)
    for number in range(config.rounds):  # only now: whatever ends this process, nothing is measured twice
        _round_path(folder, number).unlink(missing_ok=True)
    return record


def _read_record(folder: Path, config: GrowthConfig) -> dict | None:
    path, remedy = folder / "record.json", "delete that file to measure again"
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text())
        good = whole(record) and record["digest"] == config.digest
        points([record])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise LiprefError(f"{path} is damaged ({type(error).__name__}: {error}); {remedy}") from error
    if not good:
        raise LiprefError(f"{path} is not the record of this measurement; {remedy}")
    return record


def _round_path(folder: Path, number: int) -> Path:
    return folder / f"round{number}.json"


def _write_round(folder: Path, config: GrowthConfig, number: int, entries: list[dict]) -> None:
    content = {"format": FORMAT, "digest": config.digest, "round": number, "points": entries}
    write_json(_round_path(folder, number), content)


def _read_round(folder: Path, config: GrowthConfig, number: int) -> list[dict]:
    """What of a round is done, in the order of the steps."""
    path, remedy = _round_path(folder, number), "delete that file to measure again"
    if not path.exists():
        return []
    try:
        part = json.loads(path.read_text())
        good = (part["format"], part["digest"], part["round"]) == (FORMAT, config.digest, number)
        entries = part["points"]
        good = good and all({"part", *AXES, "seconds"} <= set(entry) for entry in entries)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LiprefError(f"{path} is damaged ({type(error).__name__}: {error}); {remedy}") from error
    if not good:
        raise LiprefError(f"{path} is no round of this measurement; {remedy}")
    return entries
