"""How many epochs a training time is worth, by the paper's table or a measured step, and the file that fixes it."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from lipref.errors import LiprefError
from lipref.paper import published
from lipref.runs.provenance import write_json

SOURCES = ("paper", "measured")
# The printed budgets are 1, 5 and 12 times the epochs of 2 h; longer ones go on like that.
TIMES = {"2h": 1, "10h": 5, "24h": 12, "48h": 24, "72h": 36}
SEARCH_SECONDS = 7200.0  # a run of the paper's random search has the epochs of 2 h
PAPER = "the paper's A100"
_UNITS = {"s": 1, "sec": 1, "min": 60, "m": 60, "h": 3600}
_MEASURED = "measured"


def epochs_in(seconds: float, step_seconds: float, images: int, batch_size: int) -> int:
    """Whole epochs in a time: floor(seconds / (seconds per step * steps per epoch)).

    As Prach et al. (CVPR 2024, arXiv 2311.16833, appendix E) set their budgets; a last partial batch is a step.

    Args:
        seconds: The budget.
        step_seconds: Of one training step.
        images: In one epoch.
        batch_size: Images per step.

    Raises:
        LiprefError: a number that is not above 0, or a budget shorter than one epoch.
    """
    for name, value in (
        ("seconds", seconds), ("step_seconds", step_seconds), ("images", images), ("batch_size", batch_size)
    ):  # fmt: skip
        if not (math.isfinite(value) and value > 0):
            raise LiprefError(f"{name}={value!r}: give a number above 0")
    epoch = step_seconds * steps(images, batch_size)
    # Without the slack, a budget of exactly k epochs could lose one to rounding.
    epochs = math.floor(seconds / epoch * (1 + 1e-12))
    if epochs < 1:
        raise LiprefError(f"a budget of {seconds:g} s is shorter than one epoch of {epoch:.3g} s; give a longer one")
    return epochs


def steps(images: int, batch_size: int) -> int:
    """Steps in an epoch."""
    return -(-images // batch_size)


def parse(text: str) -> tuple[int | None, str | None]:
    """``"20 epochs"`` or ``"20"`` -> (20, None); ``"2h"`` -> (None, "2h"); ``"5 min measured"`` -> (None, "5min ...").

    A time is the paper's, one of `TIMES`, or any with the word ``measured`` behind it: then the step time of the
    machine at hand decides.

    Raises:
        LiprefError: neither.
    """
    cleaned = re.sub(r"[\s,]+", "", str(text).lower())
    found = re.fullmatch(r"(\d+)(epochs?)?", cleaned)
    if found:
        return int(found[1]), None
    if cleaned in TIMES:
        return None, cleaned
    known = ", ".join(TIMES)
    if cleaned.endswith(_MEASURED):
        time = cleaned.removesuffix(_MEASURED)
        duration(time)
        return None, f"{time} {_MEASURED}"
    hint = f"; {text!r} is a time, but none of the paper's: add --budget-from measured" if _is_time(cleaned) else ""
    raise LiprefError(
        f"budget {text!r}: give a number of epochs, such as '20 epochs', or the paper's {known}{hint}"
    )  # fmt: skip


def named(text: str, source: str) -> str:
    """A budget and where its epochs come from, as one text that `parse` reads.

    Raises:
        LiprefError: an unknown source, or a measured number of epochs.
    """
    if source not in SOURCES:
        raise LiprefError(f"--budget-from {source!r}: choose one of {', '.join(SOURCES)}")
    if source == "paper" or is_measured(text):
        return text
    if not _is_time(re.sub(r"\s", "", str(text).lower())):
        raise LiprefError(f"--budget-from measured goes with a time such as --budget 30s, 5min or 2h, not {text!r}")
    return f"{text} {_MEASURED}"


def is_measured(budget: str | None) -> bool:
    """Whether a budget is counted by the step time of the machine at hand."""
    return budget is not None and str(budget).lower().rstrip().endswith(_MEASURED)


def seconds_of(budget: str) -> float:
    """``"5min measured"`` -> 300.0."""
    return duration(budget.removesuffix(_MEASURED).strip())


def duration(text: str) -> float:
    """``"30s"``, ``"5min"``, ``"1.5h"`` in seconds.

    Raises:
        LiprefError: it is none, or not above 0.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([a-z]+)", re.sub(r"\s", "", str(text).lower()))
    if found is None or found[2] not in _UNITS or float(found[1]) == 0:
        raise LiprefError(f"{text!r} is no time above 0; give one such as 30s, 5min or 2h")
    return float(found[1]) * _UNITS[found[2]]


def _is_time(text: str) -> bool:
    try:
        return duration(text) > 0
    except LiprefError:
        return False


def paper_epochs(dataset: str, size: str, layer: str, budget: str) -> int:
    """The paper's number of epochs for one of `TIMES`: as printed for 2, 10 and 24 h, else multiples of those of 2 h.

    Raises:
        LiprefError: the paper has no budget for it.
    """
    if budget in TIMES and budget not in published.BUDGETS:
        return TIMES[budget] * published.epochs(dataset, size, layer, "2h")
    return published.epochs(dataset, size, layer, budget)


def paper_step(dataset: str, size: str, layer: str) -> float | None:
    """Seconds of a training step of 256 images on the paper's A100: what its epochs of 2 h imply.

    For standard, which has no budget there, from the poster; None where neither has it.
    """
    group = published.budget_group(dataset)
    if group is None:
        return None
    found = published.epoch_budgets()
    found = found[(found.group == group) & (found.layer == layer) & (found["size"] == size)]
    if not found.empty and pd.notna(found.seconds_per_step.iloc[0]):
        return float(found.seconds_per_step.iloc[0])
    times = published.training_cost()
    times = times[(times.layer == layer) & (times["size"] == size)]
    known = group == "CIFAR" and not times.empty
    return float(times.seconds_per_epoch.iloc[0]) / steps(50_000, 256) if known else None


FILE = "budget.json"
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Pace:
    """One budget of one layer at one size, in epochs.

    Attributes:
        budget: As `lipref.runs.budgets.parse` names it, ``"5min measured"``.
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
        epoch = self.step_seconds * steps(self.images, self.batch_size)
        return self.epochs if epoch > SEARCH_SECONDS else min(self.epochs, int(SEARCH_SECONDS // epoch))


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
