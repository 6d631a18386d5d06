"""The Lyapunov equation ``R X + X R = C`` with R Hermitian positive definite, by products of matrices."""

from __future__ import annotations

import math

import torch
from torch import Tensor

TOLERANCE = 1e-5  # of the result, relative, in the Frobenius norm


def lyapunov(c: Tensor, r: Tensor, inverse: Tensor, scale: Tensor, interval: tuple[float, float]) -> Tensor:
    """X, Hermitian, with ``R X + X R = C`` for Hermitian ``c`` and positive definite ``r``, both ``(n, m, m)``.

    With u the quotient of R's eigenvalues and their middle, ``H = (R / s + s R^-1) / 2`` has the eigenvalues ``(u +
    1 / u) / 2``: at most 1.74 where those of R differ by 10. Multiplied by ``R^-1`` from both sides the equation is ``X
    R^-1 + R^-1 X = R^-1 C R^-1``, and the sum of both is ``H X + X H = (C / s + s R^-1 C R^-1) / 2``. Of that, or of
    the given one where that is quicker, Chebyshev's iteration takes known steps, of one product each, and asks the
    device for nothing. (H is R after a scaled Newton step towards its sign: Roberts, "Linear model reduction and
    solution of the algebraic Riccati equation by use of the sign function", 1980.)

    Args:
        c: C.
        r: R.
        inverse: R^-1, known.
        scale: ``(n, 1, 1)``.
        interval: R's eigenvalues lie between ``scale`` times these two numbers.

    Counted in products: the steps of `degree` less 1, and 2 more where H is used.
    """
    low, high = interval
    near = degree(low, high)
    ratio = (high / low) ** 0.5
    largest = 0.5 * (ratio + 1 / ratio)
    if near <= degree(1.0, largest) + 2:
        return _chebyshev(r / scale, c / scale, low, high, near)
    middle = scale * (low * high) ** 0.5
    h = (0.5 / middle) * r + (0.5 * middle) * inverse
    right = (0.5 / middle) * c + (0.5 * middle) * (inverse @ c @ inverse)
    return _chebyshev(h, right, 1.0, largest, degree(1.0, largest))


def degree(low: float, high: float) -> int:
    """Of the Chebyshev polynomial that is enough for numbers in ``[low, high]``."""
    if high <= low:
        return 1
    return max(1, math.ceil(math.acosh(1 / TOLERANCE) / math.acosh((high + low) / (high - low))))


def _chebyshev(h: Tensor, right: Tensor, low: float, high: float, count: int) -> Tensor:
    """X with ``H X + X H = right``, H's eigenvalues in ``[low, high]``, by a polynomial of degree ``count - 1``."""
    middle, half = high + low, high - low  # of the eigenvalues of X -> H X + X H, in [2 low, 2 high]
    step = right / middle
    x = step
    residual, factor = right, half / middle
    for _ in range(count - 1):
        # Half of the residual less H D, and its adjoint: X and C being Hermitian, D H is (H D)^H.
        part = torch.baddbmm(residual, h, step, beta=0.5, alpha=-1)
        residual = part + part.mH
        before, factor = factor, 1 / (2 * middle / half - factor)
        step = (factor * before) * step
        step.add_(residual, alpha=2 * factor / half)
        x.add_(step)
    return x
