"""Bounds of the rounding in sums of products, and the absolute norms that they multiply."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

ROUNDOFF = {torch.float64: 2.0**-53, torch.float32: 2.0**-24}
# Covers the rounding of the bounds' own arithmetic, and products of errors that are left out.
SAFETY = 1 + 1e-6


class RoundingBound(NamedTuple):
    """``||computed(x) - exact(x)||_2 <= slope ||x||_2 + constant``, and ``||exact(0)||_2 <= at_zero``."""

    slope: float
    constant: float
    at_zero: float


def gamma(terms: int, unit: float) -> float:
    """``n u / (1 - n u)``: the relative error of an inner product of n terms, in any order, with or without FMA.

    Relative to the same sum over absolute values (Higham, Accuracy and Stability of Numerical Algorithms, 2002, 3.1).
    """
    return terms * unit / (1 - terms * unit)


def absolute_norm(matrices: Tensor) -> float:
    """Upper bound of the norm of the entrywise absolute value of ``(..., m, n)``, the largest of the batch.

    Schur's test: the root of the largest row sum times the largest column sum.
    """
    sizes = matrices.abs().double()
    if sizes.numel() == 0:
        return 0.0
    # Roots first: the product of tiny sums would underflow.
    return float((sizes.sum(-1).amax(-1).sqrt() * sizes.sum(-2).amax(-1).sqrt()).max()) * SAFETY


def absolute_conv_norm(weight: Tensor) -> float:
    """The same for the convolution with ``weight`` ``(O, I, k, k)``, under zero and circular padding, for any size."""
    return absolute_norm(weight.abs().sum((2, 3)))


def spread_bias(bias: Tensor | None, size: tuple[int, int]) -> float:
    """The norm of the bias ``(C,)`` on an image of ``size``."""
    return 0.0 if bias is None else float(torch.linalg.vector_norm(bias.double())) * math.sqrt(math.prod(size)) * SAFETY


def conv_rounding(weight: Tensor, bias: Tensor | None, size: tuple[int, int], unit: float) -> RoundingBound:
    """Of a convolution with its bias, computed by inner products."""
    relative = gamma(weight[0].numel() + 2, unit) * SAFETY
    constant = spread_bias(bias, size)
    return RoundingBound(relative * absolute_conv_norm(weight), relative * constant, constant)
