"""The tidy table that pictures are made from: checked, and divided into panels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from lipref.errors import LiprefError
from lipref.plots.style import display_name

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
