"""The contract that every layer keeps."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Hashable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from lipref.errors import LiprefError, whole_number
from lipref.layers.complexity import Complexity
from lipref.layers.folded import Folded
from lipref.layers.kept import same_values
from lipref.linalg.rounding import RoundingBound

Operator = dict[str, Tensor]
Size = tuple[int, int]

_PREPARING = {"prepare", "effective_kernel", "raw_kernel", "constrain", "step"}
_COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}


def derives_backwards() -> bool:
    """Whether derivatives are autograd's usual ones, and not those of torch.func or of forward mode."""
    return not torch._C._are_functorch_transforms_active() and forward_ad._current_level < 0


def in_backward() -> bool:
    """Whether a backward pass is running: what is computed in it is a forward pass once more, by checkpointing."""
    return torch._C._current_graph_task_id() != -1


class LipschitzConv2d(nn.Module):
    """A map ``(N, C_in, H, W) -> (N, C_out, H, W)`` that does not expand l2 distances.

    It has the signature of ``torch.nn.Conv2d``. A method defines its parameters and buffers in `make_parameters` (whole
    from the start, and independent of the image size), and

    * `prepare`, the parameter transformation: everything that does not depend on the batch, as a dict of tensors that
      includes the bias;
    * `transform`, the input transformation: that operator applied to a batch, reading nothing but ``x``, the operator
      and plain attributes;
    * `lipschitz_bound`, a rigorous upper bound in evaluation.

    In evaluation the operator is prepared in float64, rounded once to the dtype of the parameters, kept, and used again
    for as long as size, dtype, device and the values of all parameters and buffers stay what they were; it is a
    constant there, without gradients to the parameters. ``track_power_vectors = False`` freezes the power-iteration
    vectors that some methods move in training. A forward pass repeated by activation checkpointing has the operator of
    the layer's last forward pass, and moves none; so a backward pass has to come before the next forward pass.

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
    capturable: ClassVar[bool] = False  # a CUDA graph may hold `prepare` in training: it waits for no device, but
    asks: ClassVar[bool] = False  # where it does so by `lipref.linalg.asking`

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
        method = type(self).__name__
        if isinstance(kernel_size, tuple):
            if len(set(kernel_size)) != 1:
                raise LiprefError(f"{method}: kernel_size={kernel_size} is not square; give one odd number")
            kernel_size = kernel_size[0]
        in_channels = whole_number(f"{method}: in_channels", in_channels)
        out_channels = whole_number(f"{method}: out_channels", out_channels)
        kernel_size = whole_number(f"{method}: kernel_size", kernel_size)
        if kernel_size % 2 == 0:
            raise LiprefError(f"{method}: kernel_size={kernel_size} is even; use an odd one such as {kernel_size + 1}")
        for label, value in (("stride", stride), ("dilation", dilation), ("groups", groups)):
            if value not in (1, (1, 1)):
                raise LiprefError(f"{method}: {label}={value} is not supported; only {label}=1 is")
        if padding not in ("same", kernel_size // 2, (kernel_size // 2,) * 2):
            raise LiprefError(f"{method}: padding={padding!r} would change the image size; use 'same'")
        padding_mode = self.default_padding if padding_mode is None else padding_mode
        if padding_mode not in self.padding_modes:
            known = ", ".join(self.padding_modes)
            raise LiprefError(
                f"{method}: padding_mode={padding_mode!r} is not 1-Lipschitz or not defined here; known: {known}"
            )
        if self.square_only and in_channels != out_channels:
            raise LiprefError(
                f"{method} is a residual layer: in_channels={in_channels} and out_channels={out_channels} "
                "must be equal; pad or truncate the channels around it"
            )
        if dtype not in (None, torch.float32, torch.float64):
            raise LiprefError(f"{method}: dtype={dtype} is not supported; use torch.float32 or torch.float64")
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel_size
        self.padding_mode = padding_mode
        self.track_power_vectors = True
        self._factory = {"device": device, "dtype": dtype}
        self._kept: tuple[Size, Operator, dict[str, Tensor]] | None = None
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

    def rounding(self, operator: Operator, size: Size, unit: float) -> RoundingBound:
        """How far `transform`, computed with unit roundoff ``unit``, is from the same in real numbers.

        A rigorous bound, on images of ``size``, under the assumption that every inner product is summed in some order,
        with or without fused multiply-adds.
        """
        raise NotImplementedError(f"{type(self).__name__} brings no bound of its rounding")

    def likeness(self, size: Size | None = None) -> Hashable | None:
        """What layers of this method have to share for `prepare_alike`; None: every layer is prepared by itself.

        ``size`` of the images, where it is known.
        """
        return None

    def _likeness_on_cuda(self, method: type) -> Hashable | None:
        """`likeness` of a ``method`` that on a CPU is as quick layer by layer; a subclass may prepare otherwise."""
        if not self.weight.is_cuda or type(self) is not method:
            return None
        return *self.weight.shape, self.weight.dtype, self.weight.device

    @classmethod
    def prepare_alike(cls, layers: Sequence[LipschitzConv2d], size: Size | None = None) -> list[Operator]:
        """`prepare` in training of layers of the same `likeness` in one batched call."""
        raise NotImplementedError(f"{cls.__name__} prepares its layers one by one")

    @staticmethod
    def complexity() -> Complexity:
        """This method's row of the paper's Table 1."""
        raise NotImplementedError

    def initialise_end(self) -> None:
        """Initialise as a network's first layer or head, where the method treats those differently."""

    # ---- what all methods share ----

    def forward(self, x: Tensor) -> Tensor:
        self._check_input(x)
        size = (x.shape[-2], x.shape[-1])
        return self.transform(x, self.trained_operator(size) if self.training else self.operator(size))

    def trained_operator(self, size: Size) -> Operator:
        """The operator of a training pass: `prepare`, unless `lipref.layers.together` has prepared it before."""
        prepared = self.__dict__.get("_prepared")
        return self.prepare(size) if prepared is None else prepared

    def _start_of_pass(self, *vectors: Tensor) -> tuple[Tensor, ...]:
        """Where power iteration starts in training: at ``vectors``, and in a recomputation where the pass started."""
        if not in_backward() and derives_backwards():  # no tensor of torch.func, which cannot be copied later
            self.__dict__["_started"] = tuple(vector.clone() for vector in vectors)
        return self.__dict__.get("_started", vectors)

    def before_pass(self, replayed: bool = False) -> None:
        """What the host decides before a training pass; a CUDA graph that holds `prepare` cannot.

        Called by `prepare` itself, unless that is being recorded, and before each replay with ``replayed``.
        """

    @classmethod
    def is_capturable(cls) -> bool:
        """Whether ``capturable`` was said of the code that prepares: a subclass with other code has to say it again."""
        for each in cls.__mro__:
            if "capturable" in vars(each):
                return each.capturable
            if _PREPARING & vars(each).keys():
                return False
        return False

    def with_bias(self, operator: Operator) -> Operator:
        """``operator`` and the bias, where the layer has one."""
        return operator if self.bias is None else operator | {"bias": self.bias}

    def operator(self, size: Size) -> Operator:
        """The operator for evaluation: prepared in float64 and rounded once.

        It is kept until anything that it was made from changes.
        """
        kept = self._kept  # read once: another thread may replace it
        known = kept is not None and kept[0] == size
        if known and "_checked" in self.__dict__:
            return kept[1]
        state = self._state()
        if known and same_values([(state, kept[2])]):
            return kept[1]
        # Outside inference mode, so that the kept tensors can later serve a forward pass with gradients to the input.
        with torch.inference_mode(False), torch.no_grad():
            made_from = {name: value.detach().clone() for name, value in state.items()}
            first = next(iter(made_from.values()))
            operator = {
                name: value.to(device=first.device, dtype=_COMPLEX[first.dtype] if value.is_complex() else first.dtype)
                for name, value in self.float64_twin().prepare(size).items()
            }
            if first.is_cuda and first.dtype == torch.float32 and type(self).__module__.startswith("lipref."):
                operator = {name: in_quick_layout(value) for name, value in operator.items()}
        self._kept = (size, operator, made_from)
        return operator

    def _state(self) -> dict[str, Tensor]:
        return dict(self.named_parameters()) | dict(self.named_buffers())

    def float64_twin(self) -> LipschitzConv2d:
        """A detached copy in evaluation, in float64: the certified function.

        Its parameters and buffers are float64 copies of this layer's.
        """
        twin = object.__new__(type(self))
        twin.__dict__ = dict(self.__dict__)
        twin._kept, twin.training = None, False
        twin._parameters = {name: _double(value) for name, value in self._parameters.items()}
        twin._buffers = {name: _double(value) for name, value in self._buffers.items()}
        twin._modules = {name: copy.deepcopy(module).double().eval() for name, module in self._modules.items()}
        return twin

    def fold(self, size: Size) -> nn.Module:
        """The evaluated function on images of ``size`` as a module without parametrisation."""
        return Folded(self, size).eval()

    def __setattr__(self, name: str, value: object) -> None:
        # A new setting, or a parameter that comes or goes, is another function.
        if name not in ("_kept", "training"):
            self.__dict__["_kept"] = None
        super().__setattr__(name, value)

    def train(self, mode: bool = True) -> LipschitzConv2d:
        self._kept = None
        return super().train(mode)

    def _check_input(self, x: Tensor) -> None:
        if x.dim() != 4 or x.shape[1] != self.in_channels or 0 in x.shape[2:]:
            raise LiprefError(
                f"{type(self).__name__}: input of shape {tuple(x.shape)}; "
                f"expected (N, {self.in_channels}, H, W) with H, W >= 1"
            )
        dtype = next(self.parameters()).dtype
        if x.dtype != dtype:
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


def in_quick_layout(value: Tensor) -> Tensor:
    """Kernels with the channels innermost: on a GPU convolutions then need no copies and choose quicker ways."""
    if value.dim() != 4 or value.is_complex() or value.shape[-1] == 1:
        return value
    return value.contiguous(memory_format=torch.channels_last)


def _double(value: Tensor | None) -> Tensor | None:
    if value is None:
        return None
    value = value.detach()
    if not value.is_floating_point():
        return value.clone()
    if value.device.type == "mps":  # no float64 there
        value = value.cpu()
    return value.to(torch.float64, copy=True)
