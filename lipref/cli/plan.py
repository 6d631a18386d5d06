"""``lipref plan``: every run of a comparison, before anything is started."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lipref import data
from lipref.cli import display, profiled
from lipref.cli import options as o
from lipref.runs import planning, plans
from lipref.tensor_files import replace_file
from lipref.training.speed import usual


def plan(
    profile: Annotated[
        str, typer.Option(help=f"Defaults for what is not given: {', '.join(plans.PROFILES)}.")
    ] = "smoke",
    dataset: o.Dataset = None,
    sizes: o.Sizes = None,
    layers: o.Layers = "all",
    epochs: o.Epochs = None,
    budget: o.Budget = None,
    budget_from: o.BudgetFrom = "paper",
    seeds: o.Seeds = "0",
    batch_size: o.BatchSize = None,
    learning_rate: o.LearningRate = None,
    weight_decay: o.WeightDecay = None,
    schedule: o.Schedule = None,
    limit_train: o.LimitTrain = None,
    limit_test: o.LimitTest = None,
    device: o.Device = "cpu",
    jobs: Annotated[int, typer.Option(help="Processes; 0: one per core on the CPU, 1 elsewhere.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder of runs, to see what is done; default data/runs/NAME."
             )] = None,
    data_root: o.Root = None,
    search: o.Search = None,
    search_epochs: o.SearchEpochs = None,
    validation: o.Validation = "clean",
    csv: Annotated[Path | None, typer.Option(help="Write the table here, with all numbers.")] = None,
) -> None:  # fmt: skip
    """List every run that lipref reproduce would do: epochs, learning rate, weight decay, hours, memory, done or not.

    Nothing is started, downloaded or written, but for the table if asked for. Hours are those of training steps, by the
    paper's own step times or by what has been measured here.
    """
    drafted = plans.draft(
        **profiled.asked(
            profile, dataset=dataset, sizes=sizes, layers=layers, epochs=epochs, budget=budget,
            budget_from=budget_from, seeds=seeds, batch_size=batch_size, schedule=schedule, search=search,
            search_epochs=search_epochs, learning_rate=learning_rate, weight_decay=weight_decay, validation=validation,
            device=device, jobs=jobs, out=out, data_root=data_root, limit_train=limit_train, limit_test=limit_test,
            speed=usual(device),
        )
    )  # fmt: skip
    if drafted.dataset.startswith("imagefolder:"):
        drafted = plans.leave_out(drafted, plans.short_name(drafted.dataset))
    found = planning.table(drafted, data.shape(drafted.dataset, data_root))
    display.print_table(display.console(), planning.people(found))
    profiled.say_left_out(drafted)
    for line in planning.totals(found):
        display.say(line)
    if csv is not None:
        replace_file(csv, found.to_csv(index=False, lineterminator="\n").encode())
