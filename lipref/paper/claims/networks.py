"""The networks of one data set and budget, the paper's and ours in one form."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from lipref.paper import published
from lipref.paper.claims.claim import Line
from lipref.paper.claims.estimate import Estimate, exact, percent
from lipref.paper.claims.evidence import DATASETS, Evidence, Network
from lipref.paper.comparison import NOT_COMPARABLE, NOT_RUN
from lipref.paper.style import display_name

Place = tuple[str, str]  # layer and size
SIZES = ("XS", "S", "M", "L")
MEASURES = {"accuracy": "accuracy", "cra": "cra_36"}  # ours -> the published table's


def title(dataset: str) -> str:
    """The data set's name in print."""
    return published.dataset_title(dataset)


def name(place: Place) -> str:
    """``SOC M``."""
    return f"{display_name(place[0])} {place[1].replace('_1x1', ' 1x1')}"


def theirs(dataset: str, measure: str, budget: str = "24h") -> dict[Place, float]:
    """The paper's values in percent, as printed, by layer and size; what diverged there is left out."""
    table = published.accuracy(dataset, budget)
    values = zip(table.layer, table["size"], table[MEASURES[measure]], strict=True)
    return {(layer, size): round(100 * value, 4) for layer, size, value in values}


def with_interval(values: dict[Place, float], dataset: str) -> dict[Place, Estimate]:
    """Published percentages with the interval that the test images leave to them."""
    images = DATASETS[dataset][2]
    return {place: percent(value, images) for place, value in values.items()}


def of_kernel(values: dict[Place, object], one_by_one: bool = False) -> dict:
    """The networks with 3x3 kernels, or those with 1x1 kernels."""
    return {place: value for place, value in values.items() if place[1].endswith("_1x1") == one_by_one}


def complete(
    evidence: Evidence, wanted: dict[tuple[str, str], Iterable[Place]], measure: str
) -> tuple[dict[tuple[str, str], dict[Place, Estimate]], str, str, tuple[str, ...]]:
    """Our values of all networks that a claim needs, or why there are none.

    Args:
        wanted: The networks by data set and budget.
        measure: One of `MEASURES`.

    Returns:
        Our values in percent, by data set and budget (empty unless all are there; what diverged has the value 0, the
        least that a network can have), the verdict where there are none, the reason, and the files.
    """
    values, files, there, other, total = {}, [], 0, 0, 0
    for (dataset, budget), places in wanted.items():
        found, places = evidence.networks(dataset, budget), list(places)
        total += len(places)
        for place in places:
            network = found.get(place)
            if network is None or network.reason:
                other += network is not None
                continue
            there += 1
            files += network.files
            values.setdefault((dataset, budget), {})[place] = value_of(network, measure)
    if there == total:
        return values, "", "", tuple(dict.fromkeys(files))
    reason = f"{there} of {total} networks run" + (f", {other} in another way" if other else "")
    return {}, NOT_COMPARABLE if there + other == total else NOT_RUN, reason, ()


def value_of(network: Network, measure: str) -> Estimate:
    """In percent; 0 where the network diverged."""
    return exact(0.0) if network.diverged else getattr(network, measure)


def lead(values: dict[Place, Estimate], places: Sequence[Place]) -> Estimate:
    """How far the best of ``places`` is ahead of the best of the others."""
    inside = [value for place, value in values.items() if place in places]
    outside = [value for place, value in values.items() if place not in places]
    return best(inside).minus(best(outside))


def best(values: Iterable[Estimate]) -> Estimate:
    """The largest."""
    return max(values, key=lambda value: value.value)


def judged(
    what: str, published_value: float, supported: str, evidence: Evidence,
    wanted: dict[tuple[str, str], Iterable[Place]], measure: str,
    ours: Callable[[dict], Estimate], verdict: Callable[[Estimate], str], *, unit: str = "points",
    tolerance: float = 0.0, note: str = "",
) -> Line:  # fmt: skip
    """A line of a claim that all networks ``wanted`` decide together.

    ``ours`` makes its value of what `complete` gives, ``verdict`` judges it.
    """
    values, word, reason, files = complete(evidence, wanted, measure)
    common = {"what": what, "unit": unit, "published": published_value, "supported": supported, "tolerance": tolerance}
    if not values:
        return Line(**common, verdict=word, note="; ".join(filter(None, (note, reason))))
    value = ours(values)
    return Line(**common, ours=value, verdict=verdict(value), note=note, files=files)
