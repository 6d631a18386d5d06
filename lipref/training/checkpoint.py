"""The state of a training run, in one file from which it goes on bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lipref import tensor_files
from lipref.errors import LiprefError
from lipref.training.divergence import is_finite
from lipref.training.optimizer import Average


@dataclass
class Position:
    """The next step, and what has been summed up since the start of its epoch."""

    epoch: int = 0
    step: int = 0
    images: int = 0
    loss: float = 0.0
    correct: int = 0
    certified: int = 0
    seconds: float = 0.0
    train_seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    compile_seconds: float = 0.0
    notices: list[str] = field(default_factory=list)

    def close_epoch(self, **numbers: float) -> None:
        """Write a line of the history, and go to the start of the next epoch."""
        self.history.append({"epoch": self.epoch, **numbers, "seconds": self.seconds})
        self.epoch, self.step = self.epoch + 1, 0
        self.images, self.loss, self.correct, self.certified, self.seconds = 0, 0.0, 0, 0, 0.0


@dataclass(frozen=True)
class State:
    """All that a step changes: weights, buffers, momenta and averages; ``identity`` names the run that they are of.

    ``parameters`` are those that are trained, by name.
    """

    model: nn.Module
    parameters: Mapping[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    average: Average
    identity: Mapping[str, Any]

    def tensors(self) -> dict[str, Tensor]:
        """Them, by the names that they have in the file."""
        tensors = {f"model/{name}": tensor for name, tensor in self.model.state_dict().items()}
        for name, parameter in self.parameters.items():
            buffer = self.optimizer.state[parameter].get("momentum_buffer")
            if buffer is not None:
                tensors[f"momentum/{name}"] = buffer
        return tensors | {f"average/{name}": tensor for name, tensor in self.average.values.items()}

    def not_finite(self) -> str | None:
        """The name of the first tensor that is not finite, or None."""
        return next((name for name, tensor in self.tensors().items() if not is_finite(tensor)), None)

    def save(self, path: Path, position: Position) -> None:
        """Write the state and where the run is."""
        tensor_files.save(path, self.tensors(), {"run": dict(self.identity), "position": asdict(position)})

    def load(self, path: Path) -> Position:
        """Put the state of a file in, and return where the run was.

        Raises:
            LiprefError: a file that is damaged or of another run; nothing has been changed then.
        """
        tensors, meta = tensor_files.load(path)
        remedy = "delete the file to start anew, or choose another folder"
        if meta.keys() != {"run", "position"}:
            raise LiprefError(f"{path}: a checkpoint, but not of a training run: {remedy}")
        for name in meta["run"] | self.identity:
            was, now = meta["run"].get(name), self.identity.get(name)
            if was != now:
                raise LiprefError(f"{path}: belongs to another run, with {name}={was!r} instead of {now!r}: {remedy}")
        weights = {f"model/{name}": tensor for name, tensor in self.model.state_dict().items()}
        momenta = {f"momentum/{name}": parameter for name, parameter in self.parameters.items()}
        averages = {}
        if self.average.decay is not None:
            averages = {f"average/{name}": parameter for name, parameter in self.parameters.items()}
        for name in weights.keys() | averages.keys() | tensors.keys():
            kept, wanted = tensors.get(name), (weights | momenta | averages).get(name)
            if kept is None or wanted is None or (kept.shape, kept.dtype) != (wanted.shape, wanted.dtype):
                raise LiprefError(f"{path}: {name} is {_kind(kept)}, the model wants {_kind(wanted)}: {remedy}")
        self.model.load_state_dict({name.removeprefix("model/"): tensors[name] for name in weights})
        for name, parameter in momenta.items():
            if name in tensors:
                self.optimizer.state[parameter]["momentum_buffer"] = _laid_out_as(parameter, tensors[name])
        for name, parameter in averages.items():
            self.average.values[name.removeprefix("average/")] = _laid_out_as(parameter, tensors[name])
        return Position(**meta["position"])


def _laid_out_as(parameter: Tensor, values: Tensor) -> Tensor:
    """``values`` with the parameter's strides, as the optimizer would have it: other strides may round differently."""
    return torch.empty_like(parameter, requires_grad=False).copy_(values)


def _kind(tensor: Tensor | None) -> str:
    return "absent" if tensor is None else f"{tensor.dtype} {tuple(tensor.shape)}"
