"""What the paper's tables and figures show, ours beside theirs, as tidy tables: one row per value.

Every function gives the columns `COLUMNS`. ``source`` is ``"paper"`` or ``"ours"``, ``setting`` says under which
circumstances a value was measured, ``low`` and ``high`` bound it (empty where nothing is known), ``n`` is the number of
runs behind it and ``of`` the number of runs that were made. What has not been run has no row; what was run and gave no
value has one with an empty value, and its ``note`` says why ("diverged").
"""

from __future__ import annotations

import math

import pandas as pd

from lipref.paper import published
from lipref.paper.figure1 import scores
from lipref.runs import overview

COLUMNS = ("source", "setting", "layer", "size", "measure", "value", "low", "high", "n", "unit", "of", "note")
DIVERGED = "diverged"
RADAR_MEASURES = (
    "robust accuracy", "accuracy", "training time", "inference time", "training memory", "inference memory",
)  # fmt: skip
INTERVALS = (
    "Intervals of accuracy and CRA: exact 95 % over the test images for one run; mean and one standard deviation over "
    "seeds for several. Intervals of times: the quartiles of repeated measurements, or the medians of their rounds "
    "where those lie further out."
)
_POSTER = "CIFAR-10, one A100, batch 256"


def accuracy(runs: pd.DataFrame, dataset: str, budget: str = "24h") -> pd.DataFrame:
    """Table 2: accuracy and CRA(36/255) in percent, for every layer and size.

    Args:
        runs: the table of runs (`runs.row`), one data set.
        dataset: our name of the data set; beside it stands the paper's own, or CIFAR-10 where the paper has none.
        budget: the paper's training time, ``"2h"``, ``"10h"`` or ``"24h"``.
    """
    theirs = published.dataset_of(dataset)
    numbers = published.accuracy(theirs, budget)
    numbers = numbers[~numbers["size"].str.endswith("_1x1") | runs_have_1x1(runs)]
    setting = f"{published.dataset_title(theirs)}, {budget[:-1]} h of one A100 per network"
    paper = [
        _row("paper", setting, line.layer, line.size, measure, 100 * value, 1, "%")
        for line in numbers.itertuples()
        for measure, value in (("accuracy", line.accuracy), ("CRA(36/255)", line.cra_36))
    ]
    return _frame([*paper, *_our_shares(runs, {"accuracy": "accuracy", "cra_36": "CRA(36/255)"})])


def runs_have_1x1(runs: pd.DataFrame) -> bool:
    """Whether any run is of a network with 1x1 kernels."""
    return not runs.empty and bool(runs["size"].str.endswith("_1x1").any())


def ranking(runs: pd.DataFrame, measure: str = "CRA(36/255)", networks: int = 10) -> pd.DataFrame:
    """Figures 5 and 9: one measure in percent, best first: all of CIFAR-10, the best elsewhere, and ours.

    Args:
        runs: the table of runs (`runs.row`).
        measure: ``"CRA(36/255)"`` (Figure 5, with Imagenette, which is on the poster alone) or ``"accuracy"`` (Figure
            9: the same networks, sorted by their accuracy).
        networks: how many of the paper's networks on CIFAR-100 and Tiny ImageNet; the figures show ten; 0: all.
    """
    of, column = {
        "CRA(36/255)": (published.ranking, "cra_36"), "accuracy": (published.ranked_accuracy, "accuracy")
    }[measure]  # fmt: skip
    paper = []
    for name in published.RANKED:
        first = networks if networks and name != "CIFAR-10" else None
        setting = f"{published.dataset_title(name)}, 24 h" + (f", best {_number(first)}" if first else "")
        found = of(name, first)
        paper += [
            _row("paper", setting, layer, size, measure, 100 * value, 1, "%")
            for layer, size, value in zip(found.layer, found["size"], found[column], strict=True)
        ]
    if measure == "CRA(36/255)":
        paper += [
            _row("paper", "Imagenette, 24 h, poster only", line.layer, line.size, measure, 100 * line.cra_36, 1, "%")
            for line in published.ranking("Imagenette").itertuples()
        ]
    ours = sorted(_our_shares(runs, {column: measure}), key=lambda row: -row["value"] if row["n"] else math.inf)
    return _frame([*ours, *paper])


def poster_ranking() -> pd.DataFrame:
    """All 97 bars of the poster: CRA(36/255) in percent after 24 h on four data sets, with two decimals."""
    return _frame(
        [
            _row("paper", f"{published.dataset_title(line.dataset)}, 24 h, from the poster", line.layer, line.size,
                 "CRA(36/255)", 100 * line.cra_36, 1, "%")
            for line in published.poster_ranking().itertuples()
        ]
    )  # fmt: skip


