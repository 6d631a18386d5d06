"""``lipref bench``: what the layers cost, against the plain network and against other people's code."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import torch
import typer

from lipref.bench import foreign, results, slices, tables
from lipref.bench.requests import QUANTITIES, Against, BenchPlan
from lipref.bench.worker import OURS, Worker
from lipref.cli import display
from lipref.cli import options as o
from lipref.cli.running import LEFT, raise_failures, stopped
from lipref.errors import LiprefError
from lipref.paths import RUNS
from lipref.runs import plans, profiles
from lipref.runs.records import make_folder
from lipref.training.speed import Speed

ImageSize = Annotated[str | None, typer.Option(help="Sides of the pictures, comma-separated; default 32.")]
Quantities = Annotated[str, typer.Option(help=f"Comma-separated, of {', '.join(QUANTITIES)}.")]
Compared = Annotated[
    list[str] | None,
    typer.Option("--against", help=f"Other people's code, NAME or NAME:PATH, of {', '.join(foreign.CODES)}."),
]  # fmt: skip


def bench(
    layers: o.Layers = "all",
    sizes: Annotated[str | None, typer.Option(help="Comma-separated, such as XS,S; default S.")] = None,
    quantities: Quantities = "train,infer,folded,memory",
    batch_size: Annotated[int | None, typer.Option(help="Images per step; default 32.")] = None,
    image_size: ImageSize = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:N, or auto: cuda where there is one.")] = "auto",
    repeats: Annotated[int | None, typer.Option(help="Timed calls per quantity in all rounds; default 10.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds over all networks; default 3.")] = None,
    profile: Annotated[str | None, typer.Option(help=f"Defaults: {' or '.join(profiles.BENCH)}.")] = None,
    against: Compared = None,
    seconds: o.Seconds = None,
    plain: o.Plain = False,
    nothing_else: Annotated[
        bool,
        typer.Option(
            "--nothing-else", help="Measure nothing of ours either that is not among --quantities: for short slices."
        ),
    ] = False,
    again: Annotated[bool, typer.Option("--again", help="Measure anew what failed in an earlier call.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder of the results; default data/runs/bench.")] = None,
) -> None:
    """Measure what every layer costs, against the plain network and against other people's code, in one table.

    Random pictures; nothing is downloaded. In each round a network of ours is followed by the others' of the same layer
    and size, in processes of their own: let nothing else run. What is there is not measured again, what failed is named
    in the table. Files: bench.csv, bench.md, bench.json, and costs.json, from which Figures 2 to 4 are drawn.

    Others: --against orthogonium (the extra bench), or --against authors:PATH, a checkout of the paper's own code.
    """
    began = time.monotonic()
    chosen = profiles.bench(profile)
    given = {
        "sizes": sizes, "batch_size": batch_size, "image_sizes": image_size, "repeats": repeats, "rounds": rounds,
    }  # fmt: skip
    chosen |= {name: value for name, value in given.items() if value is not None}
    device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    plans.check_device(device)
    if seconds is not None and not seconds > 0:
        raise LiprefError(f"--seconds {seconds:g}: give a number above 0")
    codes = [foreign.parse(text) for text in against or []]
    if len({code.name for code, _ in codes}) < len(codes):
        raise LiprefError(f"--against {', '.join(against or [])} names a code twice; every one may stand once")
    workers = {OURS: Worker(OURS)} | {code.name: Worker(code.name, [path] if path else []) for code, path in codes}
    try:
        compared = [
            Against(code, path, **workers[code.name]({"do": "hello", "code": code.name})) for code, path in codes
        ]
        plan = BenchPlan(
            layers=plans.check_layers(plans.layer_names(layers)),
            sizes=plans.check_sizes(plans.split_names(chosen["sizes"], "--sizes")),
            image_sizes=plans.whole_numbers(chosen["image_sizes"], "--image-size"),
            quantities=plans.split_names(quantities, "--quantities"),
            batch_size=chosen["batch_size"], device=device, repeats=chosen["repeats"], rounds=chosen["rounds"],
            out=out or RUNS / "bench", against=tuple(compared),
            speed=Speed() if plain else None, nothing_else=nothing_else,
        )  # fmt: skip
        plan.check()
        done = _measure(plan, workers, seconds and max(seconds - (time.monotonic() - began), 1e-3), again)
    finally:
        for worker in workers.values():
            worker.stop()
    _show(plan, done)
    if done.time_is_up:
        raise typer.Exit(LEFT)
    raise_failures([*done.failures.values(), *done.too_long], "measurements")


def _measure(plan: BenchPlan, workers: dict[str, Worker], seconds: float | None, again: bool) -> slices.Slice:
    make_folder(plan.out)
    try:
        with display.Count(display.console(), "measuring") as shown:
            return slices.run(
                plan, workers, seconds=seconds, again=again,
                on_task=lambda done, total, size, layer: shown.update(done, total, f"{layer} {size}"),
            )  # fmt: skip
    except KeyboardInterrupt:
        raise stopped() from None


def _show(plan: BenchPlan, done: slices.Slice) -> None:
    """The table and its files, and those of `lipref measure`."""
    table, console = tables.table(plan), display.console()
    if not table.empty:
        paths = results.write(plan, table, plan.out)
        display.print_table(console, tables.people(table, intervals=False))
        display.say(f"{tables.setting(plan)} {tables.NOTE}")
        for line in tables.notes(plan):
            display.say(line)
        display.say(f"With intervals and provenance: {', '.join(map(str, paths))}")
    for line in done.too_long:
        display.say(line)
    display.say(done.sentence)
