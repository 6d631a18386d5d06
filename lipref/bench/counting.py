"""What a layer costs in a training forward pass: multiply-accumulates and stored numbers, counted where it runs.

Conventions, for torch's `FlopCounterMode`. A multiply-accumulate (MAC) of real numbers is two operations; one of
complex numbers is four of real ones, eight operations. Products and convolutions count as torch's own formulas do, taps
on padded zeros included. A complex Fourier transform of n points is 5 n log2 n operations, one between real numbers and
half a spectrum half of that. For n x n matrices: Cholesky n^3 / 3, a triangular solve n^2 per right-hand side, two of
them after a Cholesky factorisation, the inverse after one 2 n^3 / 3, eigenvalues of Hermitian matrices 4 n^3 / 3, with
eigenvectors 9 n^3 (Golub and Van Loan, "Matrix Computations"), LU 2 n^3 / 3. Elementwise operations, sums, norms,
copies and views count nothing.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
)
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from lipref.errors import LiprefError
from lipref.layers import LipschitzConv2d

aten = torch.ops.aten
FLOPS_PER_MAC = 2
COMPLEX = 4  # real products in a complex one

# Neither products nor transforms: views, copies, new tensors, sums and norms. Elementwise ones have torch's own tag.
LIGHT = frozenset(
    {
        "_conj", "_linalg_check_errors", "_local_scalar_dense", "_reshape_alias", "_to_copy", "_unsafe_view", "alias",
        "all", "amax", "amin", "any", "arange", "as_strided", "bincount", "cat", "clone", "constant_pad_nd", "copy_",
        "detach", "diagonal", "empty", "empty_like", "expand", "eye", "fill_", "flip", "full", "index",
        "index_copy_", "index_put_", "index_select",
        "lift_fresh", "linalg_vector_norm", "max", "mean", "min", "new_empty", "new_zeros", "nonzero", "ones",
        "ones_like", "permute", "polar", "randn", "resolve_conj", "scalar_tensor", "select", "slice", "split",
        "split_with_sizes", "squeeze", "squeeze_", "stack", "sum", "t", "transpose", "triu", "unbind", "unsqueeze",
        "view", "view_as_complex", "view_as_real", "zeros", "zeros_like",
    }
)  # fmt: skip
Formula = Callable[..., float]


def is_light(operation: Any) -> bool:
    """Whether an operator of torch (an overload) is one of those that count nothing."""
    return operation._overloadpacket.__name__ in LIGHT or torch.Tag.pointwise in operation.tags


def formulas() -> dict[Any, Formula]:
    """Operator -> operations, as `FlopCounterMode` takes them (``custom_mapping``), with the arguments themselves."""
    found = {packet: _times_complex(flop_registry[packet]) for packet in
             (aten.mm, aten.addmm, aten.bmm, aten.baddbmm, aten.convolution)}  # fmt: skip
    own = {
        aten.mv: lambda matrix, vector, **_: _products(matrix, matrix.numel()),
        aten.addmv: lambda start, matrix, vector, **_: _products(matrix, matrix.numel()),
        aten.dot: lambda a, b, **_: _products(a, a.numel()),
        aten.vdot: lambda a, b, **_: _products(a, a.numel()),
        aten._fft_r2c: lambda x, dim, *_, **__: 2.5 * x.numel() * _log2(x, dim),
        aten._fft_c2r: lambda x, dim, *_, out_val, **__: 2.5 * out_val.numel() * _log2(out_val, dim),
        aten._fft_c2c: lambda x, dim, *_, **__: 5.0 * x.numel() * _log2(x, dim),
        aten.linalg_cholesky_ex: lambda a, *_, **__: _cubes(a) / 3,
        aten.linalg_solve_triangular: lambda a, b, *_, left=True, **__: a.shape[-1] * b.numel() * _factor(a),
        aten.cholesky_solve: lambda b, factor, *_, **__: 2 * factor.shape[-1] * b.numel() * _factor(b),
        aten.cholesky_inverse: lambda factor, *_, **__: 2 * _cubes(factor) / 3,
        aten._linalg_eigh: _eigenvalues,
        aten.linalg_lu_factor_ex: lambda a, *_, **__: 2 * _cubes(a) / 3,
    }
    for packet, formula in own.items():
        found[packet] = _raw(formula)
    return found


def _raw(formula: Formula) -> Formula:
    """Marked as `register_flop_formula(get_raw=True)` does: it gets tensors, for their dtype, in place of shapes."""

    def with_tensors(*args, **kwargs) -> float:
        return formula(*args, **kwargs)

    with_tensors._get_raw = True
    return with_tensors


def _times_complex(shapes_alone: Formula) -> Formula:
    """The formula of torch itself, which counts a complex product as one."""
    return _raw(lambda *args, out_val, **kwargs: _factor(out_val) * shapes_alone(*args, out_val=out_val, **kwargs))


def _factor(a: Tensor) -> int:
    return COMPLEX if a.is_complex() else 1


def _products(a: Tensor, number: int) -> int:
    return FLOPS_PER_MAC * number * _factor(a)


def _cubes(a: Tensor) -> int:
    """``n^3`` for each matrix of ``a`` ``(..., n, n)``, in real operations."""
    return a.shape[-1] * a.numel() * _factor(a)


def _log2(x: Tensor, dim: list[int]) -> float:
    return math.log2(math.prod(x.shape[axis] for axis in dim))


def _eigenvalues(a: Tensor, uplo: str = "L", compute_v: bool = True, **_) -> float:
    return (9 if compute_v else 4 / 3) * _cubes(a)


INPUT, PARAMETER, WHOLE = "input", "parameter", "whole"
SEED = 0
ASKS = (DataDependentOutputException, DynamicOutputShapeException)  # for values, of tensors that have shapes alone


@dataclass(frozen=True)
class Count:
    """One part of a layer.

    Attributes:
        macs: Multiply-accumulates of real numbers.
        stored: Real numbers that autograd keeps for the backward pass, each storage once; a complex one counts as two.
        given: Of those, the numbers of the input, or of the layer's own parameters.
        unknown: Operations that are neither counted nor known to be light.
    """

    macs: int
    stored: int
    given: int
    unknown: tuple[str, ...]


@dataclass
class _Watched:
    """What happened while a part ran; tensors are held so that no storage's address comes twice."""

    flops: float = 0.0
    kept: list[Tensor] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)


