"""One optimizer step: forward, loss, backward, SGD; as usual, or by a captured pass."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lipref.certification.certify import margins
from lipref.losses import offset_cross_entropy
from lipref.training.config import TrainingConfig
from lipref.training.cuda_graph import CapturedPass
from lipref.training.forward import Forward, reason
from lipref.training.optimizer import sgd

_CERTIFYING_MARGIN = math.sqrt(2) * 36 / 255


class Stepper:
    """Steps of one model.

    Args:
        model: In training mode when a step is done.
        parameters: Those that are trained, by name.
        settings: Learning rate and momentum are taken from ``optimizer`` at each step.
        batch_size: Images of a whole batch; None where all are of one size. Others are neither compiled nor captured.

    Attributes: ``forward``, with the seconds of compilation and the notices; ``optimizer``.

    Raises:
        LiprefError: an option that the device or the weights' dtype do not allow.
    """

    def __init__(
        self, model: nn.Module, parameters: Mapping[str, nn.Parameter], settings: TrainingConfig, batch_size: int | None
    ) -> None:
        self.settings = settings
        # Before the optimizer, which goes by the layout of the weights.
        self.forward = Forward(model, settings.speed, batch_size)
        self.optimizer = sgd(parameters, settings)
        if settings.speed.fused and not self.optimizer.defaults["fused"]:
            self.forward.notices.append("fused SGD is for CUDA: the foreach form is taken, with the usual numbers")
        self._captured: CapturedPass | None = None
        self._to_capture = settings.speed.cuda_graphs

    @property
    def settled(self) -> bool:
        """Whether nothing is left to capture, as far as the last step has shown."""
        return not self._to_capture

    def ready(self, images: Tensor, labels: Tensor) -> None:
        """Compile and capture before the first whole batch, where ``settings.speed`` asks for it.

        What cannot be had is done as usual, with a line among the notices. The weights and buffers do not change.
        """
        self.forward.ready(images, lambda logits: _loss(self.settings, logits, labels))
        if not self._to_capture or self.forward.batch_size not in (None, len(images)):
            return
        started = time.perf_counter()
        self._to_capture, self._captured = False, None
        try:
            # Not by a method: the graph, which would have this object, is this object's, and would stay in memory.
            self._captured = CapturedPass(self.forward, images, labels, functools.partial(_measured, self.settings))
        except torch.linalg.LinAlgError:
            self._to_capture = True  # how a factorisation reports a NaN: the step itself will tell of it
        except Exception as error:
            self.forward.prepares_ahead = images.is_cuda
            self.forward.notices.append(f"not captured: {reason(error)}")
        self.forward.compile_seconds += time.perf_counter() - started

    def step(self, images: Tensor, labels: Tensor) -> list[float]:
        """One step, unless the loss is not finite: then the weights are left alone.

        Returns:
            The loss, and how many images had a margin above 0, and above ``sqrt(2) 36/255``.
        """
        if self._captured is not None and not self._captured.holds_model:  # changed, as by a callback
            self._to_capture, self._captured = True, None
        if self._captured is not None and images.shape == self._captured.images.shape:
            found = self._captured(images, labels).tolist()  # one transfer per step, and the only wait for the device
        else:
            self.optimizer.zero_grad()  # before what the forward pass saves is in memory too
            self.forward.begin(images)
            with self.forward.operators(images):
                loss, numbers = _measured(self.settings, self.forward(images), labels)
                found = numbers.tolist()
                if math.isfinite(found[0]):
                    loss.backward()
        if math.isfinite(found[0]):
            self.optimizer.step()
        return found

    def release(self) -> None:
        """Give back the graph and its memory, gradients among it."""
        if self._captured is not None:
            self._captured = None
            self.optimizer.zero_grad()


def _measured(settings: TrainingConfig, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The loss, and the numbers of `Stepper.step` as one tensor ``(3,)``."""
    loss = _loss(settings, logits, labels)
    lead = margins(logits.detach(), labels)
    counts = [(lead > least).sum().to(loss) for least in (0, _CERTIFYING_MARGIN)]
    return loss, torch.stack([loss.detach(), *counts])


def _loss(settings: TrainingConfig, logits: Tensor, labels: Tensor) -> Tensor:
    return offset_cross_entropy(logits, labels, settings.offset, settings.temperature)
