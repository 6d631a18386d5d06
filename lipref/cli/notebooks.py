"""``lipref figures`` and ``lipref batch``: the notebooks from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lipref.cli import display
from lipref.cli.running import do_figures, do_report, raise_failures, stopped
from lipref.errors import LiprefError
from lipref.paper.comparison import VARIANTS
from lipref.paths import ROOT, RUNS
from lipref.report.batch import Point, parse_grid, run_grid
from lipref.report.items import read_map


def figures(
    only: Annotated[str | None, typer.Option(help="Comma-separated names of items; default all.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the figures and tables.")] = ROOT / "figures",
    notebooks: Annotated[
        bool, typer.Option("--notebooks", help="Also give the notebooks in notebooks/ their new outputs.")
    ] = False,
    variant: Annotated[
        str, typer.Option(help="published, ours or both: whose values the items of the paper show.")
    ] = "both",
) -> None:
    """Draw the committed figures and tables again, from committed data: nothing is trained or measured."""
    items = read_map()
    if only is not None:
        known = {item.name: item for item in items}
        for name in only.split(","):
            if name not in known:
                raise LiprefError(f"unknown item {name!r}; known: {', '.join(known)}")
        items = [known[name] for name in only.split(",")]
    if variant not in VARIANTS:
        raise LiprefError(f"--variant {variant!r}: choose one of {', '.join(VARIANTS)}")
    given = None
    if variant != "both":
        if notebooks or out.resolve() == ROOT / "figures":
            raise LiprefError(f"--variant {variant} is not what is committed: give another folder with --out")
        others = [item.name for item in items if "variant" not in item.parameters]
        if others:
            display.say(f"without variants, not drawn: {', '.join(others)}")
        items, given = [item for item in items if "variant" in item.parameters], {"variant": variant}
    failures = do_figures(items, out, notebooks, given)
    display.say(f"{len(items) - len(failures)} of {len(items)} items drawn in {out}")
    raise_failures(failures, "items")


def report(
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = RUNS / "report",
) -> None:
    """The committed notebooks as one HTML report in a folder of its own, which needs no network; nothing is drawn."""
    display.say(f"{do_report(read_map(), ROOT / 'figures', out)}")


def batch(
    notebook: Annotated[Path, typer.Argument(help="A notebook with a cell tagged parameters.")],
    grid: Annotated[
        list[str], typer.Option(help="name=value,value (separate by ; where a value has a comma) or @file.yaml; again "
                                     "for every parameter.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the batch: a folder per combination, and index.csv.")],
    workers: Annotated[int, typer.Option(help="Kernels at a time.")] = 1,
) -> None:  # fmt: skip
    """Execute a notebook for every combination of parameters; those that are done already are not done again."""
    points = []

    def on_done(point: Point) -> None:
        points.append(point)
        what = point.status if point.ran else "done before"
        display.say(f"{point.folder.name}: {what}{': ' + point.note if point.note else ''}")

    try:
        points = run_grid(notebook, parse_grid(grid), out, workers=workers, on_done=on_done)
    except KeyboardInterrupt:
        raise stopped() from None
    display.say(f"{out / 'index.csv'}: {len(points)} combinations")
    failed = [f"{point.folder.name}: {point.note}" for point in points if point.status != "done"]
    raise_failures(failed, "combinations")
