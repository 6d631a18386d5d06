"""Training: one run, its hyperparameters, and what can be resumed of it."""

from lipref.training.config import TrainingConfig, learning_rate_at, momentum_at
from lipref.training.trainer import BatchSource, Outcome, Progress, RepeatedStep, train

__all__ = [
    "BatchSource",
    "Outcome",
    "Progress",
    "RepeatedStep",
    "TrainingConfig",
    "learning_rate_at",
    "momentum_at",
    "train",
]
