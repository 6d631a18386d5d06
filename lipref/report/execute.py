"""One notebook executed, checked, and only then put in place."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from lipref.errors import LiprefError
from lipref.extras import require
from lipref.report import kernels
from lipref.report.kernels import Kernels
from lipref.report.parameters import check, parameters_of, read_notebook
from lipref.runs.records import make_folder
from lipref.tensor_files import replace_file

# The view of a widget: the random name of what dies with the kernel.
WIDGET = "application/vnd.jupyter.widget-view+json"
# First bytes, and bytes that the end of a whole file holds.
SIGNATURES = {".png": (b"\x89PNG\r\n\x1a\n", b"IEND"), ".pdf": (b"%PDF-", b"%%EOF")}


@dataclass(frozen=True)
class Job:
    """One execution, with the arguments of `execute`."""

    notebook: Path
    destination: Path
    given: Mapping[str, object]
    outputs: Sequence[str] = ()
    out: Path | None = None
    timeout: int | None = None
    on_cell: Callable[[int, int], None] | None = None


@dataclass(frozen=True)
class Executed:
    """The result of a `Job`: the executed notebook, and the files that it wrote."""

    notebook: Path
    files: tuple[Path, ...]


def execute(
    notebook: Path,
    destination: Path,
    given: Mapping[str, object],
    *,
    outputs: Sequence[str] = (),
    out: Path | None = None,
    timeout: int | None = None,
    on_cell: Callable[[int, int], None] | None = None,
) -> Path:
    """Execute a notebook, in the working folder and this interpreter's environment, and put its result in place.

    Nothing is in place before all is done and checked: every code cell ran, in order and without an error, and every
    file of ``outputs`` was written anew and is whole. What failed is kept as ``<stem>.failed.ipynb`` beside
    ``destination``; earlier results stay as they are. The same outputs give the same bytes, whatever the time and the
    place; the parameters used, defaults included, are in ``metadata.papermill.parameters``.

    Args:
        notebook: The notebook; see `parameters_of` for the form of its parameters.
        destination: The executed notebook.
        given: Values of parameters; see `check`.
        outputs: Names of files that it must write into the folder of its parameter ``out``. Others that it writes
            there are kept as well.
        out: The folder for these files, by default ``given["out"]`` or else the one of ``destination``.
        timeout: Seconds that one cell may take; None: no limit.
        on_cell: Called after each code cell with the numbers of executed and of all code cells, in another thread.

    Returns:
        ``destination``.

    Raises:
        LiprefError: wrong parameters or folders, a cell that failed, a kernel that died, or an output that is missing
            or damaged.
        KeyboardInterrupt: on an interrupt; the kernel is stopped first.
    """
    job = Job(notebook, destination, given, outputs, out, timeout, on_cell)
    _, result = next(run_jobs([job]))
    if isinstance(result, LiprefError):
        raise result
    return result.notebook


def run_jobs(jobs: Sequence[Job], workers: int = 1) -> Iterator[tuple[int, Executed | LiprefError]]:
    """Do the jobs, ``workers`` at a time.

    Yields:
        The number of a job and its result, or the error that ended it, as they end.

    Raises:
        LiprefError: ``workers`` is not positive, or two jobs have one destination.
    """
    destinations = [Path(job.destination).resolve() for job in jobs]
    for destination in destinations:
        if destinations.count(destination) > 1:
            raise LiprefError(f"{destination} is the destination of two notebooks: give each its own")
    return kernels.in_threads([partial(_do, job) for job in jobs], workers)


def _do(job: Job, running: Kernels) -> Executed:
    source, destination = Path(job.notebook).resolve(), Path(job.destination).resolve()
    known, given = parameters_of(source), check(source, job.given)
    if destination.suffix != ".ipynb" or destination == source:
        raise LiprefError(f"{destination} cannot be the executed notebook: give another file that ends in .ipynb")
    make_folder(destination.parent)
    out = given.pop("out", None)
    if out is not None and job.out is not None:
        raise LiprefError(f"the folder out is given twice, {out} and {job.out}: give it once")
    out = Path(job.out or out or destination.parent).resolve()
    if "out" not in known and (job.outputs or job.out):
        raise LiprefError(f"{source} has no parameter out, so its files cannot be checked: add out: str to its cell")

    mark = uuid.uuid4().hex
    draft = destination.with_name(f".{destination.stem}.{mark}.tmp.ipynb")
    staging, files = out / f".{destination.stem}.{mark}.tmp", ()
    used = {name: given.get(name, parameter.default) for name, parameter in known.items()}
    try:
        if "out" in known:
            make_folder(out)
            staging.mkdir()
            given["out"] = str(staging)
            # Relative, because the same work in another place is to give the same bytes.
            used["out"] = Path(os.path.relpath(out, destination.parent)).as_posix()
        reason = kernels.run(running, source, draft, given, timeout=job.timeout, on_cell=job.on_cell)
        if running.stopped:
            raise kernels.Stopped
        reason = reason or _incomplete(draft) or damaged(staging, job.outputs)
        failed = destination.with_name(f"{destination.stem}.failed.ipynb")
        if reason is not None:
            kept = ""
            if draft.exists():
                replace_file(failed, _clean(draft, source, used, staging, reason))
                kept = f"; see {failed}"
            raise LiprefError(f"{source.name}: {reason}{kept}")
        executed = _clean(draft, source, used, staging)
        files = publish(staging, out)
        replace_file(destination, executed)
        failed.unlink(missing_ok=True)
    finally:
        draft.unlink(missing_ok=True)
        shutil.rmtree(staging, ignore_errors=True)
    return Executed(destination, files)


def publish(staging: Path, out: Path) -> tuple[Path, ...]:
    """Move every file of ``staging`` to its place in ``out``; returns the places."""
    files = [path.relative_to(staging) for path in sorted(staging.rglob("*")) if path.is_file()]
    for name in files:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(staging / name, out / name)
    return tuple(out / name for name in files)


def _incomplete(draft: Path) -> str | None:
    """Why this executed notebook is no result, or None: papermill's word that it is complete is not enough."""
    expected = 0
    for cell in read_notebook(draft).cells:
        if cell.cell_type != "code":
            continue
        for output in cell.outputs:
            if output.output_type == "error":
                return f"cell In [{cell.execution_count}] raised {output.ename}: {kernels.one_line(output.evalue)}"
        if kernels.runs(cell):
            expected += 1
            if cell.execution_count != expected:
                return f"code cell {expected} did not run in its turn (its number is {cell.execution_count})"
    return None


