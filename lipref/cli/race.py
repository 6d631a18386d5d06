"""``lipref race``: certified robust accuracy over minutes of training."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import torch
import typer

from lipref.cli import display
from lipref.cli import options as o
from lipref.cli.running import LEFT, raise_failures, stopped
from lipref.data import load_dataset
from lipref.errors import LiprefError
from lipref.paper import time_to_cra
from lipref.paths import RUNS
from lipref.runs import plans, profiles
from lipref.runs import race as racing
from lipref.runs.race import ENTRIES
from lipref.runs.records import make_folder


def race(
    layers: Annotated[str, typer.Option(help="Comma-separated, or all seven.")] = "all",
    profile: Annotated[str, typer.Option(help=f"Defaults of the rest: {', '.join(profiles.RACE)}.")] = "goals",
    minutes: Annotated[str | None, typer.Option(help="Budgets: minutes of training steps, such as 1,5,10.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Comma-separated whole numbers.")] = None,
    dataset: Annotated[str | None, typer.Option(help="As of lipref train.")] = None,
    size: Annotated[str | None, typer.Option(help="In place of the recipes'; several, comma-separated, only with "
                                             "--validation.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="In place of the recipes'.")] = None,
    learning_rate: Annotated[str | None, typer.Option(help="Peak, in place of the recipes'; several as of --size: "
                                                      "every one is tried.")] = None,
    weight_decay: o.WeightDecay = None,
    ema: o.Ema = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:N, or auto: cuda where there is one.")] = "auto",
    validation: Annotated[bool, typer.Option("--validation", help="Certify a tenth of the training images, for tuning; "
                                             "the test images are not looked at.")] = False,
    weights: Annotated[bool, typer.Option(help="Keep the weights of a run once it is certified; without them some "
                                          "100 kB of it are left to bring away.")] = True,
    seconds: o.Seconds = None,
    out: Annotated[Path | None, typer.Option(help="Folder; default data/runs/race, or race-smoke.")] = None,
    data_root: o.Root = None,
    limit_train: o.LimitTrain = None,
    limit_test: o.LimitTest = None,
) -> None:  # fmt: skip
    """Train each layer by its recipe for so many minutes, certify it once at the end, and say which goals are met.

    The recipes are in lipref/runs/race.py. A step of each is timed first; that fixes the epochs. Compilation and
    certification are not counted as training; the time of both is in the tables. The profile goals is on cifar10-jpeg,
    1, 5, 10 and 30 minutes with three seeds; smoke tries everything on digits, in some minutes on a CPU.
    """
    if seconds is not None and not seconds > 0:
        raise LiprefError(f"--seconds {seconds:g}: give a number above 0")
    chosen = profiles.race(profile)
    given = {
        "minutes": minutes, "seeds": seeds, "dataset": dataset, "size": size, "batch_size": batch_size,
        "learning_rate": learning_rate, "weight_decay": weight_decay,
    }  # fmt: skip
    chosen |= {name: value for name, value in given.items() if value is not None}
    deadline = None if seconds is None else time.monotonic() + seconds
    device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    plans.check_device(device)
    names = [entry.layer for entry in ENTRIES] if layers == "all" else plans.split_names(layers, "--layers")
    sizes = () if chosen["size"] is None else plans.check_sizes(plans.split_names(chosen["size"], "--size"))
    rates = () if chosen["learning_rate"] is None else _positive(str(chosen["learning_rate"]), "--learning-rate")
    if max(len(sizes), len(rates)) > 1 and not validation:
        raise LiprefError(
            "several values of --size or --learning-rate choose a recipe by what they reach: add --validation, so that "
            "the test images are not what it is chosen by"
        )
    settings = {name: chosen[name] for name in ("batch_size", "weight_decay")}
    entries = racing.entries(names, sizes, rates, **settings, ema=ema)
    out = make_folder(out or RUNS / ("race" if profile == "goals" else f"race-{profile}"))
    data = load_dataset(chosen["dataset"], data_root, limit_train=limit_train, limit_test=limit_test)
    contest = racing.Race(
        entries=tuple(entries), minutes=_positive(chosen["minutes"], "--minutes"),
        seeds=plans.whole_numbers(chosen["seeds"], "--seeds"), data=data, device=device, out=out, validation=validation,
        weights=weights,
    )  # fmt: skip
    failures, ended, total = [], None, len(contest.runs())
    with display.Count(display.console(), "racing") as shown:
        done = 0

        def update(name: str, progress) -> None:
            share = progress.step / progress.total_steps if progress else 0.0
            shown.update(done + share, total, name)

        try:
            for result in contest.records(deadline, update):
                done += 1
                failures += [str(result)] if isinstance(result, LiprefError) else []
        except racing.SliceEnded:
            ended = f"{done} of {total} runs are done: the same command goes on"
        except KeyboardInterrupt:
            raise stopped() from None
    records = [each for each in contest.records(read_only=True) if isinstance(each, dict)]
    if records:
        written = time_to_cra.write(records, [(entry.layer, entry.size) for entry in entries], out)
        table = time_to_cra.rows(records)
        display.print_table(display.console(), time_to_cra.people(table))
        display.print_table(
            display.console(), time_to_cra.goals(table, [(entry.layer, entry.size) for entry in entries])
        )
        display.say(f"Written: {', '.join(map(str, written))}")
    if ended:
        for line in failures:
            display.say(f"failed: {line}")
        display.say(ended)
        raise typer.Exit(LEFT)
    raise_failures(failures, "runs")


def _positive(text: str, option: str) -> tuple[float, ...]:
    """Numbers separated by commas, each once, the smallest first."""
    try:
        found = tuple(sorted({float(part) for part in plans.split_names(text, option)}))
    except ValueError:
        found = ()
    if not found or not all(0 < value < float("inf") for value in found):
        raise LiprefError(f"{option} {text}: give numbers above 0, separated by commas")
    return found
