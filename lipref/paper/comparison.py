"""The paper's values and ours, one against the other: what is shown, differences, tolerances, verdicts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from lipref.errors import LiprefError

# What a notebook of a table or figure shows, and whose rows that are.
VARIANTS = {"both": ("paper", "ours"), "published": ("paper",), "ours": ("ours",)}
AGREES, DIFFERS, NOT_RUN, NOT_COMPARABLE = "agrees", "differs", "not run", "not comparable"
COLUMNS = ("layer", "size", "measure", "unit", "paper", "ours", "low", "high", "difference", "tolerance", "verdict")


@dataclass(frozen=True)
class Tolerance:
    """How far a value of ours may lie from the published one: the larger of the two parts.

    Attributes:
        absolute: In the unit of the values.
        relative: In shares of the published value.
    """

    absolute: float = 0.0
    relative: float = 0.0

    def at(self, published: float) -> float:
        """The tolerance at one published value."""
        return max(self.absolute, self.relative * abs(published))


EXACT = Tolerance()


def variant(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows of a tidy table (`lipref.paper.tables`) that a variant shows.

    Raises:
        LiprefError: ``name`` is none of `VARIANTS`.
    """
    if name not in VARIANTS:
        raise LiprefError(f"variant={name!r}: choose one of {', '.join(VARIANTS)}")
    return table[table.source.isin(VARIANTS[name])].reset_index(drop=True)


def verdict(published: float, value: float, tolerance: float, low: float = math.nan, high: float = math.nan) -> str:
    """`AGREES` where the interval of our value (or the value, where there is none) comes within ``tolerance``.

    `DIFFERS` where it does not, and `NOT_RUN` where there is no value.
    """
    if pd.isna(value):
        return NOT_RUN
    low = value if pd.isna(low) else low
    high = value if pd.isna(high) else high
    slack = 1e-9 * max(abs(published), abs(value))  # differences of decimal numbers are not exact
    return AGREES if low - tolerance - slack <= published <= high + tolerance + slack else DIFFERS


def differences(table: pd.DataFrame, tolerance: Tolerance, reason: str = "") -> pd.DataFrame:
    """Ours beside theirs: a row for every published value, with `COLUMNS`.

    Args:
        table: Tidy, with at most one row per source, layer, size and measure.
        tolerance: Of every value.
        reason: Why ours and theirs cannot be compared, such as another data set; empty where they can. Then the rows
            that have a value of ours are `NOT_COMPARABLE` and have no difference.

    Raises:
        LiprefError: two values of one source in one place.
    """
    keys = ["layer", "size", "measure"]
    twice = table[table.duplicated(["source", *keys])]
    if not twice.empty:
        place = ", ".join(str(twice.iloc[0][key]) for key in ["source", *keys])
        raise LiprefError(f"two values for ({place}): compare one setting at a time")
    paper = table[table.source == "paper"].set_index(keys)
    ours = table[table.source == "ours"].set_index(keys)
    lines = []
    for key, row in paper.iterrows():
        if pd.isna(row.value):
            continue
        found = ours.loc[key] if key in ours.index else None
        value, low, high = (math.nan,) * 3 if found is None else (found.value, found.low, found.high)
        allowed = tolerance.at(row.value)
        judged = verdict(row.value, value, allowed, low, high)
        comparable = not reason or judged == NOT_RUN
        lines.append(
            (*key, row.unit, row.value, value, low, high, value - row.value if comparable else math.nan, allowed,
             judged if comparable else NOT_COMPARABLE)
        )  # fmt: skip
    return pd.DataFrame(lines, columns=list(COLUMNS))


def summary(found: pd.DataFrame, reason: str = "") -> str:
    """How many of the published values were met, in a line: ``of 54 published values: 2 agree, 52 not run``."""
    counts = found.verdict.value_counts()
    words = {AGREES: "agree", DIFFERS: "differ", NOT_COMPARABLE: "not comparable", NOT_RUN: "not run"}
    parts = [f"{counts[name]} {word}" for name, word in words.items() if name in counts]
    text = f"Of {len(found)} published values: {', '.join(parts) or 'none'}"
    return f"{text} ({reason})." if reason and NOT_COMPARABLE in counts else f"{text}."
