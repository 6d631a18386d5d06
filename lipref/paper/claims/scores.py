"""Figure 1's scores of accuracy, counted again by the rule that the paper states for them."""

from __future__ import annotations

from functools import partial
from itertools import combinations

from lipref.paper import published
from lipref.paper.claims.claim import Claim, Line
from lipref.paper.claims.estimate import Estimate, exact, near
from lipref.paper.claims.evidence import DATASETS, Evidence
from lipref.paper.claims.networks import Place, complete, of_kernel, theirs
from lipref.paper.comparison import AGREES, DIFFERS
from lipref.paper.style import display_name

TOPS = (1, 3, 10)
ENTRIES = 2  # by how many a count may differ
_AXES = {"cra": "robust accuracy", "accuracy": "accuracy"}


def counts(values: dict[str, dict[Place, float]]) -> dict[str, int]:
    """How often each layer is among the first 1, 3 and 10 networks of the data sets, in all.

    A network is among the first n where fewer than n have a higher value, so that ties are all in.

    Args:
        values: By data set, then by layer and size.
    """
    found = dict.fromkeys((layer for networks in values.values() for layer, _ in networks), 0)
    for networks in values.values():
        for (layer, _), value in networks.items():
            better = sum(other > value for other in networks.values())
            found[layer] += sum(better < top for top in TOPS)
    return found


def contradictions(found: dict[str, int], scores: dict[str, int]) -> list[tuple[str, str]]:
    """Pairs of layers that no scoring by these counts could give these scores.

    The one with more entries has the lower score, or two with equally many have different ones.
    """
    pairs = []
    for one, other in combinations(scores, 2):
        entries, points = found[one] - found[other], scores[one] - scores[other]
        if entries * points < 0 or (entries == 0 and points != 0):
            pairs.append((one, other))
    return pairs


def check_rule(evidence: Evidence, measure: str) -> list[Line]:
    """A line per layer: its count; the paper's numbers support it where its printed score fits all other layers'."""
    radar = published.radar()
    chosen = radar[radar.measure == _AXES[measure]]
    scores = {layer: int(score) for layer, score in zip(chosen.layer, chosen.score, strict=True)}
    tables = {dataset: of_kernel(theirs(dataset, measure)) for dataset in DATASETS}
    paper = counts(tables)
    values, word, reason, files = complete(
        evidence, {(dataset, "24h"): table for dataset, table in tables.items()}, measure
    )  # fmt: skip
    ours = counts({dataset: _points(networks) for (dataset, _), networks in values.items()})
    pairs, lines = contradictions(paper, scores), []
    for layer, score in scores.items():
        against = [other for pair in pairs if layer in pair for other in pair if other != layer]
        note = f"printed score {score}"
        if against:
            others = ", ".join(f"{display_name(other)} ({paper[other]}, score {scores[other]})" for other in against)
            note += f", which does not fit {others}"
        value = exact(ours[layer]) if values else Estimate()
        lines.append(Line(
            what=f"{display_name(layer)}: entries in the first 1, 3 and 10", unit="entries", published=paper[layer],
            supported=DIFFERS if against else AGREES, ours=value, tolerance=ENTRIES,
            verdict=word or near(paper[layer], value, ENTRIES), note="; ".join(filter(None, (note, reason))),
            files=files,
        ))  # fmt: skip
    return lines


def _points(networks: dict[Place, Estimate]) -> dict[Place, float]:
    return {place: value.value for place, value in networks.items()}


CLAIMS = tuple(
    Claim(
        id=f"radar-{name}", place="Figure 1",
        statement=f"The scores of {axis} follow the stated rule: entries in the first 1, 3 and 10 of the data sets.",
        needs="runs of all networks on the three data sets, budget 24h", tolerance=f"{ENTRIES} entries",
        published=("radar_scores.csv", "paper_accuracy_by_budget.csv"), check=partial(check_rule, measure=measure),
    )
    for measure, axis, name in (("cra", "robust accuracy", "robust-accuracy"), ("accuracy", "accuracy", "accuracy"))
)  # fmt: skip
