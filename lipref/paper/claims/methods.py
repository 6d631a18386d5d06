"""What the paper says of single methods: LOT is the best of the small ones, Cayley never leads, CPL does all well."""

from __future__ import annotations

import math
from functools import partial

import pandas as pd

from lipref.paper import published, tables
from lipref.paper.claims.claim import Claim, Line
from lipref.paper.claims.estimate import Estimate, at_least, at_most, exact
from lipref.paper.claims.evidence import DATASETS, Evidence, misfit
from lipref.paper.claims.measured import CIRCUMSTANCES, compared, estimate, theirs_cost
from lipref.paper.claims.networks import (
    SIZES,
    Place,
    complete,
    judged,
    lead,
    name,
    of_kernel,
    theirs,
    title,
    with_interval,
)
from lipref.paper.comparison import NOT_COMPARABLE, NOT_RUN
from lipref.runs.records import row


def check_lot_best(evidence: Evidence) -> list[Line]:
    """A line per data set and size: how far LOT is ahead of the best other layer of that size."""
    return [
        _lead_at_size(evidence, "cra", dataset, size, "lot", ahead=True) for dataset in DATASETS for size in ("XS", "S")
    ]


def check_lot_starved(evidence: Evidence) -> list[Line]:
    """How far LOT M is behind LOT S, and how few epochs LOT M gets."""
    lines = []
    for dataset in DATASETS:
        table, key = with_interval(theirs(dataset, "cra"), dataset), (dataset, "24h")
        ahead = table["lot", "S"].minus(table["lot", "M"])
        lines.append(judged(
            f"{title(dataset)}: LOT S ahead of LOT M", ahead.value, at_least(0, ahead), evidence,
            {key: [("lot", "S"), ("lot", "M")]}, "cra",
            lambda ours, key=key: ours[key]["lot", "S"].minus(ours[key]["lot", "M"]), partial(at_least, 0),
        ))  # fmt: skip
    layers = sorted({layer for layer, size in of_kernel(theirs("CIFAR-10", "cra")) if size == "M" and layer != "lot"})
    epochs = {layer: published.epochs("cifar10", "M", layer, "24h") for layer in (*layers, "lot")}
    share = epochs["lot"] / min(epochs[layer] for layer in layers)

    def ours(rows: dict[Place, tuple[dict, str]]) -> Estimate | None:
        if not all((layer, "M") in rows for layer in epochs):
            return None
        steps = {layer: estimate(rows[layer, "M"][0], "train_seconds") for layer in epochs}
        slowest = max((steps[layer] for layer in layers), key=lambda value: value.value)
        return slowest.over(steps["lot"])

    lines += compared(
        evidence, "epochs of LOT M over the fewest of another layer M", share, at_most(1, exact(share)), ours,
        partial(at_most, 1), unit="", only=(32,), note="ours from the time of a training step",
    )  # fmt: skip
    return lines


def check_cayley(evidence: Evidence) -> list[Line]:
    """A line per data set, measure and size, and per cost and size: how far Cayley is behind the best other layer."""
    lines = [
        _lead_at_size(evidence, measure, dataset, size, "cayley", ahead=False)
        for dataset in DATASETS for measure in ("accuracy", "cra") for size in SIZES
    ]  # fmt: skip
    for quantity in CIRCUMSTANCES:
        table = theirs_cost(quantity)
        for size in SIZES:
            ratio = table["cayley", size] / min(_others(table, size))

            def ours(rows: dict, quantity=quantity, size=size) -> Estimate | None:
                places = [(layer, size) for layer in published.complexity().index if layer != "standard"]
                if ("cayley", size) not in rows or sum(place in rows for place in places) < 2:
                    return None
                values = {place: estimate(rows[place][0], quantity) for place in places if place in rows}
                rest = [value for place, value in values.items() if place[0] != "cayley"]
                return values["cayley", size].over(min(rest, key=lambda value: value.value))

            lines += compared(
                evidence, f"{CIRCUMSTANCES[quantity]}, {size}: Cayley over the least of the others", ratio,
                at_least(1, exact(ratio)), ours, partial(at_least, 1), unit="",
            )  # fmt: skip
    return lines


def check_all_rounder(evidence: Evidence) -> list[Line]:
    """How far CPL's scores in Figure 1 are ahead of the best other layer's: their sum, and the lowest of the six."""
    paper = published.radar().pivot(index="layer", columns="measure", values="score")
    ours, word, note, files = _our_scores(evidence)
    lines = []
    for what, of in (("sum of the six scores", lambda t: t.sum(axis=1)), ("lowest of the six scores", _least)):
        ahead = exact(_ahead(of(paper)))
        value = exact(math.nan) if ours is None else exact(_ahead(of(ours)))
        lines.append(Line(
            what=f"CPL ahead of the best other layer: {what}", unit="scores", published=ahead.value,
            supported=at_least(0, ahead), ours=value, verdict=word or at_least(0, value), note=note, files=files,
        ))  # fmt: skip
    return lines


