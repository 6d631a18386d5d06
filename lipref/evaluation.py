"""A network in evaluation, one batch after the other; on CUDA as one graph, since small networks wait for launches."""

from __future__ import annotations

import operator
from itertools import chain

import torch
from torch import Tensor, nn

from lipref import capture
from lipref.errors import LiprefError
from lipref.forward import buffers_unmoved, reason
from lipref.layers import LipschitzConv2d
from lipref.layers.kept import distance
from lipref.speed import Speed, usual


class Evaluation:
    """Logits of batches as ``model(images)`` gives them, without gradients.

    On CUDA a batch of the shape of the last one, through a model that has not changed since, is captured as one CUDA
    graph (`lipref.capture`), and the batches after it are replays. Each replay looks at all weights again: where one is
    not what the kept operators were made from, it does not count, and the batch is done as usual. Batches of other
    shapes, such as a last one, are done as usual, and all under autocast. What is decided on the host is recorded once:
    what a module of the user's own does by a counter, hooks, and settings of modules that are not layers of ours.

    Args:
        model: Any with layers of this library. Between two calls it may be trained, moved, or given other layers; what
            was captured of it stays in memory until the next call, or `release`.
        speed: Of its options ``cuda_graphs`` counts; None: those that are usual on the model's device.

    Attributes: ``notices``, a line where the pass could not be captured; ``settled``, whether the next call with such a
    batch will be done as the last one was.

    Raises:
        LiprefError: CUDA graphs on another device; in a call, a module in training mode.
    """

    def __init__(self, model: nn.Module, speed: Speed | None = None) -> None:
        self.model = model
        self.notices: list[str] = []
        self.settled = False
        tensors = chain(model.parameters(), model.buffers())  # a folded network has no parameters
        self._device = next((tensor.device.type for tensor in tensors), "cpu")
        speed = usual(self._device) if speed is None else speed
        speed.check_device(self._device)
        self._capturing = speed.cuda_graphs
        self._captured: _CapturedBatch | None = None
        self._last: tuple[torch.Size, torch.dtype, _Looks] | None = None

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Logits (N, K) of ``images`` (N, C, H, W)."""
        training = next((module for module in self.model.modules() if module.training), None)
        if training is not None:
            raise LiprefError(f"{type(training).__name__} is in training mode: call the network's eval() before")
        kind = images.device.type
        self.settled = not self._capturing or kind != self._device or torch.is_autocast_enabled(kind)
        if self.settled:
            return self.model(images)
        looks = _Looks(self.model)
        if self._captured is not None and self._captured.fits(images):
            logits = self._captured(images) if self._captured.looks == looks else None
            if logits is not None:
                self.settled = True
                return logits
            self._captured = None
        logits = self.model(images)
        looks = _Looks(self.model)  # with the operators that this pass has prepared
        seen = images.shape, images.dtype, looks
        if self._captured is None and self._last == seen:
            self._capture(images, looks)
        self._last = seen
        return logits

    def release(self) -> None:
        """Give back the graph and what it holds of the model; the next batches make a new one."""
        self._captured = self._last = None

    def _capture(self, images: Tensor, looks: _Looks) -> None:
        try:
            self._captured = _CapturedBatch(self.model, images, looks)
        except Exception as error:
            self._capturing = False
            self.notices.append(f"not captured: {reason(error)}")


class _Looks:
    """What a graph holds of the model as the host has it: its modules, the kept operators, and where tensors lie."""

    def __init__(self, model: nn.Module) -> None:
        modules, tensors = list(model.modules()), [*model.parameters(), *model.buffers()]
        # The objects themselves, so that none of them can be gone and another one have its address.
        self._objects = [*modules, *tensors, *(module.__dict__.get("_kept") for module in modules)]
        self._places = [tensor.data_ptr() for tensor in tensors]

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _Looks)
            and self._places == other._places
            and len(self._objects) == len(other._objects)
            and all(map(operator.is_, self._objects, other._objects))
        )

    __hash__ = None


class _CapturedBatch:
    """The pass of one shape; ``looks``, those of the model, whose operators are kept.

    Raises:
        Exception: whatever an operation says that cannot be captured. The model is as before, also then.
    """

    def __init__(self, model: nn.Module, images: Tensor, looks: _Looks) -> None:
        self.looks, self._model = looks, model
        layers = [module for module in model.modules() if isinstance(module, LipschitzConv2d)]
        before = {layer: layer._kept for layer in layers}
        self._layers = [layer for layer in layers if layer._kept is not None]
        states = [(layer._state(), layer._kept[2]) for layer in self._layers]
        self._pairs = [(tensor, made_from[name]) for state, made_from in states for name, tensor in state.items()]
        try:
            with buffers_unmoved(model) as buffers:
                # What is made here serves calls of every mode, those without inference mode among them.
                with torch.inference_mode(False), capture.finished(images):
                    self._images = images.detach().clone()
                    self._graph = capture.CudaGraph(self._pass, self._pass)
                # By a pass, and not to be moved by one that does not count.
                self._moved = [buffer for buffer, values in buffers if not torch.equal(buffer, values)]
        finally:
            changed = [layer for layer, kept in before.items() if layer._kept is not kept]
            for layer in changed:  # recorded, not computed: nothing may read it
                layer.__dict__["_kept"] = None
        if changed:
            raise LiprefError(f"{type(changed[0]).__name__} is used for images of several sizes in one pass")

    def fits(self, images: Tensor) -> bool:
        """Whether it is for such a batch."""
        return (images.shape, images.dtype, images.device) == (
            self._images.shape, self._images.dtype, self._images.device,
        )  # fmt: skip

    def __call__(self, images: Tensor) -> Tensor | None:
        """The logits, in memory of their own; None where the operators are not those of the weights any more."""
        before = [buffer.clone() for buffer in self._moved]
        with torch.cuda.device_of(images):
            self._images.copy_(images)
            logits, changes = self._graph.replay()
            logits = logits.clone()
        if changes is None or not bool(changes != 0):
            return logits
        for buffer, values in zip(self._moved, before, strict=True):
            buffer.copy_(values)
        return None

    @torch.no_grad()
    def _pass(self) -> tuple[Tensor, Tensor | None]:
        try:
            for layer in self._layers:
                layer.__dict__["_checked"] = True  # not by setattr, which drops what is kept
            logits = self._model(self._images)
        finally:
            for layer in self._layers:
                layer.__dict__.pop("_checked", None)
        return logits, distance(self._pairs) if self._pairs else None
