"""How measured seconds of single layers grow, beside counted operations and the paper's Table 1, tidy and in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from lipref.bench import ceilings, scaling
from lipref.bench.counting import INPUT, PARAMETER, WHOLE
from lipref.bench.scaling_parts import AXES, KERNEL
from lipref.errors import LiprefError
from lipref.layers import LAYERS, resolve
from lipref.paper import published
from lipref.paper.exponents import GROWTH, formula
from lipref.paper.style import display_name
from lipref.paths import ROOT
from lipref.runs import plans

COLUMNS = ("source", "layer", "part", "axis", "place", "measure", "value", "low", "high", "n", "unit")
MEASURED, COUNTED, PRINTED = "measured", "counted", "printed"
SECONDS, MACS, EXPONENT, BEND, SHARE = "seconds", "MACs", "exponent", "bend", "share of the ceiling"
CONFIDENCE = 0.95
NOTHING = "none of these layers was measured: lipref growth --layers NAME measures one"
CONVENTIONS = (
    "Seconds of forward and backward of one layer with 3 x 3 kernels, in training; exponents are slopes in logarithms "
    "over the upper half of the places of an axis (the larger one of an odd number), fitted by least squares in every "
    "round: the mean, and where it would be in 95 % of such measurements by Student's t over the rounds. That interval "
    "tells how well a slope repeats, not how straight the line is; in brackets stand the counted and the printed "
    "exponent, a dash where there is none; bend, in the CSV, is the slope between the last two "
    "places less that between the first two of the fit. Counted are the multiply-accumulates that the same call "
    "executes, backward included; printed is the row of the paper's Table 1, of one forward pass, fitted to the same "
    "places. prepare takes no batch, so its time has no exponent of b. The share is 2 MACs per second over the larger "
    "one of the measured product and convolution in float32; elementwise passes and memory traffic count nothing in it."
)


@dataclass(frozen=True)
class Fit:
    """An exponent with its interval (NaN from a single round), how many rounds it is from, and its bend."""

    value: float
    low: float
    high: float
    n: int
    bend: float


def upper_half(places: Sequence[float]) -> list[int]:
    """The positions of the larger half of ``places``, ascending by place: more of them where their number is odd.

    At least two, where there are two.
    """
    order = np.argsort(places, kind="stable")
    number = max(2, math.ceil(len(order) / 2))
    return [int(position) for position in order[-number:]]


def slope(places: Sequence[float], values: Sequence[float]) -> float:
    """The exponent p of ``values ~ places^p``: the least-squares slope in logarithms. NaN from fewer than two places.

    It is NaN, too, where a value is not positive.
    """
    x, y = np.asarray(places, dtype=float), np.asarray(values, dtype=float)
    if len(set(x)) < 2 or not (y > 0).all():
        return math.nan
    x, y = np.log(x) - np.log(x).mean(), np.log(y) - np.log(y).mean()
    return float(x @ y / (x @ x))


def fit(places: Sequence[float], rounds: Sequence[Sequence[float]]) -> Fit:
    """The exponent over the upper half of ``places``.

    Args:
        places: P different positive numbers.
        rounds: For every round its P positive values.

    Returns:
        The mean of the rounds' slopes, with the interval that Student's t gives for `CONFIDENCE`.
    """
    chosen = upper_half(places)
    x = [places[position] for position in chosen]
    slopes = np.array([slope(x, [values[position] for position in chosen]) for values in rounds])
    together = np.exp(np.log(np.asarray(rounds, dtype=float)[:, chosen]).mean(axis=0))
    bend = slope(x[-2:], together[-2:]) - slope(x[:2], together[:2]) if len(x) > 2 else math.nan
    mean, number = float(slopes.mean()), len(slopes)
    reach = math.nan
    if number > 1:
        reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, number - 1) * slopes.std(ddof=1) / math.sqrt(number))
    return Fit(mean, mean - reach, mean + reach, number, bend)


def table(records: Sequence[dict], limits: dict) -> pd.DataFrame:
    """Tidy, with `COLUMNS`: seconds, MACs and shares of the ceiling at every place of an axis, and exponents.

    An exponent has three sources: `MEASURED`, `COUNTED` and, where Table 1 has a row of which it is not 0, `PRINTED`.
    A place where memory ran out has no row.

    Args:
        records: `lipref.bench.scaling.read`.
        limits: `lipref.bench.ceilings.read`, of the same machine.

    Raises:
        LiprefError: records and ceilings of two machines.
    """
    top, printed, rows = ceilings.of_products(limits), published.complexity(), []
    for record in records:
        config = record["config"]
        for name in ("device", "machine", "threads"):
            if config[name] != limits[name]:
                raise LiprefError(
                    f"{config['layer']} was measured with {name} {config[name]}, the ceilings with {limits[name]}: "
                    "measure both on one machine"
                )
        grid = scaling.Grid(*(tuple(config[name]) for name in ("widths", "sides", "batches")))
        entries = [entry for entry in record["points"] if entry["seconds"] is not None]
        for part in dict.fromkeys(entry["part"] for entry in entries):
            for axis in AXES:
                others = {name: value for name, value in grid.centre.items() if name != axis}
                line = [entry for entry in entries if entry["part"] == part
                        and all(entry[name] == value for name, value in others.items())]  # fmt: skip
                if len(line) > 1:
                    line.sort(key=lambda entry: entry[axis])
                    rows += _rows(config["layer"], part, axis, line, top, printed)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _rows(layer: str, part: str, axis: str, line: list[dict], top: float, printed: pd.DataFrame) -> list[tuple]:
    """All rows of one line of the picture: a layer's part along an axis."""
    places, rows = [entry[axis] for entry in line], []
    for place, entry in zip(places, line, strict=True):
        seconds, macs = entry["seconds"], entry["macs"]
        at, n = (layer, part, axis, place), seconds["repeats"]
        ends = (seconds["median"], seconds["low"], seconds["high"])
        rows.append((MEASURED, *at, SECONDS, *ends, n, "s"))
        rows.append((COUNTED, *at, MACS, macs, math.nan, math.nan, 1, ""))
        # The least time is the largest share.
        shares = (200 * macs / (end * 1e9 * top) for end in (ends[0], ends[2], ends[1]))
        rows.append((MEASURED, *at, SHARE, *shares, n, "%"))
    found = fit(places, np.transpose([entry["seconds"]["rounds"] for entry in line]))
    at = (layer, part, axis, math.nan)
    rows.append((MEASURED, *at, EXPONENT, found.value, found.low, found.high, found.n, ""))
    rows.append((MEASURED, *at, BEND, found.bend, math.nan, math.nan, found.n, ""))
    chosen = upper_half(places)
    exact = {COUNTED: [entry["macs"] for entry in line]}
    if layer in printed.index and part in (INPUT, PARAMETER):
        points = pd.DataFrame(line).assign(k=KERNEL, t=pd.NA, t1=pd.NA, t2=pd.NA)
        exact[PRINTED] = formula(printed.loc[layer, f"{part}_macs"], points, layer)
    for source, values in exact.items():
        value = slope([places[position] for position in chosen], [values[position] for position in chosen])
        rows.append((source, *at, EXPONENT, value, math.nan, math.nan, 1, ""))
    return rows


