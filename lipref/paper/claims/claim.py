"""What a claim is, and what is found when it is checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lipref.paper.claims.estimate import NOTHING, Estimate
from lipref.paper.comparison import AGREES, DIFFERS, NOT_COMPARABLE, NOT_RUN

if TYPE_CHECKING:
    from lipref.paper.claims.evidence import Evidence

NOT_PUBLISHED = "not published"  # no second number by which the paper's own data could support or contradict it


@dataclass(frozen=True, kw_only=True)
class Line:
    """One value of a claim.

    Attributes:
        what: What is compared, such as ``CIFAR-10, SOC M``.
        unit: Of the values and of the tolerance.
        published: By the paper's numbers; NaN where it has none.
        supported: `AGREES` or `DIFFERS`: whether the paper's own numbers support the claim; else `NOT_PUBLISHED`.
        ours: By our records, with its interval.
        tolerance: How far ours may be off.
        verdict: On ours, one of the words of `lipref.paper.comparison`.
        note: Circumstances of ours, or a reason.
        files: The records behind ours, paths.
    """

    what: str
    unit: str = ""
    published: float = math.nan
    supported: str = NOT_PUBLISHED
    ours: Estimate = NOTHING
    tolerance: float = 0.0
    verdict: str = NOT_RUN
    note: str = ""
    files: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A statement of the paper.

    Attributes:
        id: Its name here.
        place: Where the paper says or shows it.
        statement: In our words.
        needs: The records that decide it.
        tolerance: In words.
        published: Files below ``data/paper`` with the numbers of the paper.
        check: Gives its lines; the part from the paper's numbers needs no record.
    """

    id: str
    place: str
    statement: str
    needs: str
    tolerance: str
    published: tuple[str, ...]
    check: Callable[[Evidence], list[Line]]


def overall(words: Iterable[str]) -> str:
    """One word for several: what differs counts most, then what agrees."""
    words = set(words)
    for word in (DIFFERS, AGREES, NOT_COMPARABLE, NOT_RUN):
        if word in words:
            return word
    return NOT_PUBLISHED
