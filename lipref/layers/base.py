"""The contract that every layer keeps."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lipref.errors import LiprefError, whole_number
from lipref.layers.arguments import convolution_arguments
from lipref.layers.complexity import Complexity
from lipref.layers.folded import Folded
from lipref.linalg.float_error import RoundingBound

Operator = dict[str, Tensor]
Size = tuple[int, int]

_COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}
_NOT_TRACED = (
    "evaluation looks whether the weights have changed, which cannot be compiled as one graph or exported: do that to "
    "lipref.fold(module, image_size)"
)
_NO_SETTING = ("training", "_cached", "_given", "_started")  # attributes that leave the cached operator valid


def under_torch_func() -> bool:
    """Whether a transform of torch.func is active: its tensors do not outlive it."""
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


def in_backward() -> bool:
    """Whether a backward pass is running: what is computed in it is a forward pass once more, by checkpointing."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


@contextmanager
def given_operators(operators: Mapping[LipschitzConv2d, Operator]) -> Iterator[None]:
    """Context in which these layers apply these operators, and neither prepare their own nor count a pass."""
    try:
        for layer, operator in operators.items():
            layer._given = operator
        yield
    finally:
        for layer in operators:
            layer._given = None


class LipschitzConv2d(nn.Module):
    """A map ``(N, C_in, H, W) -> (N, C_out, H, W)`` that does not expand l2 distances.

    It has the signature of ``torch.nn.Conv2d``. A method defines its parameters and buffers in `make_parameters` (whole
    from the start, and independent of the image size), and

    * `prepare`, the parameter transformation: everything that does not depend on the batch, as a dict of tensors that
      includes the bias;
    * `transform`, the input transformation: that operator applied to a batch, reading nothing but ``x``, the operator
      and plain attributes;
    * `lipschitz_bound`, a rigorous upper bound in evaluation.

    In training `prepare` asks no tensor for its value, neither forward nor backward: numbers of iterations are fixed,
    or chosen on the host in `begin_pass`. In evaluation the operator is prepared in float64, rounded once to the dtype
    of the parameters and cached for as long as size, dtype, device and the values of all parameters and buffers stay
    what they were; it is a constant there, without gradients to the parameters. Under autocast operators are prepared
    as without, and `transform` runs in the lower precision.

    ``track_power_vectors = False`` freezes the power-iteration vectors that some methods update in training. A forward
    pass repeated by activation checkpointing starts from the vectors of the layer's last forward pass and updates none;
    so a backward pass has to come before the next forward pass.

    Args:
        in_channels, out_channels, kernel_size: at least 1; the kernel's is odd.
        stride, padding, dilation, groups: only ``1``; ``"same"`` or ``kernel_size // 2``; ``1``; ``1``.
        bias: a learned bias per output channel.
        padding_mode: one of the method's `padding_modes`; None is the paper's choice, `default_padding`.
        device, dtype: of the parameters, float32 or float64.

    Raises:
        LiprefError: for anything else, naming the value.

    Example:
        >>> import torch
        >>> from lipref import LipschitzConv2d
        >>> class Mixed(LipschitzConv2d):
        ...     def make_parameters(self): self.weight = torch.nn.Parameter(torch.randn(8, 3, 1, 1))
        ...     def prepare(self, size): return {"weight": self.weight / self.weight.norm()}
        ...     def transform(self, x, operator): return torch.conv2d(x, operator["weight"])
        ...     def lipschitz_bound(self, size): return 1 + 1e-12  # Frobenius' norm is the larger one; rounding
        >>> Mixed(3, 8, 1, bias=False)(torch.zeros(2, 3, 4, 4)).shape
        torch.Size([2, 8, 4, 4])
    """

    proved: ClassVar[bool] = True  # at most 1-Lipschitz in evaluation whatever the weights
    padding_modes: ClassVar[tuple[str, ...]] = ("circular", "zeros")
    default_padding: ClassVar[str] = "circular"
    square_only: ClassVar[bool] = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int = 1,
        padding: int | str = "same",
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        in_channels, out_channels, kernel_size, padding_mode = convolution_arguments(
            type(self), in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode
        )
        if dtype not in (None, *_COMPLEX):
            raise LiprefError(
                f"{type(self).__name__}: dtype={dtype} is not supported; use torch.float32 or torch.float64"
            )
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel_size
        self.padding_mode = padding_mode
        self.track_power_vectors = True
        self._factory = {"device": device, "dtype": dtype}
        self._cached: tuple[Size, Operator, dict[str, Tensor]] | None = None  # and the state it was prepared from
        self._given: Operator | None = None
        self._started: tuple[Tensor, ...] = ()
        if bias:
            self.bias = nn.Parameter(torch.empty(out_channels, **self._factory))
        else:
            self.register_parameter("bias", None)
        self.make_parameters()

    # ---- what a method defines ----

    def make_parameters(self) -> None:
        """Register and initialise the method's parameters and buffers, made with ``**self._factory``.

        Called at the end of construction, before a method's own options are set: parameters that depend on these are
        made in ``__init__``, after its base class's.
        """

    def prepare(self, size: Size) -> Operator:
        """Parameter transformation: the operator for images of ``size`` ``(H, W)``.

        Differentiable, in the dtype of the parameters.
        """
        raise NotImplementedError

    def transform(self, x: Tensor, operator: Operator) -> Tensor:
        """Input transformation: ``operator`` applied to ``x`` ``(N, C_in, H, W)``."""
        raise NotImplementedError

    def lipschitz_bound(self, size: Size) -> float:
        """Rigorous upper bound of the Lipschitz constant on images of ``size``.

        It holds for the real-arithmetic map of the stored weights.
        """
        raise NotImplementedError(f"{type(self).__name__} brings no bound")

    def rounding_error(self, operator: Operator, size: Size, unit: float) -> RoundingBound:
        """How far `transform`, computed with unit roundoff ``unit``, is from the same in real numbers.

        A rigorous bound, on images of ``size``, under the assumption that every inner product is summed in some order,
        with or without fused multiply-adds.
        """
        raise NotImplementedError(f"{type(self).__name__} brings no bound of its rounding")

    @staticmethod
    def complexity() -> Complexity:
        """This method's row of the paper's Table 1."""
        raise NotImplementedError

    def init_head(self) -> None:
        """Initialise as a network's first layer or head, where the method treats those differently."""

    def begin_pass(self) -> None:
        """What the host decides and counts once for each training pass, before `prepare`."""

    # ---- what all methods share ----

    def forward(self, x: Tensor) -> Tensor:
        self._check_input(x)
        operator = self._given
        if operator is None:
            size = (x.shape[-2], x.shape[-1])
            with torch.autocast(x.device.type, enabled=False) if _under_autocast(x) else nullcontext():
                operator = self.trained_operator(size) if self.training else self.operator(size)
        return self.transform(x, operator)

    def trained_operator(self, size: Size) -> Operator:
        """The operator of a training pass, which is counted unless it is a recomputation."""
        if not in_backward():
            self.begin_pass()
        return self.prepare(size)

    def with_bias(self, operator: Operator) -> Operator:
        """``operator`` and the bias, where the layer has one."""
        return operator if self.bias is None else operator | {"bias": self.bias}

    @torch.compiler.disable(reason=_NOT_TRACED)
    def operator(self, size: Size) -> Operator:
        """The operator for evaluation, cached: prepared in float64 and rounded once.

        Raises:
            LiprefError: in code that is being exported.
        """
        if torch.compiler.is_compiling():
            raise LiprefError(f"{type(self).__name__}: {_NOT_TRACED}")
        state = dict(self.named_parameters()) | dict(self.named_buffers())
        cached = self._cached  # read once: another thread may replace it
        if cached is not None and cached[0] == size and not under_torch_func() and _equal(state, cached[2]):
            return cached[1]
        # Outside inference mode, so that the cached tensors can later serve a forward pass with gradients to the input.
        with torch.inference_mode(False), torch.no_grad():
            prepared_from = {name: value.detach().clone() for name, value in state.items()}
            first = next(iter(prepared_from.values()))
            operator = {
                name: value.to(device=first.device, dtype=_COMPLEX[first.dtype] if value.is_complex() else first.dtype)
                for name, value in self.float64_twin().prepare(size).items()
            }
        if not under_torch_func():
            self._cached = (size, operator, prepared_from)
        return operator

    def float64_twin(self) -> LipschitzConv2d:
        """A detached copy in evaluation, in float64: the certified function.

        Its parameters and buffers are float64 copies of this layer's.
        """
        twin = object.__new__(type(self))
        twin.__dict__ = {name: _double(v) if isinstance(v, Tensor) else v for name, v in self.__dict__.items()}
        twin._cached, twin._given, twin.training = None, None, False
        twin._parameters = {name: _double(value) for name, value in self._parameters.items()}
        twin._buffers = {name: _double(value) for name, value in self._buffers.items()}
        twin._modules = {
            name: copy.deepcopy(module).double().eval().requires_grad_(False) for name, module in self._modules.items()
        }
        return twin

    def fold(self, size: Size) -> nn.Module:
        """The evaluated function on images of ``size`` as a module without parametrisation."""
        return Folded(self, size).eval()

    def __setattr__(self, name: str, value: object) -> None:
        # A new setting, or a parameter that comes or goes, is another function.
        if name not in _NO_SETTING:
            self.__dict__["_cached"] = None
        super().__setattr__(name, value)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        # A number used to be stored without an axis, which sharded training (FSDP2) refuses of parameters.
        for name, parameter in self._parameters.items():
            stored = state_dict.get(prefix + name)
            if stored is not None and parameter is not None and stored.dim() == 0 and parameter.shape == (1,):
                state_dict[prefix + name] = stored[None]
        super()._load_from_state_dict(state_dict, prefix, *args)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_cached": None, "_given": None, "_started": ()}  # a copy prepares its own

    def train(self, mode: bool = True) -> LipschitzConv2d:
        self._cached = None
        return super().train(mode)

    def _check_input(self, x: Tensor) -> None:
        if x.dim() != 4 or x.shape[1] != self.in_channels or 0 in x.shape[2:]:
            raise LiprefError(
                f"{type(self).__name__}: input of shape {tuple(x.shape)}; "
                f"expected (N, {self.in_channels}, H, W) with H, W >= 1"
            )
        dtype = next(self.parameters()).dtype
        if dtype not in _COMPLEX:
            raise LiprefError(
                f"{type(self).__name__}: weights of {dtype}: operators are prepared in float32 or float64; for lower "
                "precision put torch.autocast around the network"
            )
        if x.dtype != dtype and not _under_autocast(x):
            raise LiprefError(
                f"{type(self).__name__}: input of {x.dtype} meets weights of {dtype}; convert one with .to()"
            )

    def _store_counts(self, **counts: int | None) -> None:
        """Set numbers of steps or terms, at least 1, as attributes; None stands for a method's own choice."""
        for name, count in counts.items():
            setattr(self, name, None if count is None else whole_number(f"{type(self).__name__}: {name}", count))

    def _uniform_bias(self, fan_in: int) -> None:
        """PyTorch's default for biases: uniform within 1 / sqrt(fan_in)."""
        if self.bias is not None:
            nn.init.uniform_(self.bias, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))

    def extra_repr(self) -> str:
        text = (
            f"{self.in_channels}, {self.out_channels}, "
            f"kernel_size={self.kernel_size}, padding_mode={self.padding_mode!r}"
        )
        if self.bias is None:
            text += ", bias=False"
        own = {  # device and dtype are no attributes
            name: getattr(self, name)
            for cls in type(self).__mro__
            for name, parameter in inspect.signature(cls.__init__).parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY and hasattr(self, name)
        }
        return text + "".join(
            f", {name}={value!r}" for name, value in own.items() if value is not None and value is not False
        )


def _under_autocast(x: Tensor) -> bool:
    kind = x.device.type
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)


def _equal(state: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether both have the same tensors, in name, dtype, device, shape and every value; NaN differs from itself."""
    return state.keys() == other.keys() and all(
        (a.dtype, a.device) == (other[name].dtype, other[name].device) and torch.equal(a, other[name])
        for name, a in state.items()
    )


def _double(value: Tensor | None) -> Tensor | None:
    if value is None:
        return None
    value = value.detach()
    if not value.is_floating_point():
        return value.clone()
    if value.device.type == "mps":  # no float64 there
        value = value.cpu()
    return value.to(torch.float64, copy=True)
