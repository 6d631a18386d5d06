"""The tables of `lipref.paper.budgets` as people read them, text: a column per budget, size or radius."""

from __future__ import annotations

import pandas as pd

from lipref.errors import LiprefError
from lipref.paper.budgets import PRINTED, RADII, RATES, SEARCH, SHARES
from lipref.paper.budgets_figure import hours
from lipref.paper.comparison import AGREES, DIFFERS
from lipref.paper.style import display_name
from lipref.runs import overview

NOTES = (
    "lr: learning rate, wd: weight decay, as the random search chose them; printed: with one digit. Budgets are the "
    "epochs that one A100 does in that time. Where a run gave no value the reason stands in its place, and what the "
    "paper prints there. Ours, where there are some: exact 95 % intervals over the test images for one run, mean and "
    "standard deviation over seeds for several."
)

LITERATURE_NOTES = (
    "CRA(r): certified robust accuracy at the l2 radius r over pixels in [0, 1]. Empty: not published. 24 h: the "
    "epochs that one A100 does in that time; of the authors' runs the best CRA(36/255) of each layer among the sizes "
    "XS, S and M."
)


def by_budget(table: pd.DataFrame) -> pd.DataFrame:
    """Tables 9 to 12: a row per layer and size; the rates, then accuracy and CRA(36/255) after every budget.

    The learning rate (lr) and weight decay (wd) as printed, beside them in full precision where that is published. Ours
    have columns of their own where both sources are there.
    """
    _refuse_empty(table)
    lines = []
    for (layer, size), rows in table.groupby(["layer", "size"], sort=False):
        line = {"layer": display_name(layer), "size": size.replace("_1x1", " 1x1"), "place": (layer, size)}
        search = rows[rows.setting.str.endswith(SEARCH)].set_index("measure").value
        for rate, short in zip(RATES, ("lr", "wd"), strict=True):
            for name, title, form in ((rate + PRINTED, f"{short}, printed", "{:.0e}"), (rate, short, "{:.6g}")):
                if name in set(table[table.source == "paper"].measure):
                    line[title] = form.format(search[name]).replace("e-0", "e-") if name in search.index else ""
        lines.append(line | _cells(table, rows, SHARES))
    frame = _in_order(lines)
    for title in ("lr", "wd"):  # the one digit again is no news
        if title in frame and (frame[title].map(_number) == frame[f"{title}, printed"].map(_number)).all():
            frame = frame.drop(columns=title)
    return frame


def all_sets(table: pd.DataFrame) -> pd.DataFrame:
    """Table 2: a row per data set (with its budget), layer and source; accuracy and CRA(36/255) at every size."""
    _refuse_empty(table)
    sizes = list(table["size"].drop_duplicates().sort_values(key=overview.order))
    lines = []
    for (setting, layer, source), rows in table.groupby(["setting", "layer", "source"], sort=False):
        line = {"data set": setting, "layer": display_name(layer), "values": source}
        for measure in SHARES:
            for size in sizes:
                line[f"{measure} (%) {size.replace('_1x1', ' 1x1')}"] = _cell(rows, measure, size)
        if (table.source == "ours").any():
            line["n"] = _counts(rows) if source == "ours" else ""
        lines.append((setting, layer, source, line))
    settings, sources = list(dict.fromkeys(table.setting)), ["paper", "ours"]
    layers = dict(zip(table.layer, overview.order(table.layer), strict=True))
    lines.sort(key=lambda each: (settings.index(each[0]), layers[each[1]], sources.index(each[2])))
    return pd.DataFrame([line for *_, line in lines])