def judged(found: pd.DataFrame) -> pd.DataFrame:
    """A line per layer, part and axis: ``measured, low, high, counted, printed`` exponents, NaN where there is none.

    Args:
        found: `table`.
    """
    rows = found[found.measure == EXPONENT]
    lines = []
    for (layer, part, axis), group in rows.groupby(["layer", "part", "axis"], sort=False):
        by_source = group.set_index("source")
        line = {"layer": layer, "part": part, "axis": axis}
        line |= {name: by_source.value.get(name, math.nan) for name in (MEASURED, COUNTED, PRINTED)}
        lines.append(line | {end: by_source.loc[MEASURED, end] for end in ("low", "high")})
    return pd.DataFrame(lines, columns=["layer", "part", "axis", MEASURED, "low", "high", COUNTED, PRINTED])


def people(found: pd.DataFrame) -> pd.DataFrame:
    """As people read it: a line per layer and part, an exponent per axis, and the share at the largest width."""
    lines, exponents = [], judged(found)
    for (layer, part), group in exponents.groupby(["layer", "part"], sort=False):
        line = {"layer": display_name(layer), "part": part}
        cells = group.set_index("axis")
        for axis in AXES:
            line[axis] = _cell(cells.loc[axis]) if axis in cells.index else ""
        widest = _widest(found, layer, part)
        line |= {
            "at most channels": f"{1000 * widest[SECONDS]:.3g} ms",
            "of the ceiling": f"{widest[SHARE]:.2g} %" if widest[SHARE] > 0 else "–",
        }
        lines.append(line)
    return pd.DataFrame(lines)


def ceilings_for_people(limits: dict) -> pd.DataFrame:
    """What the machine reaches, a line per quantity, as text."""
    return pd.DataFrame(
        {"ceiling": value["what"], "median": f"{value['median']:.3g} {value['unit']}",
         "spread": f"{value['low']:.3g} to {value['high']:.3g}"} for value in limits["values"].values()
    )  # fmt: skip


