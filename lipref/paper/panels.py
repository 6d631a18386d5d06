"""The tidy table that pictures are made from: checked, and divided into panels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from lipref.errors import LiprefError
from lipref.paper.style import display_name

if TYPE_CHECKING:
    from matplotlib.axis import Axis


# Of a table's further columns pictures know ``note``: why a row has no value.
COLUMNS = ("source", "setting", "layer", "size", "measure", "value", "low", "high", "n", "unit")
SOURCES = ("paper", "ours")
SIZES = tuple(f"{size}{kernel}" for kernel in ("", "_1x1") for size in ("XS", "S", "M", "L"))


@dataclass(frozen=True)
class Panel:
    """The rows of one source and setting, without those that have no value."""

    source: str
    setting: str
    rows: pd.DataFrame

    @property
    def title(self) -> str:
        start = f"{self.source}: "
        return self.setting if self.setting.startswith(start) else start + self.setting

    @property
    def sizes(self) -> list[str]:
        present = set(self.rows["size"])
        return [size for size in SIZES if size in present]

    def of(self, measure: str) -> Panel:
        """The same panel with the rows of one measure."""
        return Panel(self.source, self.setting, self.rows[self.rows.measure == measure])


def panels(table: pd.DataFrame, measures: Sequence[str], unit: str, sizes: Sequence[str] = SIZES) -> list[Panel]:
    """The panels of ``table``, one per source and setting, in the order in which they first appear.

    Args:
        table: One row per value, with `COLUMNS`. A row whose value is NaN is left out, and so is an interval of which
            an end is NaN.
        measures: What the picture can show.
        unit: The unit of all values.
        sizes: The sizes that the picture can show.

    Raises:
        LiprefError: a column is missing, there is nothing to draw, an unknown source, size, measure or unit, a value
            that is not finite or not within its interval, or two values in the same place.
    """
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise LiprefError(f"the table has no column {missing[0]!r}; a picture needs {', '.join(COLUMNS)}")
    if table.empty:
        raise LiprefError("the table has no rows: give at least one value to draw")
    for name, known in (("source", SOURCES), ("size", sizes), ("measure", measures), ("unit", (unit,))):
        _refuse_unknown(table, name, known)
    rows = table[table.value.notna()]
    if rows.empty:
        raise LiprefError(f"all {len(table)} values of the table are NaN: give at least one to draw")
    _check_values(rows)
    keys = ["source", "setting", "layer", "size", "measure"]
    twice = rows[rows.duplicated(keys)]
    if not twice.empty:
        place = ", ".join(str(twice.iloc[0][key]) for key in keys)
        raise LiprefError(f"two values for ({place}): give one row for each, such as the mean")
    return [Panel(*key, group) for key, group in rows.groupby(["source", "setting"], sort=False)]


def gaps(table: pd.DataFrame) -> list[str]:
    """What has a row and no value, a line each: ``SOC XS: diverged``. Empty for a table without a column ``note``.

    The setting is named where the network has a value in another one of the same source.
    """
    if "note" not in table.columns:
        return []
    lost = table[table.value.isna() & table.note.fillna("").ne("")]
    several = table["size"].nunique() > 1
    valued, lines = table[table.value.notna()], []
    for row in lost.itertuples(index=False):
        name = display_name(row.layer) + (f" {row.size}" if several else "")
        same = (valued.source == row.source) & (valued.layer == row.layer) & (valued["size"] == row.size)
        where = f" ({row.setting})" if (same & (valued.setting != row.setting)).any() else ""
        lines.append(f"{name}: {row.note}{where}")
    return list(dict.fromkeys(lines))


def refuse_not_positive(rows: pd.DataFrame) -> None:
    """For logarithmic axes.

    Raises:
        LiprefError: a value or interval that is not above 0.
    """
    for name in ("value", "low"):
        wrong = rows[rows[name] <= 0]
        if not wrong.empty:
            row = wrong.iloc[0]
            raise LiprefError(
                f"{row.measure} of {row.layer} {row['size']}: {name} {row[name]} is not above 0, which a logarithmic "
                "axis needs: correct the table"
            )


def _refuse_unknown(table: pd.DataFrame, column: str, known: Sequence[str]) -> None:
    unknown = [value for value in table[column].unique() if value not in known]
    if unknown:
        raise LiprefError(f"unknown {column} {unknown[0]!r} in the table; this picture shows {', '.join(known)}")


def _check_values(rows: pd.DataFrame) -> None:
    for row in rows.to_dict("records"):
        value, low, high = row["value"], row["low"], row["high"]
        place = f"{row['measure']} of {row['layer']} {row['size']}"
        if math.isinf(value) or math.isinf(low) or math.isinf(high):
            raise LiprefError(f"{place}: {value} ({low} to {high}) is not finite: leave the row out")
        slack = 1e-9 * abs(value)  # a mean may differ from the ends by rounding
        if low > value + slack or high < value - slack:
            raise LiprefError(f"{place}: {value} is not between low {low} and high {high}: correct the table")


def interval(rows: pd.DataFrame) -> list[list[float]]:
    """The distances from the value down to ``low`` and up to ``high``; NaN without interval."""
    known = rows.low.notna() & rows.high.notna()
    down = (rows.value - rows.low).clip(lower=0).where(known)
    up = (rows.high - rows.value).clip(lower=0).where(known)
    return [list(down), list(up)]


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
