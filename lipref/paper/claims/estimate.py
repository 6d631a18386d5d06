"""A value with its interval, and verdicts on what is claimed of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

from lipref.certification.certify import Proportion
from lipref.paper import comparison


@dataclass(frozen=True)
class Estimate:
    """``value`` with its interval from ``low`` to ``high``; all NaN where there is no value."""

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan

    def minus(self, other: Estimate) -> Estimate:
        """The difference; its interval has every difference of two numbers from the two intervals."""
        return Estimate(self.value - other.value, self.low - other.high, self.high - other.low)

    def over(self, other: Estimate) -> Estimate:
        """The ratio of two positive numbers; its interval has every ratio of two numbers from the two intervals."""
        return Estimate(self.value / other.value, self.low / other.high, self.high / other.low)


NOTHING = Estimate()


def exact(value: float) -> Estimate:
    """A number without uncertainty, such as a count."""
    return Estimate(value, value, value)


def percent(value: float, images: int) -> Estimate:
    """A published percentage with the exact 95 % interval that ``images`` test images leave to it."""
    low, high = share_interval(round(value / 100 * images), images)
    return Estimate(value, 100 * low, 100 * high)


@cache
def share_interval(count: int, total: int) -> tuple[float, float]:
    """The exact 95 % interval of a share; kept, because many claims ask for the same ones."""
    return Proportion(count, total).interval


def near(published: float, ours: Estimate, tolerance: float) -> str:
    """Whether our interval comes within ``tolerance`` of the published value."""
    return comparison.verdict(published, ours.value, tolerance, ours.low, ours.high)


def at_least(threshold: float, ours: Estimate, tolerance: float = 0.0) -> str:
    """Whether our interval reaches up to ``threshold``, less the tolerance."""
    return comparison.verdict(threshold, ours.value, tolerance, -math.inf, ours.high)


def at_most(threshold: float, ours: Estimate, tolerance: float = 0.0) -> str:
    """Whether our interval reaches down to ``threshold``, and the tolerance."""
    return comparison.verdict(threshold, ours.value, tolerance, ours.low, math.inf)
