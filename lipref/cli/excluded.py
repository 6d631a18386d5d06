"""``lipref excluded``: why two methods are left out of the comparison, computed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lipref.cli import display
from lipref.cli import options as o
from lipref.paper import excluded as measured
from lipref.paths import RUNS


def excluded(
    dataset: Annotated[str, typer.Option(help="Its pictures go through the networks.")] = (
        "imagefolder:data/datasets/cifar10-jpeg"
    ),
    images: Annotated[int, typer.Option(help="Test pictures whose features' variance is taken.")] = 256,
    steps: Annotated[int, typer.Option(help="Training steps, after which ECO is looked at again; 0 for none.")] = 30,
    seed: Annotated[int, typer.Option(help="Of the networks.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder of the tables; default data/runs/excluded.")] = None,
    data_root: o.Root = None,
) -> None:
    """Compute what Figure 6 shows of ECO and Table 3 of Sandwich: variances, norms and gradients, layer by layer.

    Untrained networks of the paper's sizes, ECO's trained for some steps too; some ten minutes on one core.
    """
    question = measured.Question(dataset=dataset, data_root=data_root, images=images, steps=steps, seed=seed)
    paths = measured.write(question, RUNS / "excluded" if out is None else out)
    display.say(f"Tables: {', '.join(map(str, paths))}")
