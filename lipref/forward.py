"""The pass through the network in a training step: as it is, in another memory layout, in bfloat16, compiled.

Everything here is undone around each pass: the network that a callback evaluates, that is certified and that is saved
has no trace of it. Operators are prepared by the layers' own code, in float32, whatever the options.
"""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from lipref.errors import LiprefError
from lipref.layers import LipschitzConv2d
from lipref.layers.base import in_quick_layout
from lipref.layers.together import prepared_together
from lipref.speed import Speed

BACKEND = "inductor"  # of torch.compile


class Forward:
    """Images to logits, as ``speed`` asks for.

    Args:
        model: In training mode when it is called. With ``channels_last`` its kernels are laid out anew until `close`.
        speed: The options.
        batch_size: Images of a whole batch; None where all are of one size. Batches of other sizes are not compiled, so
            that a last, smaller one asks for no second compilation.

    Attributes:
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
        self._layers = [module for module in model.modules() if type(module).forward is LipschitzConv2d.forward]
        self._own_code = _own_code(model)
        self._passes = self._own_passes()
        self._sizes_of: dict[torch.Size, dict[LipschitzConv2d, tuple[int, int]]] = {}
        self._given: Mapping[LipschitzConv2d, Mapping[str, Tensor]] = {}
        self._given_layouts: list[tuple[Tensor, tuple[int, ...]]] = []
        if speed.channels_last:
            theirs = {weight for module in self._own_code for weight in module.parameters()}
            ours = [weight for weight in model.parameters() if weight.dim() == 4 and weight not in theirs]
            self._given_layouts = [(weight, weight.stride()) for weight in ours]
            for weight, _ in self._given_layouts:
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        self._wanted = speed.compile
        self._compiled: Callable[[Tensor], Tensor] | None = None
        self._shape = torch.Size()
        self._calls: dict[LipschitzConv2d, tuple[int, int]] = {}  # in their order, with the (H, W) of their input
        self._use: dict[nn.Module, Callable] = {}

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (N, K) of ``images`` (N, C, H, W), in the images' dtype, with gradients to the parameters."""
        if self._compiled is not None and images.shape == self._shape:
            return self._with_operators(images)
        layers = [layer for layer in self._layers if layer not in self._given]
        with self.arithmetic(), prepared_together(layers, self._known_sizes(images)):
            return self.model(images).to(images.dtype)

    @contextmanager
    def given(self, operators: Mapping[LipschitzConv2d, Mapping[str, Tensor]]) -> Iterator[None]:
        """Context in which these layers do not prepare their operators, but use those that are given."""
        self._given = operators
        for layer, operator in operators.items():
            layer.__dict__["_prepared"] = operator
        try:
            yield
        finally:
            self._given = {}
            for layer in operators:
                layer.__dict__.pop("_prepared", None)

    def arithmetic(self):
        """Context in which the model computes in the precision of training, for whoever looks into it."""
        return _instead(self._passes)

    def close(self) -> None:
        """Give the model's kernels their own layouts back."""
        for weight, strides in self._given_layouts:
            weight.data = torch.empty_strided(
                weight.shape, strides, dtype=weight.dtype, device=weight.device
            ).copy_(weight.data)  # fmt: skip
        self._given_layouts = []

    def ready(self, images: Tensor, finish: Callable[[Tensor], Tensor]) -> None:
        """Compile before the first whole batch; nothing else changes, neither weights nor buffers nor gradients.

        What cannot be compiled stays as it is, with a line among ``notices``.

        Args:
            images: The batch.
            finish: The loss of its logits, for the backward pass.
        """
        if not self._wanted or self.batch_size not in (None, len(images)):
            return
        started = time.perf_counter()
        try:
            with buffers_unmoved(self.model), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._compile(images, finish)
            self._wanted = False
        except torch.linalg.LinAlgError:
            self._compiled = None  # how a factorisation reports a NaN: the step itself will tell of it
        except Exception as error:
            self._compiled, self._wanted = None, False
            self.notices.append(f"not compiled: {reason(error)}")
        finally:
            self.compile_seconds += time.perf_counter() - started

    def _compile(self, images: Tensor, finish: Callable[[Tensor], Tensor]) -> None:
        self._calls = self.sizes(images)
        for layer, size in self._calls.items():
            if any(value.is_complex() for value in layer.prepare(size).values()):
                raise LiprefError(f"{type(layer).__name__} works with complex numbers, for which no code is generated")
        self._use = self._passes | {
            layer: functools.partial(_use, layer, _speed_for(layer, self.speed, self._own_code))
            for layer in self._calls
        }
        torch.compiler.reset()  # what earlier runs of this process left counts against a limit
        self._compiled = torch.compile(self.model, dynamic=False, backend=BACKEND)
        self._shape = images.shape
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        torch.autograd.grad(finish(self._with_operators(images)), parameters, allow_unused=True)

    def _with_operators(self, images: Tensor) -> Tensor:
        """The compiled pass. What moves vectors, waits for the device or factorises stays outside: the preparation."""
        own = {layer: size for layer, size in self._calls.items() if layer not in self._given}
        try:
            with prepared_together(own, own), _instead(self._use):
                for layer, size in own.items():
                    layer.__dict__["_prepared"] = layer.trained_operator(size)
                return self._compiled(images).to(images.dtype)
        finally:
            for layer in own:
                layer.__dict__.pop("_prepared", None)

    def _known_sizes(self, images: Tensor) -> dict[LipschitzConv2d, tuple[int, int]] | None:
        """`sizes`, found once for each shape of images; None on the CPU, where no preparation asks for them."""
        if not images.is_cuda:
            return None
        shape = images.shape[1:]
        if shape not in self._sizes_of:
            try:
                self._sizes_of[shape] = self.sizes(images)
            except Exception:  # such as of a layer that is used twice: layers are prepared one by one then
                self._sizes_of[shape] = {}
        return self._sizes_of[shape]

    def sizes(self, images: Tensor) -> dict[LipschitzConv2d, tuple[int, int]]:
        """The layers in the order of the pass, with the (H, W) of what each gets.

        None of them computes anything; what other modules do to buffers and to the random state is undone.

        Raises:
            LiprefError: a layer that is used twice.
        """
        found: dict[LipschitzConv2d, tuple[int, int]] = {}

        def look(layer: LipschitzConv2d, x: Tensor) -> Tensor:
            if layer in found:
                raise LiprefError(f"{type(layer).__name__} is used twice in one pass")
            found[layer] = (x.shape[-2], x.shape[-1])
            return x.new_zeros(x.shape[0], layer.out_channels, *x.shape[-2:])

        devices = [images.device] if images.is_cuda else []
        stand_ins = {layer: functools.partial(look, layer) for layer in self._layers}
        with buffers_unmoved(self.model), torch.random.fork_rng(devices), torch.no_grad(), _instead(stand_ins):
            self.model(images)
        return found

    def _own_passes(self) -> dict[nn.Module, Callable]:
        """What stands in for the forward passes of modules: of the layers, and in bfloat16 of others with weights."""
        if not self.speed.channels_last and self.speed.precision == "float32":
            return {}
        passes = {
            layer: functools.partial(_pass, layer, _speed_for(layer, self.speed, self._own_code))
            for layer in self._layers
        }
        if self.speed.precision == "bf16":
            inside = {part for layer in self._layers for part in layer.modules()}
            for module in self.model.modules():
                if module not in inside and any(
                    value is not None for value in (*module._parameters.values(), *module._buffers.values())
                ):
                    passes[module] = functools.partial(_in_float32, module.forward)
        if self.speed.channels_last:
            for module in self._own_code - passes.keys():
                passes[module] = functools.partial(_row_by_row, module.forward)
        return passes


