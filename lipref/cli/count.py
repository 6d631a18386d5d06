"""``lipref count``: operations and stored numbers of the layers' code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lipref.bench.counting_grid import write_counts
from lipref.cli import display
from lipref.cli import options as o
from lipref.layers import resolve
from lipref.paths import RUNS
from lipref.runs import plans


def count(
    layers: o.Layers = "all",
    out: Annotated[Path | None, typer.Option(help="Folder of the table; default data/runs/complexity.")] = None,
) -> None:
    """Count multiply-accumulates and what autograd keeps, per layer, over a grid of sizes, without training.

    Beside the paper's Table 1 the counts say where the code has left a row behind. A minute on one core.
    """
    out = RUNS / "complexity" if out is None else out
    specs = [resolve(name) for name in plans.layer_names(layers)]
    with display.Count(display.console(), "count") as shown:
        table = write_counts(specs, out, shown.update)
    display.say(f"{len(table)} counts: {out / 'counts.csv'}")
