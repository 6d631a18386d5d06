"""`lipref bench` in slices: what is missing is measured in rounds, until it is done or the time is up."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch

from lipref.bench import cost, measurements
from lipref.bench.failures import ROUND, Failures
from lipref.bench.requests import Against, BenchPlan, Network
from lipref.bench.rounds import SECONDS
from lipref.bench.worker import OURS, Asked, TimeUp
from lipref.errors import LiprefError
from lipref.runs.provenance import write_json

LEDGER = "times.json"  # below the folder of the runs: how long each round took
UNKNOWN = 5.0  # seconds that a round is thought to take of which nothing is known
HEADROOM = {"seconds": 1.1, "more_than": 1.25}  # on what a piece took, or had taken when it was stopped


@dataclass(kw_only=True)
class Slice:
    """How far it came: lines of failures, rounds that are left, lines on those that need more time than a slice has.

    ``time_is_up``: with more time, such as that of the next slice, more would have been done.
    """

    failures: dict[str, str] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)
    too_long: list[str] = field(default_factory=list)
    time_is_up: bool = False

    @property
    def sentence(self) -> str:
        """What is left, in words."""
        if not self.left:
            return "Nothing is left."
        what = ", ".join(f"{count} of {name}" for name, count in self.left.items())
        return f"Left: {sum(self.left.values())} rounds ({what}); the same command goes on."


class _Clock:
    """The time of a slice, and what rounds took before."""

    def __init__(self, path: Path, seconds: float | None, now: Callable[[], float]) -> None:
        self.path, self.seconds, self.now, self.started = path, seconds, now, now()
        self.kept: dict[str, dict[str, float]] = _read_ledger(path)

    @property
    def left(self) -> float | None:
        return None if self.seconds is None else self.seconds - (self.now() - self.started)

    def need(self, piece: str) -> float:
        """What a piece is thought to take: as before, or more than when it was stopped, or not known.

        One of which nothing is known takes as long as others of the same measurement.
        """
        unknown = UNKNOWN if self.seconds is None else min(UNKNOWN, self.seconds / 2)
        entries = [self.kept[piece]] if piece in self.kept else [
            entry for name, entry in self.kept.items() if name.split()[0] == piece.split()[0] and "seconds" in entry
        ]  # fmt: skip
        return max((HEADROOM[name] * value for entry in entries for name, value in entry.items()), default=unknown)

    def keep(self, piece: str, name: str, seconds: float) -> None:
        self.kept[piece] = {name: seconds}
        write_json(self.path, self.kept)


class _Bench:
    def __init__(self, plan: BenchPlan, workers: Mapping[str, Asked], clock: _Clock, on_task: Callable) -> None:
        self.plan, self.workers, self.clock, self.on_task = plan, workers, clock, on_task
        self.failed = Failures(plan.out)
        self.done = Slice()
        self.stopped = False

    def go(self) -> Slice:
        networks, rounds = self.plan.networks(), self.plan.rounds
        for number in range(rounds):
            for place, network in enumerate(networks):
                self.on_task(number * len(networks) + place, rounds * len(networks), network.size, network.label)
                self.network(network, number)
        self.done.time_is_up = self.stopped
        return self.done

    def network(self, network: Network, number: int) -> None:
        """One round of a network: ours, then the others', each with ours of the same minutes."""
        config = self.plan.ours(network)
        name = f"{network.label} {network.size} at {network.image_size}x{network.image_size}"
        ours = None
        failed = bool(self.failed.parts(self.plan, network))
        self.tell(network, None)
        if not failed and our_round(config, self.plan.out, number) is None:
            ours = self.ours(network, config, number, self.plan.out, name)
        for against in self.plan.against:
            parts = self.missing(network, against, number)
            if not parts or self.failed.parts(self.plan, network):
                continue
            if ours is None and not self.stopped:
                beside = number or int(config.rounds > 1)  # ours was measured at another time: once more, beside it
                both = _piece(config, beside), self.theirs_piece(network, against, parts)
                if self.too_long(f"{against.code.name} {name}, with ours beside it,", *both):
                    self.leave(against.code.name)
                    continue
                with tempfile.TemporaryDirectory() as folder:
                    ours = self.ours(network, config, beside, Path(folder), name, beside=True)
            if ours is None:
                self.leave(None if self.failed.parts(self.plan, network) else against.code.name)
                continue
            self.theirs(network, against, number, parts, ours, name)

    def missing(self, network: Network, against: Against, number: int) -> list[str]:
        """The parts of others' round that are not measured yet and have not failed."""
        if against.why_not(network):
            return []
        failed = self.failed.parts(self.plan, network, against)
        self.tell(network, against)
        return [part for part in self.plan.missing(network, against, number) if part not in failed]

    def tell(self, network: Network, against: Against | None) -> None:
        """Name what has failed, in this call or an earlier one."""
        if line := self.failed.line(self.plan, network, against):
            self.done.failures[line.split(":")[0]] = line

    def ours(
        self, network: Network, config: cost.CostConfig, number: int, root: Path, name: str, beside: bool = False
    ) -> dict | None:
        """Medians of our round, measured now; None where it was not."""
        request = {
            "do": "ours", "layer": network.layer, "size": network.size, "number": number, "device": self.plan.device,
            "root": str(root / measurements.FOLDER),
            "options": {name: getattr(config, name) for name in (
                "image_size", "channels", "num_classes", "batch_size", "repeats", "rounds")}
            | {"speed": config.speed or {}, "quantities": config.quantities},
        }  # fmt: skip
        left = None if beside else OURS
        if self.ask(OURS, request, _piece(config, number), f"{OURS} {name}", left, network) is None:
            return None
        return our_round(config, root, number)

    def theirs(self, network: Network, against: Against, number: int, parts: list[str], ours: dict, name: str) -> None:
        """The parts of others' round; where one fails, those after it are tried on their own."""
        config, code = self.plan.theirs(network, against), against.code.name
        request = {
            "do": "theirs", "config": asdict(config), "number": number, "ours": ours, "root": str(self.plan.out),
            "device": self.plan.device, "origin": dict(against.origin),
        }  # fmt: skip
        while parts:
            asked = request | {"parts": parts}
            piece = self.theirs_piece(network, against, parts)
            reply = self.ask(code, asked, piece, f"{code} {name}", code, network, against)
            left = self.missing(network, against, number)
            parts = left if reply is None and not self.stopped and left != parts else []

    def theirs_piece(self, network: Network, against: Against, parts: list[str]) -> str:
        return f"{self.plan.theirs(network, against).digest[:16]} {'+'.join(parts)}"

    def too_long(self, name: str, *pieces: str) -> bool:
        """Whether no slice holds the pieces, one right after the other; that is told."""
        need = sum(map(self.clock.need, pieces))
        if self.clock.seconds is None or need <= self.clock.seconds:
            return False
        line = f"{name} needs about {need:.0f} s in one piece: give more --seconds"
        self.done.too_long += [line] if line not in self.done.too_long else []
        return True

    def ask(
        self, code: str, request: dict, piece: str, name: str, left: str | None, network: Network,
        against: Against | None = None,
    ) -> dict | None:  # fmt: skip
        """The reply; None where it failed, or the time is up or does not reach: then a round of ``left`` is left."""
        limit = self.clock.left
        if self.too_long(name, piece):
            self.leave(left)
            return None
        self.stopped |= limit is not None and self.clock.need(piece) > limit
        if self.stopped:
            self.leave(left)
            return None
        began = self.clock.now()
        try:
            reply = self.workers[code](request, None if limit is None else max(limit, 0.0))
        except TimeUp:
            self.clock.keep(piece, "more_than", self.clock.now() - began)
            self.stopped = True
            self.leave(left)
            return None
        except LiprefError as error:
            # Parts are written one by one, so the first that is not there is the one that failed.
            parts = [ROUND] if against is None else self.missing(network, against, request["number"])
            for part in parts[:1]:
                self.failed.add(self.plan, network, against, part, str(error))
            self.tell(network, against)
            return None
        self.clock.keep(piece, "seconds", self.clock.now() - began)
        return reply

    def leave(self, code: str | None) -> None:
        if code is not None:
            self.done.left[code] = self.done.left.get(code, 0) + 1


