"""How counted costs grow, beside what the rows of the paper's Table 1 say: exponents fitted the same way to both."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from lipref.bench.counting import INPUT, PARAMETER
from lipref.bench.counting_grid import AXES, BASE, WAYS
from lipref.layers.complexity import symbols
from lipref.paper import comparison, published
from lipref.paper.style import display_name
from lipref.paper.table1 import parse

COLUMNS = ("source", "layer", "way", "part", "quantity", "measure", "value")
# Our quantity -> the end of the printed formula's name.
QUANTITIES = {"MACs": "macs", "stored": "memory"}
EXPONENTS = ("b", "s", "c", "k", "t")
AT_BASE, AT_WIDEST = "at the base point", f"at c = {max(AXES['c'])}"
FITTED = 3  # the largest values of an axis
# One growth: every exponent this near to the row's. One size: the ratio at the base point this near to 1.
GROWTH = comparison.Tolerance(absolute=0.3)
SIZE = comparison.Tolerance(relative=0.25)
AS_ROW, OTHER_SIZE, OTHER_GROWTH, NO_ROW = "as the row", "another factor", "another growth", "no row"
NOTHING = "no counts: none of these layers could be counted, or has a printed row"
CONVENTIONS = (
    "Counted from the code in one training forward pass, at b = {b}, s = {s}, c = {c}, k = {k} and along one symbol at "
    f"a time; exponents are slopes in logarithms over the {FITTED} largest values of each, of counts and formulas "
    "alike. A MAC is two operations; a product of complex numbers is four real ones, and a complex number stored is "
    "two. A Fourier transform of n points is 5 n log₂ n operations, half of that between real numbers and half a "
    "spectrum; elementwise operations count nothing. Stored is what autograd keeps, the input and the kernel included. "
    "t is t₁ for SOC's input and t₂ for its parameters. BCOP takes t steps, or by default as many as its weights need, "
    "here the initial ones. LOT's root is computed from eigenvalues on a CPU, by t products elsewhere. A count is as "
    f"the row says where every exponent is within {GROWTH.absolute:g} of the row's and the size at the base point "
    f"within {100 * SIZE.relative:g} %."
).format(**BASE)


def slope(places: Sequence[float], values: Sequence[float]) -> float:
    """The exponent p of ``values ~ places^p``: the least-squares slope in logarithms over the largest places.

    NaN where a value is 0 or there are fewer than two places.
    """
    order = np.argsort(places)[-FITTED:]
    x, y = np.asarray(places, dtype=float)[order], np.asarray(values, dtype=float)[order]
    if len(x) < 2 or (y <= 0).any():
        return math.nan
    x, y = np.log(x) - np.log(x).mean(), np.log(y) - np.log(y).mean()
    return float(x @ y / (x @ x))


def table(counts: pd.DataFrame) -> pd.DataFrame:
    """Exponents and sizes, tidy, with `COLUMNS`: ``ours`` from the counts, ``paper`` from the printed rows.

    Measures: ``exponent of b``, ... for every symbol on whose axis the layer was counted, `AT_BASE` and `AT_WIDEST`.
    What has no printed row has none here.

    Args:
        counts: `lipref.bench.counting_grid.counts_of`.
    """
    printed, rows = published.complexity(), []
    for (layer, way, part), found in counts.groupby(["layer", "way", "part"], sort=False):
        for quantity, name in QUANTITIES.items():
            column = "macs" if quantity == "MACs" else "stored"
            sources = {"ours": found[column].astype(float).to_numpy()}
            if layer in printed.index and part in (INPUT, PARAMETER):
                sources["paper"] = formula(printed.loc[layer, f"{part}_{name}"], found, layer)
            for source in ("paper", "ours"):
                if source in sources:
                    place = (source, layer, way, part, quantity)
                    rows += [(*place, *line) for line in _measures(found, sources[source], layer, part)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def judged(found: pd.DataFrame) -> pd.DataFrame:
    """Ours against the row, a line per layer, way, part and quantity.

    Columns: those four, ``ours_b``, ``row_b``, ... for the exponents, ``ratio`` (ours over the row at the base point),
    ``wide`` (the same at the most channels) and ``verdict``: `AS_ROW`, `OTHER_SIZE` (the same growth), `OTHER_GROWTH`,
    or `NO_ROW`.

    Args:
        found: `table`.
    """
    lines = []
    for place, rows in found.groupby(["layer", "way", "part", "quantity"], sort=False):
        values = {(row.source, row.measure): row.value for row in rows.itertuples()}
        line = dict(zip(("layer", "way", "part", "quantity"), place, strict=True))
        for symbol in EXPONENTS:
            for source, name in (("ours", "ours"), ("paper", "row")):
                line[f"{name}_{symbol}"] = values.get((source, f"exponent of {symbol}"), math.nan)
        for name, measure in (("ratio", AT_BASE), ("wide", AT_WIDEST)):
            line[name] = _ratio(values.get(("ours", measure), math.nan), values.get(("paper", measure), math.nan))
        line["verdict"] = _verdict(line, ("paper", AT_BASE) in values)
        lines.append(line)
    names = [f"{name}_{symbol}" for symbol in EXPONENTS for name in ("ours", "row")]
    return pd.DataFrame(lines, columns=["layer", "way", "part", "quantity", *names, "ratio", "wide", "verdict"])


def for_people(found: pd.DataFrame) -> pd.DataFrame:
    """`table` as people read it: exponents to one digit, with the row's in brackets where it is another one."""
    lines = []
    both = set(found.source) == {"paper", "ours"}
    for row in judged(found).to_dict("records"):
        line = {"layer": name_of(row["layer"], row["way"]), "part": row["part"], "quantity": row["quantity"]}
        for symbol in EXPONENTS:
            ours, theirs = (_digit(row[f"{name}_{symbol}"]) for name in ("ours", "row"))
            line[symbol] = f"{ours} [{theirs}]" if ours and theirs and ours != theirs else ours or theirs
        if both:
            line |= {"ours / row": _times(row["ratio"]), AT_WIDEST: _times(row["wide"]), "verdict": row["verdict"]}
        lines.append(line)
    return pd.DataFrame(lines)


