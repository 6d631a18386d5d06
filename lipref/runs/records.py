"""Records of runs: their rows in tables, their curves and the bounds of their layers, and the runs beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from fractions import Fraction
from pathlib import Path

import pandas as pd

from lipref.certification.certify import RADII, radius_name
from lipref.training.record import FORMAT, Config, NotDone, RunConfig, folder_name, make_folder, read_record

__all__ = [
    "FORMAT", "Config", "NotDone", "RunConfig", "beside", "folder_name", "made", "make_folder", "newest",
    "of_one_source", "place", "read_record", "row",
]  # fmt: skip


def row(record: dict) -> dict:
    """One flat row of the table of runs: configuration, cost, and where the run is done its certified result."""
    config, settings = record["config"], record["config"]["settings"]
    line = {name: config[name] for name in ("dataset", "size", "layer", "train_images", "test_images")}
    names = ("seed", "epochs", "batch_size", "learning_rate", "weight_decay")
    line |= {name: settings[name] for name in names}
    line |= {
        "hyperparameters": record["notes"].get("hyperparameters", "given"),
        "parameters": record["parameters"],
        "status": record["status"],
        "train_seconds": record["train_seconds"],
        "device": config["device"],
        "threads": record["environment"]["threads"],
    }
    if record["status"] != "done":
        return line | {"diverged_at_step": record["diverged"]["step"], "diverged_in": record["diverged"]["layer"]}
    certificate = record["certificate"]
    line |= {"proved": certificate["proved"], "lipschitz_bound": certificate["lipschitz_bound"]}
    shares = {"accuracy": certificate["accuracy"]}
    shares |= {f"cra_{radius * 255}": certificate["cra"][radius_name(radius)] for radius in RADII}
    for name, share in shares.items():
        line |= {name: share["value"], f"{name}_low": share["low"], f"{name}_high": share["high"]}
    return line


def made(record: dict) -> datetime:
    """When a run or measurement ended."""
    return datetime.fromisoformat(record["environment"]["time"])


def of_one_source(records: Sequence[dict], others: Sequence[dict]) -> list[dict]:
    """``others`` without those of a user's layer whose file was another one.

    The file that counts is that of ``records``, or for a layer that they lack that of its newest result.
    """
    sources: dict[str, str | None] = {}
    for record in [*records, *sorted(others, key=made, reverse=True)]:
        sources.setdefault(record["config"]["layer"], record["config"]["layer_sha256"])
    return [other for other in others if other["config"]["layer_sha256"] == sources[other["config"]["layer"]]]


def newest(records: Sequence[dict], others: Sequence[dict], same: Callable[[dict], tuple]) -> list[dict]:
    """Those of ``others`` that share their configuration with the one that counts at their size and layer.

    ``same(record)`` tells what has to be shared. What counts is what ``records`` have, or where they have nothing what
    the newest of ``others`` has.
    """
    counts: dict[tuple[str, str], tuple] = {}
    for record in [*records, *sorted(others, key=made, reverse=True)]:
        counts.setdefault(place(record), same(record))
    return [other for other in others if same(other) == counts[place(other)]]


def place(record: dict) -> tuple[str, str]:
    """Where a result stands in a table: size and layer."""
    return record["config"]["size"], record["config"]["layer"]


def beside(records: list[dict], root: Path) -> list[dict]:
    """``records`` and those other runs below ``root`` that can be compared with them, in the order of tables.

    Comparable: the same pictures, library, PyTorch and kind of device, and the same settings but for learning rate,
    weight decay and seed; where the records' budget is one of the paper's hours, each layer has its own number of
    epochs. A size and layer stand in the table with one recipe (learning rate and weight decay before any retry) and,
    for a user's layer, one source file: those of ``records``, or where they have none those of the newest run.
    """

    def setting(record: dict) -> dict:
        config, budget = record["config"], record["notes"].get("budget")
        free = ("learning_rate", "weight_decay", "seed", *(("epochs",) if budget else ()))
        names = ("dataset", "data_sha256", "validation", "device", "version", "code", "torch")
        kept = {name: config.get(name) for name in names} | {"budget": budget}
        return kept | {name: value for name, value in config["settings"].items() if name not in free}

    def recipe(record: dict) -> tuple:
        settings = record["config"]["settings"]
        start = record["notes"].get("recipe", settings)  # a retry has a third of its recipe's learning rate
        return start["learning_rate"], start["weight_decay"], settings["epochs"]

    def seat(record: dict) -> tuple:
        return (*place(record), record["config"]["settings"]["seed"])

    taken = {seat(record) for record in records}
    found = [read_record(path.parent) for path in sorted(Path(root).glob("*/record.json"))]
    others = [record for record in found if seat(record) not in taken and setting(record) == setting(records[0])]
    others = newest(records, of_one_source(records, others), recipe)
    return sorted([*records, *others], key=lambda record: (*seat(record), record["notes"].get("retry", 0)))


def against_radius(records: Sequence[dict]) -> pd.DataFrame:
    """CRA against the radius: ``layer, size, seed, radius`` (l2, pixels in [0, 1]) and ``share``.

    A record without the fine curve gives the points of its table; one that diverged gives none.
    """
    lines = []
    for record in records:
        if record["status"] != "done":
            continue
        certificate = record["certificate"]
        if "curve" in certificate:
            step, total = float(Fraction(certificate["curve"]["step"])), certificate["accuracy"]["total"]
            points = [(step * k, count / total) for k, count in enumerate(certificate["curve"]["counts"])]
        else:
            points = [(0.0, certificate["accuracy"]["value"])]
            points += [(float(Fraction(name)), share["value"]) for name, share in certificate["cra"].items()]
        lines += [_place(record) | {"radius": radius, "share": share} for radius, share in points]
    return pd.DataFrame(lines, columns=["layer", "size", "seed", "radius", "share"])


def learning(records: Sequence[dict]) -> pd.DataFrame:
    """The learning curve: ``layer, size, seed, epoch`` (from 1), ``loss, accuracy, cra_36``.

    Shares of the training images as the epoch met them, each before its step; ``cra_36`` as if the
    network's bound were 1, which nothing has proved yet at that time.
    """
    lines = [
        _place(record) | {"epoch": each["epoch"] + 1} | {name: each[name] for name in ("loss", "accuracy", "cra_36")}
        for record in records
        for each in record["history"]
    ]
    return pd.DataFrame(lines, columns=["layer", "size", "seed", "epoch", "loss", "accuracy", "cra_36"])


def layer_bounds(records: Sequence[dict]) -> pd.DataFrame:
    """The proved bound of every layer of the networks: ``layer, size, seed, number`` (from 1), ``name, bound``."""
    lines = [
        _place(record) | {"number": number, "name": name, "bound": bound}
        for record in records
        if record["status"] == "done"
        for number, (name, _, _, bound) in enumerate(record["layer_bounds"], 1)
    ]
    return pd.DataFrame(lines, columns=["layer", "size", "seed", "number", "name", "bound"])


def _place(record: dict) -> dict:
    config = record["config"]
    return {"layer": config["layer"], "size": config["size"], "seed": config["settings"]["seed"]}
