"""The paper's random search for learning rate and weight decay, drawn by optuna (extra ``search``)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar

from lipref.extras import require

LOG_RATES = (-4.0, -1.0)
LOG_DECAYS = (-5.5, -3.5)
DRAWS = 16


@dataclass(frozen=True)
class RandomSearch:
    """Draws of learning rate and weight decay, each trained for ``epochs`` on 90 % of the training images.

    Both are uniform in the logarithm: learning rates from 10^-4 to 10^-1, weight decay from 10^-5.5 to 10^-3.5, drawn
    anew for every data set, size and layer, from a seed made of their names. Each candidate is certified on the other
    10 % after its last epoch; the highest CRA(36/255) wins, ties as in `lipref.runs.recipes.Search`. Source: Prach et
    al., CVPR 2024 (arXiv 2311.16833), appendix E.

    Attributes:
        epochs: Of each candidate; None: the epochs of 2 h, but no more than those of the run itself
            (`lipref.runs.plans` puts them in).
        draws: How many candidates.
        seed: Of every candidate's weights and batches.
        augmented: Whether the validation images keep the training augmentation, as in the authors' code.
    """

    epochs: int | None = None
    draws: int = DRAWS
    seed: int = 0
    augmented: bool = False
    source: ClassVar[str] = "random search"

    @property
    def count(self) -> int:
        """Candidates."""
        return self.draws

    def start(self, dataset: str, size: str, layer: str) -> Draws:
        """The draws of one data set, size and layer, from the first one on."""
        return Draws(dataset, size, layer)

    def notes(self) -> dict:
        """What the record of a candidate says of the search."""
        return {"hyperparameters": "candidate", "search": "random"}


class Draws:
    """A study of optuna that is asked anew every time: the same names give the same draws, in the same order.

    The records of the runs are what lasts; a search that was killed asks again from the first draw on, and is told what
    its finished runs have found.

    Raises:
        LiprefError: optuna is not installed.
    """

    def __init__(self, dataset: str, size: str, layer: str) -> None:
        optuna = require("optuna", "search")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._failed = optuna.trial.TrialState.FAIL
        self.study = optuna.create_study(
            direction="maximize",  # CRA(36/255) on the validation images
            sampler=optuna.samplers.RandomSampler(seed=seed_of(dataset, size, layer)),
            pruner=optuna.pruners.NopPruner(),
        )

    def ask(self) -> tuple[float, float]:
        """The next learning rate and weight decay."""
        self._trial = self.study.ask()
        rate = self._trial.suggest_float("log10 learning rate", *LOG_RATES)
        decay = self._trial.suggest_float("log10 weight decay", *LOG_DECAYS)
        return 10**rate, 10**decay

    def tell(self, score: float | None) -> None:
        """CRA(36/255) of the last draw; None where it diverged."""
        if score is None:
            self.study.tell(self._trial, state=self._failed)
        else:
            self.study.tell(self._trial, score)


def seed_of(dataset: str, size: str, layer: str) -> int:
    """Seed of the draws: a number of 32 bits from the three names."""
    text = f"random search {dataset} {size} {layer}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little")
