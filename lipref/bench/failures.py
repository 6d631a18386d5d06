"""What failed, on disk: a failed measurement is a finished one, until its code changes or it is asked for again."""

from __future__ import annotations

import json
from pathlib import Path

from lipref.bench.requests import Against, BenchPlan, Network
from lipref.bench.worker import OURS
from lipref.errors import LiprefError
from lipref.runs.provenance import write_json

NAME = "failures.json"  # in the folder of the runs
ROUND = "round"  # the part of ours: a round is measured in one piece


def key_of(plan: BenchPlan, network: Network, against: Against | None) -> str:
    """What a failure is kept by: the measurement's own digest, so that other code or another torch is tried again."""
    return (plan.ours(network) if against is None else plan.theirs(network, against)).digest


class Failures:
    """Failed measurements in a folder of runs.

    Raises:
        LiprefError: the file is damaged, or cannot be written.
    """

    def __init__(self, root: Path) -> None:
        self.path = Path(root) / NAME
        self.kept: dict[str, dict] = {}
        if self.path.exists():
            try:
                kept = json.loads(self.path.read_text())
                self.kept = {key: dict(entry) | {"parts": dict(entry["parts"])} for key, entry in kept.items()}
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                remedy = "delete that file: what failed is then measured again"
                raise LiprefError(f"{self.path} is damaged ({type(error).__name__}: {error}); {remedy}") from error

    def parts(self, plan: BenchPlan, network: Network, against: Against | None = None) -> dict[str, str]:
        """The parts that failed, of ours `ROUND`, each with the reason."""
        return self.kept.get(key_of(plan, network, against), {}).get("parts", {})

    def line(self, plan: BenchPlan, network: Network, against: Against | None = None) -> str:
        """What failed and why, or an empty string where nothing did."""
        reasons = dict.fromkeys(self.parts(plan, network, against).values())
        where = f"{network.label} {network.size} at {network.image_size}x{network.image_size}"
        return f"{OURS if against is None else against.code.name} {where}: {'; '.join(reasons)}" if reasons else ""

    def add(self, plan: BenchPlan, network: Network, against: Against | None, part: str, why: str) -> None:
        """Keep a failure; the folder of the other code is no part of it."""
        parts = self.parts(plan, network, against)
        if against is not None and against.path is not None:
            why = why.replace(str(against.path), "PATH")
        entry = {"code": OURS if against is None else against.code.name, "layer": network.label}
        entry |= {"size": network.size, "image_size": network.image_size, "parts": parts | {part: why}}
        self.kept[key_of(plan, network, against)] = entry
        write_json(self.path, self.kept)

    def forget(self, plan: BenchPlan) -> None:
        """Drop those of the plan, which are then measured again."""
        asked = {key_of(plan, network, against) for network in plan.networks() for against in (None, *plan.against)}
        if asked & set(self.kept):
            self.kept = {key: entry for key, entry in self.kept.items() if key not in asked}
            write_json(self.path, self.kept)
