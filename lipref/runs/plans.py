"""What a command or a notebook is asked for, checked and completed before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from lipref.certification.bounds import network_bound
from lipref.data import ImageData, load_dataset, validation_split
from lipref.errors import LiprefError
from lipref.layers import resolve
from lipref.nets import convnet
from lipref.paper import published
from lipref.paths import RUNS
from lipref.runs import budgets, recipes
from lipref.runs.budgets import Pace
from lipref.runs.budgets import parse as parse_budget
from lipref.runs.names import check_device, check_layers, check_sizes, short_name
from lipref.runs.names import known_device as known_device
from lipref.runs.names import layer_names as layer_names
from lipref.runs.names import split_names as split_names
from lipref.runs.names import whole_numbers as whole_numbers
from lipref.runs.profiles import PROFILES as PROFILES
from lipref.runs.profiles import USUAL_BATCH as USUAL_BATCH
from lipref.runs.profiles import usual_batch
from lipref.runs.provenance import cores
from lipref.training.config import TrainingConfig
from lipref.training.search import RandomSearch
from lipref.training.speed import Speed

# Long ones first, so that no process is left with one at the end; a user's own, of unknown cost, before them.
COSTLY_FIRST = ("lot", "bcop", "soc", "cayley", "sll", "cpl", "aol", "standard")
SEARCHES = ("grid", "random")
VALIDATIONS = ("clean", "augmented")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A comparison: every layer at every size, with every seed.

    ``settings`` holds what all runs share; its learning rate and weight decay apply only where ``given`` is true,
    otherwise each layer's recipe does (`lipref.runs.recipes`), and its epochs only where ``budget`` is None, otherwise
    the paper's number of epochs for that time does, or for a measured budget that of ``paces``
    (`lipref.runs.budgeting`).

    ``left_out`` names pairs of size and layer that are not part of it, each with the reason.
    """

    dataset: str
    sizes: tuple[str, ...]
    layers: tuple[str, ...]
    seeds: tuple[int, ...]
    settings: TrainingConfig
    given: bool
    search: recipes.Search | RandomSearch
    out: Path
    budget: str | None = None
    device: str = "cpu"
    data_root: Path | None = None
    limit_train: int | None = None
    limit_test: int | None = None
    checkpoint_seconds: float = 120.0
    jobs: int = 1
    paces: tuple[Pace, ...] = ()
    partial: bool = False
    left_out: tuple[tuple[str, str, str], ...] = ()

    def load(self) -> ImageData:
        return load_dataset(self.dataset, self.data_root, limit_train=self.limit_train, limit_test=self.limit_test)

    def tasks(self) -> list[tuple[str, str]]:
        """Pairs of size and layer, in the order in which they are started."""
        rank = {name: place for place, name in enumerate(COSTLY_FIRST)}
        without = {(size, layer) for size, layer, _ in self.left_out}
        pairs = [(size, layer) for size in reversed(self.sizes) for layer in self.layers]
        pairs = [pair for pair in pairs if pair not in without]
        return sorted(pairs, key=lambda pair: rank.get(pair[1], -1))

    def settings_of(self, dataset: str, size: str, label: str) -> TrainingConfig:
        """The settings of one layer's runs, but for the recipe and the seed."""
        if self.budget is None:
            return self.settings
        if not budgets.is_measured(self.budget):
            return replace(self.settings, epochs=budgets.paper_epochs(dataset, size, label, self.budget))
        pace = self.pace(size, label)
        if pace is None:
            raise LiprefError(f"{label} {size}: its steps have not been timed, so {self.budget} is no number of epochs")
        return replace(self.settings, epochs=pace.epochs)

    def pace(self, size: str, label: str) -> Pace | None:
        """What a measured budget is worth; None where it has not been measured, and for any other."""
        return next((pace for pace in self.paces if (pace.size, pace.layer) == (size, label)), None)

    def search_of(self, dataset: str, size: str, label: str) -> recipes.Search | RandomSearch:
        """The search of one layer: where its epochs are not given, those of 2 h, but no more than the run's own.

        Without a budget of 2 h, a fifth of the run's epochs.
        """
        if self.search.epochs is not None:
            return self.search
        epochs, pace = self.settings_of(dataset, size, label).epochs, self.pace(size, label)
        if pace is not None:
            return replace(self.search, epochs=pace.search_epochs())
        try:
            return replace(self.search, epochs=min(epochs, published.epochs(dataset, size, label, "2h")))
        except LiprefError:
            return replace(self.search, epochs=max(1, epochs // 5))

    def recipe_of(self, dataset: str, size: str, label: str) -> recipes.Recipe | None:
        """The given learning rate and weight decay, or the paper's; None where a search has to find them."""
        if self.given:
            return recipes.Recipe(self.settings.learning_rate, self.settings.weight_decay, "given")
        return recipes.paper_recipe(dataset, size, label)

    @property
    def threads(self) -> int:
        """Threads of one run: not fewer where fewer runs are left to do, since threads decide the last bits."""
        return max(1, torch.get_num_threads() // self.jobs)


def make_plan(**given) -> Plan:
    """A `draft`, which has the arguments, of which also data and networks are checked, before anything is written.

    Raises:
        LiprefError: naming the value that does not fit.
    """
    plan = draft(**given)
    data = plan.load()
    plan = leave_out(plan, data.name) if plan.dataset.startswith("imagefolder:") else plan
    tasks = [(size, name, resolve(name).label) for size, name in plan.tasks()]
    if any(plan.recipe_of(data.name, size, label) is None for size, _, label in tasks):
        try:
            validation_split(data, recipes.VALIDATION)
        except LiprefError as error:
            few = f"{len(data.train.labels)} training images are too few for the learning-rate search"
            raise LiprefError(f"{few} ({error}); raise --limit-train, or give --learning-rate") from None
    for size, name, _ in tasks:
        check_network(data, name, size)
    return plan


def draft(
    *, dataset: str, sizes: Sequence[str], layers: Sequence[str], seeds: Sequence[int] = (0,),
    budget: str = "20 epochs", batch_size: int | None = None, learning_rate: float | None = None,
    weight_decay: float | None = None, schedule: str = "onecycle", search_epochs: int | None = None,
    search: str = "grid", validation: str = "clean", partial: bool = False, device: str = "cpu", jobs: int = 0,
    out: Path | None = None, data_root: Path | None = None, limit_train: int | None = None,
    limit_test: int | None = None, checkpoint_seconds: float = 120.0, speed: Speed | None = None,
    ema: float | None = None,
) -> Plan:  # fmt: skip
    """A plan of which everything is checked that can be without the data.

    Args:
        budget: a number of epochs (``"20 epochs"`` or ``"20"``), the paper's ``"2h"``, ``"10h"``, ``"24h"`` (``"48h"``,
            ``"72h"``), or any time on this machine (``"5min measured"``).
        batch_size: None: 64 on digits, 256 elsewhere.
        learning_rate, weight_decay: None: the recipe's.
        search_epochs: per candidate of the learning-rate search; None: a fifth of the epochs, at random those of 2 h.
        search: ``"grid"``, or the paper's ``"random"``.
        validation: ``"clean"``, or ``"augmented"`` for a search whose validation images are augmented like the others.
        partial: leave out the networks for which the paper has no budget, in place of refusing them.
        jobs: processes; 0: one per core on the CPU, one elsewhere.
        out: the folder of the runs; None: one in ``data/runs``, named after the data set.
        speed, ema: of all runs, also of a search's candidates; None is without any, on every device.

    Raises:
        LiprefError: naming the value that does not fit.
    """
    if weight_decay is not None and learning_rate is None:
        raise LiprefError(f"--weight-decay {weight_decay} goes with --learning-rate; give both")
    epochs, hours = parse_budget(budget)
    settings = TrainingConfig(
        epochs=epochs or 1, batch_size=usual_batch(dataset) if batch_size is None else batch_size, schedule=schedule,
        learning_rate=0.1 if learning_rate is None else learning_rate,
        weight_decay=10**-4.5 if weight_decay is None else weight_decay, ema=ema, speed=speed or Speed(),
    )  # fmt: skip
    if ema is not None and budgets.is_measured(hours):
        raise LiprefError(f"ema={ema} with the budget {hours}: steps are timed without; leave it out, or give --epochs")
    sizes, names = check_sizes(sizes), check_layers(layers)
    for seed in seeds:
        replace(settings, seed=seed)
    for option, value, known in (("--search", search, SEARCHES), ("--validation", validation, VALIDATIONS)):
        if value not in known:
            raise LiprefError(f"{option} {value!r}: choose one of {', '.join(known)}")
    kind = RandomSearch if search == "random" else recipes.Search
    if search_epochs is None and search == "grid":
        search_epochs = max(1, (epochs or 50) // 5)
    if search_epochs is not None:
        replace(settings, epochs=search_epochs)
    check_device(device)
    settings.speed.check_device(device)
    if jobs < 0:
        raise LiprefError(f"--jobs {jobs} must be 0 (automatic) or more")
    tasks = len(sizes) * len(names)
    if jobs == 0:
        jobs = min(cores(), tasks) if device == "cpu" else 1
    if not checkpoint_seconds >= 0:
        raise LiprefError(f"--checkpoint-seconds {checkpoint_seconds} must be 0 or more")
    plan = Plan(
        dataset=dataset, sizes=sizes, layers=names, seeds=tuple(seeds), settings=settings, budget=hours,
        given=learning_rate is not None, out=out or RUNS / short_name(dataset), device=device,
        search=kind(epochs=search_epochs, augmented=validation == "augmented"), data_root=data_root,
        limit_train=limit_train, limit_test=limit_test, checkpoint_seconds=checkpoint_seconds,
        partial=partial, jobs=min(jobs, tasks),
    )  # fmt: skip
    return plan if dataset.startswith("imagefolder:") else leave_out(plan, dataset)


def leave_out(plan: Plan, dataset: str) -> Plan:
    """The plan without the networks for which the paper has no budget.

    ``dataset`` is the name that the data set gives itself.

    Raises:
        LiprefError: nothing is left, or the plan is not ``partial`` and has such a network.
    """
    pairs = [(size, name) for size in plan.sizes for name in plan.layers]
    reasons = [(size, name, _lack(plan, dataset, size, resolve(name).label)) for size, name in pairs]
    lost = tuple(place for place in reasons if place[-1])
    if lost and (not plan.partial or len(lost) == len(pairs)):
        raise LiprefError(lost[0][-1])
    return replace(plan, left_out=lost, jobs=min(plan.jobs, len(pairs) - len(lost)))


def _lack(plan: Plan, dataset: str, size: str, label: str) -> str:
    """Why the paper has no budget for a network; empty where it has one, or where none is asked for."""
    if plan.budget is None:
        return ""
    if budgets.is_measured(plan.budget):
        # It can be measured here; but where the paper's own layer did not fit 80 GB, not by default.
        its = plan.partial and published.budget_group(dataset) and label in set(published.epoch_budgets().layer)
        if not its:
            return ""
    try:
        budgets.paper_epochs(dataset, size, label, "2h" if budgets.is_measured(plan.budget) else plan.budget)
    except LiprefError as error:
        return str(error)
    return ""


def check_network(data: ImageData, layer: str, size: str) -> None:
    """Build the network once, so that what does not fit is refused before anything runs.

    A user's layer is also converted to float64 and asked for its bound, which is what certification will do in the end.
    """
    spec = resolve(layer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = convnet(size, spec, data.num_classes, data.channels, data.image_size)
    if not spec.builtin:
        try:
            network_bound(model)
        except LiprefError:
            raise
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            raise LiprefError(f"{layer} fails in float64 evaluation, which certification needs: {what}") from error
