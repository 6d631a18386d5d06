"""Lipschitz constants computed the published way beside proved ones, and what soundness costs in CRA.

The evaluation that came with the paper (Prach et al., CVPR 2024, arXiv 2311.16833) multiplies power-iteration estimates
of the linear layers that it recognises and leaves out the rest. It is written here anew, from that description.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor, nn

from lipref.attacks.perturbation import judge
from lipref.certification.bounds import audit
from lipref.certification.bounds.linear import dense_matrix
from lipref.certification.certify import RADII, certify
from lipref.certification.float_error import EvaluationError
from lipref.errors import LiprefError
from lipref.layers import (
    AOLConv2d,
    BCOPConv2d,
    CayleyConv2d,
    CPLConv2d,
    LipschitzConv2d,
    LOTConv2d,
    SOCConv2d,
    StandardConv2d,
)

PUBLISHED_ITERATIONS = 1000  # at the end of each published run; its separate evaluator takes 10 000
# Whose norm the published evaluation estimates; every other module counts as 1.
VISITED = (nn.Conv2d, nn.Linear, StandardConv2d, AOLConv2d, BCOPConv2d, CayleyConv2d, LOTConv2d, SOCConv2d)
# How the published layers are evaluated, where ours are evaluated otherwise.
AS_PUBLISHED: dict[type[LipschitzConv2d], dict[str, int]] = {
    BCOPConv2d: {"iterations": 20},
    CPLConv2d: {"eval_iterations": 100},
    SOCConv2d: {"eval_terms": 12},
}
STEADY = 10  # iterations in a row without a change
DENSE_SIDE = 1024


@dataclass(frozen=True)
class LayerConstant:
    """One part of a network, evaluated on features of ``size`` ``(H, W)``.

    ``visited`` tells whether the published evaluation looks at it; where it does not, ``published`` is 1. ``proved`` is
    the audit's upper bound, None where there is none. ``exact`` is the largest singular value of the dense matrix,
    rounded as computed, or None where the layer is not linear, is too large, or was not asked for.
    """

    name: str
    kind: str
    size: tuple[int, int]
    visited: bool
    published: float
    proved: float | None
    exact: float | None = None


@dataclass(frozen=True)
class Constants:
    """The parts' constants, and the products: ``published``, and ``proved``, rounded upwards, or None."""

    layers: list[LayerConstant]
    published: float
    proved: float | None


def constants(
    model: nn.Module, shape: tuple[int, int, int], *, iterations: int = PUBLISHED_ITERATIONS, seed: int = 0,
    exact: bool = False,
) -> Constants:  # fmt: skip
    """Constants of all parts of ``model`` on images of ``shape`` ``(C, H, W)``, published beside proved, on the CPU.

    Both are of the certified function: evaluation in float64, operators prepared anew. So what separates them is the
    method, not the rounding of float32.

    Args:
        model: anything that `lipref.audit` takes.
        iterations: of the power method, from a random start.
        seed: decides the starts.
        exact: also the singular values of layers with at most `DENSE_SIDE` inputs and outputs.

    Raises:
        LiprefError: fewer than one iteration, or a model that cannot be audited.
    """
    if isinstance(iterations, bool) or not isinstance(iterations, int) or iterations < 1:
        raise LiprefError(f"iterations={iterations!r}: give a whole number of at least 1")
    twin = judge(copy.deepcopy(model).cpu())
    found = audit(twin, shape)
    layers = []
    for place, (name, kind, size, proved) in enumerate(found.layers):
        module = twin if name == "model" else twin.get_submodule(name)
        visited = isinstance(module, VISITED)
        published, norm = 1.0, None
        if visited:
            apply, channels = linear_map(module, size)
            features = (channels, *size) if not isinstance(module, nn.Linear) else (channels,)
            published = power_iteration(apply, features, iterations, start_of(seed, place))
            norm = _exact(apply, features) if exact else None
        layers.append(LayerConstant(name, kind, size, visited, published, proved, norm))
    return Constants(layers, math.prod(layer.published for layer in layers), found.bound)


def as_published(model: nn.Module) -> nn.Module:
    """A copy of ``model`` whose layers are evaluated as the published ones are (`AS_PUBLISHED`).

    CPL takes its step from 100 power iterations that go on from the vector of the training, SOC cuts its series after
    12 terms, BCOP's polar factors take 20 steps. The audit of that copy is honest about it.
    """
    twin = copy.deepcopy(model)
    for module in twin.modules():
        for name, value in AS_PUBLISHED.get(type(module), {}).items():
            setattr(module, name, value)
    return twin


