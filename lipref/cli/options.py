"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lipref.data import DATASETS
from lipref.errors import LiprefError
from lipref.nets import SIZES
from lipref.runs.budgets import TIMES
from lipref.training.config import SCHEDULES
from lipref.training.speed import PRECISIONS

Dataset = Annotated[str | None, typer.Option(help=f"One of {', '.join(DATASETS)}.")]
Sizes = Annotated[str | None, typer.Option(help=f"Comma-separated, of {', '.join(SIZES)}.")]
Layers = Annotated[
    str | None, typer.Option(help="Comma-separated names, or path/to/file.py:Class; all: every known one.")
]  # fmt: skip
BatchSize = Annotated[int | None, typer.Option(help="Images per step; default 64 on digits, else 256.")]
LearningRate = Annotated[float | None, typer.Option(help="Peak learning rate; else the paper's, else a small search.")]
WeightDecay = Annotated[float | None, typer.Option(help="Weight decay; goes with --learning-rate.")]
Schedule = Annotated[str | None, typer.Option(help=f"One of {', '.join(SCHEDULES)}; default the profile's.")]
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")]
Root = Annotated[Path | None, typer.Option("--data-root", help="Where data sets are kept; default data/datasets.")]
Seconds = Annotated[
    float | None, typer.Option(help="Stop cleanly after so many; with work left the exit code is 75, and the same "
                                    "command goes on."),
]  # fmt: skip
LimitTrain = Annotated[int | None, typer.Option(help="Train on this many images, class-balanced.")]
LimitTest = Annotated[int | None, typer.Option(help="Test on this many images, class-balanced.")]
CheckpointSeconds = Annotated[float, typer.Option(help="Seconds between two checkpoints.")]
SearchEpochs = Annotated[int | None, typer.Option(help="Epochs per candidate of the learning-rate search.")]
Epochs = Annotated[int | None, typer.Option(help="Passes over the training images.")]
Budget = Annotated[
    str | None, typer.Option(help=f"In place of epochs: {', '.join(TIMES)}; if measured any time, such as 5min.")
]  # fmt: skip
BudgetFrom = Annotated[
    str, typer.Option(help="paper: its own table of epochs; measured: the step time on this machine.")
]
Seeds = Annotated[str, typer.Option(help="Comma-separated whole numbers.")]
Search = Annotated[str | None, typer.Option(help="Where the paper has no learning rate: grid, or its random search.")]
Validation = Annotated[
    str, typer.Option(help="Validation images of a search: clean, or augmented as in the authors' code.")
]  # fmt: skip
ChannelsLast = Annotated[
    bool | None, typer.Option(help="Train with the channels innermost in memory; default on CUDA.")
]  # fmt: skip
Precision = Annotated[
    str, typer.Option(help=f"Of training: {', '.join(PRECISIONS)} (convolutions and activations; certificates never).")
]  # fmt: skip
Compile = Annotated[bool, typer.Option("--compile", help="Train by torch.compile; says so where it cannot.")]
Fused = Annotated[bool | None, typer.Option(help="Fused SGD; default on CUDA.")]
Ema = Annotated[
    float | None, typer.Option(help="Decay of a moving average of the weights, which is what is certified then.")
]  # fmt: skip
CudaGraphs = Annotated[bool | None, typer.Option(help="Replay each pass as one CUDA graph; default on CUDA.")]
Plain = Annotated[
    bool, typer.Option("--plain", help="Without the options that are usual on CUDA: channels last, "
                                       "fused SGD, CUDA graphs."),
]  # fmt: skip
Repeats = Annotated[int, typer.Option(help="Timed steps and batches per measurement.")]


def budget_of(epochs: int | None, budget: str | None, default: str) -> str:
    """``--epochs`` and ``--budget`` are two ways to say one thing."""
    if epochs is not None and budget is not None:
        raise LiprefError(f"--epochs {epochs} and --budget {budget} say the same thing; give one of them")
    if epochs is not None and epochs < 1:
        raise LiprefError(f"epochs={epochs}: give a whole number, at least 1")
    if epochs is not None:
        return f"{epochs} epoch{'' if epochs == 1 else 's'}"
    return default if budget is None else budget