def _pass(layer: LipschitzConv2d, speed: Speed, x: Tensor) -> Tensor:
    return _transform(layer, speed, x, layer.trained_operator((x.shape[-2], x.shape[-1])))


def _use(layer: LipschitzConv2d, speed: Speed, x: Tensor) -> Tensor:
    return _transform(layer, speed, x, layer.__dict__["_prepared"])


def _transform(layer: LipschitzConv2d, speed: Speed, x: Tensor, operator: Mapping[str, Tensor]) -> Tensor:
    """The input transformation, in the layout and precision of ``speed``."""
    # Complex numbers have no such precision, and transforms go by the rows; a backward pass that recomputes is outside
    # of autocast.
    if any(value.is_complex() for value in operator.values()) or getattr(layer, "recompute", False):
        return layer.transform(x.float() if x.dtype == torch.bfloat16 else x, operator)
    if not speed.channels_last:
        x = x.contiguous()
    else:
        x = x.contiguous(memory_format=torch.channels_last)
        operator = {name: in_quick_layout(value) for name, value in operator.items()}
    if speed.precision == "float32":
        return layer.transform(x, operator)
    with torch.autocast(x.device.type, torch.bfloat16):
        return layer.transform(x.bfloat16(), operator).bfloat16()


def _in_float32(forward: Callable, *given: object) -> object:
    given = (x.float() if isinstance(x, Tensor) and x.dtype == torch.bfloat16 else x for x in given)
    return _row_by_row(forward, *given)


def _row_by_row(forward: Callable, *given: object) -> object:
    """With images laid out as usual, on which code of one's own may count: `Tensor.view` does."""
    return forward(*(x.contiguous() if isinstance(x, Tensor) else x for x in given))


def _own_code(model: nn.Module) -> set[nn.Module]:
    """Modules of the user's own, and what is in them; the model itself does not count, its parts do."""
    found: set[nn.Module] = set()
    for module in list(model.modules())[1:]:
        if not type(module).__module__.startswith(("lipref.", "torch.")):
            found.update(module.modules())
    return found


def _speed_for(layer: LipschitzConv2d, speed: Speed, own_code: set[nn.Module]) -> Speed:
    return replace(speed, channels_last=False) if layer in own_code else speed


@contextmanager
def buffers_unmoved(model: nn.Module) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Context that puts the buffers back to what they were; gives each with its values of before."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield buffers
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)


@contextmanager
def _instead(passes: Mapping[nn.Module, Callable]) -> Iterator[None]:
    """Within it the modules' forward passes are these. Not by setattr, which would drop the operators that are kept."""
    before = {module: module.__dict__.get("forward") for module in passes}
    for module, function in passes.items():
        module.__dict__["forward"] = function
    try:
        yield
    finally:
        for module, function in before.items():
            if function is None:
                del module.__dict__["forward"]
            else:
                module.__dict__["forward"] = function


def reason(error: Exception) -> str:
    """Why something failed, in one short line."""
    error = getattr(error, "inner_exception", None) or error  # what PyTorch's compiler wraps
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return (text if isinstance(error, LiprefError) else f"{type(error).__name__}: {text}")[:200]
