"""One optimizer step: forward, loss, backward, SGD; as usual, or by a captured pass."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lipref.capture import CapturedPass
from lipref.certification.certify import margins
from lipref.forward import Forward, reason
from lipref.layers import LipschitzConv2d
from lipref.losses import offset_cross_entropy
from lipref.settings import TrainingConfig
from lipref.updates import sgd

MOST_ROOM = 4  # for other answers than those that are captured: more from each capture to the next, up to this
SHORT, MOST_SHORT = 20, 8  # steps that a capture should last for, and how often it may not
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
        self._ask = any(isinstance(module, LipschitzConv2d) and module.asks for module in model.modules())
        self._room, self._lasted, self._short = 1, 0, 0

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
        failed: list[str] = []
        # Not by a method: the graph, which would have this object, is this object's, and would stay in memory.
        measure = functools.partial(_measured, self.settings)
        for asking in (self._room, 0) if self._ask else (0,):
            try:
                self._captured = CapturedPass(self.forward, images, labels, measure, asking)
                break
            except torch.linalg.LinAlgError:
                self._to_capture = True  # how a factorisation reports a NaN: the step itself will tell of it
                break
            except Exception as error:
                self._ask = False
                failed.append(reason(error))
        if failed:
            what = "some operators are prepared outside of the CUDA graph" if self._captured else "not captured"
            self.forward.notices.append(f"{what}: {failed[-1]}")
        self.forward.compile_seconds += time.perf_counter() - started

    def step(self, images: Tensor, labels: Tensor) -> list[float]:
        """One step, unless the loss is not finite: then the weights are left alone.

        Returns:
            The loss, and how many images had a margin above 0, and above ``sqrt(2) 36/255``.
        """
        if self._captured is not None and images.shape == self._captured.images.shape:
            if self._captured.holds_model:
                found = self._replay(images, labels)
                if found is not None:
                    self._lasted += 1
                    return found
                self._captured.undo()
                self._recapture()
            else:  # somebody has changed it, such as a callback
                self._to_capture, self._captured = True, None
        self.optimizer.zero_grad()  # before what the forward pass keeps is in memory too
        loss, numbers = _measured(self.settings, self.forward(images), labels)
        found = numbers.tolist()  # one transfer per step, and the only wait for the device
        if math.isfinite(found[0]):
            loss.backward()
            self.optimizer.step()
        return found

    def _replay(self, images: Tensor, labels: Tensor) -> list[float] | None:
        """`step` by the captured pass; None where what it was recorded with does not hold any more."""
        numbers = self._captured(images, labels)
        # Not in the first step either: momenta that the device leaves alone there are made, but never written.
        if not self.optimizer.defaults.get("fused") or not self.optimizer.state:
            *found, holds = numbers.tolist()
            if holds and math.isfinite(found[0]):
                self.optimizer.step()
            return found if holds else None
        # Launched before the host knows the numbers: the device itself leaves the weights alone where they are no good.
        good = torch.isfinite(numbers[:1]) & (numbers[-1:] == 1)
        self.optimizer.found_inf = (~good).to(torch.float32)
        try:
            self.optimizer.step()
        finally:
            del self.optimizer.found_inf
        *found, holds = numbers.tolist()
        return found if holds else None

    def _recapture(self) -> None:
        """Capture anew before the next step; where that happens too often, without what asks the device."""
        self._short += self._lasted < SHORT
        self._to_capture, self._captured, self._lasted = True, None, 0
        self._room = min(self._room + 1, MOST_ROOM)
        if self._ask and self._short > MOST_SHORT:
            self._ask = False
            self.forward.notices.append("operators change too fast for a CUDA graph: they are prepared outside of it")

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
