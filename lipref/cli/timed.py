"""``lipref timed``: layers under one budget of training time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lipref.cli import display
from lipref.cli import options as o
from lipref.paper.experiment2 import Timed, people, sentence
from lipref.runs.records import make_folder


def timed(
    layers: o.Layers = "cpl,soc",
    size: Annotated[str, typer.Option(help="One size.")] = "XS",
    dataset: o.Dataset = "digits",
    seconds: Annotated[float, typer.Option(help="The budget of each network, in seconds of training steps.")] = 20.0,
    seed: Annotated[int, typer.Option(help="Of the training runs.")] = 0,
    batch_size: o.BatchSize = None,
    device: o.Device = "cpu",
    costs: Annotated[str, typer.Option(help="Folder with costs.json, whose steps decide the epochs; default: the "
                                            "committed ones where they fit, else measured.")] = "",
    out: Annotated[Path | None, typer.Option(help="Folder for records.json, costs.json and their tables.")] = None,
) -> None:  # fmt: skip
    """Train each layer for the epochs that its own speed allows in one time, and certify it."""
    if out is not None:
        make_folder(out)
    compared = Timed(
        layers, dataset=dataset, size=size, seconds=seconds, seed=seed, batch_size=batch_size or 0, device=device,
        costs=costs, say=display.say,
    )  # fmt: skip
    written = compared.write(out) if out is not None else []
    display.print_table(display.console(), people(compared.table))
    display.say(sentence(compared.table, seconds))
    if written:
        display.say(f"Written: {', '.join(map(str, written))}")