def literature(table: pd.DataFrame) -> pd.DataFrame:
    """Table 4: a row per network, in the order of the table; accuracy and CRA at every radius, and its parameters."""
    _refuse_empty(table)
    lines = []
    for (source, setting, layer, size), rows in table.groupby(["source", "setting", "layer", "size"], sort=False):
        name = display_name(layer) if size == "all" else f"{display_name(layer)} {size}"
        count = rows[rows.measure == "parameters"].value
        millions = f"{count.iloc[0] / 1e6:.0f}M" if len(count) else ""
        cells = {f"{measure} (%)": _cell(rows, measure, size) for measure in RADII}
        lines.append({"network": name, "values": f"{source}: {setting}"} | cells | {"parameters": millions})
    return pd.DataFrame(lines)


def best(table: pd.DataFrame) -> str:
    """The networks with the highest CRA(36/255), a line per source and setting, best first, at most three."""
    lines = []
    rows = table[(table.measure == SHARES[1]) & table.value.notna()]
    for (source, setting), group in rows.groupby(["source", "setting"], sort=False):
        first = group.sort_values("value", ascending=False, kind="stable").head(3)
        names = [
            f"{display_name(row.layer)}{'' if row.size == 'all' else f' {row.size}'} {row.value:.1f} %"
            for row in first.itertuples(index=False)
        ]
        lines.append(f"{source}, {setting}: highest CRA(36/255) {', '.join(names)}")
    return "\n".join(lines)


def differences(found: pd.DataFrame, reason: str = "") -> pd.DataFrame:
    """What of `lipref.paper.budgets.differences` was compared, in points; or why nothing was."""
    found = found[found.verdict.isin([AGREES, DIFFERS])]
    if found.empty:
        return pd.DataFrame({"difference": [f"not compared: {reason or 'nothing of ours has been run'}"]})
    frame = found[["setting", "layer", "size", "measure"]].assign(layer=found.layer.map(display_name))
    for name in ("paper", "ours", "difference", "tolerance"):
        frame[name] = ["" if pd.isna(value) else f"{value:.1f}" for value in found[name]]
    return frame.assign(verdict=found.verdict).reset_index(drop=True)


def _cells(table: pd.DataFrame, rows: pd.DataFrame, measures: tuple[str, ...]) -> dict[str, str]:
    """The columns of every measure, budget and source that ``table`` has, filled from ``rows``."""
    there = table[table.measure.isin(measures)]
    sources = [source for source in ("paper", "ours") if (there.source == source).any()]
    cells = {}
    for measure in measures:
        for setting in sorted(set(there.setting), key=hours):
            for source in sources:
                title = f"{measure} (%) {hours(setting)} h" + (f": {source}" if len(sources) > 1 else "")
                cells[title] = _cell(rows[(rows.setting == setting) & (rows.source == source)], measure)
    return cells


def _cell(rows: pd.DataFrame, measure: str, size: str | None = None) -> str:
    rows = rows if size is None else rows[rows["size"] == size]
    found = rows[rows.measure == measure]
    if found.empty:
        return ""
    row, printed = found.iloc[0], rows[rows.measure == measure + PRINTED]
    if row.note:
        return row.note + (f" (printed {printed.value.iloc[0]:.1f})" if len(printed) else "")
    if row.source == "ours" and row.n > 1:
        return f"{row.value:.1f} ± {row.high - row.value:.1f}"
    return f"{row.value:.1f}" + ("" if pd.isna(row.low) else f" [{row.low:.1f}, {row.high:.1f}]")


def _counts(rows: pd.DataFrame) -> str:
    pairs = zip(rows.n, rows.of, strict=True)
    return " ".join(dict.fromkeys(str(int(n)) if n == of else f"{int(n)}/{int(of)}" for n, of in pairs))


def _in_order(lines: list[dict]) -> pd.DataFrame:
    frame = pd.DataFrame(lines)
    places = pd.DataFrame(list(frame.pop("place")), columns=["layer", "size"])
    ordered = places.sort_values(["layer", "size"], key=overview.order, kind="stable").index
    return frame.loc[ordered].fillna("").reset_index(drop=True)


def _number(text: str) -> float:
    return float(text or -1)


def _refuse_empty(table: pd.DataFrame) -> None:
    if table.empty:
        raise LiprefError("the table is empty: there are no records to show")