def count_layer(
    build: Callable[[], nn.Module], *, batch: int, channels: int, side: int, device: str = "cpu"
) -> dict[str, Count]:
    """Count one layer in training: its parts `PARAMETER` and `INPUT`, or `WHOLE` for a module without such parts.

    The layer's own code runs on tensors that have shapes alone (torch's fake tensors); where it asks for values, as an
    iteration to convergence does, `prepare` runs on numbers, float32, from seed 0. What is kept is attributed as the
    paper's Table 1 does: to the parameter transformation whatever autograd keeps there, and of what the input
    transformation keeps the operator; to the input transformation all the rest, the input included, whose gradient is
    asked for, as inside a network.

    Args:
        build: Makes the layer, on ``device``.
        batch, channels, side: of the input ``(batch, channels, side, side)``.
        device: ``cpu``, or ``meta`` for what the layer does on other devices.

    Raises:
        LiprefError: a module without such parts that asks for values, or that does not keep height and width.
    """
    shape, values = (batch, channels, side, side), False
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        with FakeTensorMode() as mode:
            try:
                layer = build().train()
                if not isinstance(layer, LipschitzConv2d):
                    return {WHOLE: _whole(layer, shape, device)}
                watched, operator = _prepared(layer, shape)
            except ASKS:
                values = True
        if values:
            torch.manual_seed(SEED)
            layer = build().train()
            watched, operator = _prepared(layer, shape)
        return _both(layer, shape, device, mode, watched, operator)


