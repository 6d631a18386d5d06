"""Our records, checked: the runs and measurements by which claims are judged."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lipref.bench import cost, measurements
from lipref.errors import LiprefError
from lipref.losses import OFFSET, TEMPERATURE
from lipref.paper import published
from lipref.paper.claims.estimate import NOTHING, Estimate, share_interval
from lipref.paths import RESULTS, ROOT
from lipref.runs import records
from lipref.runs.study import read
from lipref.training.speed import beyond_rounding

# The paper's name -> ours, training images, test images.
DATASETS = {
    "CIFAR-10": ("cifar10", 50_000, 10_000),
    "CIFAR-100": ("cifar100", 50_000, 10_000),
    "TinyImageNet": ("tiny-imagenet-200", 100_000, 10_000),
}
BATCH = 256


@dataclass(frozen=True, kw_only=True)
class Network:
    """What our runs of one layer at one size say: means over the seeds, in percent.

    ``reason`` tells why they cannot be compared, and is empty where they can; ``diverged`` that none has a value.
    """

    accuracy: Estimate
    cra: Estimate
    seeds: int
    diverged: bool
    reason: str
    files: tuple[str, ...]


class Evidence:
    """The records in folders.

    Args:
        folders: Each with ``records.json``, ``costs.json`` or both; None: all that are committed.

    Raises:
        LiprefError: a folder without records, or a record that is damaged or contradicts itself.
    """

    def __init__(self, folders: Sequence[Path] | None = None) -> None:
        if folders is None:
            found = {path.parent for name in ("records.json", "costs.json") for path in RESULTS.glob(f"*/{name}")}
            self.roots, folders = [RESULTS], sorted(found)
        else:
            self.roots = [Path(folder) for folder in folders]
            folders = [_with_records(folder) for folder in self.roots]
        self._networks: dict[tuple[str, str], dict[tuple[str, str], Network]] = {}
        self.runs: list[tuple[dict, str]] = []
        self.costs: list[tuple[dict, str]] = []
        for folder in folders:
            for name, kept, check in (("records.json", self.runs, check_run), ("costs.json", self.costs, check_cost)):
                path = folder / name
                if path.exists():
                    for number, record in enumerate(read(path)):
                        check(record, f"{shown(path)}, record {number}")
                        kept.append((record, shown(path)))

    def networks(self, dataset: str, budget: str = "24h") -> dict[tuple[str, str], Network]:
        """Our networks on a data set of the paper (its name), by layer and size; also what cannot be compared.

        Where some runs of a network can be compared with the paper's at that budget, the others do not count.
        """
        if (dataset, budget) not in self._networks:
            self._networks[dataset, budget] = _networks(self, dataset, budget)
        return self._networks[dataset, budget]

    @cached_property
    def measured(self) -> list[tuple[str, dict, dict[tuple[str, str], tuple[dict, str]]]]:
        """Measurements that were made under the same circumstances: those in words, their configuration, the rows.

        Rows are `lipref.bench.cost.row` and the file, by layer and size; what did not fit into memory has none.
        """
        groups: dict[str, tuple[dict, dict]] = {}
        for record, path in self.costs:
            if record["status"] != "done":
                continue
            config = measurements.circumstances(record)
            _, rows = groups.setdefault(json.dumps(config, sort_keys=True), (config, {}))
            size, layer = records.place(record)
            rows[layer, size] = (cost.row(record), path)
        return [(circumstances(config), config, rows) for config, rows in groups.values()]


def _networks(evidence: Evidence, dataset: str, budget: str) -> dict[tuple[str, str], Network]:
    groups: dict[tuple[str, str], dict[str, list[tuple[dict, str]]]] = {}
    for record, path in evidence.runs:
        config = record["config"]
        if published.DATASETS.get(config["dataset"]) != dataset or config["layer_sha256"] is not None:
            continue
        reason = misfit(record, dataset, budget)
        groups.setdefault((config["layer"], config["size"]), {}).setdefault(reason, []).append((record, path))
    found = {}
    for place, by_reason in groups.items():
        reason = "" if "" in by_reason else next(iter(by_reason))
        chosen = by_reason[reason]
        done = [record for record, _ in chosen if record["status"] == "done"]
        found[place] = Network(
            accuracy=_mean([record["certificate"]["accuracy"] for record in done]),
            cra=_mean([record["certificate"]["cra"]["36/255"] for record in done]),
            seeds=len(done), diverged=not done, reason=reason,
            files=tuple(dict.fromkeys(path for _, path in chosen)),
        )  # fmt: skip
    return found


def misfit(record: dict, dataset: str, budget: str) -> str:
    """Why a run is none of the paper's at ``budget`` on ``dataset`` (its name); empty where it is."""
    config, settings = record["config"], record["config"]["settings"]
    name, train, test = DATASETS[dataset]
    try:
        epochs = published.epochs(name, config["size"], config["layer"], budget)
    except LiprefError:
        return f"the paper has no {config['layer']} {config['size']}"
    for what, value, wanted in (
        ("data", config["dataset"], name), ("training images", config["train_images"], train),
        ("test images", config["test_images"], test), ("held out", config["validation"], 0),
        ("epochs", settings["epochs"], epochs), ("batch", settings["batch_size"], BATCH),
        ("offset", settings["offset"], OFFSET), ("temperature", settings["temperature"], TEMPERATURE),
        ("options", beyond_rounding(settings) or "none", "none"),
    ):  # fmt: skip
        if value != wanted:
            return f"{what}: {value}, not {wanted}"
    if settings["schedule"] == "constant":
        return "schedule: constant, not one cycle"
    return "" if record["status"] != "done" or record["certificate"]["proved"] else "its certificate is not proved"


