"""Learning rate and weight decay: the paper's, or else from one small search, the same for every layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pandas as pd
import torch

from lipref.certification.certify import RADII, radius_name
from lipref.data import ImageData
from lipref.layers import LayerSpec
from lipref.paper import published
from lipref.paths import PAPER
from lipref.runs.experiment import configure, execute
from lipref.training import Progress, TrainingConfig
from lipref.training.search import RandomSearch
from lipref.training.speed import Speed

VALIDATION = 0.1
# How often a searched learning rate is divided by 3 when the full run diverges.
RETRIES = 3
# Sources of a recipe whose learning rate only short runs have seen.
SEARCHED = ("search", "random search")


@dataclass(frozen=True)
class Search:
    """A grid of learning rates, each trained for ``epochs`` on 90 % of the training images.

    Each is certified on the other 10 %. The winner has the highest CRA(36/255); ties go to the higher accuracy, then to
    the smaller rate. Weight decay is fixed at ``weight_decay``, the middle of the range that the paper draws from
    (10^-5.5 to 10^-3.5), since it does little in short runs.
    """

    epochs: int
    learning_rates: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3)
    weight_decay: float = 10**-4.5
    seed: int = 0
    augmented: bool = False  # whether the validation images keep the training augmentation
    source: ClassVar[str] = "search"

    @property
    def count(self) -> int:
        """Candidates."""
        return len(self.learning_rates)

    def start(self, *_: str) -> _Grid:
        """What names the candidates, the same for every data set, size and layer."""
        return _Grid([(learning_rate, self.weight_decay) for learning_rate in self.learning_rates])

    def notes(self) -> dict:
        """What the record of a candidate says of the search."""
        return {"hyperparameters": "candidate"}


class _Grid:
    """Candidates in the order of their list."""

    def __init__(self, candidates: list[tuple[float, float]]) -> None:
        self._left = iter(candidates)

    def ask(self) -> tuple[float, float]:
        return next(self._left)

    def tell(self, score: float | None) -> None:
        """A grid does not listen."""


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters, and where they come from: ``"paper"``, ``"search"``, ``"random search"`` or ``"given"``."""

    learning_rate: float
    weight_decay: float
    source: str


def paper_recipe(dataset: str, size: str, layer: str) -> Recipe | None:
    """What the paper's random search chose (`data/paper/best_lr_wd.csv`), or None where it has nothing."""
    found = pd.read_csv(PAPER / "best_lr_wd.csv")
    kernel_size = 1 if size.endswith("_1x1") else 3
    found = found[
        (found.dataset == published.DATASETS.get(dataset, ""))
        & (found.kernel_size == kernel_size)
        & (found["size"] == size.removesuffix("_1x1"))
        & (found.method.str.lower() == layer)
    ]
    if found.empty:
        return None
    first = found.iloc[0]
    return Recipe(float(first.lr), float(first.weight_decay), "paper")


def search(
    data: ImageData,
    spec: LayerSpec,
    size: str,
    plan: Search | RandomSearch,
    batch_size: int,
    root: Path,
    *,
    device: torch.device,
    schedule: str = "onecycle",
    ema: float | None = None,
    speed: Speed | None = None,
    checkpoint_seconds: float = 120.0,
    on_candidate: Callable[[int, float], Callable[[Progress], None] | None] | None = None,
    read_only: bool = False,
) -> Recipe:
    """Run the search, or what is missing of it: every candidate is a run of its own below ``root``.

    ``on_candidate(index, learning_rate)`` gives the progress callback of each candidate. Where all candidates
    diverged, the smallest learning rate is taken, and its run will say so.
    """
    scores = []
    search = plan.start(data.name, size, spec.label)
    for index in range(plan.count):
        learning_rate, weight_decay = search.ask()
        settings = TrainingConfig(
            epochs=plan.epochs, learning_rate=learning_rate, batch_size=batch_size, weight_decay=weight_decay,
            schedule=schedule, seed=plan.seed, ema=ema, speed=speed or Speed(),
        )  # fmt: skip
        config = configure(
            data, spec, size, settings, device, validation=VALIDATION,
            augmented=plan.augmented and data.augmentation != "none",
        )  # fmt: skip
        record = execute(
            config, data, spec, root, device=device, checkpoint_seconds=checkpoint_seconds,
            on_progress=on_candidate(index, learning_rate) if on_candidate else None,
            notes=plan.notes(), read_only=read_only,
        )  # fmt: skip
        score = _score(record)
        search.tell(score[0] if record["status"] == "done" else None)
        scores.append((*score, -learning_rate, weight_decay))
    *_, rate, decay = max(scores)
    return Recipe(-rate, decay, plan.source)


def _score(record: dict) -> tuple[float, float]:
    if record["status"] != "done":
        return (-1.0, -1.0)
    certificate = record["certificate"]
    return certificate["cra"][radius_name(RADII[0])]["value"], certificate["accuracy"]["value"]


def at_edge(learning_rate: float, source: str, grid: tuple[float, ...] = Search.learning_rates) -> bool:
    """Whether a searched learning rate is the smallest or largest of its grid: a better one may lie beyond."""
    return source == "search" and learning_rate in (min(grid), max(grid))


def with_recipe(settings: TrainingConfig, recipe: Recipe) -> TrainingConfig:
    """``settings`` with the recipe's learning rate and weight decay."""
    return replace(settings, learning_rate=recipe.learning_rate, weight_decay=recipe.weight_decay)


def smaller(recipe: Recipe) -> Recipe:
    """``recipe`` with a third of its learning rate."""
    return replace(recipe, learning_rate=recipe.learning_rate / 3)
