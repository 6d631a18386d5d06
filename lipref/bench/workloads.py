"""What is measured of a network: a training step, a batch in evaluation, the preparation of its operators."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lipref.errors import LiprefError
from lipref.layers import LipschitzConv2d
from lipref.layers.base import given_operators
from lipref.nets import ConvNet
from lipref.training import RepeatedStep
from lipref.training.config import TrainingConfig
from lipref.training.cuda_graph import CudaGraph
from lipref.training.forward import image_sizes
from lipref.training.speed import Speed

WARM_UP = 2  # calls before the clock runs
MOST_WARM_UP = 12
LEAST_REPEATS = 3  # whatever they take


def training(model: ConvNet, images: Tensor, labels: Tensor, speed: Speed | None = None) -> Callable[[], None]:
    """A step of `lipref.training` on images (N, C, H, W) and int64 labels (N,), on the model's device.

    ``speed``: its options; None is without any. Its first call compiles and captures, where they ask for it.

    The function raises LiprefError where the loss is not finite. It sets the global random state.
    """
    # What the learning rate is does not matter; weight decay does a little work, and most runs have some.
    settings = TrainingConfig(
        epochs=1, learning_rate=1e-3, weight_decay=1e-5, batch_size=len(labels), schedule="constant",
        speed=speed or Speed(),
    )  # fmt: skip
    return _Training(model, RepeatedStep(model, images, labels, settings))


class _Training:
    """A step; ``steady`` where the last one neither compiled nor captured anything."""

    def __init__(self, model: ConvNet, step: RepeatedStep) -> None:
        self._model, self._step, self.steady = model, step, True

    def __call__(self) -> None:
        before = self._step.compile_seconds
        fault = self._step()
        if fault:
            raise LiprefError(f"{self._model.layer} on random pictures: {fault['what']}; mend the layer")
        self.steady = self._step.compile_seconds == before and self._step.settled


def evaluation(model: ConvNet, images: Tensor, labels: Tensor, speed: Speed | None = None) -> Callable[[], None]:
    """A batch in evaluation, without gradients.

    The first call prepares the operators, the others use them. ``speed``: where it asks for CUDA graphs, the second
    call captures one, with the operators as constants, which the others replay; None is without.
    """
    return _Evaluation(model.eval(), images, speed is not None and speed.cuda_graphs)


class _Evaluation:
    """A batch; ``steady`` where the last one was done as the next will be."""

    def __init__(self, model: nn.Module, images: Tensor, capture: bool) -> None:
        self._model, self._images, self._graph = model, images, None
        self._plans = [self._capture, self._batch] if capture else []  # of the next calls, the last one first

    @property
    def steady(self) -> bool:
        return not self._plans

    @torch.no_grad()
    def __call__(self) -> None:
        if self._plans:
            self._plans.pop()()
        elif self._graph is None:
            self._batch()
        else:
            self._graph.replay()

    def _batch(self) -> Tensor:
        return self._model(self._images)

    def _capture(self) -> None:
        sizes = image_sizes(self._model, self._images)
        with given_operators({layer: layer.operator(size) for layer, size in sizes.items()}):
            self._graph = CudaGraph(self._batch)


def preparation(model: ConvNet, images: Tensor, labels: Tensor) -> Callable[[], None] | None:
    """Preparing the operators of all layers for evaluation, anew at each call; None where no layer has one."""
    layers = [(layer, side) for _, layer, side in _layers(model) if isinstance(layer, LipschitzConv2d)]

    def prepare() -> None:
        model.eval()  # drops what is kept
        for layer, side in layers:
            layer.operator(side)

    return prepare if layers else None


def folded(model: ConvNet) -> ConvNet | None:
    """``model`` itself, now with its layers folded for its image size, or None where nothing folds."""
    layers = [entry for entry in _layers(model) if callable(getattr(entry[1], "fold", None))]
    for name, layer, side in layers:
        setattr(model, name, layer.fold(side))
    return model if layers else None


@torch.no_grad()
def _layers(model: ConvNet) -> list[tuple[str, nn.Module, tuple[int, int]]]:
    """Name, module and the (H, W) of its input for every part of the network, which is put in evaluation mode."""
    x = next(model.parameters()).new_zeros(1, model.in_channels, model.image_size, model.image_size)
    found = []
    for name, module in model.eval().named_children():
        found.append((name, module, (x.shape[-2], x.shape[-1])))
        x = module(x)
    return found


def warm_up(function: Callable[[], object], long: float = math.inf) -> None:
    """Call ``function`` twice, or more while it still compiles or captures; once where that takes ``long`` seconds."""
    for number in range(MOST_WARM_UP):
        started = time.perf_counter()
        function()
        if time.perf_counter() - started > long or (number + 1 >= WARM_UP and getattr(function, "steady", True)):
            return


def seconds(
    function: Callable[[], object], device: torch.device, repeats: int, max_seconds: float, least: int = LEAST_REPEATS
) -> list[float]:
    """Time ``function``, each call on its own, after those of `warm_up`.

    Returns:
        The seconds of every timed call: ``repeats`` of them, or fewer, but no less than ``least``, where
        ``max_seconds`` are used up before.
    """

    def once() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        started = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    warm_up(function)
    times: list[float] = []
    while len(times) < repeats and (len(times) < least or sum(times) < max_seconds):
        times.append(once())
    return times
