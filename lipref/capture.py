"""A whole training pass as one CUDA graph: loss, its numbers and all gradients, replayed for every batch of a shape.

On a GPU a pass through a small network is bound by the launches of its thousands of kernels. A graph launches them in
one call. What decides by numbers on the device how it goes on is recorded with the decisions of now
(`lipref.linalg.asking`). Operators that no graph can hold (`LipschitzConv2d.capturable`) are prepared before each
replay by the usual code, and their gradients go back through it after.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from lipref.forward import Forward, buffers_unmoved
from lipref.layers.together import prepared_together
from lipref.linalg.asking import Answers

WARM_UP = 3  # passes before a capture: libraries make their plans and workspaces in the first ones


class CudaGraph:
    """What ``body`` computes, recorded once; `replay` computes it again into the same tensors."""

    def __init__(self, warm_up: Callable[[], object], body: Callable[[], object]) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                warm_up()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        failed = None
        try:
            with torch.cuda.graph(self._graph):
                try:
                    self._outputs = body()
                except Exception as error:
                    failed = error  # the end of a capture that fails has an error of its own, which says less
                    raise
        except Exception as error:
            with contextlib.suppress(Exception), torch.cuda.graph(torch.cuda.CUDAGraph()):
                torch.zeros(1, device="cuda")  # a capture that succeeds: a failed one may leave the random state in one
            raise failed or error from None

    def replay(self) -> object:
        """The tensors that ``body`` returned, with their values of now."""
        self._graph.replay()
        return self._outputs


@contextlib.contextmanager
def finished(images: Tensor) -> Iterator[None]:
    """Context on the device of ``images``, which has done all that was asked of it at the end, on any stream."""
    try:
        with torch.cuda.device_of(images):
            yield
    finally:
        if images.is_cuda:
            torch.cuda.synchronize(images.device)


class CapturedPass:
    """Loss, numbers and gradients of one batch; the weights are not changed.

    Args:
        forward: Of the model; compiled before, if at all.
        images, labels: A batch of the shape that is captured.
        measure: From logits and labels to the loss ``()`` and any numbers about it, ``(n,)``.
        asking: Layers that ask the device (`LipschitzConv2d.asks`) are in the graph too, with the answers of now and so
            much room for others; 0: they are not.

    Raises:
        Exception: whatever an operation says that cannot be captured. Buffers are as they were before, also then.
    """

    def __init__(
        self, forward: Forward, images: Tensor, labels: Tensor,
        measure: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], asking: int,
    ) -> None:  # fmt: skip
        self.forward, self.measure = forward, measure
        layers = forward.sizes(images)
        self._inside = [layer for layer in layers if layer.is_capturable() and (asking or not layer.asks)]
        self._outside = {layer: size for layer, size in layers.items() if layer not in self._inside}
        self._answers = Answers(max(asking, 1))
        self.images, self.labels = images.clone(), labels.clone()
        self._parameters = [parameter for parameter in forward.model.parameters() if parameter.requires_grad]
        self._modules, self._tensors = list(forward.model.modules()), list(forward.model.parameters())
        with buffers_unmoved(forward.model) as buffers, finished(images):
            self._given = {
                layer: {name: _leaf(value) for name, value in operator.items()}
                for layer, operator in self._prepared().items()
            }
            places = [value for operator in self._given.values() for value in operator.values()]
            self._places = [value for value in places if value.requires_grad]
            self._graph = CudaGraph(self._noted_pass, self._recorded_pass)
        # What a replay moves that does not count; where nothing was asked, every one counts.
        self._moved = [buffer for buffer, _ in buffers] if self._answers.checks else []
        self._before: list[Tensor] = []
        self._state = self._state_of_now()

    @property
    def holds_model(self) -> bool:
        """Whether the graph is of the model as the host has it now."""
        return self._state == self._state_of_now()

    def undo(self) -> None:
        """Put the buffers back that the last replay has moved."""
        with torch.no_grad():
            for buffer, before in zip(self._moved, self._before, strict=True):
                buffer.copy_(before)

    def _state_of_now(self) -> list[object]:
        """What a graph holds of the host: where the weights lie, which are trained, and the modules' modes."""
        modes = [(module.training, module.__dict__.get("track_power_vectors")) for module in self._modules]
        return [*((tensor.data_ptr(), tensor.requires_grad) for tensor in self._tensors), *modes]

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """The numbers of the batch, on the device; every trained parameter's ``grad`` is new.

        One more number at the end is 1, or 0 where the answers do not hold any more: then nothing of it counts, and
        `undo` is to be called.
        """
        self.images.copy_(images)
        self.labels.copy_(labels)
        for layer in self._inside:
            layer.before_pass(replayed=True)
        operators = self._prepared()
        values = [value for operator in operators.values() for value in operator.values()]
        if values:
            with torch.no_grad():
                torch._foreach_copy_([value for given in self._given.values() for value in given.values()], values)
        self._before = [buffer.clone() for buffer in self._moved]
        with torch.cuda.device_of(images):
            numbers, gradients = self._graph.replay()
        for parameter, gradient in zip(self._parameters, gradients, strict=False):
            parameter.grad = gradient  # what comes through the operators outside is added to it
        pairs = [
            (value, gradient)
            for value, gradient in zip(
                (value for value in values if value.requires_grad), gradients[len(self._parameters) :], strict=True
            )
            if gradient is not None
        ]
        if pairs:
            torch.autograd.backward(*map(list, zip(*pairs, strict=True)))
        return numbers

    def _prepared(self) -> dict[nn.Module, dict[str, Tensor]]:
        """Operators of the layers outside of the graph, from the weights of now."""
        with prepared_together(self._outside, self._outside):
            return {layer: layer.trained_operator(size) for layer, size in self._outside.items()}

    def _noted_pass(self) -> None:
        with self._answers.noted():
            self._pass()

    def _recorded_pass(self) -> tuple[Tensor, Sequence[Tensor | None]]:
        with self._answers.recorded():
            numbers, gradients = self._pass()
        return torch.cat((numbers, self._answers.hold(numbers[0])[None])), gradients

    def _pass(self) -> tuple[Tensor, Sequence[Tensor | None]]:
        for layer in self._inside:
            layer.__dict__["_recorded"] = True  # not by setattr, which drops what is kept
        try:
            with self.forward.given(self._given):
                loss, numbers = self.measure(self.forward(self.images), self.labels)
        finally:
            for layer in self._inside:
                layer.__dict__.pop("_recorded", None)
        wanted = [*self._parameters, *self._places]
        gradients = torch.autograd.grad(loss, wanted, allow_unused=True)
        return numbers, [_laid_out(gradient, like) for gradient, like in zip(gradients, wanted, strict=True)]


def _leaf(value: Tensor) -> Tensor:
    return value.detach().clone().requires_grad_(value.requires_grad)


def _laid_out(gradient: Tensor | None, like: Tensor) -> Tensor | None:
    """``gradient`` with the strides of ``like``, which a fused optimizer asks for."""
    if gradient is None or gradient.stride() == like.stride():
        return gradient
    return torch.empty_like(like, requires_grad=False).copy_(gradient)
