"""What was measured as files: ``growth.json``, a record per layer, and ``growth.csv``, a row per point."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from lipref.errors import LiprefError
from lipref.growth.parts import AXES
from lipref.provenance import write_json
from lipref.runs import make_folder
from lipref.tensor_files import replace_file

FORMAT = 1
CSV, RECORDS = "growth.csv", "growth.json"
COLUMNS = ("layer", "part", *AXES, "k", "seconds", "low", "high", "repeats", "rounds", "macs", "device", "machine",
           "threads")  # fmt: skip
_REMEDY = "lipref growth --out FOLDER writes it"


def write(records: Sequence[dict], out: Path) -> list[Path]:
    """``growth.csv`` and ``growth.json`` of ``records`` in ``out``; none where there is no record. Returns the paths.

    Raises:
        LiprefError: a file cannot be written.
    """
    if not records:
        return []
    folder = make_folder(Path(out))
    text = points(records).to_csv(index=False, lineterminator="\n")
    replace_file(folder / CSV, text.encode())
    write_json(folder / RECORDS, list(records))
    return [folder / CSV, folder / RECORDS]


def points(records: Sequence[dict]) -> pd.DataFrame:
    """A row per layer, part and point, with `COLUMNS`; seconds are empty where memory ran out."""
    lines = []
    for record in records:
        config = record["config"]
        for entry in record["points"]:
            timed = entry["seconds"] or {}
            line = {name: entry[name] for name in ("part", *AXES, "macs")}
            line |= {"seconds": timed.get("median"), "rounds": len(timed.get("rounds", ()))}
            line |= {name: timed.get(name) for name in ("low", "high")} | {"repeats": timed.get("repeats", 0)}
            line |= {name: config[name] for name in ("layer", "device", "machine", "threads")}
            lines.append(line | {"k": config["kernel_size"]})
    frame = pd.DataFrame(lines, columns=list(COLUMNS))
    return frame.assign(macs=frame.macs.astype("Int64"))


def read(folder: Path) -> list[dict]:
    """The records that `write` wrote into ``folder``.

    Raises:
        LiprefError: missing, damaged, or of several grids or machines.
    """
    path = Path(folder) / RECORDS
    try:
        records = json.loads(path.read_text())
        if not isinstance(records, list) or not records or not all(whole(record) for record in records):
            raise ValueError("no list of records")
        points(records)
    except OSError as error:
        raise LiprefError(f"{path} cannot be read ({error.strerror}): {_REMEDY}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LiprefError(f"{path} is damaged ({type(error).__name__}: {error}): delete it, {_REMEDY}") from None
    first = _circumstances(records[0])
    other = next((record for record in records if _circumstances(record) != first), None)
    if other is not None:
        names = [records[0]["config"]["layer"], other["config"]["layer"]]
        raise LiprefError(f"{path}: {names[0]} and {names[1]} were not measured alike: {_REMEDY}")
    return records


def _circumstances(record: dict) -> dict:
    return {name: value for name, value in record["config"].items() if name not in ("layer", "layer_sha256")}


def whole(record: dict) -> bool:
    """Whether a record is one of this package, of this format."""
    return record["format"] == FORMAT and record["kind"] == "growth" and bool(record["digest"])