def robustness(runs: pd.DataFrame) -> pd.DataFrame:
    """Certified robust accuracy in percent at all radii, ours only; measure ``CRA(0)`` is the plain accuracy."""
    names = {"accuracy": "CRA(0)"} | {f"cra_{r}": f"CRA({r}/255)" for r in (36, 72, 108, 255)}
    return _frame(_our_shares(runs, names))


def mean_curves(curves: pd.DataFrame, runs: pd.DataFrame, size: str) -> pd.DataFrame:
    """The curves of one size, averaged over seeds: ``layer, radius, share, note``.

    Curves end at their first 0, so seeds count as 0 beyond it. A layer of which every run diverged has one row without
    radius and share.

    Args:
        curves: `lipref.runs.study.Study.curves`.
        runs: the table of runs (`runs.row`).
        size: one of the sizes of both.
    """
    chosen = curves[curves["size"] == size]
    seeds = chosen.groupby("layer").seed.nunique()
    means = chosen.groupby(["layer", "radius"], sort=False).share.sum().reset_index()
    means["share"] /= means.layer.map(seeds)
    lost = sorted(set(runs[runs["size"] == size].layer) - set(means.layer))
    gaps = pd.DataFrame({"layer": lost, "radius": math.nan, "share": math.nan, "note": DIVERGED})
    means = pd.concat([means.assign(note=""), gaps]) if lost else means.assign(note="")
    return means.sort_values(["layer", "radius"], key=lambda c: overview.order(c) if c.name == "layer" else c)


def training_time(costs: pd.DataFrame, dataset: str, train_images: int) -> pd.DataFrame:
    """Figure 2: seconds of training steps in one epoch of ``train_images``, without loading data."""
    paper = [
        _row("paper", _POSTER, line.layer, line.size, "training time per epoch", line.seconds_per_epoch, 1, "s")
        for line in published.training_cost().itertuples()
    ]
    ours = []
    for line in _measured(costs):
        steps = math.ceil(train_images / line.batch_size)
        values = [steps * value for value in (line.train_seconds, line.train_seconds_low, line.train_seconds_high)]
        setting = f"{dataset}, {train_images:,} images, {_machine(line)}"
        ours.append(_row("ours", setting, line.layer, line.size, "training time per epoch", *values, line.repeats, "s"))
    return _frame([*paper, *ours])


def inference_throughput(costs: pd.DataFrame) -> pd.DataFrame:
    """Figure 3: images per second in evaluation, the layers folded to what a deployed network computes.

    Beside ours stand the rates that the authors' own runs logged: the paper's Figure 3 is published as a picture only.
    """
    paper = [
        _row("paper", "logged by the authors' CIFAR-10 runs, mixed GPUs, with data loading", line.layer, line.size,
             "inference throughput", line.images_per_second, 1, "images/s")
        for line in published.logged_throughput().itertuples()
    ]  # fmt: skip
    ours = []
    for line in _measured(costs):
        rates = [line.batch_size / value for value in _deployed(line)]
        setting = f"{_shape(line)}, {_machine(line)}"
        ours.append(
            _row("ours", setting, line.layer, line.size, "inference throughput", rates[0], rates[2], rates[1],
                 line.repeats, "images/s")
        )  # fmt: skip
    return _frame([*paper, *ours])


def memory(costs: pd.DataFrame) -> pd.DataFrame:
    """Figure 4: peak of allocated bytes in training and in inference, weights included.

    The paper's inference memory is published as a picture only, so it has no rows.
    """
    paper = [
        _row("paper", _POSTER, line.layer, line.size, "training memory", line.peak_bytes, 1, "bytes")
        for line in published.training_cost().itertuples()
    ]
    ours = []
    for line in _measured(costs, complete=False):
        setting = f"{_shape(line)}, {_machine(line)}"
        for measure, value in (("training memory", line.train_peak_bytes), ("inference memory", line.infer_peak_bytes)):
            if not pd.isna(value):
                ours.append(_row("ours", setting, line.layer, line.size, measure, value, 1, "bytes"))
    return _frame([*paper, *ours])


