"""The configuration of a run, its folder, its record, and the runs beside it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from lipref.certification.certify import RADII, radius_name
from lipref.errors import LiprefError
from lipref.training.config import TrainingConfig

FORMAT = 1
_OPTIONAL = ("code", "torch", "augmented", "speed", "quantities")  # no part of a configuration that lacks them


class NotDone(Exception):
    """A run or measurement that was only to be read has not been done yet."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What decides the numbers of any result, and through its digest the folder.

    ``layer_sha256`` is the fingerprint of a user's source file (None for the built-in layers); ``device`` the kind of
    device, ``cpu`` or ``cuda``; ``version`` that of the library, ``code`` the fingerprint of its source
    (`lipref.fingerprint`) and ``torch`` the version of PyTorch. Results from before there were ``code`` and ``torch``
    lack them: they are None then, and no part of the digest.
    """

    layer: str
    layer_sha256: str | None
    size: str
    device: str
    version: str
    code: str | None = None
    torch: str | None = None

    def as_dict(self) -> dict:
        fields = asdict(self)
        return {name: value for name, value in fields.items() if value is not None or name not in _OPTIONAL}

    @property
    def digest(self) -> str:
        """SHA-256 over the canonical JSON of the configuration."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class RunConfig(Config):
    """Everything that decides a run's numbers, and therefore its folder.

    ``data_sha256`` is the fingerprint of the pictures after limiting; ``validation`` the share of the training images
    that is held out and certified in place of the test set (0: the test set). ``augmented`` is true where these images
    keep the training augmentation, as in the authors' search; otherwise it is None, and no part of the digest.
    """

    dataset: str
    data_sha256: str
    train_images: int
    test_images: int
    validation: float
    settings: TrainingConfig
    augmented: bool | None = None

    def as_dict(self) -> dict:
        return super().as_dict() | {"settings": self.settings.as_dict()}

    @property
    def folder(self) -> str:
        """Name of the run's folder: readable, and unique by the digest's first digits."""
        return folder_name(self.as_dict(), self.digest)


def folder_name(config: dict, digest: str) -> str:
    """Name of the folder of a run with this configuration."""
    place = "{dataset}-{size}-{layer}".format(**config)
    return f"{place}-seed{config['settings']['seed']}-{digest[:10]}"


def read_record(folder: Path, config: RunConfig | None = None) -> dict | None:
    """The record in ``folder``, or None where there is none yet.

    Raises:
        LiprefError: not JSON, not a record, or (with ``config``) the record of another configuration.
    """
    path = Path(folder) / "record.json"
    remedy = "delete that file to do the run again"
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text())
        whole = record["format"] == FORMAT and record["status"] in ("done", "diverged")
        whole = whole and (record["status"] == "diverged" or "certificate" in record)
        digest = record["digest"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LiprefError(f"{path} is damaged ({type(error).__name__}: {error}); {remedy}") from error
    if not whole or (config is not None and digest != config.digest):
        raise LiprefError(f"{path} is not the record of this run; {remedy}")
    return record


def make_folder(folder: Path) -> Path:
    """Create ``folder`` where it is missing, and make sure that it can be written.

    Raises:
        LiprefError: it cannot.
    """
    probe = Path(folder) / ".writable"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise LiprefError(f"cannot write to folder {folder}: {reason}; choose another with --out") from error
    return folder


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
