"""``lipref growth``: how the time of a layer grows with width, side and batch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lipref.bench import ceilings, scaling, scaling_rounds
from lipref.cli import display
from lipref.cli import options as o
from lipref.cli.running import LEFT
from lipref.errors import LiprefError
from lipref.layers import resolve
from lipref.paper import growth as item
from lipref.paths import RUNS
from lipref.runs import plans
from lipref.runs.records import make_folder


def growth(
    layers: o.Layers = "all",
    widths: Annotated[str | None, typer.Option(help="Channels c, comma-separated; default the profile's.")] = None,
    sides: Annotated[str | None, typer.Option(help="Image sides s, likewise.")] = None,
    batches: Annotated[str | None, typer.Option(help="Batches b, likewise.")] = None,
    device: o.Device = "cpu",
    repeats: Annotated[int | None, typer.Option(help="Timed calls per point and round.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds of all layers; at least 2 for an interval.")] = None,
    profile: Annotated[str | None, typer.Option(
        help=f"Grid, repeats and rounds: {', '.join(scaling.GRIDS)}; default gpu on CUDA, else cpu.")] = None,
    seconds: o.Seconds = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the results; default data/runs/growth.")] = None,
) -> None:  # fmt: skip
    """Time single layers over a grid of widths, sides and batches, and fit exponents beside those of Table 1.

    Forward and backward of parameter and input transformation, separately, one of c, s and b varied at a time about the
    middle values; and what the machine reaches at best. Let nothing else run. What is done is kept, and read again.
    """
    plans.check_device(device)
    profile = profile or ("gpu" if device.startswith("cuda") else "cpu")
    if profile not in scaling.GRIDS:
        raise LiprefError(f"unknown profile {profile!r}; known: {', '.join(scaling.GRIDS)}")
    usual = scaling.GRIDS[profile]
    grid = scaling.Grid(*(
        default if text is None else _numbers(text, option) for default, text, option in (
            (usual.widths, widths, "--widths"), (usual.sides, sides, "--sides"), (usual.batches, batches, "--batches"))
    ))  # fmt: skip
    plan = scaling.Plan(
        specs=tuple(resolve(name) for name in plans.layer_names(layers)), grid=grid,
        out=out or RUNS / "growth", device=device,
        repeats=scaling.REPEATS[profile] if repeats is None else repeats,
        rounds=scaling.ROUNDS[profile] if rounds is None else rounds,
    )  # fmt: skip
    make_folder(plan.out)
    console = display.console()
    with display.Count(console, "ceilings") as shown:
        limits = ceilings.kept(plan.out, device, shown.update)
    with display.Count(console, "growth") as shown:
        state = scaling_rounds.run(plan, seconds, shown.update)
    paths = scaling.write(state.records, plan.out)
    if state.records:
        display.print_table(console, item.people(item.table(state.records, limits)))
        display.say("Exponents in c, s and b: measured ± 95 % over the rounds [counted, printed].")
    display.say(f"Written: {', '.join(map(str, [plan.out / ceilings.FILE, *paths]))}")
    if state.done < state.total:
        display.say(f"{state.done} of {state.total} steps are done: the same command goes on")
        raise typer.Exit(LEFT)


def _numbers(text: str, option: str) -> tuple[int, ...]:
    names = plans.split_names(text, option)
    wrong = next((name for name in names if not name.isascii() or not name.isdigit()), None)
    if wrong is not None:
        raise LiprefError(f"{option} {text}: {wrong!r} is no whole number; give some such as 8,16,32")
    return tuple(map(int, names))
