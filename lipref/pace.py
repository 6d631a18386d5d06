"""The number of epochs of a measured budget: what it rests on, and the file that fixes it for good."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

from lipref import budgets
from lipref.errors import LiprefError
from lipref.provenance import write_json

FILE = "budget.json"
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Pace:
    """One budget of one layer at one size, in epochs.

    Attributes:
        budget: As `lipref.budgets.parse` names it, ``"5min measured"``.
        layer, layer_sha256, size, images, batch_size, image_size, device: What was asked for; ``images`` in an epoch.
        epochs: What the budget is worth.
        step_seconds: Median seconds of a training step.
        origin: Where the step time comes from.
        speed: The options of the step, as `lipref.training.speed.options_of` writes them; part of what was asked for.
    """

    budget: str
    layer: str
    layer_sha256: str | None
    size: str
    images: int
    batch_size: int
    image_size: int
    device: str
    epochs: int
    step_seconds: float
    origin: str
    speed: str = ""

    @property
    def question(self) -> tuple:
        """What two budgets have to share to be one."""
        fields = self.as_dict()
        return tuple(value for name, value in fields.items() if name not in ("epochs", "step_seconds", "origin"))

    def as_dict(self) -> dict:
        """A line of the file; ``speed`` where it is given, so that a plain step is described as before it was there."""
        return {name: value for name, value in asdict(self).items() if name != "speed" or value}

    def search_epochs(self) -> int:
        """The epochs of a search run: those of 2 h, but no more than the run's own."""
        epoch = self.step_seconds * budgets.steps(self.images, self.batch_size)
        return self.epochs if epoch > budgets.SEARCH_SECONDS else min(self.epochs, int(budgets.SEARCH_SECONDS // epoch))


def read(folder: Path) -> list[Pace]:
    """What ``folder`` has fixed; nothing where it has no such file.

    Raises:
        LiprefError: the file is damaged.
    """
    path = Path(folder) / FILE
    if not path.exists():
        return []
    try:
        content = json.loads(path.read_text())
        paces = [Pace(**line) for line in content["epochs"]]
        whole = content["format"] == FORMAT and all(
            isinstance(pace.epochs, int) and pace.epochs >= 1 and math.isfinite(pace.step_seconds) for pace in paces
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LiprefError(f"{path} is damaged ({type(error).__name__}: {error}); delete it to measure again") from error
    if not whole:
        raise LiprefError(f"{path} is no file of budgets; delete it to measure again")
    return paces


def write(folder: Path, paces: list[Pace]) -> None:
    """Write the file, in one piece."""
    write_json(Path(folder) / FILE, {"format": FORMAT, "epochs": [pace.as_dict() for pace in paces]})
