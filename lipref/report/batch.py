"""One notebook over a grid of parameters: every combination in a folder of its own, none done twice."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from lipref.errors import LiprefError
from lipref.report.execute import Job, run_jobs
from lipref.report.items import read_yaml
from lipref.report.kernels import one_line
from lipref.report.parameters import check
from lipref.runs import provenance
from lipref.runs.records import make_folder
from lipref.tensor_files import replace_file

FORMAT = 1
COLUMNS = ("status", "folder", "note")
NAME_LENGTH = 80


@dataclass(frozen=True)
class Point:
    """One combination of the grid: ``parameters``, its ``folder``, and how it ended.

    ``status`` is "done" or "failed", ``ran`` whether it was executed now, and ``note`` one line: the error of a failed
    one, or that a damaged record was there.
    """

    parameters: dict[str, Any]
    folder: Path
    status: str
    ran: bool
    note: str = ""


def parse_grid(arguments: Sequence[str]) -> dict[str, list]:
    """The grid that a command line gives.

    Args:
        arguments: Each is ``name=value,value``, or ``@grid.yaml``, a file with a mapping of names to values or lists of
            values. Where a value has a comma, separate by ``;``: ``sizes=XS,S;M`` is the values "XS,S" and "M", and
            ``sizes=XS,S;`` the one value "XS,S". Values from the command line are text, see
            `lipref.report.parameters.check`.

    Returns:
        The values of every name, in the order given.

    Raises:
        LiprefError: another form, an empty value, or a name given twice.
    """
    pairs: list[tuple[Any, list]] = []
    for argument in arguments:
        if argument.startswith("@"):
            grid = read_yaml(Path(argument[1:]))
            if not isinstance(grid, dict):
                raise LiprefError(f"{argument[1:]} is not a mapping: give name: [value, value] in every line")
            pairs += [(name, values if isinstance(values, list) else [values]) for name, values in grid.items()]
            continue
        name, equals, text = argument.partition("=")
        separator = ";" if ";" in text else ","
        values = text.removesuffix(";").split(separator)
        if not equals or not name.strip() or not all(value.strip() for value in values):
            raise LiprefError(f"{argument!r} is not part of a grid: give name=value,value or @file.yaml")
        pairs.append((name.strip(), [value.strip() for value in values]))
    names = [name for name, _ in pairs]
    for name, values in pairs:
        if names.count(name) > 1:
            raise LiprefError(f"{name} is in the grid twice: give all its values at once")
        if not values:
            raise LiprefError(f"{name} has no value: give at least one, or leave it out")
    return dict(pairs)


def run_grid(
    notebook: Path,
    grid: Mapping[str, Sequence],
    out: Path,
    *,
    workers: int = 1,
    on_done: Callable[[Point], None] | None = None,
) -> list[Point]:
    """Execute ``notebook`` for every combination of the grid's values, on ``workers`` kernels at a time.

    Each gets the folder ``out/<parameters>-<digest>`` with the executed notebook, the files that it wrote, and
    ``run.json``: parameters, the notebook's SHA-256, status, those of the files, environment. A combination that is
    done, by the same notebook and with its files unchanged, is not executed again; a failed one is. One failure stops
    no other. At the end ``out/index.csv`` has a row for each.

    Args:
        notebook: See `lipref.report.execute.execute`.
        grid: Values of parameters by name; empty: one execution with the defaults.
        out: The folder of the batch.
        workers: Kernels at a time.
        on_done: Called with every `Point` as it ends, those first that are not executed again.

    Returns:
        All combinations, the last name varying fastest.

    Raises:
        LiprefError: the grid does not fit the notebook, two combinations are the same, or ``out`` cannot be written.
            All of it is checked before anything is executed.
    """
    notebook, out = Path(notebook), Path(out)
    reserved = sorted({"out", *COLUMNS} & set(grid))
    if reserved:
        raise LiprefError(f"the grid has {', '.join(reserved)}, which the batch itself decides: leave it out")
    combinations = [
        check(notebook, dict(zip(grid, values, strict=True))) for values in itertools.product(*grid.values())
    ]
    folders = [out / _folder(notebook, parameters) for parameters in combinations]
    for folder, parameters in zip(folders, combinations, strict=True):
        if folders.count(folder) > 1:
            raise LiprefError(f"the grid has {parameters} twice: give every value once")
    if workers < 1:
        raise LiprefError(f"workers is {workers}: give 1 or more")
    make_folder(out)
    sha256 = _sha256(notebook)
    # What the notebook can use; which of it, its own parameters tell.
    environment = provenance.environment("cuda" if torch.cuda.is_available() else "cpu")

    points: dict[int, Point] = {}
    notes: dict[int, str] = {}

    def ended(number: int, status: str, ran: bool, note: str = "") -> None:
        points[number] = Point(combinations[number], folders[number], status, ran, note)
        if on_done is not None:
            on_done(points[number])

    for number, folder in enumerate(folders):
        whole, notes[number] = _whole(folder, combinations[number], sha256)
        if whole:
            ended(number, "done", ran=False)
    todo = [number for number in range(len(folders)) if number not in points]
    jobs = [Job(notebook, folders[number] / notebook.name, combinations[number]) for number in todo]
    for place, result in run_jobs(jobs, workers):
        number = todo[place]
        failure = str(result) if isinstance(result, LiprefError) else None
        files = () if isinstance(result, LiprefError) else (result.notebook, *result.files)
        record = {
            "format": FORMAT,
            "notebook": notebook.name,
            "notebook_sha256": sha256,
            "parameters": combinations[number],
            "status": "failed" if failure else "done",
            "error": failure,
            "files": {path.relative_to(folders[number].resolve()).as_posix(): _sha256(path) for path in files},
            "environment": environment,
        }
        provenance.write_json(folders[number] / "run.json", record)
        note = "; ".join(text for text in (notes[number], failure) if text)
        ended(number, record["status"], ran=True, note=note)

    ordered = [points[number] for number in range(len(folders))]
    rows = [
        point.parameters | {"status": point.status, "folder": point.folder.name, "note": point.note}
        for point in ordered
    ]
    index = pd.DataFrame(rows, columns=[*grid, *COLUMNS])
    replace_file(out / "index.csv", index.to_csv(index=False).encode())
    return ordered


def _folder(notebook: Path, parameters: dict[str, Any]) -> str:
    """A readable name that the digest's first digits make unique."""
    readable = re.sub(r"[^A-Za-z0-9.=_-]+", "-", "_".join(f"{name}={value}" for name, value in parameters.items()))
    digest = hashlib.sha256(json.dumps([notebook.name, parameters], sort_keys=True).encode()).hexdigest()
    return f"{readable[:NAME_LENGTH].strip('.-') or 'defaults'}-{digest[:8]}"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _whole(folder: Path, parameters: dict[str, Any], sha256: str) -> tuple[bool, str]:
    """Whether ``folder`` holds this very combination, done; and what there is to say if its record is damaged."""
    path = folder / "run.json"
    if not path.exists():
        return False, ""
    try:
        record = json.loads(path.read_bytes())
        same = record["format"] == FORMAT and record["status"] == "done"
        same = same and (record["parameters"], record["notebook_sha256"]) == (parameters, sha256)
        files = {folder / name: digest for name, digest in record["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return False, f"run.json was damaged ({type(error).__name__}: {one_line(error)}), so it was executed again"
    return same and all(path.is_file() and _sha256(path) == digest for path, digest in files.items()), ""
