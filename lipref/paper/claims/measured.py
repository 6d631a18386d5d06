"""Measurements of cost, the paper's and ours in one form, and claims on their ratios."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lipref.paper import published
from lipref.paper.claims.claim import Line
from lipref.paper.claims.estimate import Estimate, exact
from lipref.paper.claims.evidence import Evidence
from lipref.paper.claims.networks import Place
from lipref.paper.comparison import NOT_COMPARABLE, NOT_RUN

# Our quantity -> the words of the claims; the paper has numbers for these two.
CIRCUMSTANCES = {"train_seconds": "training time", "train_peak_bytes": "training memory"}
_THEIRS = {"train_seconds": "seconds_per_epoch", "train_peak_bytes": "peak_bytes"}


def theirs_cost(quantity: str) -> dict[Place, float]:
    """The poster's values by layer and size: seconds per epoch, or bytes."""
    table = published.training_cost()
    values = zip(table.layer, table["size"], table[_THEIRS[quantity]], strict=True)
    return {(layer, size): float(value) for layer, size, value in values}


def estimate(row: dict, quantity: str) -> Estimate:
    """A quantity of `lipref.bench.cost.row` with its interval; bytes have none. NaN where it was not measured."""
    value = row[quantity]
    if value is None:
        return Estimate()
    return Estimate(value, row[f"{quantity}_low"], row[f"{quantity}_high"]) if "seconds" in quantity else exact(value)


def compared(
    evidence: Evidence, what: str, published_value: float, supported: str,
    ours: Callable[[dict[Place, tuple[dict, str]]], Estimate | None], verdict: Callable[[Estimate], str], *,
    unit: str = "times", tolerance: float = 0.0, note: str = "", only: Sequence[int] = (),
    misfit: Callable[[dict], str] = lambda config: "",
) -> list[Line]:  # fmt: skip
    """A line for each set of circumstances under which ours were measured; one, not run, where there is none.

    Args:
        ours: Makes our value of the measurements of one set of circumstances; None where those needed are missing.
        only: Sides of the pictures for which the claim is made; empty: any.
        misfit: Why a configuration cannot be compared; empty where it can.
    """
    common = {"what": what, "unit": unit, "published": published_value, "supported": supported, "tolerance": tolerance}
    lines = []
    for words, config, rows in evidence.measured:
        value = ours(rows)
        if value is None or value.value != value.value:
            continue
        reason = f"the claim is about pictures of side {only[0]}" if only and config["image_size"] not in only else ""
        reason = reason or misfit(config)
        lines.append(Line(
            **common, ours=value, verdict=NOT_COMPARABLE if reason else verdict(value),
            note="; ".join(filter(None, (words, reason, note))),
            files=tuple(sorted({path for _, path in rows.values()})),
        ))  # fmt: skip
    return lines or [Line(**common, verdict=NOT_RUN, note=note)]
