"""A whole training pass as one CUDA graph: loss, its numbers and all gradients, replayed for every batch of a shape.

On a GPU a pass through a small network is bound by the launches of its thousands of kernels. A graph launches them in
one call.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor

from lipref.errors import LiprefError
from lipref.layers.base import LipschitzConv2d
from lipref.training.forward import Forward, state_unmoved

T = TypeVar("T")
WARM_UP = 3  # passes before a capture: libraries make their plans and workspaces in the first ones


class CudaGraph(Generic[T]):
    """What ``body`` computes, recorded once; `replay` computes it again into the same tensors."""

    def __init__(self, body: Callable[[], T]) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                body()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        failed = None
        try:
            with torch.cuda.graph(self._graph):
                try:
                    self._output = body()
                except Exception as error:
                    failed = error  # the end of a capture that fails has an error of its own, which says less
                    raise
        except Exception as error:
            with contextlib.suppress(Exception), torch.cuda.graph(torch.cuda.CUDAGraph()):
                torch.zeros(1, device="cuda")  # a capture that succeeds: a failed one may leave the random state in one
            raise failed or error from None

    def replay(self) -> T:
        """The tensors that ``body`` returned, with their values of now."""
        self._graph.replay()
        return self._output


class CapturedPass:
    """Loss, numbers and gradients of one batch; the weights are not changed.

    Args:
        forward: Of the model; compiled before, if at all.
        images, labels: A batch of the shape that is captured.
        measure: From logits and labels to the loss ``()`` and any numbers about it, ``(n,)``.

    Raises:
        LiprefError: a layer that is called twice in a pass.
        Exception: whatever an operation says that cannot be captured. Buffers are as they were before, also then.
    """

    def __init__(
        self, forward: Forward, images: Tensor, labels: Tensor,
        measure: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    ) -> None:  # fmt: skip
        self.forward, self.measure = forward, measure
        sizes = forward.sizes(images)
        for module in forward.model.modules():
            if isinstance(module, LipschitzConv2d) and module.training and module not in sizes:
                raise LiprefError(f"{type(module).__name__} is not called once in each pass")
        self.images, self.labels = images.clone(), labels.clone()
        self._parameters = [parameter for parameter in forward.model.parameters() if parameter.requires_grad]
        try:
            with state_unmoved(forward.model), torch.cuda.device_of(images):
                self._graph = CudaGraph(self._pass)
        finally:
            if images.is_cuda:
                torch.cuda.synchronize(images.device)
            for parameter in self._parameters:
                parameter.grad = None
        self._state = self._state_of_now()

    @property
    def holds_model(self) -> bool:
        """Whether the graph is of the model as the host has it now."""
        return self._state == self._state_of_now()

    def _state_of_now(self) -> list[object]:
        """What a graph holds of the host: where the weights lie, which are trained, and the modules' modes."""
        model = self.forward.model
        modes = [(module.training, getattr(module, "track_power_vectors", None)) for module in model.modules()]
        return [*((tensor.data_ptr(), tensor.requires_grad) for tensor in model.parameters()), *modes]

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """The numbers of the batch, on the device; every trained parameter's ``grad`` is new."""
        self.images.copy_(images)
        self.labels.copy_(labels)
        self.forward.begin(images)
        with torch.cuda.device_of(images):
            numbers, gradients = self._graph.replay()
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        return numbers

    def _pass(self) -> tuple[Tensor, list[Tensor | None]]:
        for parameter in self._parameters:
            parameter.grad = None  # so that the backward pass writes them anew, in the layout of the parameters
        with self.forward.operators(self.images):
            loss, numbers = self.measure(self.forward(self.images), self.labels)
            loss.backward()
        return numbers, [parameter.grad for parameter in self._parameters]
