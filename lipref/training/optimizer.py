"""What a step does with the gradients: SGD, and a moving average of the parameters."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from lipref.training.config import TrainingConfig

FUSED = ("cuda",)  # devices on which fused SGD is worth its other rounding


def sgd(parameters: Mapping[str, nn.Parameter], settings: TrainingConfig) -> torch.optim.SGD:
    """The optimizer; fused, if that is asked for, where the weights are on a device in `FUSED`."""
    form = {}
    if settings.speed.fused:
        fused = all(parameter.device.type in FUSED for parameter in parameters.values())
        form = {"fused": True} if fused else {"foreach": True}
    return torch.optim.SGD(
        parameters.values(), settings.learning_rate, settings.momentum, weight_decay=settings.weight_decay, **form
    )


class Average:
    """``average <- decay average + (1 - decay) parameter`` after every step, from the first step's weights on.

    A layer is 1-Lipschitz for every value of its parameters, so the averaged network is one like any other; its
    buffers are those of the network that was trained.

    Attributes: ``values``, the averages by the parameters' names; empty before the first step, or without a ``decay``.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float | None) -> None:
        self.parameters, self.decay = parameters, decay
        self.values: dict[str, Tensor] = {}
        self._update = None if decay is None else get_ema_multi_avg_fn(decay)

    def update(self) -> None:
        """Take one step's weights in."""
        if self._update is None:
            return
        if not self.values:
            self.values = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        else:
            current = [parameter.detach() for parameter in self.parameters.values()]
            self._update([self.values[name] for name in self.parameters], current, None)

    def take_over(self) -> None:
        """Put the averages into the parameters."""
        with torch.no_grad():
            for name, value in self.values.items():
                self.parameters[name].copy_(value)