def _prepared(layer: LipschitzConv2d, shape: tuple[int, ...]) -> tuple[_Watched, dict[str, Tensor]]:
    with _watch() as watched:
        operator = layer.prepare(shape[-2:])
    return watched, operator


def _both(
    layer: LipschitzConv2d, shape: tuple[int, ...], device: str, mode: FakeTensorMode, prepared: _Watched,
    operator: Mapping[str, Tensor],
) -> dict[str, Count]:  # fmt: skip
    leaves = {name: _leaf(value, mode) for name, value in operator.items()}
    with mode:
        x = torch.randn(shape, device=device, requires_grad=True)
        with _watch() as transformed:
            layer.transform(x, leaves)
    # A leaf made for the input transformation stands for the operator's own storage.
    origin = {_key(leaf): operator[name] for name, leaf in leaves.items()}
    kept = [origin.get(_key(tensor), tensor) for tensor in transformed.kept]
    own = [tensor for tensor, leaf in zip(kept, transformed.kept, strict=True) if _key(leaf) in origin]
    rest = [tensor for tensor in kept if _key(tensor) not in {_key(tensor) for tensor in own}]
    return {
        PARAMETER: _summed(prepared, [*prepared.kept, *own], [*layer.parameters(), *layer.buffers()]),
        INPUT: _summed(transformed, rest, [x]),
    }


def _whole(layer: nn.Module, shape: tuple[int, ...], device: str) -> Count:
    x = torch.randn(shape, device=device, requires_grad=True)
    try:
        with _watch() as watched:
            y = layer(x)
    except ASKS:
        name = type(layer).__name__
        raise LiprefError(f"{name} asks for values of tensors: give it prepare() and transform()") from None
    if not isinstance(y, Tensor) or y.shape != x.shape:
        raise LiprefError(f"{type(layer).__name__} turns {tuple(x.shape)} into {getattr(y, 'shape', type(y))}: "
                          "a layer keeps batch, height and width")  # fmt: skip
    return _summed(watched, watched.kept, [x, *layer.parameters(), *layer.buffers()])


def _summed(watched: _Watched, kept: list[Tensor], given: list[Tensor]) -> Count:
    numbers = {_key(tensor): _numbers(tensor) for tensor in kept}
    stored_given = sum(numbers.get(key, 0) for key in {_key(tensor) for tensor in given})
    macs = round(watched.flops / FLOPS_PER_MAC)
    return Count(macs, sum(numbers.values()), stored_given, tuple(sorted(watched.unknown)))


@contextlib.contextmanager
def _watch() -> Iterator[_Watched]:
    watched = _Watched()

    def keep(tensor: Tensor) -> Tensor:
        watched.kept.append(tensor)
        return tensor

    counter = FlopCounterMode(display=False, custom_mapping=formulas())
    with saved_tensors_hooks(keep, lambda tensor: tensor), _Seen(watched.unknown), counter:
        yield watched
    watched.flops = counter.get_total_flops()


class _Seen(TorchDispatchMode):
    """Notes every operation that is neither counted nor light."""

    def __init__(self, unknown: set[str]) -> None:
        super().__init__()
        self.unknown, self.counted = unknown, formulas()

    def __torch_dispatch__(self, func: Any, types, args=(), kwargs=None):
        if func.namespace != "prim" and func._overloadpacket not in self.counted and not is_light(func):
            self.unknown.add(str(func._overloadpacket))
        return func(*args, **(kwargs or {}))


def _leaf(value: Tensor, mode: FakeTensorMode) -> Tensor:
    """The tensor as one of shapes alone, with a gradient of its own where the operator has one."""
    leaf = value.detach()
    leaf = leaf if isinstance(leaf, FakeTensor) else mode.from_tensor(leaf)
    return leaf.requires_grad_(value.requires_grad)


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _numbers(tensor: Tensor) -> int:
    return tensor.untyped_storage().nbytes() // tensor.element_size() * (2 if tensor.is_complex() else 1)