def ceilings_table(limits: dict) -> pd.DataFrame:
    """The same with all numbers: ``ceiling, median, low, high, unit, repeats, what, machine, threads``."""
    return pd.DataFrame(
        {"ceiling": name} | {key: value[key] for key in ("median", "low", "high", "unit", "repeats", "what")}
        | {key: limits[key] for key in ("machine", "threads")} for name, value in limits["values"].items()
    )  # fmt: skip


def sentence(found: pd.DataFrame, limits: dict) -> str:
    """In words: how many exponents are as printed and as counted, which are furthest off, and how near the ceiling."""
    lines, text = judged(found), []
    for source in (PRINTED, COUNTED):
        known = lines[lines[source].notna() & lines[MEASURED].notna()]
        if known.empty:
            continue
        gap = known[MEASURED] - known[source]
        near, less, more = (
            int(mask.sum())
            for mask in (gap.abs() <= GROWTH.absolute, gap < -GROWTH.absolute, gap > GROWTH.absolute)
        )  # fmt: skip
        worst = known.loc[gap.abs().idxmax()]
        text.append(
            f"Of {len(known)} measured exponents {near} are within {GROWTH.absolute:g} of the {source} one, {less} are "
            f"smaller and {more} larger; furthest off is {display_name(worst.layer)}, {worst.part}, with "
            f"{worst.axis}^{worst[MEASURED]:.1f} for {worst.axis}^{worst[source]:.1f}."
        )
    for part in (INPUT, PARAMETER, WHOLE):
        shares = {layer: _widest(found, layer, part)[SHARE] for layer in found[found.part == part].layer.unique()}
        shares = {layer: share for layer, share in shares.items() if share > 0}
        if shares:
            least, most = min(shares, key=shares.get), max(shares, key=shares.get)
            text.append(
                f"At most channels the {part} part reaches from {shares[least]:.2g} % ({display_name(least)}) to "
                f"{shares[most]:.2g} % ({display_name(most)}) of the machine's measured "
                f"{ceilings.of_products(limits):.3g} GFLOP/s."
            )
    speed = max(value["median"] for value in limits["values"].values() if value["unit"] == ceilings.GBS)
    text.append(
        f"{limits['machine']}, {limits['threads']} thread{'s' if limits['threads'] > 1 else ''}; "
        f"memory moves {speed:.3g} GB/s."
    )
    return "\n".join(text)


def load(folder: str | Path, layers: str = "all", say: Callable[[str], object] = print) -> tuple[list[dict], dict]:
    """The records of a folder that ``lipref growth`` wrote, and the ceilings of its machine.

    Args:
        folder: Relative to here, or to the repository.
        layers: Names, separated by commas; ``all``: every one that was measured. The library's own come first.
        say: Gets a line that names the layers that were not measured and how they are, if there are any.

    Raises:
        LiprefError: nothing there, damaged files, or an unknown layer.
    """
    place = Path(folder) if Path(folder).is_dir() else ROOT / folder
    records = scaling.read(place)
    known = {record["config"]["layer"]: record for record in records}
    names = list(known) if layers == "all" else [resolve(name).label for name in plans.layer_names(layers)]
    lost = [name for name in names if name not in known]
    if lost:
        say(f"not in {folder}: {', '.join(lost)}; lipref growth --layers NAME measures one")
    order = [name for name in LAYERS if name in names] + [name for name in names if name not in LAYERS]
    return [known[name] for name in order if name in known], ceilings.read(place / ceilings.FILE)


def _widest(found: pd.DataFrame, layer: str, part: str) -> dict[str, float]:
    """Seconds and share of the ceiling at the largest width; along another axis where widths were not varied."""
    rows = found[(found.layer == layer) & (found.part == part) & found.place.notna()]
    rows = rows[rows.axis == ("c" if (rows.axis == "c").any() else rows.axis.iloc[0])]
    rows = rows[rows.place == rows.place.max()].set_index("measure")
    return {name: float(rows.loc[name, "value"]) for name in (SECONDS, SHARE)}


def _cell(row: pd.Series) -> str:
    """``2.71 ± 0.03 [2.98, 3.00]``; a dash where there is no exponent."""
    text = _two(row[MEASURED])
    if not math.isnan(row.high):
        text += f" ± {row.high - row[MEASURED]:.2f}"
    return f"{text} [{_two(row[COUNTED])}, {_two(row[PRINTED])}]"


def _two(value: float) -> str:
    return "–" if math.isnan(value) else f"{value + 0.0:.2f}".replace("-0.00", "0.00")
