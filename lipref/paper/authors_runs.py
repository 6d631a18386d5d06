"""The authors' published run folders, and ours beside them: curves, runs, statistics, measured constants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from lipref.errors import LiprefError
from lipref.paper import published, tables
from lipref.paper.comparison import VARIANTS
from lipref.paper.panels import SIZES
from lipref.paper.style import (
    DARK,
    WIDTH,
    context,
    display_name,
    layer_styles,
    legend,
    line_format,
    line_handles,
    new_figure,
)
from lipref.paths import PAPER
from lipref.runs import overview

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


CURVES = ("train_loss", "test_loss", "train_accuracy", "test_accuracy", "train_cra_36_255", "test_cra_36_255")
_FILES = {
    "statistics": "cifar10_24h_statistics.csv",
    "layers": "lipschitz_measured_layers.csv",
    "networks": "lipschitz_measured_networks.csv",
}


def curves(records: Sequence[dict], variant: str = "both") -> pd.DataFrame:
    """Learning curves: ``source, layer, size, run, epoch, epochs_total, share`` of the run, and `CURVES`.

    Losses are empty from the first NaN on; accuracies there are chance. Ours log the loss, accuracy and CRA of the
    training images in every epoch, and the test images once, after the last.

    Args:
        records: Of runs on the authors' data set.
        variant: One of `VARIANTS`.
    """
    theirs = pd.read_csv(PAPER / "cifar10_24h_learning_curves.csv", dtype={"run_id": str})
    theirs = theirs.rename(columns={"run_id": "run"})
    theirs = theirs.assign(source="paper", layer=theirs.method.map(published.layer_name))
    rows = [_our_point(record, line) for record in records for line in record.get("history", [])]
    ours = pd.DataFrame(rows, columns=["source", "layer", "size", "run", "epoch", "epochs_total", *CURVES])
    found = theirs if ours.empty else pd.concat([theirs, ours], ignore_index=True)
    found = found[found.source.isin(VARIANTS[variant])].reset_index(drop=True)
    found["share"] = found.epoch / found.epochs_total
    return found[["source", "layer", "size", "run", "epoch", "epochs_total", "share", *CURVES]]


def _our_point(record: dict, line: dict) -> dict:
    config, settings = record["config"], record["config"]["settings"]
    point = {
        "source": "ours", "layer": config["layer"], "size": config["size"], "run": record["digest"][:10],
        "epoch": line["epoch"] + 1, "epochs_total": settings["epochs"], "train_loss": line["loss"],
        "train_accuracy": line["accuracy"], "train_cra_36_255": line["cra_36"],
    }  # fmt: skip
    if record["status"] == "done" and point["epoch"] == settings["epochs"]:
        accuracy, cra = record["certificate"]["accuracy"], record["certificate"]["cra"]["36/255"]
        point |= {"test_accuracy": accuracy["value"], "test_cra_36_255": cra["value"]}
    return point


def runs(table: pd.DataFrame, variant: str = "both") -> pd.DataFrame:
    """A row per run: the columns of the authors' 27 folders, with ``source`` and our names; of ours what they have too.

    Args:
        table: The table of our runs (`lipref.runs.records.row`) on the authors' data set.
        variant: One of `VARIANTS`.
    """
    theirs = pd.read_csv(PAPER / "cifar10_24h_runs.csv", dtype={"run_id": str})
    theirs.insert(0, "source", "paper")
    theirs.insert(1, "layer", theirs.method.map(published.layer_name))
    theirs = theirs.drop(columns="method").sort_values(["size", "layer", "run_id"], key=_order, kind="stable")
    found = theirs
    if not table.empty:
        ours = pd.DataFrame({
            "source": "ours", "layer": table.layer, "dataset": table.dataset, "size": table["size"],
            "status": table.status, "seed": table.seed, "lr": table.learning_rate, "weight_decay": table.weight_decay,
            "epochs_planned": table.epochs, "wall_hours": table.train_seconds / 3600,
        })  # fmt: skip
        names = {"accuracy": "test_accuracy", "cra_36": "test_cra_36_255", "cra_72": "test_cra_72_255",
                 "cra_108": "test_cra_108_255", "cra_255": "test_cra_1"}  # fmt: skip
        for name, theirs_name in names.items():
            ours[theirs_name] = table[name] if name in table else float("nan")
        found = pd.concat([theirs, ours], ignore_index=True)
    return found[found.source.isin(VARIANTS[variant])].reset_index(drop=True)


def file(name: str, variant: str = "both") -> pd.DataFrame:
    """One of the published files as it is, all rows and numbers: ``statistics``, ``layers`` or ``networks``.

    Without rows where a variant does not show the paper's: nothing of ours stands in these files.
    """
    table = pd.read_csv(PAPER / _FILES[name], dtype={"run_id": str})
    return table if "paper" in VARIANTS[variant] else table[:0]


def tidy(runs_table: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Final test accuracy and CRA(36/255) in percent as a tidy table (`lipref.paper.tables`), for ours and theirs.

    Of the authors' repeats at one place the last that was finished counts, as in the paper's tables.

    Args:
        runs_table: `runs`.
        table: The table of our runs (`lipref.runs.records.row`).
    """
    paper = runs_table[(runs_table.source == "paper") & (runs_table.status == "ok")]
    paper = paper.sort_values("run_id", kind="stable").drop_duplicates(["layer", "size"], keep="last")
    rows = [
        ("paper", "authors' runs, 24 h", line.layer, line.size, measure, 100 * value, float("nan"), float("nan"), 1,
         "%", 1, "")
        for line in paper.itertuples()
        for measure, value in (("accuracy", line.test_accuracy), ("CRA(36/255)", line.test_cra_36_255))
    ]  # fmt: skip
    theirs = pd.DataFrame(rows, columns=list(tables.COLUMNS))
    ours = tables.accuracy(table, "cifar10")
    ours = ours[ours.source == "ours"]
    return theirs if ours.empty else pd.concat([theirs, ours], ignore_index=True)


