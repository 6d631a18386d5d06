"""What a profile and the options of a command ask for together, and the plan of it."""

from __future__ import annotations

from lipref import data
from lipref.cli import display
from lipref.cli import options as o
from lipref.cli.running import stopped
from lipref.runs import budgeting, budgets, plans
from lipref.runs.plans import Plan
from lipref.runs.profiles import profile, usual_batch


def asked(
    name: str, *, dataset: str | None, sizes: str | None, layers: str, epochs: int | None, budget: str | None,
    budget_from: str, seeds: str, batch_size: int | None, schedule: str | None, search: str | None,
    search_epochs: int | None, **others,
) -> dict:  # fmt: skip
    """The arguments of `lipref.runs.plans.draft`: what is given, and for the rest the profile's.

    ``others`` are passed on as they are.

    Raises:
        LiprefError: an unknown profile, or a value that cannot be read.
    """
    defaults = profile(name)
    dataset = defaults["dataset"] if dataset is None else dataset
    if batch_size is None:
        batch_size = defaults["batch_size"] if dataset == defaults["dataset"] else usual_batch(dataset)
    return {
        "dataset": dataset,
        "sizes": plans.split_names(defaults["sizes"] if sizes is None else sizes, "--sizes"),
        "layers": plans.layer_names(layers),
        "seeds": plans.whole_numbers(seeds, "--seeds"),
        "budget": budgets.named(o.budget_of(epochs, budget, defaults["budget"]), budget_from),
        "batch_size": batch_size,
        "schedule": defaults["schedule"] if schedule is None else schedule,
        "search": defaults["search"] if search is None else search,
        "search_epochs": defaults["search_epochs"] if search_epochs is None else search_epochs,
        "partial": defaults["partial"],
    } | others


def say_left_out(plan: Plan) -> None:
    """A line for each network that is not part of the plan."""
    for *_, reason in plan.left_out:
        display.say(f"left out: {reason}")


def settled(plan: Plan, shape: data.Shape) -> Plan:
    """The plan with its measured budget in epochs, timed under a progress display where that is missing."""
    try:
        with display.Count(display.console(), "timing steps for the budget") as shown:
            plan = budgeting.settle(
                plan, shape, lambda done, total, size, layer: shown.update(done, total, f"{layer} {size}"), display.say
            )
    except KeyboardInterrupt:
        raise stopped() from None
    for pace in plan.paces:
        display.say(
            f"{pace.layer} {pace.size}: {pace.budget.split()[0]} are {pace.epochs:,} epochs at "
            f"{pace.step_seconds:.3g} s per step, {pace.origin}"
        )
    return plan
