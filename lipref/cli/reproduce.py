"""``lipref reproduce``: the whole comparison, from training to the report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from lipref import data
from lipref.bench import measurements
from lipref.cli import display, profiled
from lipref.cli import options as o
from lipref.cli.running import SOUNDNESS, do_measurements, do_notebooks, do_runs, raise_failures
from lipref.cli.soundness import do_soundness
from lipref.extras import require
from lipref.layers import LAYERS, resolve
from lipref.report.items import read_map
from lipref.runs import overview, plans, study
from lipref.runs.provenance import COST, fingerprint
from lipref.runs.records import beside, folder_name
from lipref.runs.soundness import CONSTANTS, Question
from lipref.training.speed import chosen

SOUNDNESS_ITERATIONS = 200  # of the power method: seconds in all
SOUNDNESS_IMAGES = 500


def reproduce(
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
    out: Annotated[Path | None, typer.Option(help="Folder of runs, tables, figures and the report; default "
                                                  "data/runs/NAME.")] = None,
    data_root: o.Root = None,
    search: o.Search = None,
    search_epochs: o.SearchEpochs = None,
    validation: o.Validation = "clean",
    checkpoint_seconds: o.CheckpointSeconds = 120.0,
    channels_last: o.ChannelsLast = None,
    precision: o.Precision = "float32",
    compile: o.Compile = False,
    fused: o.Fused = None,
    cuda_graphs: o.CudaGraphs = None,
    ema: o.Ema = None,
    cost_sizes: Annotated[str | None, typer.Option(help="Sizes to measure time and memory of; default XS,S on "
                                                        "digits, else --sizes.")] = None,
    measure: Annotated[bool, typer.Option(help="Measure time and memory.")] = True,
    figures: Annotated[bool, typer.Option(help="Execute the notebooks; write figures, tables and report.html.")] = True,
) -> None:  # fmt: skip
    """Train, certify and measure all layers, what is missing of it, and draw the comparison: report.html in --out.

    The profile smoke takes minutes, paper is the protocol of the paper: GPU days (lipref plan tells before).
    """
    asked = profiled.asked(
        profile, dataset=dataset, sizes=sizes, layers=layers, epochs=epochs, budget=budget, budget_from=budget_from,
        seeds=seeds, batch_size=batch_size, schedule=schedule, search=search, search_epochs=search_epochs,
        learning_rate=learning_rate, weight_decay=weight_decay, validation=validation, device=device, jobs=jobs,
        out=out, data_root=data_root, limit_train=limit_train, limit_test=limit_test,
        checkpoint_seconds=checkpoint_seconds, ema=ema,
        speed=chosen(
            device, channels_last=channels_last, precision=precision, compile=compile, fused=fused,
            cuda_graphs=cuda_graphs,
        ),
    )  # fmt: skip
    if figures:
        for package in ("papermill", "seaborn", "nbconvert", "yaml"):
            require(package)
    plan = plans.make_plan(**asked)
    shape, defaults = data.shape(plan.dataset, data_root), plans.PROFILES[profile]
    profiled.say_left_out(plan)
    if cost_sizes is None:
        usual = plan.dataset == defaults["dataset"] and sizes is None
        cost_sizes = defaults["cost_sizes"] if usual else ",".join(plan.sizes)
    cost_plan = measurements.CostPlan(
        sizes=plans.check_sizes(plans.split_names(cost_sizes, "--cost-sizes")), layers=plan.layers,
        shape=shape, batch_size=plan.settings.batch_size, out=plan.out, device=device,
        without=frozenset((size, layer) for size, layer, _ in plan.left_out),
    )  # fmt: skip
    plan = profiled.settled(plan, shape)
    records, failures = do_runs(plan)
    if not records:
        raise_failures(failures, "comparisons")
    records = beside(records, plan.out)
    paths = overview.write(records, plan.out, f"1-Lipschitz layers on {records[0]['config']['dataset']}")
    display.print_table(display.console(), overview.brief(records))
    display.say(f"Percent of the test images. With intervals and provenance: {', '.join(map(str, paths))}")
    if measure:
        measured, missed = do_measurements(cost_plan)
        failures += missed
        if measured:
            paths = overview.write_costs(measurements.beside(measured, plan.out), plan.out)
            display.say(f"Time and memory: {', '.join(map(str, paths))}")
    if figures:
        failures += _soundness(plan, records, data_root)
        failures += _draw(plan, cost_plan, budget=asked["budget"])
    raise_failures(failures, "parts")


def _soundness(plan: plans.Plan, records: Sequence[dict], root: Path | None) -> list[str]:
    """Published constants beside the proved ones of the plan's runs; returns a line for each that failed."""
    failures = []
    for name in plan.layers:
        spec = resolve(name)
        folders = [
            plan.out / folder_name(record["config"], record["digest"])
            for record in records
            if record["status"] == "done"
            and not record["config"]["validation"]
            and (record["config"]["layer"], record["config"]["layer_sha256"]) == (spec.label, spec.source_sha256)
        ]
        images = min([SOUNDNESS_IMAGES, *(record["config"]["test_images"] for record in records)])
        question = Question(
            iterations=SOUNDNESS_ITERATIONS, images=images, dataset=plan.dataset, data_root=root, layer=name
        )
        failures += do_soundness(folders, plan.out / SOUNDNESS, initial=False, question=question, refuted=False)
    return failures


