"""Records of runs: their rows in tables, and the runs beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

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
