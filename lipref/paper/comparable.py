"""Whether values of ours may be compared with the paper's, the reason where not, and what would fill the gap."""

from __future__ import annotations

import pandas as pd

from lipref.errors import LiprefError
from lipref.layers import LAYERS
from lipref.paper import comparison, published, unrun
from lipref.paper.comparison import NOT_RUN, Tolerance

# Accuracies: the exact 95 % interval of 10,000 test images reaches one point to either side.
SHARES = Tolerance(absolute=1.0)
TIMES = MEMORY = Tolerance(relative=0.1)
SCORES = Tolerance(absolute=0.5)  # the paper's are whole numbers
PAPER_SIDE, PAPER_BATCH = 32, 256  # of the measurements of Figures 2 to 4
RADAR = "our scores are relative to the layers, networks and machine drawn, the paper's to its own"
LOGGED = "the published rates are logs of mixed GPUs with the loading of data"


def reason_of_runs(runs: pd.DataFrame, budget: str = "24h") -> str:
    """Why the runs cannot be compared with the paper's of ``budget``; empty where they can, or where there are none.

    Args:
        runs: The table of runs (`lipref.runs.records.row`), of one data set.
        budget: ``"2h"``, ``"10h"``, ``"24h"``.
    """
    if runs.empty:
        return ""
    name = str(runs.dataset.iloc[0])
    if name not in published.DATASETS or name == "cifar10-jpeg":
        theirs = published.dataset_title(published.dataset_of(name))
        return f"ours are on {name}, the paper's on {theirs}"
    for line in runs.drop_duplicates(["layer", "size", "epochs"]).itertuples(index=False):
        try:
            epochs = published.epochs(name, line.size, line.layer, budget)
        except LiprefError:
            continue  # the paper has no such network: it has no published value either
        if line.epochs != epochs:
            return f"ours were trained for {line.epochs} epochs ({line.layer} {line.size}), {budget} are {epochs}"
    return ""


def reason_of_times(costs: pd.DataFrame) -> str:
    """Why seconds cannot be compared with those of the paper's A100; empty where they can."""
    if costs.empty:
        return ""
    machine = str(costs.machine.iloc[0])
    return _reason(costs, [] if "A100" in machine else [f"ours are of {machine}, the paper's of an A100"])


def reason_of_memory(costs: pd.DataFrame) -> str:
    """Why peaks of memory cannot be compared with the paper's; empty where they can, which is on any CUDA device."""
    if costs.empty:
        return ""
    device = str(costs.device.iloc[0])
    return _reason(costs, [] if device == "cuda" else [f"ours are of the {device.upper()}, the paper's of CUDA"])


def differences(table: pd.DataFrame, variant: str, tolerance: Tolerance, reason: str = "") -> pd.DataFrame:
    """`comparison.differences` where both are shown; without rows where a variant shows one of the two alone."""
    return comparison.differences(table if variant == "both" else table[:0], tolerance, reason)


def say(found: pd.DataFrame, variant: str, reason: str = "") -> str:
    """How many published values were met, in a line; for a variant that shows one source, that nothing is compared."""
    return comparison.summary(found, reason) if variant == "both" else f"Only {variant}: nothing to compare."


def people(found: pd.DataFrame) -> pd.DataFrame:
    """Differences as people read them, text; rows that nobody has run yet are left out, and counted by `say`."""
    rows = found[found.verdict != NOT_RUN]
    if rows.empty:
        return pd.DataFrame({"compared": ["nothing: no value of ours stands beside a published one"]})
    scale, names = rows.unit.map({"bytes": 1e-6}).fillna(1.0), rows.unit.replace({"bytes": "MB"})

    def text(column: str) -> pd.Series:
        return (rows[column] * scale).map(lambda value: "" if pd.isna(value) else f"{value:.4g}")

    shown = {"layer": rows.layer, "size": rows["size"], "measure": rows.measure + " (" + names + ")"}
    shown |= {column: text(column) for column in ("paper", "ours", "difference", "tolerance")}
    return pd.DataFrame(shown | {"verdict": rows.verdict}).reset_index(drop=True)


def networks(table: pd.DataFrame, dataset: str, reason: str = "", budget: str = "24h") -> str:
    """The command for the published networks that ours lack (`unrun.networks`); all, where ours cannot be compared.

    Args:
        table: Tidy, with the published rows of one data set.
        dataset: Our name of that data set.
        reason: `reason_of_runs`.
        budget: The paper's.
    """
    return unrun.networks(_missing(table, reason), dataset, budget)


def measurements(table: pd.DataFrame, dataset: str, reason: str = "") -> str:
    """The command for the published measurements that ours lack (`unrun.measurements`); all, as for `networks`."""
    return unrun.measurements(_missing(table, reason), dataset)


def of_dataset(table: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """Of `tables.ranking` the rows to compare: ours, and the paper's on ``dataset`` or, for one it lacks, CIFAR-10."""
    theirs = published.dataset_title(published.dataset_of(dataset)) + ","
    return table[(table.source == "ours") | table.setting.str.startswith(theirs)].reset_index(drop=True)


def rankings(table: pd.DataFrame, dataset: str, reason: str = "") -> str:
    """A line for each data set of Figures 5 and 9: the command for the networks that have not been run (`networks`).

    Args:
        table: `tables.ranking` with all networks.
        dataset: Our name of the data set that ours are on.
        reason: `reason_of_runs`.
    """
    lines = []
    for name in ("cifar10", "cifar100", "tiny-imagenet-200"):
        rows = of_dataset(table, name)
        lines.append(networks(rows, name, reason or ("" if name == dataset else "another data set")))
    return "\n".join(filter(None, lines))


def cifar10(runs: pd.DataFrame, costs: pd.DataFrame) -> str:
    """The commands for the runs and measurements on CIFAR-10 that ours lack, of all that the paper's radar scores."""
    accuracies = published.accuracy("CIFAR-10")
    pairs = [pair for pair in zip(accuracies.layer, accuracies["size"], strict=True) if not pair[1].endswith("_1x1")]
    times = published.training_cost()
    done = () if reason_of_runs(runs) or runs.empty else set(zip(runs.layer, runs["size"], strict=True))
    measured = () if reason_of_memory(costs) or costs.empty else set(zip(costs.layer, costs["size"], strict=True))
    lines = (
        unrun.networks([pair for pair in pairs if pair not in done], "cifar10", "24h"),
        unrun.measurements(
            [pair for pair in zip(times.layer, times["size"], strict=True) if pair not in measured], "cifar10"
        ),
    )
    return "\n".join(filter(None, lines))


def _missing(table: pd.DataFrame, reason: str) -> list[tuple[str, str]]:
    pairs = unrun.missing_networks(table[table.source == "paper"] if reason else table)
    return [(layer, size) for layer, size in pairs if layer in LAYERS]  # no command runs what the library lacks


def _reason(costs: pd.DataFrame, parts: list[str]) -> str:
    line = next(costs.itertuples())
    if line.image_size != PAPER_SIDE:
        parts.append(f"pictures of side {line.image_size}, not {PAPER_SIDE}")
    if line.batch_size != PAPER_BATCH:
        parts.append(f"batches of {line.batch_size}, not {PAPER_BATCH}")
    return ", ".join(parts)
