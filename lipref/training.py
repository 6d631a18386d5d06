"""One training run: resumable at any step, independent of the global random state, stopped by the first NaN."""

import hashlib
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lipref.divergence import find_fault
from lipref.errors import LiprefError
from lipref.resuming import Position, State
from lipref.settings import TrainingConfig, learning_rate_at, momentum_at
from lipref.stepping import Stepper
from lipref.updates import Average

__all__ = [
    "BatchSource", "Outcome", "Progress", "RepeatedStep", "TrainingConfig", "learning_rate_at", "momentum_at", "train",
]  # fmt: skip


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
            compilation, and steps that were lost and done again.
        compile_seconds: Time of compilation and of capturing, over all pieces.
        notices: A line for each option that could not be had.
    """

    status: str
    history: list[dict[str, Any]]
    steps: int
    diverged: dict[str, Any] | None
    train_seconds: float
    compile_seconds: float = 0.0
    notices: list[str] = field(default_factory=list)


def train(
    model: nn.Module,
    batches: BatchSource,
    settings: TrainingConfig,
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
        model: Maps images to logits; its state dict holds all that training changes. It is left in evaluation mode,
            with ``settings.ema`` with the averages as its weights, unless it diverged.
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
        LiprefError: nothing to train, batches of another kind or without images, or a checkpoint that is damaged or of
            another run.

    Example:
        >>> from lipref import Batches, TrainingConfig, convnet, load_dataset, train
        >>> data = load_dataset("digits", limit_train=64)
        >>> model = convnet("XS", "aol", data.num_classes, data.channels, data.image_size)
        >>> batches = Batches(data.train, data, batch_size=64, seed=0, device="cpu")
        >>> train(model, batches, TrainingConfig(epochs=1, batch_size=64, learning_rate=0.1)).status
        'done'
    """
    if not callable(getattr(batches, "epoch", None)):
        raise LiprefError(
            f"batches are {type(batches).__name__}, which cannot go on within an epoch as a resumed run has to: give "
            "lipref.data.Batches(split, data, batch_size, seed, device), or your own object with len() and "
            "epoch(epoch, start)"
        )
    run = _Run(model, batches, settings, config_digest)
    path = None if checkpoint_path is None else Path(checkpoint_path)
    if path is not None and os.path.lexists(path):
        run.resume(path)
    model.train()
    devices = {parameter.device for parameter in model.parameters() if parameter.is_cuda}
    try:
        with torch.random.fork_rng(devices):
            diverged = run.go(path, checkpoint_seconds, on_progress)
    finally:
        run.forward.close()
        run.stepper.release()
    if not diverged:
        run.average.take_over()
    model.eval()
    return Outcome(
        status="diverged" if diverged else "done",
        history=run.position.history,
        steps=run.steps_done,
        diverged=diverged,
        train_seconds=run.position.train_seconds,
        compile_seconds=run.position.compile_seconds,
        notices=run.position.notices,
    )


class RepeatedStep:
    """The step of `train`, over and over on one batch, for measuring what it costs.

    A call does one step and returns None, or a dict (layer, what) where the loss is not finite. It sets the global
    random state, as each step of a run does.

    Args:
        model: Put in training mode here; every call changes its weights.
        images: (N, C, H, W), on the model's device.
        labels: (N,), int64.
        settings: The batch is the whole epoch of the schedule.

    Raises:
        LiprefError: a model without trainable parameters.
    """

    def __init__(self, model: nn.Module, images: Tensor, labels: Tensor, settings: TrainingConfig) -> None:
        self._run = _Run(model, [(images, labels)], settings, "")
        self._batch = images, labels
        model.train()

    def __call__(self) -> dict[str, Any] | None:
        return self._run.step(*self._batch)

    @property
    def compile_seconds(self) -> float:
        """Of all calls so far, with those of captures."""
        return self._run.forward.compile_seconds

    @property
    def settled(self) -> bool:
        """Whether nothing is left to capture, as far as the last call has shown."""
        return self._run.stepper.settled


class _Run:
    def __init__(self, model: nn.Module, batches: BatchSource, settings: TrainingConfig, config_digest: str) -> None:
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
        whole = settings.batch_size if self.steps_per_epoch > 1 else None
        self.stepper = Stepper(model, self.parameters, settings, whole)
        self.forward, self.optimizer = self.stepper.forward, self.stepper.optimizer
        self.average = Average(self.parameters, settings.ema)
        identity = {"config_digest": config_digest, "steps_per_epoch": self.steps_per_epoch, **settings.as_dict()}
        self.state = State(model, self.parameters, self.optimizer, self.average, identity)
        self.position = Position()

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
                if not len(images):
                    raise LiprefError(f"the batch of step {step} of epoch {epoch} has no images: leave it out")
                fault = self.step(images, labels)
                compiling = self.compiled()
                if fault:
                    return where | fault
                progress = self.progress()
                ends_epoch = step == steps[-1]
                if ends_epoch and images.is_cuda:
                    torch.cuda.synchronize(images.device)  # the last step belongs to this epoch's seconds
                now = time.perf_counter()
                taken = now - mark - compiling
                position.seconds += taken
                position.train_seconds += taken
                if ends_epoch:
                    position.close_epoch(
                        loss=progress.loss, accuracy=progress.accuracy, cra_36=progress.cra,
                        learning_rate=progress.learning_rate,
                    )  # fmt: skip
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
        self.stepper.ready(images, labels)
        torch.manual_seed(_seed(self.settings.seed, self.steps_done))  # for layers that draw
        try:
            numbers = self.stepper.step(images, labels)
        except torch.linalg.LinAlgError as error:  # how a factorisation reports a NaN
            return self.fault(images, " ".join(str(error).split()))
        if not math.isfinite(numbers[0]):
            return self.fault(images, f"the loss is {numbers[0]}")
        self.average.update()
        position = self.position
        position.step += 1
        position.images += len(labels)
        position.loss += numbers[0] * len(labels)
        position.correct += round(numbers[1])
        position.certified += round(numbers[2])
        return None

    def compiled(self) -> float:
        """Seconds of compilation since the last call; they, and what could not be had, are noted."""
        seconds, self.forward.compile_seconds = self.forward.compile_seconds, 0.0
        self.position.compile_seconds += seconds
        # A resumed run may say again what it said before.
        self.position.notices = list(dict.fromkeys([*self.position.notices, *self.forward.notices]))
        return seconds

    def fault(self, images: Tensor, seen: str) -> dict[str, Any]:
        with self.forward.arithmetic():
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

    def save(self, path: Path | None, images: Tensor) -> dict[str, Any] | None:
        """Write the state, or nothing and what is wrong if it is not finite. Without a path it only looks."""
        name = self.state.not_finite()
        if name is not None:
            return self.fault(images, f"after this step {name} is not finite")
        if path is not None:
            self.state.save(path, self.position)
        return None

    def resume(self, path: Path) -> None:
        self.position = self.state.load(path)


def _seed(seed: int, step: int) -> int:
    """Seed of one step: a resumed run draws what an undisturbed one would."""
    return int.from_bytes(hashlib.sha256(f"step {seed} {step}".encode()).digest()[:8], "big", signed=True)
