"""The bound of a folded layer from the operator that it holds.

Its numbers may have been rounded to float32 or changed since, so nothing is taken from the layer that it was made of.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lipref.certification.bounds.known import moderate
from lipref.certification.bounds.linear import Shape
from lipref.certification.bounds.tampering import Refused, like, other_attributes, overridden
from lipref.certification.bounds.users import library_class
from lipref.layers import Folded, LipschitzConv2d, SOCConv2d
from lipref.layers.excluded import ECOConv2d, SandwichConv2d
from lipref.layers.frequency import FrequencyConv2d
from lipref.layers.kernel import KernelConv2d
from lipref.layers.residual import ResidualConv2d
from lipref.linalg.exponential import from_ratios, polynomial_bound
from lipref.linalg.norms import UNIT_ROUNDOFF, conv_norm_bound, nan_max, norm_bound
from lipref.linalg.padding import adjoint_kernel

Size = tuple[int, int]
FOLDED = vars(nn.Module()).keys() | {"size", "_bare", "_complex"}  # the attributes of one


def folded_bound(module: Folded, shape: Shape) -> float:
    """Rigorous bound of a folded library layer, in float64, on images of ``shape`` ``(C, H, W)``.

    Raises:
        Refused: an operator that bounds nothing.
    """
    bare, size = module._bare, shape[1:]
    moderate(module)
    operator = {
        name: torch.view_as_complex(value) if name in module._complex else value
        for name, value in module._buffers.items()
    }
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


def unlike_folded(module: Folded) -> str | None:
    """In what a folded layer differs from what `Folded` makes of a layer of the library."""
    bare = module._bare
    try:
        kind = library_class(type(bare)) if isinstance(bare, LipschitzConv2d) else None
    except Refused as reason:
        return f"folded from {type(bare).__name__}, and {reason}"
    if kind is None:
        return f"folded from {type(bare).__name__}, which is no layer of the library; audit that layer"
    made = like(bare, kind, bias="bias" in module._buffers)
    if reason := overridden(bare) or other_attributes(vars(bare), vars(made), kind):
        return f"of the layer that it was folded from, {reason}"
    if odd := vars(module).keys() ^ FOLDED:
        return f"it has or lacks an attribute {min(odd)}; fold the layer again"
    return _other_operator(module, made)


def _other_operator(module: Folded, made: LipschitzConv2d) -> str | None:
    """In what the names and shapes of a folded operator are not those of the layer that it was folded from."""
    inputs, outputs, k = made.in_channels, made.out_channels, made.kernel_size
    kernel, taps, complex_ = (outputs, inputs, k, k), (inputs, inputs, k, k), set()
    if isinstance(made, KernelConv2d | ECOConv2d):
        shapes = {"weight": kernel}
    elif isinstance(made, ResidualConv2d):
        shapes = {"weight": taps, "adjoint": taps}
    elif isinstance(made, SOCConv2d):
        shapes = {"weight": tuple(made.weight.shape), "ratios": module._buffers.get("ratios", made.weight[0]).shape[:1]}
        shapes |= {"scale": ()} if made.eval_terms is None else {}
    else:
        torus = made._torus(module.size) if isinstance(made, FrequencyConv2d) else module.size
        shapes = {"symbol": (outputs, inputs)} if isinstance(made, FrequencyConv2d) else {}
        shapes = shapes or {"enter": (outputs, inputs), "leave": (outputs, outputs)}
        if k == 1:
            shapes = {name.replace("symbol", "weight"): (*shape, 1, 1) for name, shape in shapes.items()}
        else:
            complex_ = set(shapes)
            shapes = {name: (torus[0], torus[1] // 2 + 1, *shape, 2) for name, shape in shapes.items()}
    if made.bias is not None:
        shapes["bias"] = (outputs,)
    if odd := [name for name, value in module._buffers.items() if value is not None and not value.is_floating_point()]:
        return f"{odd[0]} is of {module._buffers[odd[0]].dtype}, no real floating numbers; fold the layer again"
    found = {name: None if value is None else tuple(value.shape) for name, value in module._buffers.items()}
    if found != {name: tuple(shape) for name, shape in shapes.items()} or module._complex != complex_:
        return f"its operator {found} is not that of {type(made).__name__}, {shapes}; fold the layer again"
    return None


def _residual(weight: Tensor, adjoint: Tensor, size: Size, mode: str) -> float:
    """``x - A relu(K x)`` with ``A = K^T T + E``: at most ``max(1, ||T^(1/2) K||^2 - 1) + ||E|| ||K||``."""
    stepped = adjoint_kernel(adjoint)
    squares = weight.square().sum((1, 2, 3))
    step = ((stepped * weight).sum((1, 2, 3)) / squares.clamp_min(torch.finfo(squares.dtype).tiny)).clamp_min(0)
    step = step[:, None, None, None]
    scaled, rest = step.sqrt() * weight, stepped - step * weight
    norm = conv_norm_bound(scaled, size, mode) + _kernel_rounding(scaled)
    error = conv_norm_bound(rest, size, mode) + _kernel_rounding(stepped)
    return (nan_max(1.0, norm**2 - 1.0) + error * conv_norm_bound(weight, size, mode)) * (1 + 1e-14)


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
