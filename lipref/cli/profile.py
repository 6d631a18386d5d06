"""``lipref profile``: where the time of a training step goes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lipref.bench import step_profile
from lipref.cli import display
from lipref.cli import options as o
from lipref.layers import resolve
from lipref.paths import RUNS
from lipref.runs import plans


def profile(
    layers: o.Layers = "all",
    size: Annotated[str, typer.Option(help="Of the network.")] = "S",
    batch_size: Annotated[int, typer.Option(help="Images per step.")] = 32,
    steps: Annotated[int, typer.Option(help="Profiled in each round.")] = 3,
    rounds: Annotated[int, typer.Option(help="Of all layers.")] = 3,
    device: o.Device = "cpu",
    out: Annotated[Path | None, typer.Option(help="Folder of the table; default data/runs/profile.")] = None,
) -> None:
    """Profile training steps: milliseconds in convolutions, products, factorisations, transforms, the rest.

    Random 32x32 pictures. The whole step is also compared with the plain network's in the same round, where it is among
    the layers. Let nothing else run; profiling slows what is made of many small operations. The same command goes on
    where it was stopped.
    """
    names = plans.check_layers(plans.layer_names(layers))
    plans.check_sizes((size,))
    plans.check_device(device)
    question = {"layers": list(names), "size": size, "batch_size": batch_size, "steps": steps, "rounds": rounds}
    question |= {} if device == "cpu" else {"device": device}
    specs, folder = [resolve(name) for name in names], RUNS / "profile" if out is None else out
    with display.Count(display.console(), "profiling") as shown:
        table = step_profile.measure(specs, size, batch_size, steps, rounds, out=folder, device=device,
                                     on_task=shown.update)  # fmt: skip
    paths = step_profile.write(table, question, folder)
    display.print_table(display.console(), step_profile.people(table))
    display.say(f"Written: {', '.join(map(str, paths))}")
