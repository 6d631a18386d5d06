"""The hyperparameters of a run, and the schedules that they define."""

import math
from dataclasses import asdict, dataclass, field

from lipref.errors import LiprefError, whole_number
from lipref.losses import OFFSET, TEMPERATURE
from lipref.speed import Speed

SCHEDULES = ("onecycle", "paper", "constant")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """What decides a run, besides the model and the data.

    Attributes:
        epochs: Passes over the training images, at least 1.
        batch_size: Images per step; the batches are made by the caller and only compared with this.
        learning_rate: The peak of the schedule.
        weight_decay: L2 penalty on every trainable parameter, also biases and scales.
        momentum: Of SGD, without Nesterov and without dampening; the schedule ``"paper"`` overrides it.
        schedule: ``"onecycle"`` (moves at every step, momentum as given), ``"paper"`` (moves once per epoch and cycles
            the momentum 0.95, 0.85, 0.95, which is what PyTorch's OneCycleLR does by default), or ``"constant"``.
        offset: Of the loss, in units of the margin.
        temperature: Of the loss.
        seed: Recorded here; it acts through the model's construction and the batches.
        ema: None, or the decay, within (0, 1), of an exponential moving average of the parameters, which takes the
            place of the last weights when training ends (`lipref.updates`).
        speed: How a step is computed; a dict, as in records, becomes a `Speed`.

    Raises:
        LiprefError: a value out of range.

    Source of loss, optimizer and the schedule ``"paper"``: Prach et al., CVPR 2024 (arXiv 2311.16833), and its code.

    Example:
        >>> from lipref import TrainingConfig
        >>> TrainingConfig(epochs=5, learning_rate=0.1).batch_size
        256
    """

    epochs: int
    learning_rate: float
    batch_size: int = 256
    weight_decay: float = 0.0
    momentum: float = 0.9
    schedule: str = "onecycle"
    offset: float = OFFSET
    temperature: float = TEMPERATURE
    seed: int = 0
    ema: float | None = None
    speed: Speed = field(default_factory=Speed)

    def __post_init__(self) -> None:
        object.__setattr__(self, "speed", Speed.of(self.speed))
        for name, least in (("epochs", 1), ("batch_size", 1), ("seed", 0)):
            object.__setattr__(self, name, whole_number(name, getattr(self, name), least))
        if self.seed >= 2**63:
            raise LiprefError(f"seed={self.seed}: give a whole number below 2**63")
        for name, fits, wanted in (
            ("learning_rate", lambda x: x > 0, "above 0"),
            ("weight_decay", lambda x: x >= 0, "at least 0"),
            ("momentum", lambda x: 0 <= x < 1, "from 0 to below 1"),
            ("offset", lambda x: x >= 0, "at least 0"),
            ("temperature", lambda x: x > 0, "above 0"),
        ):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or not fits(value):
                raise LiprefError(f"{name}={value!r}: give a finite number {wanted}")
        if self.schedule not in SCHEDULES:
            raise LiprefError(f"schedule={self.schedule!r}: choose one of {', '.join(SCHEDULES)}")
        if self.ema is not None and not (isinstance(self.ema, float) and 0 < self.ema < 1):
            raise LiprefError(f"ema={self.ema!r}: give a number above 0 and below 1, such as 0.999, or None")

    def as_dict(self) -> dict:
        """The settings as records have them: ``ema`` and ``speed`` where they are given, everything else always."""
        settings = asdict(self) | {"speed": self.speed.as_dict()}
        return {name: value for name, value in settings.items() if name not in ("ema", "speed") or value}


def learning_rate_at(settings: TrainingConfig, step: int, steps_per_epoch: int) -> float:
    """Learning rate of the optimizer step ``step`` (from 0).

    One cycle: 30 % of the way a cosine rise from 1/25 of the peak, then a cosine fall to 1/250000 of it, as PyTorch's
    OneCycleLR. A cycle of a single move (``"paper"`` with one epoch) has no rise: it sits at the end, at 1/250000.
    """
    peak = settings.learning_rate
    if settings.schedule == "constant":
        return peak
    return _one_cycle(settings, step, steps_per_epoch, peak / 25, peak, peak / 25 / 1e4)


def momentum_at(settings: TrainingConfig, step: int, steps_per_epoch: int) -> float:
    """Momentum of the optimizer step ``step`` (from 0)."""
    if settings.schedule == "paper":
        return _one_cycle(settings, step, steps_per_epoch, 0.95, 0.85, 0.95)
    return settings.momentum


def _one_cycle(
    settings: TrainingConfig, step: int, steps_per_epoch: int, start: float, peak: float, end: float
) -> float:
    if settings.schedule == "paper":
        move, moves = step // steps_per_epoch, settings.epochs
    else:
        move, moves = step, settings.epochs * steps_per_epoch
    turn = 0.3 * moves - 1
    if move <= turn:
        return _cosine(start, peak, move / turn)
    return _cosine(peak, end, (move - turn) / (moves - 1 - turn))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))
