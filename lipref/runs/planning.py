"""Every run of a plan before any is started: its epochs, recipe, hours and memory, and whether it is done already."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import torch

import lipref
from lipref.data import Shape
from lipref.errors import LiprefError
from lipref.layers import resolve
from lipref.paper import published
from lipref.runs import budgeting, budgets, recipes
from lipref.runs.names import short_name
from lipref.runs.plans import Plan
from lipref.runs.provenance import RUN, fingerprint
from lipref.training.speed import options_of

COLUMNS = (
    "layer", "size", "what", "runs", "seed", "epochs", "epochs_from", "learning_rate", "weight_decay", "recipe_from",
    "step_seconds", "steps_from", "hours", "memory_gb", "memory_from", "done",
)  # fmt: skip
POSTER = "poster"
_UNKNOWN = "not published"


def table(plan: Plan, shape: Shape) -> pd.DataFrame:
    """The runs of a plan, a row each; the candidates of a search are one row. Nothing is written or downloaded.

    Hours are those of training steps and of nothing else: by the step times that have been measured here, on this
    machine with this batch (in the plan's folder), else by the paper's (batches of 256 on its A100), else
    empty. Memory is the paper's, for CIFAR-10 in batches of 256.

    Args:
        plan: A draft is enough (`lipref.runs.plans.draft`).
        shape: Of the data set (`lipref.data.shape`).

    Returns:
        A table with `COLUMNS`: ``what`` is ``"run"`` or ``"search"``, ``runs`` their number, of which ``done`` lie in
        the plan's folder; ``hours`` are those of all ``runs``. Empty: not known before something has been measured.
    """
    plan, fixed = budgeting.foresee(plan, shape)
    dataset, images = short_name(plan.dataset), budgeting.images_of(plan, shape)
    finished = [*_records(plan.out), *_records(plan.out / "search")]
    lines = []
    for size, name in sorted(plan.tasks(), key=lambda task: (plan.sizes.index(task[0]), plan.layers.index(task[1]))):
        spec = resolve(name)
        label = spec.label
        seconds, origin = _step(plan, shape, dataset, (size, name))
        memory = _memory(plan, dataset, size, label)
        recipe = plan.recipe_of(dataset, size, label)
        unknown = budgets.is_measured(plan.budget) and plan.pace(size, label) is None
        common = {
            "layer": label, "size": size, "step_seconds": seconds, "steps_from": origin,
            "memory_gb": memory, "memory_from": _UNKNOWN if memory is None else POSTER,
        }  # fmt: skip
        beside = [each for each in finished if _same(each, plan, dataset, images, size, spec)]
        if recipe is None:
            search = None if unknown else plan.search_of(dataset, size, label)
            epochs = plan.search.epochs if search is None else search.epochs
            part = images - round(recipes.VALIDATION * images)
            lines.append(
                common | {
                    "what": "search", "runs": plan.search.count, "seed": plan.search.seed, "epochs": epochs,
                    "epochs_from": "given" if plan.search.epochs else "2 h, at most a run's",
                    "recipe_from": plan.search.source, "hours": _hours(plan.search.count, epochs, part, plan, seconds),
                    "done": 0 if search is None else len({
                        each["digest"] for each in beside if _candidate(each, search)
                    }),
                }
            )  # fmt: skip
        for seed in plan.seeds:
            epochs = None if unknown else plan.settings_of(dataset, size, label).epochs
            source = plan.search.source if recipe is None else recipe.source
            hours = _hours(1, epochs, images, plan, seconds)
            if unknown:  # whole epochs of a time fill it but for less than one
                hours = budgets.seconds_of(plan.budget) / 3600
            lines.append(
                common | {
                    "what": "run", "runs": 1, "seed": seed, "epochs": epochs,
                    "epochs_from": _epochs_from(plan, (size, label) in fixed, unknown),
                    "learning_rate": None if recipe is None else recipe.learning_rate,
                    "weight_decay": None if recipe is None else recipe.weight_decay,
                    "recipe_from": source, "hours": hours,
                    "done": int(any(_run(each, seed, epochs, recipe, source) for each in beside)),
                }
            )  # fmt: skip
    return pd.DataFrame(lines, columns=list(COLUMNS)).astype({"runs": int, "done": int})


def people(found: pd.DataFrame) -> pd.DataFrame:
    """The table as people read it, text."""
    frame = found[["layer", "size", "what"]].copy()
    frame["runs"] = found.runs.astype(str)
    frame["seed"] = found.seed.astype(str)
    for title, name, form in (
        ("epochs", "epochs", "{:,.0f}"), ("lr", "learning_rate", "{:.3g}"), ("wd", "weight_decay", "{:.3g}"),
    ):  # fmt: skip
        frame[title] = _texts(found[name], form, "measured" if name == "epochs" else "searched")
    frame["lr, wd from"] = found.recipe_from
    frame["hours"] = _texts(found.hours, "{:,.3g}", "not known")
    frame["hours by"] = [_short(text) for text in found.steps_from]
    frame["memory (GB)"] = _texts(found.memory_gb, "{:.2f}", _UNKNOWN)
    frame["done"] = [f"{line.done}/{line.runs}" if line.runs > 1 else ("yes" if line.done else "no")
                     for line in found.itertuples()]  # fmt: skip
    return frame


def totals(found: pd.DataFrame) -> list[str]:
    """What all runs add up to, a line for each kind of machine that the hours are of."""
    lines = [f"{found.runs.sum():,} runs, {found.done.sum():,} of them done"]
    for origin, group in found.groupby("steps_from", sort=False):
        if group.hours.isna().all():
            lines.append(f"hours not known for {group.runs.sum():,} runs: no step time, neither published nor measured")
            continue
        left = group.hours * (1 - group.done / group.runs)
        by = f"of {budgets.PAPER}" if origin == budgets.PAPER else f"({origin or 'the budget itself'})"
        lines.append(f"{group.hours.sum():,.3g} hours {by}, {left.sum():,.3g} of them left")
    return lines


def _step(plan: Plan, shape: Shape, dataset: str, task: tuple[str, str]) -> tuple[float | None, str]:
    """Seconds of a training step, and where they come from."""
    size, label = task[0], resolve(task[1]).label
    pace = plan.pace(size, label)
    if pace is not None:
        return pace.step_seconds, _machine(pace.origin)
    for threads in dict.fromkeys((plan.threads, torch.get_num_threads())):  # a run's, and those of lipref measure
        record = budgeting.timed(plan, shape, task, threads)
        if record is not None and record["train_seconds"] is not None:
            return record["train_seconds"]["median"], f"measured on {record['config']['machine']}"
    if budgets.is_measured(plan.budget):
        return None, ""
    seconds = budgets.paper_step(dataset, size, label) if plan.settings.batch_size == 256 else None
    return seconds, "" if seconds is None else budgets.PAPER


def _machine(origin: str) -> str:
    return origin.split(", threads:")[0].split(" (")[0]


def _hours(runs: int, epochs: int | None, images: int, plan: Plan, step_seconds: float | None) -> float | None:
    if epochs is None or step_seconds is None:
        return None
    return runs * epochs * budgets.steps(images, plan.settings.batch_size) * step_seconds / 3600


def _epochs_from(plan: Plan, fixed: bool, unknown: bool) -> str:
    if plan.budget is None:
        return "given"
    if not budgets.is_measured(plan.budget):
        return f"{plan.budget}, paper"
    return plan.budget + (", to be measured" if unknown else ", fixed" if fixed else ", not yet fixed")


def _memory(plan: Plan, dataset: str, size: str, label: str) -> float | None:
    """Peak memory in training in 10⁹ bytes on the paper's A100."""
    if published.DATASETS.get(dataset) != "CIFAR-10" or plan.settings.batch_size != 256:
        return None
    found = published.training_cost()
    found = found[(found.layer == label) & (found["size"] == size)].peak_bytes
    return float(found.iloc[0]) / 1e9 if len(found) else None


def _records(folder: Path) -> Iterable[dict]:
    for path in sorted(Path(folder).glob("*/record.json")):
        try:
            record = json.loads(path.read_text())
            config = record["config"]
            if "settings" in config and record["status"] in ("done", "diverged"):
                yield record
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LiprefError(f"{path} is damaged ({type(error).__name__}); delete it to do the run again") from error


def _same(record: dict, plan: Plan, dataset: str, images: int, size: str, spec) -> bool:
    """Whether a record is of this network, data set, library and kind of device, whatever its recipe and seed.

    The pictures themselves are known by their number alone: to compare them they would have to be loaded.
    """
    config, settings = record["config"], record["config"]["settings"]
    here = {
        "dataset": dataset, "train_images": images, "size": size, "layer": spec.label,
        "layer_sha256": spec.source_sha256, "device": plan.device.split(":")[0], "version": lipref.__version__,
        "code": fingerprint(RUN), "torch": str(torch.__version__),
    }  # fmt: skip
    if plan.limit_test is not None:
        here["test_images"] = plan.limit_test
    return all(config.get(name) == value for name, value in here.items()) and (
        (settings["batch_size"], settings["schedule"]) == (plan.settings.batch_size, plan.settings.schedule)
        and options_of(settings) == options_of(plan.settings.as_dict())
    )


def _candidate(record: dict, search) -> bool:
    """Whether a record is one of the candidates of ``search``."""
    config, settings, notes = record["config"], record["config"]["settings"], record.get("notes", {})
    grid = getattr(search, "learning_rates", None)
    return (
        config["validation"] == recipes.VALIDATION
        and bool(config.get("augmented")) == search.augmented
        and (settings["epochs"], settings["seed"]) == (search.epochs, search.seed)
        and (notes.get("search") == "random" if grid is None else settings["learning_rate"] in grid)
    )


def _run(record: dict, seed: int, epochs: int | None, recipe: recipes.Recipe | None, source: str) -> bool:
    """Whether a record is the run of one seed; where the search has not been read, any run that one led to."""
    config, settings = record["config"], record["config"]["settings"]
    if config["validation"] or (settings["seed"], settings["epochs"]) != (seed, epochs):
        return False
    if recipe is None:
        return record["notes"].get("hyperparameters") == source
    return (settings["learning_rate"], settings["weight_decay"]) == (recipe.learning_rate, recipe.weight_decay)


def _texts(values: pd.Series, form: str, empty: str) -> list[str]:
    return [empty if pd.isna(value) else form.format(value) for value in values]


def _short(origin: str) -> str:
    return {budgets.PAPER: "paper", "": ""}.get(origin, "measured")
