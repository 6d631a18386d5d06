"""The exponential series cut after T terms, on the imaginary axis: where it expands, and by how much."""

from fractions import Fraction
from functools import cache
from math import factorial

import numpy as np

SLACK = 1e-12


@cache
def _squared_modulus(terms: int) -> tuple[Fraction, ...]:
    """Exact coefficients in ``x = theta^2`` of ``|sum_{j<=terms} (i theta)^j / j!|^2``, lowest first."""
    real = {j: Fraction((-1) ** (j // 2), factorial(j)) for j in range(0, terms + 1, 2)}
    imaginary = {j: Fraction((-1) ** (j // 2), factorial(j)) for j in range(1, terms + 1, 2)}
    coefficients = [Fraction(0)] * (terms + 1)
    for part in (real, imaginary):
        for i, a in part.items():
            for j, b in part.items():
                coefficients[(i + j) // 2] += a * b
    return tuple(coefficients)


def truncated_exponential_bound(terms: int, radius: float) -> float:
    """Upper bound of ``|sum_{j<=terms} (i theta)^j / j!|`` over ``0 <= theta <= radius``, at least 1.

    This is the Lipschitz constant of the truncated exponential of a skew-symmetric map of norm at most ``radius``:
    such a map is normal, so the constant is the largest modulus of the polynomial on its spectrum, which lies on the
    imaginary axis. The polynomial ``q(x) = |p|^2 - 1`` in ``x = theta^2`` has exact rational coefficients. Its
    maximum over ``[0, radius^2]`` is bounded on cells by the value at the midpoint plus half the cell's width times a
    bound of the derivative there; cells are refined around the maximum until the slack is below `SLACK`.
    """
    coefficients = np.array([float(c) for c in _squared_modulus(terms)])
    coefficients[0] = 0.0  # q = |p|^2 - 1, and |p(0)| = 1
    derivative = coefficients[1:] * np.arange(1, len(coefficients))
    second = derivative[1:] * np.arange(1, len(derivative))
    end = float(np.nextafter(radius * radius, np.inf))

    def evaluate(c: np.ndarray, x: np.ndarray) -> np.ndarray:
        return np.polynomial.polynomial.polyval(x, c) if len(c) else np.zeros_like(x)

    left, right = np.array([0.0]), np.array([end])
    best = 0.0
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


def non_expanding_terms(radius: float, at_least: int, tolerance: float = 1e-9) -> int:
    """The smallest number of terms for which the truncated exponential is proved not to expand.

    Counted from ``at_least`` on; an expansion by up to the factor ``1 + tolerance`` counts as none. Such a number
    always exists: the remainder of the series falls faster than any power.
    """
    terms = at_least
    while truncated_exponential_bound(terms, radius) > 1 + tolerance:
        terms += 1
    return terms
