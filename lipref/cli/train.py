"""``lipref train``: one network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lipref.cli import display
from lipref.cli import options as o
from lipref.cli.running import do_runs, raise_failures
from lipref.data import DATASETS
from lipref.errors import LiprefError
from lipref.layers import LAYERS
from lipref.nets import SIZES
from lipref.paths import RUNS
from lipref.runs.plans import USUAL_BATCH, make_plan
from lipref.training.config import SCHEDULES
from lipref.training.speed import chosen


def train(
    dataset: Annotated[str, typer.Option(help=f"One of {', '.join(DATASETS)}.")] = "digits",
    size: Annotated[str, typer.Option(help=f"One of {', '.join(SIZES)}.")] = "XS",
    layer: Annotated[str, typer.Option(help=f"One of {', '.join(LAYERS)}, or path/to/file.py:Class.")] = "aol",
    epochs: Annotated[int, typer.Option(help="Passes over the training images.")] = 20,
    seed: Annotated[int, typer.Option(help="Decides weights, order of images and augmentation.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Images per step.")] = USUAL_BATCH,
    learning_rate: o.LearningRate = None,
    weight_decay: o.WeightDecay = None,
    schedule: Annotated[str, typer.Option(help=f"One of {', '.join(SCHEDULES)}.")] = "onecycle",
    device: o.Device = "cpu",
    out: Annotated[Path, typer.Option(help="Folder of runs; this run gets a folder of its own in it.")] = RUNS,
    data_root: o.Root = None,
    limit_train: o.LimitTrain = None,
    limit_test: o.LimitTest = None,
    search_epochs: o.SearchEpochs = None,
    checkpoint_seconds: o.CheckpointSeconds = 120.0,
    channels_last: o.ChannelsLast = None,
    precision: o.Precision = "float32",
    compile: o.Compile = False,
    fused: o.Fused = None,
    cuda_graphs: o.CudaGraphs = None,
    ema: o.Ema = None,
) -> None:
    """Train one network, certify it, and print its result. The same command again goes on, or reads the record."""
    for option, value in (("--size", size), ("--layer", layer)):
        if "," in value or not value:
            raise LiprefError(f"{option} {value!r} must be one name; several are for lipref reproduce")
    plan = make_plan(
        dataset=dataset, sizes=(size,), layers=(layer,), seeds=(seed,), budget=o.budget_of(epochs, None, ""),
        batch_size=batch_size, learning_rate=learning_rate, weight_decay=weight_decay, schedule=schedule,
        device=device, out=out, jobs=1, data_root=data_root, limit_train=limit_train, limit_test=limit_test,
        search_epochs=search_epochs, checkpoint_seconds=checkpoint_seconds, ema=ema,
        speed=chosen(
            device, channels_last=channels_last, precision=precision, compile=compile, fused=fused,
            cuda_graphs=cuda_graphs,
        ),
    )  # fmt: skip
    records, failures = do_runs(plan)
    for record in records:
        display.print_place(display.console(), record, plan.out)
    raise_failures(failures, "comparisons")
