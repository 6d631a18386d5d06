"""What of a folder of records fits what is asked for: the rest is left out by name, a contradiction is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lipref.bench import measurements
from lipref.data import Shape
from lipref.errors import LiprefError
from lipref.layers import LayerSpec
from lipref.runs import budgets, plans
from lipref.runs.records import place


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is asked for.

    ``layers`` are by label, None for all that the records have. ``dataset``, ``budget``, ``batch_size`` (0) and
    ``device`` at these defaults ask for nothing: the records' own are taken, and said where they are others.
    """

    sizes: Sequence[str]
    layers: Mapping[str, LayerSpec] | None
    seeds: Sequence[int]
    dataset: str = "digits"
    budget: str = "20 epochs"
    batch_size: int = 0
    device: str = "cpu"

    def given(self, name: str) -> bool:
        """Whether a parameter is another than its default."""
        return getattr(self, name) != type(self).__dataclass_fields__[name].default


def runs(records: Sequence[dict], asked: Asked, path: Path, say: Callable[[str], None]) -> list[dict]:
    """Those of ``records`` (from ``path``) at the sizes and of the layers and seeds that are asked for.

    A size, layer or seed that the records lack is said: its run may have failed.

    Raises:
        LiprefError: nothing is left, or it is of another data set, budget, batch size or device than given.
    """
    kept = _places(records, asked, path, say)
    seeds = sorted({_seed(record) for record in kept})
    _say_rest(seeds, asked.seeds, "seed", path, say)
    kept = [record for record in kept if _seed(record) in asked.seeds]
    if not kept:
        raise LiprefError(f"{path} has no seed {_list(asked.seeds)}; give seeds={_list(seeds, '')}, or other records")
    for name in ("dataset", "budget", "batch_size", "device"):
        wrong = [text for record in kept if (text := _contradiction(record, asked, name))]
        if wrong:
            _refuse_or_say(wrong[0], asked, name, path, say)
    return kept


def check_dataset(records: Sequence[dict], asked: Asked, path: Path, say: Callable[[str], None]) -> None:
    """Compare the data set alone, for what draws no run.

    Raises:
        LiprefError: it is another one than given.
    """
    wrong = [text for record in records if (text := _contradiction(record, asked, "dataset"))]
    if wrong:
        _refuse_or_say(wrong[0], asked, "dataset", path, say)


def costs(
    records: Sequence[dict], asked: Asked, shape: Shape | None, path: Path, say: Callable[[str], None]
) -> list[dict]:
    """Those of the measurements ``records`` (from ``path``) that fit; ``shape`` is the pictures', None if not known.

    Raises:
        LiprefError: none fits, or they were made under several circumstances and cannot be compared.
    """
    kept = []
    for record in _places(records, asked, path, say):
        reason = measurements.misfit(
            record, shape, asked.batch_size or None, asked.device if asked.given("device") else None
        )
        if not reason:
            kept.append(record)
        else:
            say(f"left out: {record['config']['layer']} {record['config']['size']} in {path}: {reason}")
    if not kept:
        raise LiprefError(f"{path} has no measurement that fits ({reason}); measure with lipref measure --out")
    if any(measurements.circumstances(record) != measurements.circumstances(kept[0]) for record in kept):
        raise LiprefError(f"{path} mixes machines, batches or versions; measure all with one lipref measure --out")
    if kept[0]["config"]["device"] != asked.device.split(":")[0]:
        say(f"{path} was measured on {kept[0]['config']['device']}")
    return kept


def _places(records: Sequence[dict], asked: Asked, path: Path, say: Callable[[str], None]) -> list[dict]:
    """The records at the sizes and of the layers that are asked for; says what else there is, and what is missing."""
    layers = asked.layers
    edited = [r for r in records if layers and (spec := layers.get(r["config"]["layer"])) is not None
              and spec.source_sha256 != r["config"]["layer_sha256"]]  # fmt: skip
    for layer, size in sorted({(record["config"]["layer"], record["config"]["size"]) for record in edited}):
        say(f"left out: {layer} {size} in {path}: of another source file than the layer that is asked for")
    current = [record for record in records if record not in edited]
    sizes = list(dict.fromkeys(record["config"]["size"] for record in current))
    labels = list(dict.fromkeys(record["config"]["layer"] for record in current))
    wanted = labels if layers is None else list(layers)
    _say_rest(sizes, asked.sizes, "size", path, say)
    _say_rest(labels, wanted, "layer", path, say)
    kept = [record for record in current if place(record)[0] in asked.sizes and place(record)[1] in wanted]
    if not kept:
        there = f"sizes {_list(sizes) or 'none'}, layers {_list(labels) or 'none'}"
        raise LiprefError(f"{path} has nothing of sizes {_list(asked.sizes)}, layers {_list(wanted)}, only {there}")
    present = {place(record) for record in kept}
    holes = [f"{layer} {size}" for size in asked.sizes for layer in wanted
             if size in sizes and layer in labels and (size, layer) not in present]  # fmt: skip
    if holes:
        say(f"not in {path}: {_list(holes)}")
    return kept


def _say_rest(there: Sequence, asked: Sequence, what: str, path: Path, say: Callable[[str], None]) -> None:
    for names, text in (
        ([name for name in there if name not in asked], "left out of"),
        ([name for name in asked if name not in there], "not in"),
    ):
        if names:
            say(f"{text} {path}: {what}{'s' if len(names) > 1 else ''} {_list(names)}")


def _contradiction(record: dict, asked: Asked, name: str) -> str:
    """What the record has in place of the parameter ``name``, or nothing where it has just that."""
    config, settings = record["config"], record["config"]["settings"]
    if name == "dataset":
        return "" if config["dataset"] == plans.short_name(asked.dataset) else str(config["dataset"])
    if name == "batch_size":
        return "" if asked.batch_size in (0, settings["batch_size"]) else str(settings["batch_size"])
    if name == "device":
        return "" if config["device"] == asked.device.split(":")[0] else str(config["device"])
    epochs, hours = budgets.parse(asked.budget)
    if budgets.is_measured(hours):
        made_for = record.get("notes", {}).get("budget")
        return "" if made_for == hours else f"{made_for or settings['epochs']}{'' if made_for else ' epochs'}"
    if hours is not None:
        epochs = budgets.paper_epochs(config["dataset"], config["size"], config["layer"], hours)
    return "" if settings["epochs"] == epochs else f"{settings['epochs']} epochs"


def _refuse_or_say(there: str, asked: Asked, name: str, path: Path, say: Callable[[str], None]) -> None:
    if asked.given(name):
        value = getattr(asked, name)
        raise LiprefError(f"{path} is of {name} {there}, not {value!r}; give {name}={there!r}, or other records")
    say(f"{path} is of {name} {there}")


def _seed(record: dict) -> int:
    return record["config"]["settings"]["seed"]


def _list(names: Sequence, space: str = " ") -> str:
    return f",{space}".join(map(str, names))
