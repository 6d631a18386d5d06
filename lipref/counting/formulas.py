"""Floating-point operations of every heavy operation that a layer may call, for torch's `FlopCounterMode`.

Conventions. A multiply-accumulate (MAC) of real numbers is two operations; one of complex numbers is four of real ones,
eight operations. Products and convolutions count as torch's own formulas do, taps on padded zeros included. A complex
Fourier transform of n points is 5 n log2 n operations, one between real numbers and half a spectrum half of that. For
n x n matrices: Cholesky n^3 / 3, a triangular solve n^2 per right-hand side, two of them after a Cholesky
factorisation, the inverse after one 2 n^3 / 3, eigenvalues of Hermitian matrices 4 n^3 / 3, with eigenvectors 9 n^3
(Golub and Van Loan, "Matrix Computations"), LU 2 n^3 / 3. Elementwise operations, sums, norms, copies and views count
nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry

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
