"""Which size and which kernel is the best under a time budget."""

from __future__ import annotations

import math
from functools import partial

from lipref.paper.claims.claim import Claim, Line
from lipref.paper.claims.estimate import Estimate, at_least, exact
from lipref.paper.claims.evidence import DATASETS, Evidence
from lipref.paper.claims.networks import Place, judged, of_kernel, theirs
from lipref.paper.published import BUDGETS

ALMOST = 0.9  # "almost always", as a share


def check_m_beats_l(evidence: Evidence) -> list[Line]:
    """A line per budget: in how many pairs of data set and layer M has the higher CRA(36/255) than L."""
    return [_m_against_l(evidence, budget) for budget in BUDGETS]


def _m_against_l(evidence: Evidence, budget: str) -> Line:
    table = {(dataset, budget): of_kernel(theirs(dataset, "cra", budget)) for dataset in DATASETS}
    pairs = [(key, layer) for key, values in table.items() for layer, size in values if size == "L"]
    wanted = {key: [(layer, size) for k, layer in pairs if k == key for size in ("M", "L")] for key in table}
    enough = len(pairs) // 2 + 1

    def ahead(values: dict, value) -> Estimate:
        return exact(sum(value(values[key][layer, "M"]) > value(values[key][layer, "L"]) for key, layer in pairs))

    count = ahead(table, float)
    return judged(
        f"M above L after {budget[:-1]} h, of {len(pairs)} pairs", count.value, at_least(enough, count), evidence,
        wanted, "cra", lambda ours: ahead(ours, _point), partial(at_least, enough), unit="pairs",
        note=f"at least {enough}",
    )  # fmt: skip


def check_kernels(evidence: Evidence) -> list[Line]:
    """A line per budget: in how many of the networks on CIFAR-10 3x3 kernels have the higher CRA(36/255)."""
    return [_kernels(evidence, budget) for budget in BUDGETS]


def _kernels(evidence: Evidence, budget: str) -> Line:
    key = ("CIFAR-10", budget)
    table = theirs(key[0], "cra", budget)
    pairs = [place for place in of_kernel(table) if _small(place) in table]
    wanted = {key: [place for pair in pairs for place in (pair, _small(pair))]}

    def ahead(values: dict, value) -> tuple[int, int]:
        """Of the pairs in which neither diverged."""
        there = [pair for pair in pairs if value(values[pair]) > 0 and value(values[_small(pair)]) > 0]
        return sum(value(values[pair]) > value(values[_small(pair)]) for pair in there), len(there)

    count, total = ahead(table, float)
    share = 100 * count / total

    def ours(values: dict) -> Estimate:
        mine, of = ahead(values[key], _point)
        return exact(100 * mine / of if of else math.nan)

    return judged(
        f"3x3 above 1x1 after {budget[:-1]} h, {count} of {total} networks", share,
        at_least(100 * ALMOST, exact(share)), evidence, wanted, "cra", ours, partial(at_least, 100 * ALMOST),
        unit="% of pairs", note=f"at least {100 * ALMOST:g} %; what diverged is left out",
    )  # fmt: skip


def _small(place: Place) -> Place:
    return place[0], f"{place[1]}_1x1"


def _point(value: Estimate) -> float:
    return value.value


CLAIMS = (
    Claim(
        id="m-beats-l", place="Tables 9 to 11, text",
        statement="Under one time budget the network M usually has a higher CRA(36/255) than L of the same layer.",
        needs="runs of M and L on the three data sets, by budget", tolerance="more than half of the pairs",
        published=("paper_accuracy_by_budget.csv",), check=check_m_beats_l,
    ),
    Claim(
        id="1x1-worse", place="Table 12",
        statement="Networks with 1x1 kernels have almost always a lower CRA(36/255) than those with 3x3 kernels.",
        needs="runs of all sizes with 3x3 and 1x1 kernels on cifar10, by budget",
        tolerance=f"at least {100 * ALMOST:g} % of the pairs", published=("paper_accuracy_by_budget.csv",),
        check=check_kernels,
    ),
)  # fmt: skip
