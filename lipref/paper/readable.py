"""Tidy tables (`lipref.paper.tables`) as people read them: text, the paper's values beside ours."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from lipref.errors import LiprefError
from lipref.runs import overview


def wide(table: pd.DataFrame) -> pd.DataFrame:
    """A tidy table as people read it: a row per layer and size, the paper's and our values side by side, as text."""
    if table.empty:
        raise LiprefError("the table is empty: there are no records to show")
    columns = [
        (measure, source) for measure in dict.fromkeys(table.measure) for source in ("paper", "ours")
        if ((table.measure == measure) & (table.source == source)).any()
    ]  # fmt: skip
    several = table.groupby("source").setting.nunique().max() > 1
    keys = ["layer", "size", "setting"] if several else ["layer", "size"]
    lines = []
    for key, group in table.groupby(keys, sort=False):
        line = dict(zip(keys, key, strict=True))
        for measure, source in columns:
            cell = group[(group.measure == measure) & (group.source == source)]
            line[f"{measure}{_unit(table, measure)}: {source}"] = "" if cell.empty else _text(cell.iloc[0])
        line["n"] = _counts(group[group.source == "ours"])
        lines.append(line)
    frame = pd.DataFrame(lines).sort_values(["layer", "size"], key=overview.order, kind="stable").reset_index(drop=True)
    return frame.drop(columns="size") if set(frame["size"]) == {"all"} else frame


def or_missing(table: pd.DataFrame, form: Callable[[pd.DataFrame], pd.DataFrame], missing: str) -> pd.DataFrame:
    """``form(table)``, or for an empty table one cell that says what is missing."""
    return pd.DataFrame({"not run": [missing]}) if table.empty else form(table)


def by_source(table: pd.DataFrame) -> pd.DataFrame:
    """A tidy table as people read it where there are many measures: two rows per layer, the paper's and ours, as text.

    Args:
        table: Tidy; at most one setting and size per source.
    """
    if table.empty:
        raise LiprefError("the table is empty: there are no records to show")
    measures, lines = list(dict.fromkeys(table.measure)), []
    for (layer, source), group in table.groupby(["layer", "source"], sort=False):
        cells = {row.measure: _text(row) for _, row in group.iterrows()}
        lines.append({"layer": layer, "source": source} | {measure: cells.get(measure, "") for measure in measures})
    places = {"paper": 0, "ours": 1}
    return pd.DataFrame(lines).sort_values(
        ["layer", "source"], key=lambda c: overview.order(c) if c.name == "layer" else c.map(places), kind="stable",
        ignore_index=True,
    )  # fmt: skip


def of_our_sizes(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of those sizes for which there is a value of ours; all, where there is none."""
    sizes = set(table[table.source == "ours"]["size"])
    return table[table["size"].isin(sizes)] if sizes else table


def settings(table: pd.DataFrame) -> str:
    """Where the values of a tidy table come from, a line for each setting."""
    found = table[["source", "setting"]].drop_duplicates()
    return "\n".join(f"{line.source}: {line.setting}" for line in found.itertuples())


def _unit(table: pd.DataFrame, measure: str) -> str:
    unit = table[table.measure == measure].unit.iloc[0]
    return {"%": " (%)", "s": " (s)", "images/s": " (images/s)", "bytes": " (MB)", "score": ""}[unit]


def _counts(rows: pd.DataFrame) -> str:
    """The numbers of runs: ``3``, or ``2/3`` where one of three gave no value."""
    pairs = zip(rows.n, rows.of, strict=True)
    return " ".join(dict.fromkeys(str(int(n)) if n == of else f"{int(n)}/{int(of)}" for n, of in pairs))


def _text(row: pd.Series) -> str:
    if row.note:
        return row.note
    form = {"%": "{:.1f}", "s": "{:.3g}", "images/s": "{:.0f}", "bytes": "{:.1f}", "score": "{:.1f}"}[row.unit]
    scale = 1e-6 if row.unit == "bytes" else 1.0
    text = form.format(scale * row.value)
    if row.unit == "%" and row.n > 1:
        return f"{text} ± {form.format(row.high - row.value)}"
    return text if pd.isna(row.low) else f"{text} [{form.format(row.low)}, {form.format(row.high)}]"