def circumstances(config: dict) -> str:
    """``8x8 pictures, CPU (AMD EPYC), batch 64``."""
    side = config["image_size"]
    return f"{side}x{side} pictures, {config['device'].upper()} ({config['machine']}), batch {config['batch_size']}"


def check_run(record: dict, where: str) -> None:
    """Refuse a run that is damaged, or whose shares are not what its counts say.

    Raises:
        LiprefError: with the place and the value.
    """
    remedy = "lipref reproduce writes it anew"
    try:
        whole = record["format"] == records.FORMAT and record["status"] in ("done", "diverged")
        records.row(record)
        names = ("layer_sha256", "validation", "device")
        shares = _shares(record) if record["status"] == "done" else {}
        _ = [record["config"][name] for name in names], list(record.get("layer_bounds", []))
        _ = [record["config"]["settings"][name] for name in ("schedule", "offset", "temperature")]
        wrong = [name for name, share in shares.items() if not _is_proportion(share, record["config"]["test_images"])]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LiprefError(f"{where} is damaged ({type(error).__name__}: {error}); {remedy}") from error
    if not whole:
        raise LiprefError(f"{where} is no record of a run (format {record.get('format')!r}); {remedy}")
    if wrong:
        share = shares[wrong[0]]
        raise LiprefError(
            f"{where}: {wrong[0]} {share['value']} [{share['low']}, {share['high']}] is not {share['count']} of "
            f"{share['total']} test images with its exact 95 % interval; {remedy}"
        )


def check_cost(record: dict, where: str) -> None:
    """Refuse a measurement that is damaged, or whose median is not within its interval.

    Raises:
        LiprefError: with the place and the value.
    """
    remedy = "lipref measure writes it anew"
    try:
        whole = record["format"] == cost.FORMAT and record["kind"] == "cost"
        line = cost.row(record)
        _ = measurements.circumstances(record), record["config"]["layer_sha256"]
        wrong = [
            name for name in ("train_seconds", "infer_seconds", "folded_seconds")
            if line[name] is not None and not 0 < line[f"{name}_low"] <= line[name] <= line[f"{name}_high"]
        ]  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LiprefError(f"{where} is damaged ({type(error).__name__}: {error}); {remedy}") from error
    if not whole:
        raise LiprefError(f"{where} is no measurement (format {record.get('format')!r}); {remedy}")
    if wrong:
        interval = f"[{line[wrong[0] + '_low']}, {line[wrong[0] + '_high']}]"
        raise LiprefError(f"{where}: {wrong[0]} {line[wrong[0]]} is not within {interval}; {remedy}")


def folders(text: str) -> list[Path] | None:
    """Folders separated by commas, here or in the repository; None, all that are committed, for an empty text."""
    names = [Path(name.strip()) for name in text.split(",")] if text else []
    return [name if name.is_dir() else ROOT / name for name in names] or None


def shown(path: Path) -> str:
    """A path relative to the repository where it lies there."""
    full = Path(path).resolve()
    return str(full.relative_to(ROOT)) if full.is_relative_to(ROOT) else str(path)


def _with_records(folder: Path) -> Path:
    if not any((folder / name).is_file() for name in ("records.json", "costs.json")):
        raise LiprefError(
            f"{folder} has neither records.json nor costs.json: give a folder that lipref reproduce or lipref measure "
            "wrote"
        )
    return folder


def _shares(record: dict) -> dict[str, dict]:
    certificate = record["certificate"]
    return {"accuracy": certificate["accuracy"]} | {f"CRA({name})": cra for name, cra in certificate["cra"].items()}


def _is_proportion(share: dict, images: int) -> bool:
    count, total = share["count"], share["total"]
    if total < 1 or not 0 <= count <= total or total != images:
        return False
    wanted = (count / total, *share_interval(count, total))
    return all(math.isclose(share[name], value, abs_tol=1e-6)
               for name, value in zip(("value", "low", "high"), wanted, strict=True))  # fmt: skip


def _mean(shares: list[dict]) -> Estimate:
    """In percent. Several seeds: the means of the values and of the ends, so that more seeds widen nothing."""
    if not shares:
        return NOTHING
    return Estimate(*(100 * sum(share[name] for share in shares) / len(shares) for name in ("value", "low", "high")))