def radar(runs: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """Figure 1: scores from 1 (worst) to 5 (best) on six axes; how ours come about is told by `scoring.SCORES`.

    The unconstrained network takes no part. A layer that lacks a measure has no score on that axis.
    """
    paper = [
        _row("paper", "three data sets, A100", line.layer, "all", line.measure, line.score, 1, "score")
        for line in published.radar().itertuples()
    ]
    done = runs[(runs.status == "done") & (runs.layer != "standard")] if not runs.empty else runs
    costs = costs[costs.layer != "standard"] if not costs.empty else costs
    if not costs.empty:
        costs = costs.assign(deployed=[_deployed(line)[0] for line in costs.itertuples()])
    ours = []
    for measure, table, column, logarithmic in (
        ("robust accuracy", done, "cra_36", False),
        ("accuracy", done, "accuracy", False),
        ("training time", costs, "train_seconds", True),
        ("inference time", costs, "deployed", True),
        ("training memory", costs, "train_peak_bytes", True),
        ("inference memory", costs, "infer_peak_bytes", True),
    ):
        setting, found = _radar_setting(runs, costs), scores(table, column, logarithmic)
        ours += [_row("ours", setting, layer, "all", measure, score, 1, "score") for layer, score in found.items()]
        if table is done:
            ours += [
                _lost("ours", setting, layer, "all", measure, "score", int((runs.layer == layer).sum()))
                for layer in dict.fromkeys(runs.layer)
                if layer not in {"standard", *found}
            ]
    return _frame([*paper, *ours])


def _number(count: int) -> str:
    """Small numbers in words, as in "best ten"."""
    words = ("", "", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    return words[count] if 1 < count < len(words) else str(count)


def _frame(rows: list[dict]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _row(source, setting, layer, size, measure, value, *rest) -> dict:
    """One row; ``rest`` is ``low, high, n, unit`` or, without an interval, ``n, unit``."""
    low, high, n, unit = rest if len(rest) == 4 else (math.nan, math.nan, *rest)
    cells = (source, setting, layer, size, measure, float(value), float(low), float(high), int(n), unit, int(n), "")
    return dict(zip(COLUMNS, cells, strict=True))


def _lost(source, setting, layer, size, measure, unit, of) -> dict:
    """The row of what was run ``of`` times and diverged every time."""
    return _row(source, setting, layer, size, measure, math.nan, 0, unit) | {"of": of, "note": DIVERGED}


def _our_shares(runs: pd.DataFrame, names: dict[str, str]) -> list[dict]:
    """One row per layer, size and measure: one run with its exact interval, several as mean and standard deviation."""
    rows = []
    if runs.empty:
        return rows
    for (layer, size), group in runs.groupby(["layer", "size"], sort=False):
        first, done = group.iloc[0], group[group.status == "done"]
        setting = (
            f"{first.dataset}, {overview.epochs(runs)}, batch {first.batch_size}, {first.test_images:,} test images"
        )
        for column, measure in names.items():
            place = ("ours", setting, layer, size, measure)
            if done.empty:
                rows.append(_lost(*place, "%", len(group)))
                continue
            values = 100 * done[column]
            if len(done) == 1:
                low, high = 100 * done[f"{column}_low"].iloc[0], 100 * done[f"{column}_high"].iloc[0]
            else:
                low, high = values.mean() - values.std(), values.mean() + values.std()
            rows.append(_row(*place, values.mean(), low, high, len(done), "%") | {"of": len(group)})
    return rows


def _measured(costs: pd.DataFrame, complete: bool = True) -> list:
    if costs.empty:
        return []
    return list((costs[costs.status == "done"] if complete else costs).itertuples())


def _deployed(line) -> tuple[float, float, float]:
    """Median and interval of an inference batch: folded, or for a layer that cannot be folded as it is."""
    folded = (line.folded_seconds, line.folded_seconds_low, line.folded_seconds_high)
    return (line.infer_seconds, line.infer_seconds_low, line.infer_seconds_high) if pd.isna(folded[0]) else folded


def _machine(line) -> str:
    threads = "" if line.device == "cuda" else f", {line.threads} thread{'s' if line.threads > 1 else ''}"
    return f"{line.machine}{threads}, batch {line.batch_size}"


def _shape(line) -> str:
    return f"{line.image_size}x{line.image_size} images"


def _radar_setting(runs: pd.DataFrame, costs: pd.DataFrame) -> str:
    parts = []
    if not runs.empty:
        parts.append(f"{runs.dataset.iloc[0]} {' '.join(dict.fromkeys(runs['size']))}")
    if not costs.empty:
        line = next(costs.itertuples())
        parts.append(f"cost at {_shape(line)} {' '.join(dict.fromkeys(costs['size']))}, {_machine(line)}")
    return "; ".join(parts) or "nothing"
