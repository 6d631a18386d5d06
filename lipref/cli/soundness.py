"""``lipref soundness``: the constants of trained networks as published and as proved, and what that costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from lipref.certification.published_constants import PUBLISHED_ITERATIONS
from lipref.cli import display
from lipref.cli import options as o
from lipref.cli.running import raise_failures, stopped
from lipref.errors import LiprefError
from lipref.paper.certificates import products
from lipref.paths import RUNS
from lipref.runs.soundness import CONSTANTS, PRICE, REFUTED, Question, measure, measure_refuted


def soundness(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of finished runs.")],
    init: Annotated[bool, typer.Option("--init", help="Each network untrained too, from the run's seed.")] = False,
    iterations: Annotated[int, typer.Option(help="Of the power method, per layer; the published number.")] = (
        PUBLISHED_ITERATIONS
    ),
    images: Annotated[int | None, typer.Option(help="The first so many of a run's test images; default all.")] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Also the singular values of small layers.")] = False,
    refuted: Annotated[bool, typer.Option(help="Also refute false certificates, in half a minute.")] = True,
    dataset: Annotated[str | None, typer.Option(help="imagefolder:PATH, where the run's name for it is no data set.")]
        = None,
    layer: Annotated[str | None, typer.Option(help="path/to/file.py:Class, where the run's layer is your own.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the tables; default data/runs/soundness.")] = None,
    data_root: o.Root = None,
) -> None:  # fmt: skip
    """Compute constants the published way beside the proved ones, and certified accuracy by both.

    The same command again does what is missing; other runs are added to the same tables.
    """
    out = RUNS / "soundness" if out is None else out
    question = Question(
        iterations=iterations, exact=exact, images=images, dataset=dataset, data_root=data_root, layer=layer
    )
    failures = do_soundness(runs, out, initial=init, question=question, refuted=refuted)
    if (out / CONSTANTS).exists():
        display.print_table(display.console(), pd.DataFrame(products(out)).astype(str))
        names = [name for name in (CONSTANTS, PRICE, REFUTED) if (out / name).exists()]
        display.say(f"Tables: {', '.join(str(out / name) for name in names)}")
    raise_failures(failures, "runs")


def do_soundness(
    runs: Sequence[Path], out: Path, *, initial: bool = True, question: Question | None = None, refuted: bool = True
) -> list[str]:
    """Measure what is missing of ``runs`` (folders) in ``out``. Returns a line for each that failed."""
    question, failures = question or Question(), []
    moments = ("initial", "trained") if initial else ("trained",)
    jobs = [(folder, moment) for folder in runs for moment in moments]
    try:
        with display.Count(display.console(), "soundness") as shown:
            for done, (folder, moment) in enumerate(jobs):
                shown.update(done, len(jobs) + refuted, f"{Path(folder).name}, {moment}")
                try:
                    measure(folder, moment, question, out)
                except LiprefError as error:
                    failures.append(str(error))
            if refuted:
                shown.update(len(jobs), len(jobs) + 1, "false certificates")
                measure_refuted(out)
    except KeyboardInterrupt:
        raise stopped() from None
    return list(dict.fromkeys(failures))
