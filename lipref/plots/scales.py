"""Logarithmic axes to base 2 with ticks that people read: 1/2 s, 1 min, 512 MB, 1 GB."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from matplotlib.axis import Axis

MOST_TICKS = 8
_THOUSANDS = tuple(2**k for k in range(10))  # 1 to 512; then 1 of the next unit
# Unit of the table -> (size in that unit, name, steps) for each unit of the ticks, ascending.
_UNITS: dict[str, list[tuple[float, str, tuple[float, ...]]]] = {
    "s": [
        (1e-6, "µs", _THOUSANDS),
        (1e-3, "ms", tuple(2**k for k in range(7))),
        (1.0, "s", tuple(2.0**k for k in range(-3, 6))),
        (60.0, "min", tuple(2**k for k in range(6))),
        (3600.0, "h", tuple(2**k for k in range(10))),
    ],
    "bytes": [(1000.0**k, name, _THOUSANDS) for k, name in enumerate(("B", "kB", "MB", "GB", "TB"))],
    "images/s": [(0.001, "", (1, 2, 4, 8, 16, 32, 64))]
    + [(1.0, "", tuple(2.0**k for k in range(-3, 10)))]
    + [(1000.0**k, "", _THOUSANDS) for k in (1, 2, 3)],
}


def human_axis(axis: Axis, rows: pd.DataFrame, measure: str, unit: str) -> None:
    """Make ``axis`` logarithmic around the values and intervals of ``rows``, with ticks and a label with units."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    ends = pd.concat([rows.value, rows.low, rows.high]).dropna()
    least, most = limits(float(ends.min()), float(ends.max()), unit)
    chosen = [tick for tick in _all_ticks(unit) if least <= tick[0] <= most]
    while len(chosen) > MOST_TICKS:
        chosen = chosen[::2]
    which = axis.axis_name
    axis.axes.set(**{f"{which}scale": "log", f"{which}lim": (least, most)})
    axis.set_major_locator(FixedLocator([place for place, _, _ in chosen]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FixedFormatter([text for _, text, _ in chosen]))
    names = [name for name in dict.fromkeys(name for _, _, name in chosen) if name]
    axis.set_label_text(f"{measure} ({', '.join(names) or unit})")


def limits(least: float, most: float, unit: str) -> tuple[float, float]:
    """The range of an axis: a little more than the values, and enough for two ticks."""
    pad = 2 ** (0.15 + 0.04 * math.log2(most / least))
    low, high = least / pad, most * pad
    places = [place for place, _, _ in _all_ticks(unit)]
    if sum(low <= place <= high for place in places) < 2:
        low = max([place for place in places if place <= low], default=low) / 1.05
        high = min([place for place in places if place >= high], default=high) * 1.05
    return low, high


def _all_ticks(unit: str) -> list[tuple[float, str, str]]:
    """Place in the table's unit, text, and name of the tick's unit, ascending."""
    return [(size * step, _text(size, step, name), name) for size, name, steps in _UNITS[unit] for step in steps]


def _text(size: float, step: float, name: str) -> str:
    if not name:
        return f"{size * step:,.6g}" if size * step < 1 else f"{size * step:,.0f}"
    number = f"1/{round(1 / step)}" if step < 1 else f"{step:g}"
    return f"{number} {name}"