def run(
    plan: BenchPlan,
    workers: Mapping[str, Asked],
    *,
    seconds: float | None = None,
    again: bool = False,
    on_task: Callable[[int, int, str, str], None] = lambda *task: None,
    now: Callable[[], float] = time.monotonic,
) -> Slice:
    """Measure what is missing of the plan: all networks once, then all again, `BenchPlan.rounds` times.

    In each round a network of ours is followed by the others' of the same layer and size. Everything is kept as it is
    measured; a process that is killed loses the piece at hand.

    Args:
        plan: What is asked for.
        workers: Who measures, by the names of the codes and `OURS` (`lipref.bench.worker.Worker`).
        seconds: Of this call: no round is begun that is thought to exceed them, and one that does is stopped; None: no
            limit.
        again: Measure anew what failed in an earlier call, which is otherwise told and left.
        on_task: Called before each round of each network with how many are done, of how many, its size and layer.
        now: The clock, in seconds.

    Raises:
        LiprefError: a damaged record, a folder that cannot be written, ``seconds`` that are not positive.
    """
    if seconds is not None and not seconds > 0:
        raise LiprefError(f"--seconds {seconds}: give a number above 0")
    bench = _Bench(plan, workers, _Clock(plan.out / LEDGER, seconds, now), on_task)
    if again:
        bench.failed.forget(plan)
    done = bench.go()
    for network in plan.networks():
        finish(plan, network)
    return done


