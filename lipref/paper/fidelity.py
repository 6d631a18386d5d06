"""Whether our code trains as the authors' does: both runs at the same share of their epochs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lipref.paper import comparable, tables
from lipref.paper.comparison import NOT_RUN, Tolerance
from lipref.paper.style import display_name

SHARES = (0.25, 0.5, 0.75, 1.0)
TOLERANCE = Tolerance(absolute=1.5)  # in percent
# Columns of `authors.curves`, and what they are called. Ours certify the test images once, after the last epoch.
TRAINING = {"train_accuracy": "training accuracy", "train_cra_36_255": "training CRA(36/255)"}
TESTED = {"test_accuracy": "test accuracy", "test_cra_36_255": "test CRA(36/255)"}


def at_shares(curves: pd.DataFrame, shares: Sequence[float] = SHARES) -> pd.DataFrame:
    """A tidy table (`lipref.paper.tables`), in percent: `TRAINING` at shares of the epochs, `TESTED` after the last.

    Between epochs curves are straight. Of the authors' repeats the last that was finished counts, as in the paper's
    tables; several runs of ours, of the same number of epochs, count with their mean and standard deviation. Runs that
    ended early are left out. ``setting`` has the number of epochs, which explains most of what differs.

    Args:
        curves: `lipref.paper.authors_runs.curves` of both sources.
        shares: Above 0, at most 1.
    """
    rows = []
    for (source, layer, size, epochs), group in curves.groupby(["source", "layer", "size", "epochs_total"], sort=False):
        finished = [run for _, run in group.groupby("run") if run.share.max() == 1 and run.train_loss.notna().all()]
        finished = finished[-1:] if source == "paper" else finished
        for share, names in [(share, TRAINING) for share in shares] + [(1.0, TESTED)]:
            for column, name in names.items():
                values = [100 * np.interp(share, run.share, run[column]) for run in finished]
                values = [value for value in values if not np.isnan(value)]
                if not values:
                    continue
                spread = np.std(values, ddof=1) if len(values) > 1 else np.nan
                mean = np.mean(values)
                rows.append((
                    source, f"{epochs} epochs", layer, size, f"{name} at {100 * share:g} % of the epochs", mean,
                    mean - spread, mean + spread, len(values), "%", len(values), "",
                ))  # fmt: skip
    found = pd.DataFrame(rows, columns=list(tables.COLUMNS))
    # Of runs of several lengths the longest: it is the closest to the authors'.
    length = found.setting.str.split().str[0].astype(int)
    keys = ["source", "layer", "size", "measure"]
    return found[length == length.groupby([found[key] for key in keys]).transform("max")].reset_index(drop=True)


def differences(table: pd.DataFrame, variant: str = "both") -> pd.DataFrame:
    """`matching.differences` within `TOLERANCE`, with ``epochs``: how many ours and theirs had."""
    found = comparable.differences(table, variant, TOLERANCE)
    lengths = table.drop_duplicates(["source", "layer", "size"]).set_index(["source", "layer", "size"]).setting

    def epochs(line: pd.Series) -> str:
        ours, theirs = (lengths.get((source, line.layer, line["size"]), "") for source in ("ours", "paper"))
        return f"{ours.split()[0]} of {theirs.split()[0]}" if ours else ""

    return found.assign(epochs=[epochs(line) for _, line in found.iterrows()])


def people(found: pd.DataFrame) -> pd.DataFrame:
    """`differences` as people read them (`matching.people`), with the epochs of ours and theirs."""
    shown = comparable.people(found)
    run = found[found.verdict != NOT_RUN]
    return shown if run.empty else shown.assign(epochs=run.epochs.to_numpy())


def say(found: pd.DataFrame, dataset: str) -> str:
    """How many values agree, and the largest difference of every network that has one beyond `TOLERANCE`."""
    run = found[found.verdict != NOT_RUN]
    if run.empty:
        return f"No run of ours on {dataset} stands beside theirs yet."
    lines = [
        f"Ours on {dataset}: {(run.verdict == 'agrees').sum()} of {len(run)} values at the same share of the epochs "
        f"lie within {TOLERANCE.absolute:g} points of theirs."
    ]
    for (layer, size), group in run[run.verdict == "differs"].groupby(["layer", "size"], sort=False):
        worst = group.loc[group.difference.abs().idxmax()]
        lines.append(
            f"{display_name(layer)} {size}: {worst.difference:+.1f} points at the most, {worst.measure}; "
            f"{worst.epochs} epochs."
        )
    return "\n".join(lines)
