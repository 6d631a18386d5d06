"""The forward pass of a training step: its memory layout, precision and compilation.

Everything here is undone around each pass: the network that a callback evaluates, that is certified and that is saved
has no trace of it.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn

from lipref.errors import LiprefError
from lipref.layers.base import LipschitzConv2d, Size, given_operators
from lipref.layers.batched import prepare_together
from lipref.layers.folding import input_sizes
from lipref.training.speed import Speed

BACKEND = "inductor"  # of torch.compile


class Forward:
    """Images to logits, as ``speed`` asks for.

    On a GPU, and with an option that changes the pass, the operators of all layers are prepared before it: those of
    equal shape together, and outside of what is compiled.

    Args:
        model: In training mode when it is called. With ``channels_last`` its kernels are laid out anew until `close`.
        speed: The options.
        batch_size: Images of a whole batch; None where all are of one size. Batches of other sizes are not compiled, so
            that a last, smaller one asks for no second compilation.

    Attributes:
        prepares_ahead: Whether operators are prepared before the pass.
        compile_seconds: What compilation took.
        notices: A line for each option that could not be had.

    Raises:
        LiprefError: an option that the device or the weights' dtype do not allow.
    """

    def __init__(self, model: nn.Module, speed: Speed, batch_size: int | None) -> None:
        self.model, self.speed, self.batch_size = model, speed, batch_size
        self.compile_seconds = 0.0
        self.notices: list[str] = []
        dtypes = {parameter.dtype for parameter in model.parameters()}
        if speed.precision == "bf16" and dtypes != {torch.float32}:
            raise LiprefError(f"precision='bf16' with weights of {', '.join(map(str, dtypes))}: give float32 weights")
        for parameter in model.parameters():
            speed.check_device(parameter.device.type)
        own = [type(module).__name__ for module in list(model.modules())[1:]
               if not type(module).__module__.startswith(("lipref.", "torch."))]  # fmt: skip
        self._layout = torch.channels_last if speed.channels_last and not own else torch.contiguous_format
        if speed.channels_last:
            if own:  # `Tensor.view`, for one
                self.notices.append(f"not with channels last: {own[0]} may count on the usual layout")
            model.to(memory_format=self._layout)
        ahead = speed.compile or speed.cuda_graphs or self._layout is torch.channels_last
        self.prepares_ahead = ahead or next(model.parameters()).is_cuda
        self._sizes: dict[torch.Size, dict[LipschitzConv2d, Size]] = {}
        self._to_compile = speed.compile
        self._compiled: Callable[[Tensor], Tensor] | None = None
        self._shape = torch.Size()

    def sizes(self, images: Tensor) -> dict[LipschitzConv2d, Size]:
        """The layers whose operators are prepared before the pass, with the (H, W) of what each gets."""
        if not self.prepares_ahead:
            return {}
        shape = images.shape[1:]
        if shape not in self._sizes:
            self._sizes[shape] = image_sizes(self.model, images)
        return {layer: size for layer, size in self._sizes[shape].items() if layer.training}

    def begin(self, images: Tensor) -> None:
        """What the host decides before a pass with `operators`, also where a graph holds all the rest."""
        for layer in self.sizes(images):
            layer.begin_pass()

    def operators(self, images: Tensor) -> AbstractContextManager[None]:
        """Context of a pass and its backward pass, with the operators that are prepared before."""
        operators = prepare_together(self.sizes(images))
        if self._layout is torch.channels_last:  # a convolution goes by its kernel's layout too
            for operator in operators.values():
                for name, value in operator.items():
                    if value.dim() == 4 and not value.is_complex():
                        operator[name] = value.contiguous(memory_format=self._layout)
        return given_operators(operators)

    def precision(self) -> AbstractContextManager:
        """Context in which the model computes in the precision of training, for whoever looks into it."""
        device = next(self.model.parameters()).device.type
        return torch.autocast(device, torch.bfloat16, enabled=self.speed.precision == "bf16")

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (N, K) of ``images`` (N, C, H, W), in the images' dtype, with gradients to the parameters."""
        compiled = self._compiled is not None and images.shape == self._shape
        with self.precision():
            logits = (self._compiled if compiled else self.model)(images.contiguous(memory_format=self._layout))
        return logits.to(images.dtype)

    def close(self) -> None:
        """Give the model's kernels their usual layout back."""
        if self._layout is not torch.contiguous_format:
            self.model.to(memory_format=torch.contiguous_format)

    def ready(self, images: Tensor, finish: Callable[[Tensor], Tensor]) -> None:
        """Compile before the first whole batch; nothing else changes, neither weights nor buffers nor gradients.

        What cannot be compiled stays as it is, with a line among ``notices``.

        Args:
            images: The batch.
            finish: The loss of its logits, for the backward pass.
        """
        if not self._to_compile or self.batch_size not in (None, len(images)):
            return
        started = time.perf_counter()
        try:
            with state_unmoved(self.model), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.compiler.reset()  # what earlier runs of this process left counts against a limit
                self._compiled, self._shape = torch.compile(self.model, dynamic=False, backend=BACKEND), images.shape
                parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
                with self.operators(images):
                    torch.autograd.grad(finish(self(images)), parameters, allow_unused=True)
            self._to_compile = False
        except torch.linalg.LinAlgError:
            self._compiled = None  # how a factorisation reports a NaN: the step itself will tell of it
        except Exception as error:
            self._compiled, self._to_compile = None, False
            self.prepares_ahead = images.is_cuda
            self.notices.append(f"not compiled: {reason(error)}")
        finally:
            self.compile_seconds += time.perf_counter() - started


def image_sizes(model: nn.Module, images: Tensor) -> dict[LipschitzConv2d, Size]:
    """The layers that are called once in a pass through ``model``, with the (H, W) of what they get; by such a pass."""
    layers = [module for module in model.modules() if isinstance(module, LipschitzConv2d)]
    with state_unmoved(model), torch.random.fork_rng([images.device] if images.is_cuda else []):
        sizes = input_sizes(model, layers, images)
    return {layer: found[0] for layer, found in sizes.items() if len(found) == 1}


@contextmanager
def state_unmoved(model: nn.Module) -> Iterator[None]:
    """Context that puts back what passes change: buffers, and what else is in the state dict but the parameters."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    parameters = dict(model.named_parameters())
    state = {name: value.clone() for name, value in model.state_dict().items() if name not in parameters}
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        model.load_state_dict(state, strict=False)


def reason(error: Exception) -> str:
    """Why something failed, in one short line."""
    error = getattr(error, "inner_exception", None) or error  # what PyTorch's compiler wraps
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return (text if isinstance(error, LiprefError) else f"{type(error).__name__}: {text}")[:200]
