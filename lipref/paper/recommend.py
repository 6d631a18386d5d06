"""Which network to take: a ranking by weighted measures, and the reason for its first place in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lipref.errors import LiprefError
from lipref.paper.style import display_name
from lipref.paper.tables import RADAR_MEASURES
from lipref.runs import overview

BENEFITS = ("robust accuracy", "accuracy")  # more is better; of all the others less is
RULE = (
    "Score: the weighted mean of what a network reaches on each measure, from 0 for the worst to 1 for the best of the "
    "networks that are compared (1 for all where all are equal); linear in percent, logarithmic in seconds and bytes. "
    "It is relative to these networks: another choice of them gives other scores."
)
_TIE = 1e-9  # scores are sums of products: closer than this is equal
_FORMS = {"training time": (1, "{:.3g} s per epoch"), "inference time": (1e3, "{:.3g} ms per image"),
          **dict.fromkeys(("training memory", "inference memory"), (1e-6, "{:,.1f} MB")),
          **dict.fromkeys(BENEFITS, (1, "{:.1f} %"))}  # fmt: skip


def parse_weights(text: str) -> dict[str, float]:
    """``"robust accuracy=2, training time=1"`` -> weights; measures that are not named have the weight 0.

    Raises:
        LiprefError: see `check_weights`; or another form, or a measure named twice.
    """
    found: dict[str, float] = {}
    for part in text.split(","):
        name, equals, number = (piece.strip() for piece in part.partition("="))
        try:
            value = float(number)
        except ValueError:
            equals = ""
        if not equals or name in found:
            raise LiprefError(f"weights {part.strip()!r}: give each measure once, as in {RADAR_MEASURES[0]}=2")
        found[name] = value
    return check_weights(found)


def check_weights(weights: Mapping[str, float]) -> dict[str, float]:
    """All six weights, in their usual order.

    Raises:
        LiprefError: an unknown measure, a negative weight or one that is not finite, or no weight above 0.
    """
    for name, value in weights.items():
        if name not in RADAR_MEASURES:
            raise LiprefError(f"unknown measure {name!r}: choose of {', '.join(RADAR_MEASURES)}")
        if not 0 <= value < math.inf:
            raise LiprefError(f"the weight of {name} is {value!r}: give 0 or more")
    if not any(weights.values()):
        raise LiprefError("all weights are 0, so every network is as good as any other: give one measure a weight")
    most = max(weights.values())
    # Only their proportions count; so even very large or small ones can be added up.
    return {name: weights.get(name, 0) / most for name in RADAR_MEASURES}


def values(table: pd.DataFrame) -> pd.DataFrame:
    """A row per layer and size (the index), a column per measure with a value; the unconstrained layer left out.

    Args:
        table: Tidy (`lipref.paper.tables`), with measures of `lipref.paper.tables.RADAR_MEASURES`; see
        `lipref.paper.tradeoffs`.
    """
    rows = table[(table.layer != "standard") & table.value.notna()]
    found = rows.pivot(index=["layer", "size"], columns="measure", values="value")
    found = found[[name for name in RADAR_MEASURES if name in found]]
    return found.sort_index(key=lambda level: overview.order(level.to_series()).to_numpy(), sort_remaining=True)


@dataclass(frozen=True)
class Recommendation:
    """The result: ``best`` (layer and size; several in a tie), ``ranking``, and what took no part.

    Attributes:
        best: Pairs of layer and size, equal in score.
        ranking: ``layer, size, score`` and a column per measure used (0 to 1), best first.
        unknown: Measures with a weight that no network has a value of.
        left_out: Network -> the measures with a weight that it lacks.
        reason: All of it in words.
    """

    best: tuple[tuple[str, str], ...]
    ranking: pd.DataFrame
    unknown: tuple[str, ...]
    left_out: dict[tuple[str, str], tuple[str, ...]]
    reason: str


def recommend(table: pd.DataFrame, weights: Mapping[str, float]) -> Recommendation:
    """Rank the networks of ``table`` by `RULE`.

    A measure of which no network has a value cannot count; a network that lacks another one is not ranked. Both are
    told.

    Raises:
        LiprefError: see `check_weights`; or no network has values of all the measures that count.
    """
    weights = {name: weight for name, weight in check_weights(weights).items() if weight > 0}
    found = values(table)
    unknown = tuple(name for name in weights if name not in found)
    used = [name for name in weights if name in found]
    if not used:
        raise LiprefError(f"nothing is known of {', '.join(unknown)} here: give another measure a weight")
    whole = found.dropna(subset=used)
    if whole.empty:
        raise LiprefError(f"no network has values of {', '.join(used)} together: give one of them the weight 0")
    left_out = {
        key: tuple(name for name in used if pd.isna(row[name]))
        for key, row in found.iterrows()
        if key not in whole.index
    }
    places = pd.DataFrame({name: _places(whole[name], name) for name in used})
    total = sum(weights[name] for name in used)
    score = sum(places[name] * (weights[name] / total) for name in used)
    ranking = places.assign(score=score).sort_values("score", ascending=False, kind="stable").reset_index()
    ranking = ranking[["layer", "size", "score", *used]]
    first = ranking[ranking.score >= ranking.score.iloc[0] - _TIE]
    best = tuple((row.layer, row.size) for row in first[["layer", "size"]].itertuples(index=False))
    reason = _reason(table, whole, ranking, best, weights, used, unknown, left_out)
    return Recommendation(best, ranking, unknown, left_out, reason)


def _places(column: pd.Series, name: str) -> pd.Series:
    """From 0, the worst, to 1, the best; 1 for all that are equal."""
    numbers = column.astype(float) if name in BENEFITS else -np.log(column.astype(float))
    spread = numbers.max() - numbers.min()
    return (numbers - numbers.min()) / spread if spread > 0 else numbers * 0 + 1.0


def front(found: pd.DataFrame, first: str, second: str) -> pd.DataFrame:
    """The Pareto front of two measures: the rows of `values` that no other one equals in both and betters in one."""
    rows = found.dropna(subset=[first, second])
    numbers = np.stack([rows[name] * (1 if name in BENEFITS else -1) for name in (first, second)], axis=1)
    beaten = [((numbers >= own).all(axis=1) & (numbers > own).any(axis=1)).any() for own in numbers]
    return rows[~np.array(beaten, dtype=bool)]


def axes(weights: Mapping[str, float], found: pd.DataFrame) -> tuple[str, str] | None:
    """What a picture of the trade-off shows: the cost and the benefit that count most; None where one is not known.

    Where no weight is on a cost (or a benefit), the first one that is known.
    """
    chosen = []
    for group in ([name for name in RADAR_MEASURES if name not in BENEFITS], list(BENEFITS)):
        known = [name for name in group if name in found and found[name].notna().any()]
        if not known:
            return None
        chosen.append(max(known, key=lambda name: weights.get(name, 0)))
    return chosen[0], chosen[1]


def _reason(table, whole, ranking, best, weights, used, unknown, left_out) -> str:
    names = [_name(*key) for key in best]
    total = sum(weights[name] for name in used)
    shares = ", ".join(f"{name} {100 * weights[name] / total:.0f} %" for name in used)
    lines = [f"What counts: {shares}."]
    if len(best) > 1:
        lines.append(f"{', '.join(names)} share the first place among {len(ranking)} networks: a tie.")
    else:
        lines.append(f"{names[0]} is recommended, with a score of {ranking.score.iloc[0]:.2f} of 1.")
    numbers = whole.loc[best[0]]
    each = []
    for name in used:
        scale, form = _FORMS[name]
        order = whole[name].rank(ascending=name not in BENEFITS, method="min")
        each.append(f"{name} {form.format(scale * numbers[name])} (place {order[best[0]]:.0f})")
    lines.append(f"{names[0]} has {', '.join(each)}.")
    rest = ranking.iloc[len(best) :]
    if len(rest):
        second = rest.iloc[0]
        key = (second.layer, second["size"])
        better = [name for name in used if whole.loc[key, name] != numbers[name]
                  and (whole.loc[key, name] > numbers[name]) == (name in BENEFITS)]  # fmt: skip
        text = f"Next is {_name(*key)} ({second.score:.2f})"
        lines.append(f"{text}, better in {', '.join(better)}." if better else f"{text}, better in nothing that counts.")
    lines += _noise(table, whole, best[0], used)
    if unknown:
        lines.append(f"Not known here, and so without effect: {', '.join(unknown)}.")
    if left_out:
        groups: dict[tuple[str, ...], list[str]] = {}
        for key, lacks in left_out.items():
            groups.setdefault(lacks, []).append(_name(*key))
        gaps = "; ".join(f"{', '.join(names)} (no {' and no '.join(lacks)})" for lacks, names in groups.items())
        lines.append(f"Not ranked: {gaps}.")
    return "\n".join(lines)


def _noise(table: pd.DataFrame, whole: pd.DataFrame, best: tuple[str, str], used: list[str]) -> list[str]:
    """Which intervals of the shares overlap with those of the best: another run may choose another network."""
    lines = []
    for name in (name for name in used if name in BENEFITS):
        rows = table[(table.measure == name) & table.low.notna()].set_index(["layer", "size"])
        if best not in rows.index:
            continue
        own = rows.loc[best]
        near = [_name(*key) for key in whole.index if key != best and key in rows.index
                and rows.loc[key].high >= own.low and rows.loc[key].low <= own.high]  # fmt: skip
        if near:
            lines.append(f"In {name} its interval overlaps with {', '.join(near)}: differences there may be chance.")
    return lines


def _name(layer: str, size: str) -> str:
    return f"{display_name(layer)} {size}"