def _draw(plan: plans.Plan, cost_plan: measurements.CostPlan, budget: str) -> list[str]:
    """Execute the notebooks on the records in ``plan.out``; returns a line for each that failed.

    They show what the table shows: also what earlier commands left there and can be compared. Measurements that do not
    fit the plan are named and not drawn.
    """
    items, shown = read_map(), study.read(plan.out / "records.json")
    costs = _fitting_costs(cost_plan, shown)
    if not costs:
        skipped = [item.name for item in items if any(path.endswith("costs.json") for path in item.inputs)]
        display.say(f"without measurements there is no {', '.join(skipped)}")
        items = [item for item in items if item.name not in skipped]
    if not (plan.out / SOUNDNESS / CONSTANTS).exists():
        skipped = [item.name for item in items if any(path.endswith(CONSTANTS) for path in item.inputs)]
        display.say(f"without a finished run there is no {', '.join(skipped)}")
        items = [item for item in items if item.name not in skipped]
    own = {resolve(name).label for name in plan.layers}
    others = dict.fromkeys(record["config"]["layer"] for record in shown if record["config"]["layer"] not in own)
    files = [label for label in others if label not in LAYERS]
    if files:
        display.say(f"in the table, but not in the figures: {', '.join(files)}; name the file in --layers")
    folder = plan.dataset.removeprefix("imagefolder:")
    dataset = plan.dataset if folder == plan.dataset else f"imagefolder:{Path(folder).resolve()}"
    given = {
        "dataset": dataset, "device": plan.device, "budget": budget, "batch_size": plan.settings.batch_size,
        "layers": ",".join([*plan.layers, *(name for name in others if name in LAYERS)]),
        "sizes": _names(record["config"]["size"] for record in shown),
        "cost_sizes": _names(record["config"]["size"] for record in costs),
        "seeds": _names(record["config"]["settings"]["seed"] for record in shown),
        "records": str(plan.out.resolve()),
    }  # fmt: skip
    return do_notebooks(items, plan.out, given, f"1-Lipschitz layers on {plans.short_name(plan.dataset)}")


def _fitting_costs(plan: measurements.CostPlan, shown: Sequence[dict]) -> list[dict]:
    """The measurements in ``plan.out`` that may stand beside the runs ``shown``; says which may not, and why."""
    path = plan.out / "costs.json"
    if not path.exists():
        return []
    sources = {record["config"]["layer"]: record["config"]["layer_sha256"] for record in shown}
    fitting = []
    for record in study.read(path):
        config = record["config"]
        layer, size = config["layer"], config["size"]
        reason = measurements.misfit(record, plan.shape, plan.batch_size, plan.device)
        if config.get("code") != fingerprint(COST):
            reason = reason or "measured with other code"
        if layer not in sources:
            reason = reason or "no run of that layer"
        elif sources[layer] != config["layer_sha256"]:
            reason = reason or "of another source file"
        if reason:
            display.say(f"not drawn: {layer} {size} in {path}: {reason}")
        else:
            fitting.append(record)
    return fitting


def _names(values: Iterable[object]) -> str:
    return ",".join(dict.fromkeys(map(str, values)))
