"""``lipref attack``: look for wrong predictions inside the certified radii of a run, and beyond them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from lipref.attacks.campaign import Effort, load_target, run_campaign
from lipref.cli import display
from lipref.cli import options as o
from lipref.cli.running import stopped
from lipref.errors import LiprefError
from lipref.runs import plans


def attack(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    images: Annotated[int, typer.Option(help="The first so many of its test images.")] = 200,
    restarts: Annotated[int, typer.Option(help="Random starts per image and radius.")] = 5,
    steps: Annotated[int, typer.Option(help="Gradient steps per start, at least 20.")] = 40,
    seed: Annotated[int, typer.Option(help="Decides the random starts.")] = 0,
    targeted: Annotated[bool, typer.Option("--targeted", help="Each start leads to a class of its own.")] = False,
    box: Annotated[bool, typer.Option("--box", help="For the least norms keep pixels in [0, 1]; default: free.")] = (
        False
    ),
    chunk: Annotated[int, typer.Option(help="Images at a time; a killed campaign goes on after the last.")] = 50,
    dataset: Annotated[str | None, typer.Option(help="imagefolder:PATH, where the run's name for it is no data set.")]
        = None,
    layer: Annotated[str | None, typer.Option(help="path/to/file.py:Class, where the run's layer is your own.")] = None,
    device: o.Device = "cpu",
    out: Annotated[Path | None, typer.Option(help="Folder of the results; default RUN/attack.")] = None,
    data_root: o.Root = None,
) -> None:  # fmt: skip
    """Attack a trained network. Inside the certified radii every success is an error; beyond them they show the power.

    The same command again goes on where it stopped.
    """
    effort = Effort(images=images, restarts=restarts, steps=steps, seed=seed, targeted=targeted, boxed=box, chunk=chunk)
    target = load_target(run, images, plans.check_device(device), dataset=dataset, data_root=data_root, layer=layer)
    out = out or run / "attack"
    try:
        with display.Count(display.console(), "attacking") as shown:
            record = run_campaign(target, effort, out, shown.update)
    except KeyboardInterrupt:
        raise stopped() from None
    display.print_table(display.console(), _inside(record))
    display.print_table(display.console(), _accuracy(record))
    if record["lipschitz_bound"] is None:
        display.say("not proved: the network brings no bound, so nothing is certified and nothing was attacked inside")
    else:
        left = record["accurate"] - record["attacked_inside"]
        tiny = f"; {left} with a radius below 1e-6 left out" if left else ""
        display.say(
            f"{record['end_points']:,} end points inside the certified radii of {record['attacked_inside']} images, "
            f"{record['successes']} successes{tiny}; {record['seconds']:.0f} s. Record: {out / 'attack.json'}"
        )
    if record["refuted"]:
        names = ", ".join(map(str, record["refuted"]))
        raise LiprefError(
            f"certificate refuted on test images {names}: see {out / 'violations'}, mend the layer's bound"
        )


def _inside(record: dict) -> pd.DataFrame:
    """Stages, inside and beyond the radii."""
    lines = [
        {"attack": what, "end points": f"{stage['end_points']:,}", "successes": f"{stage['successes']:,}"}
        for what, stage in record["inside"].items()
    ]
    lines += [
        {"attack": f"{factor} x radius", "end points": f"{stage['images']:,}", "successes": f"{stage['successes']:,}"}
        for factor, stage in record["beyond"].items()
    ]
    return pd.DataFrame(lines, columns=["attack", "end points", "successes"])


def _accuracy(record: dict) -> pd.DataFrame:
    """Percent of the images that stay right under attack, beside those that are certified."""
    total = record["images"]
    lines = [{"radius": "0", "right %": f"{100 * record['accurate'] / total:.1f}", "certified %": ""}]
    for radius, counts in record["fixed"].items():
        certified = counts["certified"]
        lines.append(
            {"radius": radius, "right %": f"{100 * counts['right'] / total:.1f}",
             "certified %": "not proved" if certified is None else f"{100 * certified / total:.1f}"}
        )  # fmt: skip
    return pd.DataFrame(lines)
