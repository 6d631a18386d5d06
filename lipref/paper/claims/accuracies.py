"""Tables 9 to 11 value by value, and which network is the best."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pandas as pd

from lipref.paper import published
from lipref.paper.claims.claim import NOT_PUBLISHED, Claim, Line
from lipref.paper.claims.estimate import NOTHING, Estimate, at_least, near
from lipref.paper.claims.evidence import DATASETS, Evidence
from lipref.paper.claims.networks import Place, judged, lead, name, of_kernel, theirs, title, value_of, with_interval
from lipref.paper.comparison import AGREES, DIFFERS, NOT_COMPARABLE, NOT_RUN
from lipref.paths import PAPER

POINTS = 1.5  # of accuracy and CRA, in percent
READING = 0.06  # of the poster's bars against the printed tables, in percent; half a printed digit, and the reading
_TABLES = {"CIFAR-10": "Table 9", "CIFAR-100": "Table 10", "TinyImageNet": "Table 11"}
_NAMES = {"accuracy": "clean accuracy", "cra": "CRA(36/255)"}


def second_source(dataset: str, measure: str) -> dict[Place, float]:
    """The same 24 h values from elsewhere, in percent: CRA from the poster's bars, CIFAR-10 accuracy from the logs."""
    if measure == "cra":
        table = pd.read_csv(PAPER / "cra36_24h_figure_values.csv").query("dataset == @dataset")
        values = table.cra36_pct
    else:
        table = pd.read_csv(PAPER / "cifar10_24h_runs.csv").query("dataset == @dataset and status == 'ok'")
        values = 100 * table.test_accuracy
    layers = table.method.map(published.layer_name)
    return {(layer, size): value for layer, size, value in zip(layers, table["size"], values, strict=True)}


def check_values(evidence: Evidence, dataset: str, measure: str) -> list[Line]:
    """A line per network of one table."""
    found, other = evidence.networks(dataset), second_source(dataset, measure)
    lines = []
    for place, value in of_kernel(theirs(dataset, measure)).items():
        supported = NOT_PUBLISHED
        if place in other:
            supported = AGREES if abs(other[place] - value) <= READING + 1e-9 else DIFFERS
        network = found.get(place)
        ours, files, note = (NOTHING, (), "") if network is None else (getattr(network, measure), network.files, "")
        if network is None:
            verdict = NOT_RUN
        elif network.reason:
            verdict, note = NOT_COMPARABLE, network.reason
        elif network.diverged:
            verdict, note = DIFFERS, "diverged"
        else:
            verdict = near(value, ours, POINTS)
            note = f"{network.seeds} seeds" if network.seeds > 1 else ""
        lines.append(
            Line(what=f"{title(dataset)}, {name(place)}", unit="%", published=value, supported=supported, ours=ours,
                 tolerance=POINTS, verdict=verdict, note=note, files=files)
        )  # fmt: skip
    return lines


def check_best(evidence: Evidence, dataset: str) -> list[Line]:
    """The value of the network that Figure 5 ranks first, and how far it is ahead of the second."""
    table = of_kernel(with_interval(theirs(dataset, "cra"), dataset))
    first = published.ranking(dataset, 1).iloc[0]
    place = (first.layer, first["size"])
    wanted = {(dataset, "24h"): table}
    same = AGREES if abs(table[place].value - 100 * first.cra_36) <= READING + 1e-9 else DIFFERS
    ahead = lead(table, [place])
    network = evidence.networks(dataset).get(place)
    return [
        Line(
            what=f"{title(dataset)}, {name(place)}: CRA(36/255)", unit="%", published=table[place].value,
            supported=same, tolerance=POINTS, **_value(network, table[place].value),
        ),
        judged(
            f"{title(dataset)}, {name(place)}: lead over all others", ahead.value, at_least(0, ahead), evidence, wanted,
            "cra", lambda ours: lead(ours[dataset, "24h"], [place]), partial(at_least, 0),
        ),
    ]  # fmt: skip


def _value(network, value: float) -> dict:
    if network is None:
        return {}
    if network.reason:
        return {"ours": network.cra, "verdict": NOT_COMPARABLE, "note": network.reason, "files": network.files}
    ours: Estimate = value_of(network, "cra")
    return {"ours": ours, "verdict": near(value, ours, POINTS), "files": network.files}


def _key(dataset: str) -> str:
    return {"cifar10": "cifar10", "cifar100": "cifar100"}.get(DATASETS[dataset][0], "tiny-imagenet")


def _claim(prefix: str, dataset: str, check: Callable, **rest) -> Claim:
    return Claim(id=f"{prefix}-{_key(dataset)}", check=check, **rest)


_FILES = ("paper_accuracy_by_budget.csv", "cra36_24h_figure_values.csv")
CLAIMS = (
    *(
        _claim(
            "best", dataset, partial(check_best, dataset=dataset), place="Table 2, Figure 5",
            statement=f"Which network has the highest CRA(36/255) on {title(dataset)} after 24 h, and how high it is.",
            needs=f"runs of all 27 networks on {DATASETS[dataset][0]}, budget 24h; of the best one for its value",
            tolerance=f"{POINTS} points beyond our 95 % interval; a lead may be a tie within the intervals",
            published=_FILES,
        )
        for dataset in DATASETS
    ),
    *(
        _claim(
            measure, dataset, partial(check_values, dataset=dataset, measure=measure), place=_TABLES[dataset],
            statement=f"The {_NAMES[measure]} of every network on {title(dataset)} after 24 h.",
            needs=f"runs on {DATASETS[dataset][0]}, budget 24h, any of the networks",
            tolerance=f"{POINTS} points beyond our 95 % interval",
            published=(_FILES[0], *(("cifar10_24h_runs.csv",) if measure == "accuracy" else _FILES[1:])),
        )
        for dataset in DATASETS for measure in _NAMES
    ),
)  # fmt: skip