def _our_scores(evidence: Evidence) -> tuple[pd.DataFrame | None, str, str, tuple[str, ...]]:
    """Our scores by `lipref.paper.figure1` (layers by measures), the verdict where not comparable, why, the files.

    Those of CIFAR-10 with all networks, and measurements at 32x32; else those of any one folder, not comparable.
    """
    wanted = {("CIFAR-10", "24h"): of_kernel(theirs("CIFAR-10", "cra"))}
    _, word, reason, files = complete(evidence, wanted, "cra")
    for words, config, rows in evidence.measured:
        full = config["image_size"] == 32 and all(place in rows for place in wanted["CIFAR-10", "24h"])
        if not word and full:
            mine = [record for record, _ in evidence.runs if record["config"]["dataset"] == "cifar10"]
            chosen = [record for record in mine if not misfit(record, "CIFAR-10", "24h")]
            return _scored(chosen, rows), "", words, (*files, *sorted({path for _, path in rows.values()}))
    for words, _, rows in evidence.measured:
        folder = {path.rpartition("/")[0] for _, path in rows.values()}
        chosen = [(record, path) for record, path in evidence.runs if path.rpartition("/")[0] in folder]
        scored = _scored([record for record, _ in chosen], rows)
        if scored is not None and "cpl" in scored.index:
            data = chosen[0][0]["config"]["dataset"]
            kept = tuple(sorted({path for _, path in chosen} | {path for _, path in rows.values()}))
            return scored, NOT_COMPARABLE, f"ours on {data}, {words}; {reason}", kept
    return None, word or NOT_RUN, reason or "no measurement at 32x32", ()


def _scored(records: list[dict], rows: dict[Place, tuple[dict, str]]) -> pd.DataFrame | None:
    seven = set(published.complexity().index) - {"standard"}
    table = pd.DataFrame([row(record) for record in records])
    costs = pd.DataFrame([line for line, _ in rows.values()])
    if table.empty or not seven <= set(table.layer) or not seven <= set(costs.layer):
        return None
    table, costs = table[table.layer.isin(seven)], costs[costs.layer.isin(seven)]
    found = tables.radar(table, costs).query("source == 'ours'")
    return found.pivot(index="layer", columns="measure", values="value").dropna()


def _ahead(values: pd.Series) -> float:
    return float(values["cpl"] - values.drop("cpl").max())


def _least(table: pd.DataFrame) -> pd.Series:
    return table.min(axis=1)


def _others(table: dict[Place, float], size: str) -> list[float]:
    return [value for (layer, s), value in table.items() if s == size and layer not in ("cayley", "standard")]


def _lead_at_size(evidence: Evidence, measure: str, dataset: str, size: str, layer: str, *, ahead: bool) -> Line:
    """How far ``layer`` is ahead (or behind) the best other layer of one size after 24 h."""
    table = with_interval(theirs(dataset, measure), dataset)
    table = {place: value for place, value in table.items() if place[1] == size}

    def value(values: dict[Place, Estimate]) -> Estimate:
        found = lead(values, [(layer, size)])
        return found if ahead else Estimate(-found.value, -found.high, -found.low)

    text = {"accuracy": "accuracy", "cra": "CRA(36/255)"}[measure]
    way = "ahead of" if ahead else "behind"
    return judged(
        f"{title(dataset)}, {text}: {name((layer, size))} {way} the best other layer", value(table).value,
        at_least(0, value(table)), evidence, {(dataset, "24h"): table}, measure,
        lambda ours: value(ours[dataset, "24h"]), partial(at_least, 0),
        note="the paper's are a tie within the intervals" if value(table).value < 0 <= value(table).high else "",
    )  # fmt: skip


_ACCURACY, _COST = "paper_accuracy_by_budget.csv", "train_time_memory_figure_values.csv"
CLAIMS = (
    Claim(
        id="lot-best-small", place="Tables 9 to 11, text",
        statement="Of the networks XS and of those S, LOT has the highest CRA(36/255) after 24 h.",
        needs="runs of all layers at XS and S on the three data sets, budget 24h",
        tolerance="a tie within the 95 % intervals counts", published=(_ACCURACY,), check=check_lot_best,
    ),
    Claim(
        id="lot-starved-m", place="Tables 8 to 11, text",
        statement="At M the budget leaves LOT so few epochs that it falls behind its own network S.",
        needs="runs of LOT S and M, budget 24h; measurements of all layers at M on 32x32 pictures",
        tolerance="a tie within the intervals counts", published=(_ACCURACY, "epoch_budgets.csv"),
        check=check_lot_starved,
    ),
    Claim(
        id="cayley-never-leads", place="Figures 2 and 4, Tables 9 to 11",
        statement="In no size is Cayley the best of the layers, by accuracy, CRA(36/255), training time or memory.",
        needs="runs of all layers on the three data sets, budget 24h; measurements of Cayley and another layer",
        tolerance="a tie within the intervals counts", published=(_ACCURACY, _COST), check=check_cayley,
    ),
    Claim(
        id="cpl-all-rounder", place="Figure 1, text",
        statement="CPL is good by every measure: of all layers the highest sum of scores and the highest lowest score.",
        needs="runs of all networks on cifar10, budget 24h, and measurements of all on 32x32 pictures",
        tolerance="none; ours by our rule for scores", published=("radar_scores.csv",), check=check_all_rounder,
    ),
)  # fmt: skip