def linear_map(module: nn.Module, size: tuple[int, int]) -> tuple[Callable[[Tensor], Tensor], int]:
    """A linear layer without its bias, and its number of input channels or features."""
    if isinstance(module, LipschitzConv2d):
        operator = {name: value for name, value in module.operator(size).items() if name != "bias"}
        return lambda x: module.transform(x, operator), module.in_channels
    plain = copy.deepcopy(module)
    plain.bias = None
    return plain, module.in_features if isinstance(module, nn.Linear) else module.in_channels


def power_iteration(apply: Callable[[Tensor], Tensor], shape: tuple[int, ...], iterations: int, seed: int) -> float:
    """Norm of the linear map ``apply`` on inputs of ``shape``, estimated by the power method: a lower bound.

    It stops early when `STEADY` iterations in a row leave the estimate unchanged up to a few units in the last place,
    since those that remain would then change nothing that can be seen.
    """
    with torch.no_grad():
        return float(apply(leading_vector(apply, shape, iterations, seed)).norm())


def leading_vector(
    apply: Callable[[Tensor], Tensor], shape: tuple[int, ...], iterations: int, seed: int,
    dtype: torch.dtype = torch.float64,
) -> Tensor:  # fmt: skip
    """The power method's approximation of the leading right singular vector of ``apply``: ``(1, *shape)``, norm 1."""
    x = torch.randn(1, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)
    x = x / x.norm()
    zero = torch.zeros_like(x, requires_grad=True)
    with torch.enable_grad():
        image = apply(zero)  # its gradient is the adjoint
    last, steady = 0.0, 0
    for _ in range(iterations):
        with torch.no_grad():
            y = apply(x)
        norm = float(y.norm())
        steady = steady + 1 if abs(norm - last) <= 4 * torch.finfo(dtype).eps * norm else 0
        last = norm
        if steady == STEADY or norm == 0:
            break
        (x,) = torch.autograd.grad(image, zero, y / norm, retain_graph=True)
        x = x / x.norm()
    return x


def start_of(seed: int, place: int) -> int:
    """The seed of the power method's start for the part in this place."""
    return 1_000_003 * seed + place


def _exact(apply: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> float | None:
    with torch.no_grad():
        out = tuple(apply(torch.zeros(1, *shape, dtype=torch.float64)).shape[1:])
    if max(math.prod(shape), math.prod(out)) > DENSE_SIDE:
        return None
    return float(torch.linalg.matrix_norm(dense_matrix(apply, shape, out), 2))


WAYS = ("undivided", "published", "proved")


@dataclass(frozen=True)
class Price:
    """How many of ``images`` are certified at ``radius`` (l2, pixels in [0, 1]) in one ``way`` of `WAYS`."""

    radius: Fraction
    way: str
    count: int
    images: int


def price(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], published: float, proved: float | None,
    error: EvaluationError | None = None,
) -> list[Price]:  # fmt: skip
    """Certified counts at radius 0 (right, by more than the rounding) and at `certify.RADII`, three ways.

    ``undivided``: ``margin / sqrt(2)``, as the paper's tables have it, where every layer is 1-Lipschitz by its design
    (`LipschitzConv2d.proved`). ``published``: divided by the product of power-iteration estimates. ``proved``: divided
    by the proved bound, the rounding ``error`` of the evaluation taken off; left out where nothing is proved.

    Args:
        batches: ``(images, labels)``, mean-subtracted images in units of [0, 1].
        published: the published product (`lipref.certification.published_constants`).
        proved: the proved bound, or None.
        error: bound of the rounding, `lipref.certification.float_error.evaluation_error`, or None.

    Raises:
        LiprefError: no images, or logits that are not finite.
    """
    batches = list(batches)
    plain = certify(model, batches, None)
    found = {}
    layers = [module for module in model.modules() if isinstance(module, LipschitzConv2d)]
    if layers and all(layer.proved for layer in layers):
        found["undivided"] = plain.radii
    found["published"] = plain.radii / published
    if proved is not None:
        found["proved"] = certify(model, batches, proved, error).radii
    total = len(plain.radii)
    rows = []
    for way, radii in found.items():
        rows += [Price(radius, way, int((radii > float(radius)).sum()), total) for radius in (Fraction(0), *RADII)]
    return rows
