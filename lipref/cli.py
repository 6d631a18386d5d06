"""The command line: ``lipref train``, ``lipref reproduce``, ``lipref layers``."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from lipref import display, recipes, report, runs, sweeps
from lipref.data import DATASETS, validation_split
from lipref.errors import LiprefError
from lipref.layers import LAYERS, resolve
from lipref.nets import SIZES
from lipref.paths import RUNS
from lipref.settings import SCHEDULES
from lipref.training import Settings

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="1-Lipschitz layers compared: train, certify, and tabulate.",
)  # fmt: skip

# What a profile stands for; every option given on the command line goes before it.
PROFILES = {"smoke": {"dataset": "digits", "sizes": "XS", "epochs": 20, "batch_size": 64, "search_epochs": 3}}

Dataset = Annotated[str | None, typer.Option(help=f"One of {', '.join(DATASETS)}.")]
BatchSize = Annotated[int | None, typer.Option(help="Images per step.")]
LearningRate = Annotated[float | None, typer.Option(help="Peak learning rate; else the paper's, else a small search.")]
WeightDecay = Annotated[float | None, typer.Option(help="Weight decay; goes with --learning-rate.")]
Schedule = Annotated[str, typer.Option(help=f"One of {', '.join(SCHEDULES)}.")]
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")]
Root = Annotated[Path | None, typer.Option("--data-root", help="Where data sets are kept; default data/datasets.")]
LimitTrain = Annotated[int | None, typer.Option(help="Train on this many images, class-balanced.")]
LimitTest = Annotated[int | None, typer.Option(help="Test on this many images, class-balanced.")]
CheckpointSeconds = Annotated[float, typer.Option(help="Seconds between two checkpoints.")]
SearchEpochs = Annotated[int | None, typer.Option(help="Epochs per candidate of the learning-rate search.")]


@app.command()
def train(
    dataset: Annotated[str, typer.Option(help=f"One of {', '.join(DATASETS)}.")] = "digits",
    size: Annotated[str, typer.Option(help=f"One of {', '.join(SIZES)}.")] = "XS",
    layer: Annotated[str, typer.Option(help=f"One of {', '.join(LAYERS)}, or path/to/file.py:Class.")] = "aol",
    epochs: Annotated[int, typer.Option(help="Passes over the training images.")] = 20,
    seed: Annotated[int, typer.Option(help="Decides weights, order of images and augmentation.")] = 0,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    weight_decay: WeightDecay = None,
    schedule: Schedule = "onecycle",
    device: Device = "cpu",
    out: Annotated[Path, typer.Option(help="Folder of runs; this run gets a folder of its own in it.")] = RUNS,
    data_root: Root = None,
    limit_train: LimitTrain = None,
    limit_test: LimitTest = None,
    search_epochs: SearchEpochs = None,
    checkpoint_seconds: CheckpointSeconds = 120.0,
) -> None:
    """Train one network, certify it, and print its result. The same command again goes on, or reads the record."""
    for option, value in (("--size", size), ("--layer", layer)):
        if "," in value or not value:
            raise LiprefError(f"{option} {value!r} must be one name; several are for lipref reproduce")
    plan = _plan(
        dataset=dataset, sizes=size, layers=layer, seeds=str(seed), epochs=epochs,
        batch_size=256 if batch_size is None else batch_size,
        learning_rate=learning_rate, weight_decay=weight_decay, schedule=schedule, device=device, out=out, jobs=1,
        data_root=data_root, limit_train=limit_train, limit_test=limit_test, search_epochs=search_epochs,
        checkpoint_seconds=checkpoint_seconds,
    )  # fmt: skip
    records, failures = _run(plan)
    for record in records:
        display.print_place(_console(), record, plan.out)
    _raise(failures, plan)


@app.command()
def reproduce(
    profile: Annotated[str, typer.Option(help=f"Defaults for what is not given: {', '.join(PROFILES)}.")] = "smoke",
    dataset: Dataset = None,
    sizes: Annotated[str | None, typer.Option(help=f"Comma-separated, of {', '.join(SIZES)}.")] = None,
    layers: Annotated[
        str | None, typer.Option(help="Comma-separated names, or path/to/file.py:Class; default all.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images.")] = None,
    seeds: Annotated[str, typer.Option(help="Comma-separated whole numbers.")] = "0",
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    weight_decay: WeightDecay = None,
    schedule: Schedule = "onecycle",
    limit_train: LimitTrain = None,
    limit_test: LimitTest = None,
    device: Device = "cpu",
    jobs: Annotated[int, typer.Option(help="Processes; 0: one per core on the CPU, 1 elsewhere.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder of runs and tables; default data/runs/NAME.")] = None,
    data_root: Root = None,
    search_epochs: SearchEpochs = None,
    checkpoint_seconds: CheckpointSeconds = 120.0,
) -> None:
    """Train and certify all layers, whatever of it is missing, and write the comparison as CSV and Markdown."""
    if profile not in PROFILES:
        raise LiprefError(f"unknown profile {profile!r}; known: {', '.join(PROFILES)}")
    defaults = PROFILES[profile]
    dataset = defaults["dataset"] if dataset is None else dataset
    usual_batch = defaults["batch_size"] if dataset == defaults["dataset"] else 256
    plan = _plan(
        dataset=dataset, sizes=defaults["sizes"] if sizes is None else sizes,
        layers=",".join(LAYERS) if layers is None else layers, seeds=seeds,
        epochs=defaults["epochs"] if epochs is None else epochs,
        batch_size=usual_batch if batch_size is None else batch_size,
        learning_rate=learning_rate, weight_decay=weight_decay, schedule=schedule, device=device,
        out=out or RUNS / Path(dataset.removeprefix("imagefolder:")).resolve().name, jobs=jobs, data_root=data_root,
        limit_train=limit_train, limit_test=limit_test,
        search_epochs=defaults["search_epochs"] if search_epochs is None else search_epochs,
        checkpoint_seconds=checkpoint_seconds,
    )  # fmt: skip
    records, failures = _run(plan)
    if not records:
        _raise(failures, plan)
    records = runs.beside(records, plan.out)
    paths = report.write(records, plan.out, f"1-Lipschitz layers on {records[0]['config']['dataset']}")
    console = _console()
    display.print_table(console, report.brief(records))
    written = ", ".join(str(path) for path in paths)
    console.print(
        f"Percent of the test images. With intervals and provenance: {written}", soft_wrap=True, highlight=False,
        markup=False,
    )  # fmt: skip
    _raise(failures, plan)


@app.command("layers")
def list_layers() -> None:
    """List the layers that every command knows by name."""
    for name, cls in LAYERS.items():
        typer.echo(f"{name:10} {(cls.__doc__ or '').strip().splitlines()[0]}")


def _plan(
    *, dataset: str, sizes: str, layers: str, seeds: str, epochs: int, batch_size: int, learning_rate: float | None,
    weight_decay: float | None, schedule: str, device: str, out: Path, jobs: int, data_root: Path | None,
    limit_train: int | None, limit_test: int | None, search_epochs: int | None, checkpoint_seconds: float,
) -> sweeps.Plan:  # fmt: skip
    """Check all options, and that data and networks fit together, before anything is written."""
    if weight_decay is not None and learning_rate is None:
        raise LiprefError(f"--weight-decay {weight_decay} goes with --learning-rate; give both")
    settings = Settings(
        epochs=epochs, batch_size=batch_size, schedule=schedule,
        learning_rate=0.1 if learning_rate is None else learning_rate,
        weight_decay=10**-4.5 if weight_decay is None else weight_decay,
    )  # fmt: skip
    chosen = tuple(_split(sizes, "--sizes"))
    for size in chosen:
        if size not in SIZES:
            raise LiprefError(f"unknown size {size!r}; known: {', '.join(SIZES)}")
    names = tuple(_split(layers, "--layers"))
    labels = [resolve(name).label for name in names]
    if len(set(labels)) < len(labels):
        raise LiprefError(f"--layers {layers} names a layer twice; every name may stand once")
    numbers = tuple(_whole(text, "--seeds") for text in _split(seeds, "--seeds"))
    for seed in numbers:
        replace(settings, seed=seed)
    if search_epochs is None:
        search_epochs = max(1, epochs // 5)
    search = recipes.Search(epochs=replace(settings, epochs=search_epochs).epochs)
    _check_device(device)
    if jobs < 0:
        raise LiprefError(f"--jobs {jobs} must be 0 (automatic) or more")
    tasks = len(chosen) * len(names)
    if jobs == 0:
        jobs = min(_cores(), tasks) if device == "cpu" else 1
    if not checkpoint_seconds >= 0:
        raise LiprefError(f"--checkpoint-seconds {checkpoint_seconds} must be 0 or more")
    plan = sweeps.Plan(
        dataset=dataset, sizes=chosen, layers=names, seeds=numbers, settings=settings, given=learning_rate is not None,
        search=search, out=out, device=device, data_root=data_root, limit_train=limit_train, limit_test=limit_test,
        checkpoint_seconds=checkpoint_seconds, jobs=min(jobs, tasks),
    )  # fmt: skip
    data = plan.load()
    if learning_rate is None and any(
        recipes.paper_recipe(data.name, s, label) is None for s in chosen for label in labels
    ):
        try:
            validation_split(data, recipes.VALIDATION)
        except LiprefError as error:
            few = f"{len(data.train.labels)} training images are too few for the learning-rate search"
            raise LiprefError(f"{few} ({error}); raise --limit-train, or give --learning-rate") from None
    for size in chosen:
        for name in names:
            sweeps.check_network(data, name, size)
    return plan


def _run(plan: sweeps.Plan) -> tuple[list[dict], list[str]]:
    """Run the plan under a progress display. Returns the records, and what failed."""
    runs.make_folder(plan.out)
    records, failures = [], []
    try:
        with display.Display(_console(), plan.tasks()) as shown:
            for (size, layer), result in sweeps.run(plan, shown.listen):
                if isinstance(result, LiprefError):
                    failures.append(f"{layer} {size}: {result}")
                    continue
                records += result
                for record in result:
                    shown.finished(record)
    except KeyboardInterrupt:
        print("stopped; the same command goes on where it stopped", file=sys.stderr)
        raise typer.Exit(130) from None
    return records, failures


def _raise(failures: list[str], plan: sweeps.Plan) -> None:
    if len(failures) == 1:
        raise LiprefError(failures[0])
    if failures:
        raise LiprefError(f"{len(failures)} of {len(plan.tasks())} comparisons failed: {'; '.join(failures)}")


def _split(text: str, option: str) -> list[str]:
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise LiprefError(f"{option} {text!r} has an empty part; separate names by single commas")
    twice = {part for part in parts if parts.count(part) > 1}
    if twice:
        raise LiprefError(f"{option} {text!r} names {', '.join(sorted(twice))} twice; every name may stand once")
    return parts


def _whole(text: str, option: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise LiprefError(f"{option} {text!r} is no whole number") from None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_device(device: str) -> None:
    kind = device.split(":")[0]
    available = {"cpu": True, "cuda": torch.cuda.is_available()}
    usable = ", ".join(name for name, present in available.items() if present)
    try:
        parsed = torch.device(device)
    except RuntimeError:
        parsed = None
    if parsed is None or kind not in available:
        raise LiprefError(f"unknown device {device!r}; here: {usable}")
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if not available[kind] or (parsed.index or 0) >= count:
        raise LiprefError(f"device {device!r} is not available on this machine; here: {usable}")


def _console() -> Console:
    return Console()


def main() -> None:
    """Run the command line; a `LiprefError` is one line on standard error and exit code 2."""
    try:
        app(standalone_mode=True)
    except LiprefError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