def finish(plan: BenchPlan, network: Network) -> None:
    """Put the rounds of a network of ours together, where all are there; nothing is measured for it."""
    config = plan.ours(network)
    if all(our_round(config, plan.out, number) for number in range(config.rounds)):
        cost.execute(config, network.spec, plan.out / measurements.FOLDER, device=torch.device(plan.device))


def complete(plan: BenchPlan) -> list[dict]:
    """The records of ours that are whole, for ``costs.json``; those of networks that the plan lacks among them."""
    records = []
    for side in plan.image_sizes:
        found = [read_ours(plan.ours(each), plan.out) for each in plan.networks() if each.image_size == side]
        whole = [record for record in found if "config" in record]
        records += measurements.beside(whole, plan.out) if whole else []
    return records


def _piece(config: cost.CostConfig, number: int) -> str:
    return f"{config.digest[:16]} {'first' if number == 0 else 'later'}"  # the first round measures more


def our_round(config: cost.CostConfig, root: Path, number: int) -> dict | None:
    """Medians of one round of ours, in seconds, named as `lipref.bench.rounds.SECONDS`; None for what it has not.

    None as a whole where that round has not been measured.

    Raises:
        LiprefError: a damaged record.
    """
    record = read_ours(config, root)
    if "config" in record:
        return {name: record[name] and record[name]["rounds"][number] for name in SECONDS}
    result = record["parts"].get(number)
    return result and {name: float(np.median(result[name])) if result[name] else None for name in SECONDS}


def read_ours(config: cost.CostConfig, root: Path) -> dict:
    """The record of a measurement of ours, or ``{"parts": {number: result}}`` of the rounds that there are.

    Raises:
        LiprefError: a damaged record.
    """
    folder = Path(root) / measurements.FOLDER / config.folder
    record = cost._read(folder / "record.json", config)
    if record is not None:
        return record
    parts = {n: cost._read_round(cost._round_path(folder, n), config, n) for n in range(config.rounds)}
    return {"parts": {number: part["result"] for number, part in parts.items() if part is not None}}


def _read_ledger(path: Path) -> dict:
    try:
        kept = json.loads(path.read_text())
        return kept if isinstance(kept, dict) else {}
    except (OSError, ValueError):
        return {}  # it only helps to guess
