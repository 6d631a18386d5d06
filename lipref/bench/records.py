"""Measurements of other people's networks on disk: a file for each round and part, with ours of the same minutes."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from lipref.bench.rounds import PEAKS
from lipref.bench.timing import PARTS, SEED, ForeignConfig
from lipref.errors import LiprefError
from lipref.runs.provenance import environment, write_json
from lipref.runs.records import make_folder

FORMAT = 1
FOLDER = "against"  # below the folder of the runs


def path_of(root: Path, config: ForeignConfig, number: int, part: str) -> Path:
    """Where a part of a round lies, below the folder of the runs."""
    return Path(root) / FOLDER / config.folder / f"round{number}-{part}.json"


def parts_of(round_number: int, asked: tuple[str, ...]) -> list[str]:
    """What of the parts ``asked`` a round has: peaks repeat to the byte, so once is enough."""
    return [part for part in PARTS if part in asked and (part != "memory" or round_number == 0)]


def write(
    root: Path, config: ForeignConfig, number: int, part: str, result: dict, ours: dict, device: torch.device,
    origin: dict | None = None,
) -> None:  # fmt: skip
    """Write one part of a round.

    Args:
        result: What `lipref.bench.timing.measure` gave.
        ours: What our layer took just before: medians by the names of `lipref.bench.rounds.SECONDS`, in seconds.
        origin: Where the code comes from (`lipref.bench.foreign`).
    """
    path = path_of(root, config, number, part)
    make_folder(path.parent)
    record = {"format": FORMAT, "kind": "against", "digest": config.digest, "round": number, "part": part}
    record |= {"config": config.as_dict(), "seed": SEED, "origin": origin or {}, "result": result, "ours": ours}
    record["environment"] = environment(device)
    write_json(path, record)


def read(root: Path, config: ForeignConfig, number: int, part: str) -> dict | None:
    """The record of a part, or None where there is none.

    Raises:
        LiprefError: it is damaged, or that of another measurement.
    """
    path, remedy = path_of(root, config, number, part), "delete that file to measure again"
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text())
        whole = (record["format"], record["digest"], record["round"], record["part"]) == (
            FORMAT, config.digest, number, part
        )  # fmt: skip
        wanted = {"status", "steps", *PEAKS} if part == "memory" else {"status", "times", "warm_up"}
        whole = whole and wanted <= set(record["result"]) and isinstance(record["ours"], dict)
        whole = whole and isinstance(record["environment"], dict)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LiprefError(f"{path} is damaged ({type(error).__name__}: {error}); {remedy}") from error
    if not whole:
        raise LiprefError(f"{path} is not the record of this measurement; {remedy}")
    return record
