"""Polynomials of least error, as steps towards functions of matrices: inverse square roots, and polar factors."""

from __future__ import annotations

import functools
import itertools
from typing import NamedTuple

import torch

F64 = torch.float64
ENOUGH = 2e-7  # relative error of an inverse root, about float32's rounding
POINTS = 2000
EXCHANGES = 30


class Step(NamedTuple):
    """``T(f) = sum of coefficients[k] f^k``, where ``f = 1 - x / half``: a factor of ``1 / sqrt(x)``."""

    coefficients: tuple[float, ...]
    half: float

    @property
    def degree(self) -> int:
        return len(self.coefficients) - 1


@functools.lru_cache(maxsize=256)
def minimax(low: float, high: float, degree: int, half: float = 1.0) -> tuple[Step, float]:
    """T of this degree with the least ``error = max |1 - sqrt(x) T(x)|`` for x in ``[low, high]``, and that error.

    By Remez' exchange of the points of largest error.
    """
    count = degree + 2
    with torch.inference_mode(False), torch.no_grad():
        roots = _nodes(POINTS) * 0.5 * (high**0.5 - low**0.5) + 0.5 * (high**0.5 + low**0.5)
        f = 1 - roots.square() / half
        basis = roots[:, None] * f[:, None] ** torch.arange(degree + 1, dtype=F64)
        signs = (-1.0) ** torch.arange(count, dtype=F64)
        chosen = torch.linspace(0, POINTS - 1, count, dtype=F64).round().long()
        for _ in range(EXCHANGES):
            system = torch.cat((basis[chosen], signs[:, None]), dim=1)
            coefficients = torch.linalg.solve(system, torch.ones(count, dtype=F64))[:-1]
            errors = 1 - basis @ coefficients
            found = _extremes(errors, count)
            if found is None or bool((found == chosen).all()):
                break
            chosen = found
        worst = float(errors.abs().amax())
    return Step(tuple(coefficients.tolist()), half), worst


def _nodes(count: int) -> torch.Tensor:
    """Chebyshev's extreme points in [-1, 1], ascending."""
    return -torch.cos(torch.linspace(0, torch.pi, count, dtype=F64))


def _extremes(errors: torch.Tensor, count: int) -> torch.Tensor | None:
    """The place of the largest error in each run of one sign; None where there are not ``count`` runs."""
    signs = errors.sign().tolist()
    starts = [0, *(n for n in range(1, len(signs)) if signs[n] != signs[n - 1]), len(signs)]
    runs = list(itertools.pairwise(starts))
    if len(runs) != count:
        return None
    return torch.tensor([first + int(errors[first:last].abs().argmax()) for first, last in runs])


@functools.lru_cache(maxsize=256)
def steps_to_inverse_root(low: float, high: float, half: float) -> tuple[Step, ...]:
    """Polynomials T1, T2, ... that one after the other take x in ``[low, high]`` to ``x T1^2 T2^2 ... = 1``.

    Of degree 4, which is two products of matrices, and the last one of degree 1, 2 or 4: the lowest that is enough. The
    product of all is ``1 / sqrt(x)`` times a number in ``[1 - 2 ENOUGH, 1]``. The first has this ``half``.
    """
    steps: list[Step] = []
    while True:
        for degree in (1, 2, 4):
            step, error = minimax(low, high, degree, half)
            if error <= ENOUGH:
                # Never above 1: what is whitened keeps a norm of at most 1.
                return (*steps, step._replace(coefficients=tuple(c * (1 - error) for c in step.coefficients)))
        steps.append(step)
        low, high, half = (1 - error) ** 2, (1 + error) ** 2, 1.0


@functools.lru_cache(maxsize=64)
def cubic_steps(low: float, enough: float) -> tuple[tuple[float, float], ...]:
    """Pairs (a, b): one after the other ``x -> a x - b x^3`` take all of ``[low, 1]`` into ``[enough, 1]``.

    What is below ``low`` grows as fast, by 2.6 a step at first, and nothing in [0, 1] ever exceeds 1. Each is the cubic
    nearest to a constant on the interval that the ones before have left, divided by its maximum. (As Amsel et al., "The
    Polar Express", 2025, do it for degree 5.)
    """
    steps = []
    while low < enough:
        # Equal at both ends, and so far below its mean there as its maximum, at the root of s / 3, is above.
        s = 1 + low + low**2
        least, most = s * low - low**3, 2 / 3 * s * (s / 3) ** 0.5
        steps.append((s / most, 1 / most))
        low = least / most
    return tuple(steps)