def departures(found: pd.DataFrame, not_counted: str = "") -> str:
    """In words: how many rows describe the code, and where it has left one behind, by how much.

    Args:
        found: `table`.
        not_counted: The second result of `lipref.bench.counting_grid.counts_of`; stands below.
    """
    lines = judged(found)
    lines = lines[lines.verdict != NO_ROW]
    if lines.empty:
        nothing = "Nothing to compare: counts of our code and printed rows are not both there."
        return "\n".join(filter(None, (nothing, not_counted)))
    counts = lines.verdict.value_counts()
    words = [f"{counts.get(name, 0)} {text}" for name, text in (
        (AS_ROW, "are as the row says"), (OTHER_SIZE, "grow like it and differ by a factor"),
        (OTHER_GROWTH, "grow otherwise"))]  # fmt: skip
    text = [f"Of {len(lines)} counts beside their printed rows {', '.join(words)}."]
    for row in lines[lines.verdict != AS_ROW].to_dict("records"):
        text.append(_departure(row))
    return "\n".join(filter(None, (*text, not_counted)))


def name_of(layer: str, way: str) -> str:
    """``LOT (on a CPU)``."""
    return f"{display_name(layer)} ({way})" if way else display_name(layer)


def _departure(row: Mapping) -> str:
    what = "MACs" if row["quantity"] == "MACs" else "stored numbers"
    size = f"{_times(row['ratio'])} times the row's"
    if not math.isnan(row["wide"]) and _digits(row["wide"]) != _digits(row["ratio"]):
        size += f", {_times(row['wide'])} times {AT_WIDEST}"
    other = [
        f"{symbol}^{_digit(row[f'ours_{symbol}'])} for {symbol}^{_digit(row[f'row_{symbol}'])}"
        for symbol in EXPONENTS if not _same(row, symbol)
    ]  # fmt: skip
    growth = f"; grows with {', '.join(other)}" if other else ""
    return f"{name_of(row['layer'], row['way'])}, {row['part']} {what}: {size}{growth}."


def _measures(found: pd.DataFrame, values: np.ndarray, layer: str, part: str) -> list[tuple[str, float]]:
    points = found[list(AXES)].astype(float)
    base = points.iloc[0]
    lines = []
    for symbol in EXPONENTS:
        name = {(INPUT, "t"): "t1", (PARAMETER, "t"): "t2"}.get((part, symbol), symbol) if layer == "soc" else symbol
        others = [other for other in AXES if other != name]
        on_axis = (points[others].fillna(0) == base[others].fillna(0)).all(axis=1).to_numpy()
        if points[name].notna().all() and on_axis.sum() > 1:
            fitted = slope(points[name].to_numpy()[on_axis], values[on_axis])
            lines.append((f"exponent of {symbol}", round(fitted, 6) + 0.0))  # the same on every machine; no -0
        if symbol == "c":
            wide = on_axis & (points[name] == max(AXES["c"])).to_numpy()
            lines += [(AT_BASE, float(values[0]))] + [(AT_WIDEST, float(value)) for value in values[wide]]
    return lines


def formula(printed: str, found: pd.DataFrame, layer: str) -> np.ndarray:
    """The printed formula at every point; iterations that the way has no setting for are as published."""
    from sympy import lambdify

    fixed = next((dict(way.iterations) for way in WAYS if way.layer == layer), {})
    points = {name: found[name].astype("Int64").fillna(fixed.get(name, 1)).astype(float).to_numpy() for name in AXES}
    values = lambdify([symbols()[name] for name in AXES], parse(printed), "numpy")(*points.values())
    return np.broadcast_to(values, len(found)).astype(float)


def _ratio(ours: float, theirs: float) -> float:
    if ours == theirs:
        return 1.0
    return math.inf if theirs == 0 else ours / theirs


def _same(row: Mapping, symbol: str) -> bool:
    ours, theirs = row[f"ours_{symbol}"], row[f"row_{symbol}"]
    if math.isnan(ours) or math.isnan(theirs):
        return True
    return comparison.verdict(theirs, ours, GROWTH.at(theirs)) == comparison.AGREES


def _verdict(row: Mapping, has_row: bool) -> str:
    if not has_row or math.isnan(row["ratio"]):
        return NO_ROW
    if row["ratio"] in (0.0, math.inf) or not all(_same(row, symbol) for symbol in EXPONENTS):
        return OTHER_GROWTH
    near = comparison.verdict(1.0, row["ratio"], SIZE.at(1.0)) == comparison.AGREES
    return AS_ROW if near else OTHER_SIZE


def _digit(value: float) -> str:
    return "" if math.isnan(value) else f"{value + 0.0:.1f}".replace("-0.0", "0.0")


def _digits(value: float) -> str:
    return f"{value:.2g}"


def _times(value: float) -> str:
    """A ratio to two digits."""
    if math.isnan(value):
        return ""
    return "∞" if math.isinf(value) else f"{float(_digits(value)):g}"
