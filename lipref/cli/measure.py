"""``lipref measure``: time and memory of the layers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lipref import data
from lipref.bench import measurements
from lipref.cli import display
from lipref.cli import options as o
from lipref.cli.running import do_measurements, raise_failures
from lipref.paths import RUNS
from lipref.runs import overview, plans
from lipref.training.speed import Speed


def measure(
    layers: o.Layers = "all",
    sizes: o.Sizes = "XS,S",
    dataset: Annotated[str, typer.Option(help=f"Gives the shape: one of {', '.join(data.DATASETS)}.")] = "digits",
    image_size: Annotated[int | None, typer.Option(help="Side of the pictures, in place of the data set's.")] = None,
    batch_size: o.BatchSize = None,
    device: o.Device = "cpu",
    repeats: o.Repeats = 10,
    plain: o.Plain = False,
    out: Annotated[Path | None, typer.Option(help="Folder of the results; default data/runs/NAME.")] = None,
    data_root: o.Root = None,
) -> None:
    """Measure seconds per training step and inference batch, preparation time and peak memory, what is missing of it.

    Random pictures of the data set's shape; nothing is downloaded. Every network has the machine to itself: let nothing
    else run. Repeats are spread over three rounds of all networks, each kept. The same command again reads its records;
    on another machine, or with other threads, it measures anew.
    """
    shape = data.shape(dataset, data_root)
    if image_size is not None:
        shape = data.Shape(image_size, shape.channels, shape.num_classes, shape.train_images)
    plans.check_device(device)
    plan = measurements.CostPlan(
        sizes=plans.check_sizes(plans.split_names(sizes, "--sizes")),
        layers=plans.check_layers(plans.layer_names(layers)),
        shape=shape, batch_size=plans.usual_batch(dataset) if batch_size is None else batch_size,
        out=out or RUNS / plans.short_name(dataset), device=device, repeats=repeats,
        speed=Speed() if plain else None,
    )  # fmt: skip
    measurements.check(plan)
    records, failures = do_measurements(plan)
    if not records:
        raise_failures(failures, "measurements")
    records = measurements.beside(records, plan.out)
    paths = overview.write_costs(records, plan.out)
    display.print_table(display.console(), overview.cost_summary(records))
    display.say(f"Medians. With intervals and provenance: {', '.join(map(str, paths))}")
    raise_failures(failures, "measurements")
