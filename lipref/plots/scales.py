"""Logarithmic axes with evenly spaced ticks that people read: 1, 2, 5, 10, 20, 50 and so on, or powers of ten."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from matplotlib.axis import Axis

MOST_TICKS = 8
_DECADES = range(-9, 19)
# Unit of the table -> (size in that unit, name) of the units of the ticks, ascending.
_UNITS = {
    "s": [(1e-6, "µs"), (1e-3, "ms"), (1.0, "s")],
    "bytes": [(1000.0**k, name) for k, name in enumerate(("B", "kB", "MB", "GB", "TB"))],
    "images/s": [(1.0, "")],
    "parameters": [(1.0, ""), (1e3, "thousand"), (1e6, "million")],
    "epochs": [(1.0, "")],
}


def human_axis(axis: Axis, rows: pd.DataFrame, measure: str, unit: str) -> None:
    """Make ``axis`` logarithmic around the values and intervals of ``rows``, with ticks and a label with units."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    ends = pd.concat([rows.value, rows.low, rows.high]).dropna()
    least, most = limits(float(ends.min()), float(ends.max()))
    chosen = _ticks(least, most)
    which = axis.axis_name
    axis.axes.set(**{f"{which}scale": "log", f"{which}lim": (least, most)})
    axis.set_major_locator(FixedLocator(chosen))
    axis.set_minor_locator(NullLocator())
    texts = [_text(place, unit) for place in chosen]
    axis.set_major_formatter(FixedFormatter([" ".join(filter(None, text)) for text in texts]))
    names = [name for name in dict.fromkeys(name for _, name in texts) if name]
    axis.set_label_text(f"{measure} ({', '.join(names) or unit})")


def limits(least: float, most: float) -> tuple[float, float]:
    """The range of an axis: a little more than the values, and enough for two ticks."""
    pad = 2 ** (0.15 + 0.04 * math.log2(most / least))
    low, high = least / pad, most * pad
    places = _places((1, 2, 5))
    if sum(low <= place <= high for place in places) < 2:
        low = max([place for place in places if place <= low], default=low) / 1.05
        high = min([place for place in places if place >= high], default=high) * 1.05
    return low, high


def _ticks(least: float, most: float) -> list[float]:
    """1, 2, 5, 10, ... in the range; where those are too many every power of ten, then every second one, and so on."""
    chosen = [place for place in _places((1, 2, 5)) if least <= place <= most]
    every = 1
    while len(chosen) > MOST_TICKS:
        chosen = [place for place in _places((1,), every) if least <= place <= most]
        every += 1
    return chosen


def _places(steps: tuple[int, ...], every: int = 1) -> list[float]:
    return [float(f"{step}e{decade}") for decade in _DECADES if decade % every == 0 for step in steps]


def _text(place: float, unit: str) -> tuple[str, str]:
    """A tick's number and the name of its unit: the largest one of which there is at least 1."""
    size, name = next(((s, n) for s, n in reversed(_UNITS[unit]) if place >= s * (1 - 1e-9)), _UNITS[unit][0])
    number = place / size
    return (f"{number:,.0f}" if number >= 1 - 1e-9 else f"{number:.6g}"), name
