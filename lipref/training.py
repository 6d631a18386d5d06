"""One training run: resumable at any step, independent of the global random state, stopped by the first NaN."""

import functools
import hashlib
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lipref import checkpoint
from lipref.certify import margins
from lipref.divergence import find_fault, is_finite
from lipref.errors import LiprefError
from lipref.losses import offset_cross_entropy
from lipref.settings import Settings, learning_rate_at, momentum_at

__all__ = [
    "BatchSource", "Outcome", "Progress", "Settings", "learning_rate_at", "momentum_at", "train", "training_step",
]  # fmt: skip

_CERTIFYING_MARGIN = math.sqrt(2) * 36 / 255


class BatchSource(Protocol):
    """The batches of a run; a batch depends on the seed, the epoch and its place in the epoch alone."""

    def __len__(self) -> int:
        """Steps per epoch."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Images (N, C, H, W) and int64 labels (N,) on the model's device, from the step ``start`` on."""


@dataclass(frozen=True)
class Progress:
    """Where a run is, after each step.

    Attributes:
        epoch: The running epoch, from 0.
        step: Optimizer steps done in the whole run, from 1 to ``total_steps``.
        total_steps: Steps of the whole run.
        loss: Mean over the images of this epoch so far.
        accuracy: Share of this epoch's images so far whose margin was above 0, in training mode, before their step.
        cra: Share of them whose margin was above ``sqrt(2) 36/255``, likewise.
        learning_rate: Of the last step.
    """

    epoch: int
    step: int
    total_steps: int
    loss: float
    accuracy: float
    cra: float
    learning_rate: float


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        status: ``"done"`` or ``"diverged"``. The weights of a diverged run are no result.
        history: One dict per finished epoch: epoch (from 0), loss, accuracy, cra_36, learning_rate (of its last step),
            seconds.
        steps: Optimizer steps done.
        diverged: None, or a dict: step and epoch (from 0) that failed, layer (the module where non-finite numbers
            first appear; None if there is none), what (one line for people).
        train_seconds: Time in training steps, over all pieces of an interrupted run, without callbacks, checkpoints,
            and steps that were lost and done again.
    """

    status: str
    history: list[dict[str, Any]]
    steps: int
    diverged: dict[str, Any] | None
    train_seconds: float


def train(
    model: nn.Module,
    batches: BatchSource,
    settings: Settings,
    *,
    checkpoint_path: str | os.PathLike[str] | None = None,
    checkpoint_seconds: float = 120.0,
    on_progress: Callable[[Progress], None] | None = None,
    config_digest: str = "",
) -> Outcome:
    """Train ``model`` in place; go on from ``checkpoint_path`` if that file exists.

    A run that was killed at any moment and started again, with a model built in the same way, ends with the weights and
    the history (but for its seconds) of an undisturbed run: bit for bit on a CPU with the same number of threads.

    Args:
        model: Maps images to logits; its state dict holds all that training changes. It is left in evaluation mode.
        batches: The training images.
        settings: The hyperparameters.
        checkpoint_path: Where the state is kept, every ``checkpoint_seconds`` and at the end; None keeps nothing.
            Weights that are not finite are never written.
        checkpoint_seconds: Time between two checkpoints; 0 writes one after every step.
        on_progress: Called after every step. It may evaluate the model.
        config_digest: Names the run; a checkpoint made under another one is refused.

    Returns:
        The outcome. A run that meets a loss or weights that are not finite stops there, as ``"diverged"``.

    Raises:
        LiprefError: nothing to train, or a checkpoint that is damaged or of another run.
    """
    run = _Run(model, batches, settings, config_digest)
    path = None if checkpoint_path is None else Path(checkpoint_path)
    if path is not None and os.path.lexists(path):
        run.resume(path)
    model.train()
    devices = {parameter.device for parameter in model.parameters() if parameter.is_cuda}
    with torch.random.fork_rng(devices):
        diverged = run.go(path, checkpoint_seconds, on_progress)
    model.eval()
    return Outcome(
        status="diverged" if diverged else "done",
        history=run.position.history,
        steps=run.steps_done,
        diverged=diverged,
        train_seconds=run.position.train_seconds,
    )


def training_step(
    model: nn.Module, images: Tensor, labels: Tensor, settings: Settings
) -> Callable[[], dict[str, Any] | None]:
    """The step of `train`, over and over on one batch, for measuring what it costs.

    Args:
        model: Put in training mode here; every call changes its weights.
        images: (N, C, H, W), on the model's device.
        labels: (N,), int64.
        settings: The batch is the whole epoch of the schedule.

    Returns:
        A function that does one step and returns None, or a dict (layer, what) where the loss is not finite. It sets
        the global random state, as each step of a run does.

    Raises:
        LiprefError: a model without trainable parameters.
    """
    run = _Run(model, [(images, labels)], settings, "")
    model.train()
    return functools.partial(run.step, images, labels)


@dataclass
class _Position:
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


class _Run:
    def __init__(self, model: nn.Module, batches: BatchSource, settings: Settings, config_digest: str) -> None:
        self.model, self.batches, self.settings = model, batches, settings
        self.steps_per_epoch = len(batches)
        if self.steps_per_epoch < 1:
            raise LiprefError("no training batches: give at least one image")
        for name in ("batch_size", "seed"):
            theirs, ours = getattr(batches, name, None), getattr(settings, name)
            if theirs not in (None, ours):
                raise LiprefError(f"batches made with {name}={theirs}, settings with {name}={ours}: make them agree")
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not self.parameters:
            raise LiprefError(f"{type(model).__name__} has no trainable parameters: there is nothing to train")
        kept = model.state_dict().keys()
        lost = [name for name, _ in model.named_buffers() if name not in kept]
        if lost:
            raise LiprefError(f"buffer {lost[0]} is not persistent, a resumed run would lose it: make it persistent")
        self.optimizer = torch.optim.SGD(
            self.parameters.values(), settings.learning_rate, settings.momentum, weight_decay=settings.weight_decay
        )
        self.position = _Position()
        self.identity = {"config_digest": config_digest, "steps_per_epoch": self.steps_per_epoch, **asdict(settings)}

    @property
    def steps_done(self) -> int:
        return self.position.epoch * self.steps_per_epoch + self.position.step

    def go(
        self, path: Path | None, checkpoint_seconds: float, on_progress: Callable[[Progress], None] | None
    ) -> dict[str, Any] | None:
        """Do the steps that are left. Returns what went wrong, or None."""
        position = self.position
        saved = mark = time.perf_counter()
        while position.epoch < self.settings.epochs:
            epoch, start = position.epoch, position.step
            steps = range(start, self.steps_per_epoch)
            for step, (images, labels) in zip(steps, self.batches.epoch(epoch, start=start), strict=True):
                where = {"step": self.steps_done, "epoch": epoch}
                fault = self.step(images, labels)
                if fault:
                    return where | fault
                progress = self.progress()
                ends_epoch = step == steps[-1]
                if ends_epoch and images.is_cuda:
                    torch.cuda.synchronize(images.device)  # the last step belongs to this epoch's seconds
                now = time.perf_counter()
                position.seconds += now - mark
                position.train_seconds += now - mark
                if ends_epoch:
                    self.close_epoch(progress)
                finished = position.epoch == self.settings.epochs
                if finished or (path is not None and now - saved >= checkpoint_seconds):
                    fault = self.save(path, images)
                    if fault and finished:
                        return where | fault
                    # Otherwise the next loss tells: when a run is found out does not hang on when it saves.
                    saved = time.perf_counter()
                if on_progress is not None:
                    on_progress(progress)
                    if not self.model.training:
                        self.model.train()
                mark = time.perf_counter()
        return None

    def step(self, images: Tensor, labels: Tensor) -> dict[str, Any] | None:
        """One optimizer step, or none and what is wrong if the loss is not finite."""
        group = self.optimizer.param_groups[0]
        group["lr"] = learning_rate_at(self.settings, self.steps_done, self.steps_per_epoch)
        group["momentum"] = momentum_at(self.settings, self.steps_done, self.steps_per_epoch)
        torch.manual_seed(_seed(self.settings.seed, self.steps_done))  # for layers that draw
        try:
            logits = self.model(images)
        except torch.linalg.LinAlgError as error:  # how a factorisation reports a NaN
            return self.fault(images, " ".join(str(error).split()))
        loss = offset_cross_entropy(logits, labels, self.settings.offset, self.settings.temperature)
        lead = margins(logits.detach(), labels)
        # One transfer per step, and the only wait for the device.
        numbers = torch.stack(
            [loss.detach(), (lead > 0).sum().to(loss), (lead > _CERTIFYING_MARGIN).sum().to(loss)]
        ).tolist()
        if not math.isfinite(numbers[0]):
            return self.fault(images, f"the loss is {numbers[0]}")
        self.optimizer.zero_grad()
        try:
            loss.backward()
        except torch.linalg.LinAlgError as error:
            return self.fault(images, " ".join(str(error).split()))
        self.optimizer.step()
        position = self.position
        position.step += 1
        position.images += len(labels)
        position.loss += numbers[0] * len(labels)
        position.correct += round(numbers[1])
        position.certified += round(numbers[2])
        return None

    def fault(self, images: Tensor, seen: str) -> dict[str, Any]:
        layer, found = find_fault(self.model, images)
        return {"layer": layer, "what": f"{seen}; {found}"}

    def progress(self) -> Progress:
        position = self.position
        return Progress(
            epoch=position.epoch,
            step=self.steps_done,
            total_steps=self.settings.epochs * self.steps_per_epoch,
            loss=position.loss / position.images,
            accuracy=position.correct / position.images,
            cra=position.certified / position.images,
            learning_rate=self.optimizer.param_groups[0]["lr"],
        )

    def close_epoch(self, progress: Progress) -> None:
        position = self.position
        position.history.append(
            {
                "epoch": progress.epoch,
                "loss": progress.loss,
                "accuracy": progress.accuracy,
                "cra_36": progress.cra,
                "learning_rate": progress.learning_rate,
                "seconds": position.seconds,
            }
        )
        position.epoch, position.step = position.epoch + 1, 0
        position.images, position.loss, position.correct, position.certified, position.seconds = 0, 0.0, 0, 0, 0.0

    def tensors(self) -> dict[str, Tensor]:
        tensors = {f"model/{name}": tensor for name, tensor in self.model.state_dict().items()}
        for name, parameter in self.parameters.items():
            buffer = self.optimizer.state[parameter].get("momentum_buffer")
            if buffer is not None:
                tensors[f"momentum/{name}"] = buffer
        return tensors

    def save(self, path: Path | None, images: Tensor) -> dict[str, Any] | None:
        """Write the state, or nothing and what is wrong if it is not finite. Without a path it only looks."""
        tensors = self.tensors()
        for name, tensor in tensors.items():
            if not is_finite(tensor):
                return self.fault(images, f"after this step {name} is not finite")
        if path is not None:
            checkpoint.save(path, tensors, {"run": self.identity, "position": asdict(self.position)})
        return None

    def resume(self, path: Path) -> None:
        tensors, meta = checkpoint.load(path)
        remedy = "delete the file to start anew, or choose another folder"
        if meta.keys() != {"run", "position"}:
            raise LiprefError(f"{path}: a checkpoint, but not of a training run: {remedy}")
        for name in meta["run"] | self.identity:
            was, now = meta["run"].get(name), self.identity.get(name)
            if was != now:
                raise LiprefError(f"{path}: belongs to another run, with {name}={was!r} instead of {now!r}: {remedy}")
        weights = {f"model/{name}": tensor for name, tensor in self.model.state_dict().items()}
        momenta = {f"momentum/{name}": parameter for name, parameter in self.parameters.items()}
        for name in weights.keys() | tensors.keys():
            kept, wanted = tensors.get(name), (weights | momenta).get(name)
            if kept is None or wanted is None or (kept.shape, kept.dtype) != (wanted.shape, wanted.dtype):
                raise LiprefError(f"{path}: {name} is {_kind(kept)}, the model wants {_kind(wanted)}: {remedy}")
        self.model.load_state_dict({name.removeprefix("model/"): tensors[name] for name in weights})
        for name, parameter in momenta.items():
            if name in tensors:
                # The parameter's strides, as the optimizer would have it: other strides may round differently.
                buffer = torch.empty_like(parameter, requires_grad=False).copy_(tensors[name])
                self.optimizer.state[parameter]["momentum_buffer"] = buffer
        self.position = _Position(**meta["position"])


def _seed(seed: int, step: int) -> int:
    """Seed of one step: a resumed run draws what an undisturbed one would."""
    return int.from_bytes(hashlib.sha256(f"step {seed} {step}".encode()).digest()[:8], "big", signed=True)


def _kind(tensor: Tensor | None) -> str:
    return "absent" if tensor is None else f"{tensor.dtype} {tuple(tensor.shape)}"
