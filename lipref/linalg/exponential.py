"""Polynomials in place of the exponential on the imaginary axis: where they expand, by how much, and the cheapest."""

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from itertools import pairwise
from math import factorial

import numpy as np
from numpy.polynomial import chebyshev

SLACK = 1e-12
HIGHEST = 60  # degree of the Chebyshev series that stands for the exponential itself


def taylor(terms: int) -> tuple[Fraction, ...]:
    """Coefficients of ``sum_{j<=terms} z^j / j!``, exact."""
    return tuple(Fraction(1, factorial(j)) for j in range(terms + 1))


def _squared_modulus(coefficients: tuple[Fraction, ...]) -> tuple[Fraction, ...]:
    """Exact coefficients in ``x = theta^2`` of ``|sum_j c_j (i theta)^j|^2``, lowest first."""
    signed = [(-1) ** (j // 2) * c for j, c in enumerate(coefficients)]
    squared = [Fraction(0)] * len(coefficients)
    for part in (0, 1):  # real, imaginary
        for i in range(part, len(signed), 2):
            for j in range(part, len(signed), 2):
                squared[(i + j) // 2] += signed[i] * signed[j]
    return tuple(squared)


def polynomial_bound(coefficients: Sequence[Fraction | float], radius: float) -> float:
    """Upper bound of ``|sum_j c_j (i theta)^j|`` over ``0 <= theta <= radius``, for ``c_0`` near 1.

    This is the Lipschitz constant of the polynomial of a skew-symmetric map of norm at most ``radius``: such a map is
    normal, so the constant is the largest modulus of the polynomial on its spectrum, which lies on the imaginary axis.
    ``q(x) = |p|^2 - 1`` in ``x = theta^2`` has exact rational coefficients. Its maximum over ``[0, radius^2]`` is
    bounded on cells by the value at the midpoint plus half the cell's width times a bound of the derivative there;
    cells are refined around the maximum until the slack is below `SLACK`.
    """
    return _bound(tuple(Fraction(c) for c in coefficients), float(radius)) if math.isfinite(radius) else math.nan


@cache
def _bound(exact: tuple[Fraction, ...], radius: float) -> float:
    squared = _squared_modulus(exact)
    coefficients = np.array([float(squared[0] - 1), *(float(c) for c in squared[1:])])
    derivative = coefficients[1:] * np.arange(1, len(coefficients))
    second = derivative[1:] * np.arange(1, len(derivative))
    end = float(np.nextafter(radius * radius, np.inf))

    def evaluate(c: np.ndarray, x: np.ndarray) -> np.ndarray:
        return np.polynomial.polynomial.polyval(x, c) if len(c) else np.zeros_like(x)

    left, right = np.array([0.0]), np.array([end])
    best = float(coefficients[0])
    for _ in range(200):
        middle, half = (left + right) / 2, (right - left) / 2
        rounding = 16 * len(coefficients) * 2.0**-52 * evaluate(np.abs(coefficients), right)
        best = max(best, float((evaluate(coefficients, middle) - rounding).max()))
        curvature = evaluate(np.abs(second), right)
        slope = np.abs(evaluate(derivative, middle)) + curvature * half
        upper = evaluate(coefficients, middle) + slope * half + rounding
        worst = float(upper.max())
        if worst <= best + SLACK:
            break
        open_cells = upper > best + SLACK
        left, middle, right = left[open_cells], middle[open_cells], right[open_cells]
        left, right = np.concatenate((left, middle)), np.concatenate((middle, right))
        if len(left) > 100_000:  # a flat top: what is proved so far is close enough
            break
    # The cells that were closed on the way may reach best + SLACK.
    return float(np.sqrt(1.0 + max(worst, best + SLACK)) * (1 + 4 * 2.0**-52))


def truncated_exponential_bound(terms: int, radius: float) -> float:
    """`polynomial_bound` of the exponential series cut after ``terms`` terms; at least 1, its value at 0."""
    return polynomial_bound(taylor(terms), radius)


def non_expanding_terms(radius: float, at_least: int, tolerance: float = 1e-9) -> int:
    """The smallest number of terms for which the truncated exponential is proved not to expand.

    Counted from ``at_least`` on; an expansion by up to the factor ``1 + tolerance`` counts as none. Such a number
    always exists: the remainder of the series falls faster than any power.
    """
    terms = at_least
    while truncated_exponential_bound(terms, radius) > 1 + tolerance:
        terms += 1
    return terms


def truncation_error(terms: int, radius: float) -> float:
    """Largest error of the truncated exponential over ``0 <= theta <= radius``, to a percent, where below 1e-3."""
    return radius ** (terms + 1) / factorial(terms + 1)


@cache
def economised(radius: float, error: float) -> tuple[float, ...]:
    """Coefficients ``c_0 ... c_d`` of the Chebyshev series of ``exp(i theta)`` over ``|theta| <= radius``.

    The degree d is the smallest for which what is cut off sums to at most ``error``. The polynomial is divided by its
    own proved bound, so that a skew-symmetric map of norm at most ``radius`` never expands; ``c_0`` falls below 1 by
    about the error.
    """
    cosine, sine = (chebyshev.chebinterpolate(lambda t, f=f: f(radius * t), HIGHEST) for f in (np.cos, np.sin))
    series = np.where(np.arange(HIGHEST + 1) % 2 == 0, cosine, sine)
    tails = np.abs(series)[::-1].cumsum()[::-1]
    # A polynomial of degree d leaves out tails[d + 1].
    degree = max(1, int(np.nonzero(tails > error)[0].max(initial=0)))
    powers = chebyshev.cheb2poly(series[: degree + 1]) / radius ** np.arange(degree + 1)
    # theta^j = (-1)^(j // 2) (i theta)^j, with the i of i sin for odd j.
    coefficients = [float(c) * (-1) ** (j // 2) for j, c in enumerate(powers)]
    bound = polynomial_bound(coefficients, radius) * (1 + 2 * SLACK)
    return tuple(c / bound for c in coefficients)


def ratios(coefficients: Sequence[Fraction | float]) -> tuple[float, list[float]]:
    """``c_0`` and ``c_j / c_{j-1}``, as Horner's scheme takes them."""
    exact = [Fraction(c) for c in coefficients]
    return float(exact[0]), [float(high / low) for low, high in pairwise(exact)]


def from_ratios(scale: float, steps: Sequence[float]) -> tuple[Fraction, ...]:
    """The exact coefficients of what `ratios` gave, rounded as it is."""
    found = [Fraction(scale)]
    for step in steps:
        found.append(found[-1] * Fraction(step))
    return tuple(found)