def damaged(staging: Path, outputs: Sequence[str]) -> str | None:
    """What is wrong with the files that were written, or None."""
    missing = [name for name in outputs if not (staging / name).is_file()]
    if missing:
        return f"it did not write {', '.join(missing)} into the folder out"
    for path in sorted(staging.rglob("*")):
        if not path.is_file():
            continue
        name, data = path.relative_to(staging), path.read_bytes()
        if not data:
            return f"it wrote an empty {name}"
        if path.suffix == ".csv":
            try:
                pd.read_csv(path)
            except (ValueError, UnicodeDecodeError) as error:  # pandas' own errors are ValueErrors
                return f"it wrote a {name} that pandas cannot read ({kernels.one_line(error)})"
        start, end = SIGNATURES.get(path.suffix, (b"", b""))
        if not data.startswith(start) or end not in data[-1024:]:
            return f"it wrote a {name} that is not a whole {path.suffix[1:].upper()} file"
    return None


def _clean(draft: Path, source: Path, used: dict[str, Any], staging: Path, reason: str | None = None) -> bytes:
    """An executed notebook without what differs between two executions: times, places, random names, widgets."""
    nbformat = require("nbformat")
    notebook = read_notebook(draft)
    own = {cell.get("id") for cell in json.loads(source.read_bytes())["cells"]}
    for number, cell in enumerate(notebook.cells):
        if cell.id not in own:  # papermill's cell, or one of a notebook older than ids: random
            cell.id = f"cell-{number}"
        for name in ("papermill", "execution"):
            cell.metadata.pop(name, None)
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(WIDGET, None)  # what else the output has is shown in its place
    notebook.metadata.pop("widgets", None)
    notebook.metadata.papermill = {"parameters": used}
    if reason is not None:
        notebook.metadata.papermill["failed"] = reason
    old, new = (json.dumps(text, ensure_ascii=False)[1:-1] for text in (str(staging), used.get("out", "")))
    return f"{nbformat.writes(notebook)}\n".replace(old, new).encode()


def take_over(executed: Path, notebook: Path) -> None:
    """Give ``notebook`` the outputs that its cells have in ``executed``; its sources stay as they are.

    What execution adds (the cell of given values, papermill's notes) is left out, and cells are numbered from 1.

    Raises:
        LiprefError: a cell of ``notebook`` is not in ``executed``.
    """
    nbformat = require("nbformat")
    node, done = read_notebook(notebook), {cell.id: cell for cell in read_notebook(executed).cells}
    number = 0
    for cell in node.cells:
        if cell.cell_type != "code":
            continue
        if cell.id not in done or done[cell.id].source != cell.source:
            raise LiprefError(f"{executed} is not an execution of {notebook}: execute it again")
        number += 1
        cell.outputs, cell.execution_count = done[cell.id].outputs, number
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = number
    replace_file(notebook, f"{nbformat.writes(node, indent=1).rstrip()}\n".encode())