def people(table: pd.DataFrame) -> pd.DataFrame:
    """A table of this module as people read it: text, empty cells for what is not known."""

    def text(value: object) -> str:
        if pd.isna(value):
            return ""
        if not isinstance(value, float):
            return str(value)
        return f"{value:.0f}" if value == int(value) else f"{value:.4g}"

    shown = [name for name in table.columns if name not in ("dataset", "budget_h", "kernel_size", "start_time")]
    kept = [name for name in table.columns if name == "kernel_size" and table[name].nunique() > 1]
    return table[kept + shown].map(text).reset_index(drop=True)


def brief(table: pd.DataFrame) -> pd.DataFrame:
    """Of `people` of `runs` the columns that fit on a page; the files have all."""
    kept = ("source", "layer", "size", "status", "seed", "first_nan_epoch", "wall_hours", "test_accuracy",
            "test_cra_36_255", "test_cra_72_255", "test_cra_108_255", "test_cra_1", "logged_lipschitz_bound",
            "train_throughput_median", "test_throughput_median")  # fmt: skip
    return table[[name for name in kept if name in table.columns]]


def say(runs_table: pd.DataFrame) -> str:
    """How the authors' runs ended: counts, and each one that gave no result, with its first epoch of NaN."""
    theirs = runs_table[runs_table.source == "paper"]
    lost = theirs[theirs.status != "ok"]
    parts = [
        f"{display_name(line.layer)} {line.size} ({line.status.replace('_', ' ')}"
        + ("" if pd.isna(line.first_nan_epoch) else f", epoch {line.first_nan_epoch:.0f} of {line.epochs_planned}")
        + ")"
        for line in lost.itertuples(index=False)
    ]
    kept, failed = len(theirs) - len(lost), "; ".join(parts) or "none"
    return f"{len(theirs)} published runs, {kept} with a result; without: {failed}."


