"""How fast two logits of a network can move apart: at most sqrt(2) L, and less where a linear head shows it."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from lipref.certification.bounds import Audit
from lipref.certification.bounds.users import library_class
from lipref.layers import LipschitzConv2d
from lipref.layers.frequency import FrequencyConv2d
from lipref.layers.kernel import KernelConv2d
from lipref.layers.soc import SOCConv2d
from lipref.linalg.float_error import ROUNDOFF, SAFETY
from lipref.nets import ConvNet, FirstChannels

LINEAR = (KernelConv2d, FrequencyConv2d, SOCConv2d)
LEAST = 1e-150  # of a constant, so that no margin is divided by zero
PRODUCTS = 1 + 2.0**-48  # above the rounding of a few products


def pair_bounds(model: ConvNet, audit: Audit) -> Tensor | None:
    """Upper bounds of the Lipschitz constants of all differences of two logits, ``(K, K)``, float64.

    The logits are the first K outputs of a linear head with the matrix W, so the constant of their difference i - j is
    at most ``||w_i - w_j||_2`` times the product of the bounds of all layers before (Tsuzuku, Sato, Sugiyama, NeurIPS
    2018, for the last layer; an entry is never above their sqrt(2) L). W is that of the head as it is evaluated, in
    float64, the rounding of finding it included.

    Args:
        audit: of the same model (`lipref.certification.bounds.network_bound`).

    Returns:
        None where nothing is proved, where the network does not end in a head on one pixel and its first outputs, or
        where the head is a residual layer or a user's own: sqrt(2) L is the bound.
    """
    if audit.bound is None or not _ends_in_a_head(model, audit):
        return None
    model = copy.deepcopy(model).to("cpu").double().eval()
    head = model.head
    kind = library_class(type(head))
    if kind is None or not issubclass(kind, LINEAR):
        return None
    before = 1.0
    for _, _, _, bound in audit.layers[:-1]:
        before = math.nextafter(before * bound, math.inf)
    matrix, error = _matrix(head)
    rows = matrix[: model.num_classes]
    differences = rows[:, None] - rows[None]
    largest = float(differences.abs().max())
    scale = 2.0 ** (math.frexp(largest)[1] - 1) if largest else 1.0  # so that no square underflows or overflows
    distances = (differences / scale).square().sum(-1).sqrt() * scale * (1 + (matrix.shape[1] + 8) * 2.0**-53)
    pairs = (distances + math.sqrt(2) * error) * before * PRODUCTS
    largest = math.nextafter(math.sqrt(2), 2) * audit.bound * PRODUCTS
    return pairs.clamp(LEAST, largest)


def _ends_in_a_head(model: ConvNet, audit: Audit) -> bool:
    """Whether the logits are nothing but the first outputs of ``head`` on an image of one pixel."""
    names, last = list(model._modules)[-3:], list(model._modules.values())[-2:]
    shapes = [(name, size) for name, _, size, _ in audit.layers[-1:]]
    return (
        names == ["head", "flatten", "logits"]
        and [type(module) for module in last] == [nn.Flatten, FirstChannels]
        and (last[0].start_dim, last[0].end_dim, last[1].channels) == (1, -1, model.num_classes)
        and shapes == [("head", (1, 1))]
    )


def _matrix(head: LipschitzConv2d) -> tuple[Tensor, float]:
    """The matrix ``(O, I)`` of a linear layer on images of one pixel, and a bound of its error (Frobenius)."""
    size = (1, 1)
    operator = head.operator(size)
    if "bias" in operator:
        operator = operator | {"bias": torch.zeros_like(operator["bias"])}
    unit_vectors = torch.eye(head.in_channels, dtype=torch.float64)[:, :, None, None]
    with torch.no_grad():
        columns = head.transform(unit_vectors, operator)[:, :, 0, 0]
    slope = head.rounding_error(operator, size, ROUNDOFF[torch.float64]).slope
    return columns.T, slope * math.sqrt(head.in_channels) * SAFETY
