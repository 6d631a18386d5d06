"""The bound of a folded layer from the operator that it holds.

Its numbers may have been rounded to float32 or changed since, so nothing is taken from the layer that it was made of.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lipref.audit.known import LIBRARY, moderate
from lipref.audit.linear import Shape
from lipref.audit.tampering import Refused, overridden
from lipref.layers import Folded
from lipref.layers.excluded import ECOConv2d, SandwichConv2d
from lipref.layers.frequency import FrequencyConv2d
from lipref.layers.kernel import KernelConv2d
from lipref.layers.residual import ResidualConv2d
from lipref.linalg.exponential import from_ratios, polynomial_bound
from lipref.linalg.norms import UNIT_ROUNDOFF, conv_norm_bound, norm_bound
from lipref.linalg.padding import adjoint_kernel

Size = tuple[int, int]


def folded_bound(module: Folded, shape: Shape) -> float:
    """Rigorous bound of a folded library layer, in float64, on images of ``shape`` ``(C, H, W)``.

    Raises:
        Refused: folded from a layer that is not the library's, or an operator that is none of that layer's.
    """
    bare, size = module._bare, shape[1:]
    if type(bare) not in LIBRARY:
        raise Refused(f"folded from {type(bare).__name__}, which is no layer of the library; audit that layer")
    if reason := overridden(bare):
        raise Refused(f"of the layer that it was folded from, {reason}")
    operator = {
        name: torch.view_as_complex(value) if name in module._complex else value
        for name, value in module._buffers.items()
    }
    moderate(module)
    if isinstance(bare, ECOConv2d | SandwichConv2d):
        return bare.operator_bound(operator, size)
    if "symbol" in operator:
        # Padding, cropping and the real part of the inverse transform do not expand.
        return norm_bound(operator["symbol"])
    if isinstance(bare, (KernelConv2d, FrequencyConv2d)):
        return conv_norm_bound(operator["weight"], size, bare.padding_mode)
    if isinstance(bare, ResidualConv2d):
        return _residual(operator["weight"], operator["adjoint"], size, bare.padding_mode)
    return _polynomial(operator, size, bare.padding_mode)


def _residual(weight: Tensor, adjoint: Tensor, size: Size, mode: str) -> float:
    """``x - A relu(K x)`` with ``A = K^T T + E``: at most ``max(1, ||T^(1/2) K||^2 - 1) + ||E|| ||K||``."""
    stepped = adjoint_kernel(adjoint)
    squares = weight.square().sum((1, 2, 3))
    step = ((stepped * weight).sum((1, 2, 3)) / squares.clamp_min(torch.finfo(squares.dtype).tiny)).clamp_min(0)
    step = step[:, None, None, None]
    scaled, rest = step.sqrt() * weight, stepped - step * weight
    norm = conv_norm_bound(scaled, size, mode) + _kernel_rounding(scaled)
    error = conv_norm_bound(rest, size, mode) + _kernel_rounding(stepped)
    return (max(1.0, norm**2 - 1.0) + error * conv_norm_bound(weight, size, mode)) * (1 + 1e-14)


def _kernel_rounding(kernel: Tensor) -> float:
    """Bound of the norm of an error of a few units of roundoff in every entry: the taps' Frobenius norms add up."""
    return 8 * UNIT_ROUNDOFF * float(kernel.square().sum((0, 1)).sqrt().sum())


def _polynomial(operator: dict[str, Tensor], size: Size, mode: str) -> float:
    """``sum_j c_j L^j`` with L skew, ``c_j = c_0 r_1 ... r_j``: the largest modulus on the spectrum."""
    weight = operator["weight"]
    if not torch.equal(weight, -adjoint_kernel(weight)):
        raise Refused("its kernel is not skew-symmetric")
    scale = float(operator.get("scale", 1.0))
    coefficients = from_ratios(scale, operator["ratios"].tolist())
    return polynomial_bound(coefficients, conv_norm_bound(weight, size, mode))
