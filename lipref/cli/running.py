"""Runs, measurements and notebooks under a progress display."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import typer

from lipref.bench import measurements
from lipref.cli import display
from lipref.errors import LiprefError
from lipref.report.drawing import draw_all
from lipref.report.execute import take_over
from lipref.report.folder import gather_committed, gather_data
from lipref.report.html import write_report
from lipref.report.items import Item, execute_all
from lipref.runs import overview, sweeps
from lipref.runs.plans import Plan
from lipref.runs.records import make_folder
from lipref.runs.study import read

SOUNDNESS = "soundness"  # below the folder of the runs
STOPPED = 130  # exit code after Ctrl-C
LEFT = 75  # exit code of a slice that ended with work left (EX_TEMPFAIL of sysexits.h): the same command goes on
WORKERS = 2  # kernels at a time: each is a process of its own, with its own copy of torch


def do_runs(plan: Plan) -> tuple[list[dict], list[str]]:
    """Do what is missing of the plan. Returns the records, and a line for each comparison that failed."""
    make_folder(plan.out)
    records, failures = [], []
    try:
        with display.Display(display.console(), plan.tasks()) as shown:
            for (size, layer), result in sweeps.run(plan, shown.listen):
                if isinstance(result, LiprefError):
                    failures.append(f"{layer} {size}: {result}")
                    continue
                records += result
                for record in result:
                    shown.finished(record)
    except KeyboardInterrupt:
        raise stopped() from None
    return records, failures


def do_measurements(plan: measurements.CostPlan) -> tuple[list[dict], list[str]]:
    """Measure what is missing. Returns the records, and a line for each measurement that failed."""
    make_folder(plan.out)
    try:
        with display.Count(display.console(), "measuring") as shown:
            return measurements.run(
                plan, lambda done, total, size, layer: shown.update(done, total, f"{layer} {size}")
            )  # fmt: skip
    except KeyboardInterrupt:
        raise stopped() from None


def stopped() -> typer.Exit:
    """What Ctrl-C ends in."""
    print("stopped; the same command goes on where it stopped", file=sys.stderr)
    return typer.Exit(STOPPED)


def raise_failures(failures: Sequence[str], what: str) -> None:
    """One error for everything that failed, after everything else was done."""
    if len(failures) == 1:
        raise LiprefError(failures[0])
    if failures:
        raise LiprefError(f"{len(failures)} {what} failed: {'; '.join(failures)}")


def do_figures(
    items: Sequence[Item], out: Path, in_place: bool, given: Mapping[str, object] | None = None
) -> list[str]:
    """Draw the items into ``out``; if ``in_place`` their notebooks get the new outputs.

    Parameters are at their defaults, but for those of ``given``, which every item has to take.

    Returns a line for each that failed.
    """
    if not in_place:
        failures = {}
        try:
            with display.Count(display.console(), "drawing") as shown:
                shown.update(0, len(items), "")
                for done, (item, error) in enumerate(draw_all(items, out, given), 1):
                    shown.update(done, len(items), item.item)
                    failures |= {} if error is None else {item.name: str(error)}
        except KeyboardInterrupt:
            raise stopped() from None
        return [failures[item.name] for item in items if item.name in failures]
    with tempfile.TemporaryDirectory() as folder:
        jobs = [(item, Path(folder) / item.notebook.name, given or {}) for item in items]
        executed, failures = _execute(jobs, make_folder(out))
        for item in items:
            if item.name in executed:
                take_over(executed[item.name], item.notebook)
    return failures


def do_notebooks(items: Sequence[Item], out: Path, given: Mapping[str, object], title: str) -> list[str]:
    """Execute the notebooks into ``out``: ``figures/``, ``notebooks/`` and ``report.html``.

    ``given`` are the values for those parameters that a notebook takes, if it draws from records; of the others it gets
    the layers alone. Returns a line for each that failed.
    """
    figures, notebooks = make_folder(out / "figures"), make_folder(out / "notebooks")
    jobs = []
    for item in items:
        names = [name for name in given if name in item.parameters]
        if "records" not in names:
            names = [name for name in names if name == "layers"]
        values = {name: given[name] for name in names}
        if "cost_sizes" in given and "cost_sizes" not in names and not _draws_runs(item):
            values |= {"sizes": given["cost_sizes"]} if "sizes" in names else {}
        jobs.append((item, notebooks / item.notebook.name, values))
    executed, failures = _execute(jobs, figures)
    if executed:
        ordered = [(item, executed[item.name]) for item in items if item.name in executed]
        folder = Path(str(given["records"])) if given.get("records") else None
        data = gather_data([item for item, _ in ordered], out, [out, out / SOUNDNESS])
        path = write_report(out / "report.html", title, _lead(folder, failures), ordered, data)
        display.say(f"Figures: {figures}; report: {path}")
    return failures


def do_report(items: Sequence[Item], figures: Path, out: Path) -> Path:
    """The report of the committed notebooks as one folder: the page, ``notebooks/``, ``figures/`` and ``data/``."""
    copies = gather_committed(items, figures, make_folder(out))
    title = "1-Lipschitz layers compared"
    return write_report(out / "report.html", title, _lead(None, []), copies, gather_data(items, out))


def _draws_runs(item: Item) -> bool:
    return any(path.endswith("records.json") for path in item.inputs)


def _execute(jobs: Sequence[tuple[Item, Path, Mapping[str, object]]], out: Path) -> tuple[dict[str, Path], list[str]]:
    """Executed notebooks by the names of their items, and a line for each that failed."""
    executed, failures = {}, []
    try:
        with display.Count(display.console(), "drawing") as shown:
            shown.update(0, len(jobs), "")
            for item, result in execute_all(jobs, out=out, workers=WORKERS):
                if isinstance(result, LiprefError):
                    failures.append(f"{item.name}: {result}")
                else:
                    executed[item.name] = result
                shown.update(len(executed) + len(failures), len(jobs), item.item)
    except KeyboardInterrupt:
        raise stopped() from None
    return executed, failures


def _lead(folder: Path | None, failures: Sequence[str]) -> str:
    """What stands before the tables, in Markdown; ``folder`` is that of the records."""
    text = (
        "The tables and figures of *1-Lipschitz Layers Compared* (Prach, Brau, Buttazzo, Lampert, CVPR 2024), "
        "our values beside the published ones."
    )
    for what, name in (("Trained", "records.json"), ("Measured", "costs.json")):
        if folder is not None and (folder / name).is_file():
            text += f"\n\n**{what}:** {overview.provenance(read(folder / name))}"
    return text + "".join(f"\n\n**Missing:** {_plain(failure)}" for failure in failures)


def _plain(text: str) -> str:
    """Markdown that shows ``text`` as it is."""
    return re.sub(r"[\\`*_\[\]<>&$~]", lambda found: f"&#{ord(found[0])};", text)