def _order(column: pd.Series) -> pd.Series:
    return column if column.name == "run_id" else overview.order(column)


COLUMNS = ("source", "layer", "size", "run", "share", "train_loss", "train_cra_36_255", "test_cra_36_255")
# What a source logs in every epoch: ours certify the test images once, after the last. Beside ours the authors' runs of
# the same layers are dotted.
_SHOWN = {"paper": ("test_cra_36_255", "test CRA(36/255)"), "ours": ("train_cra_36_255", "training CRA(36/255)")}


@context()
def learning_curves(table: pd.DataFrame) -> Figure:
    """CRA(36/255) against the share of the epochs: a line of panels per source, a panel per size, a line per run.

    Ours have that of the training images; the authors' of the same layers is dotted beside it.
    A run ends where its loss became NaN: there it has a cross, and the legend names it.

    Args:
        table: `lipref.paper.authors_runs.curves`.

    Raises:
        LiprefError: a column is missing, or there is nothing to draw.
    """
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing or table.empty:
        what = f"have no column {missing[0]!r}" if missing else "have no rows"
        raise LiprefError(f"the curves {what}: give those of at least one run, with {', '.join(COLUMNS)}")
    sources = [source for source in _SHOWN if source in set(table.source)]
    sizes = [size for size in SIZES if size in set(table["size"])]
    styles = layer_styles(table.layer)
    figure = new_figure(2.9 * len(sources))
    axes = figure.subplots(len(sources), len(sizes), squeeze=False, sharex=True, sharey="row")
    notes: list[str] = []
    for line, source in zip(axes, sources, strict=True):
        for axis, size in zip(line, sizes, strict=True):
            rows = table[(table.source == source) & (table["size"] == size)]
            notes += _draw(axis, rows, styles, source)
            if source == "ours":
                _beside(axis, table[(table["size"] == size) & table.layer.isin(rows.layer)], styles)
            axis.set_title(f"{source}: {size.replace('_1x1', ' 1x1')}")
            axis.set_xlabel("share of the epochs (%)")
            axis.set_xlim(0, 100)
            axis.set_ylim(bottom=0)
        line[0].set_ylabel(f"{_SHOWN[source][1]} (%)")
    if "paper" in sources and "ours" in sources:
        notes.append("dotted: the authors' training CRA")
    legend(figure, line_handles(styles, markers=False), inches=WIDTH / 3, notes=notes)
    return figure


def _draw(axis: Axes, rows: pd.DataFrame, styles: dict, source: str) -> list[str]:
    """Draws the runs of one panel; returns a note for each that ended with NaN."""
    notes = []
    for (label, _), run in rows.groupby(["layer", "run"], sort=False):
        run = run.sort_values("share", kind="stable")
        lost = run.train_loss.isna()
        kept = run[~lost.cummax()]
        values = 100 * kept[_SHOWN[source][0]]
        look = line_format(styles[label], markers=False)
        axis.plot(list(100 * kept.share), list(values), label=display_name(label), **look)
        if lost.any() and len(kept):
            place = (100 * kept.share.iloc[-1], values.iloc[-1])
            axis.plot(*place, marker="x", markersize=6, markeredgewidth=1.8, color=DARK, linestyle="none", zorder=4)
            notes.append(f"{display_name(label)} {run['size'].iloc[0]}: NaN after {place[0]:.0f} % (×)")
    return notes


def _beside(axis: Axes, rows: pd.DataFrame, styles: dict) -> None:
    """The authors' training CRA, of runs that were finished."""
    for (label, _), run in rows[rows.source == "paper"].groupby(["layer", "run"], sort=False):
        if run.train_loss.notna().all():
            values = run.sort_values("share", kind="stable")
            look = line_format(styles[label], markers=False) | {"linestyle": ":", "linewidth": 0.9}
            axis.plot(list(100 * values.share), list(100 * values.train_cra_36_255), label="_authors", **look)
