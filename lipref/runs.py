"""The configuration of a run, its folder, its record, and the runs beside it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from lipref.certify import RADII, radius_name
from lipref.errors import LiprefError
from lipref.settings import Settings

FORMAT = 1


class NotDone(Exception):
    """A run or measurement that was only to be read has not been done yet."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides a run's numbers, and therefore its folder.

    ``data_sha256`` is the fingerprint of the pictures after limiting; ``layer_sha256`` that of a user's source file
    (None for the built-in layers); ``version`` that of the library, since its layers are part of it; ``validation`` the
    share of the training images that is held out and certified in place of the test set (0: the test set); ``device``
    the kind of device, ``cpu`` or ``cuda``.
    """

    dataset: str
    data_sha256: str
    train_images: int
    test_images: int
    validation: float
    size: str
    layer: str
    layer_sha256: str | None
    version: str
    settings: Settings
    device: str

    def as_dict(self) -> dict:
        return asdict(self)

    @property
    def digest(self) -> str:
        """SHA-256 over the canonical JSON of the configuration."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()

    @property
    def folder(self) -> str:
        """Name of the run's folder: readable, and unique by the digest's first digits."""
        return f"{self.dataset}-{self.size}-{self.layer}-seed{self.settings.seed}-{self.digest[:10]}"


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


def beside(records: list[dict], root: Path) -> list[dict]:
    """``records`` and those other runs below ``root`` that can be compared with them, in the order of tables.

    Comparable: the same pictures, and the same settings but for learning rate, weight decay and seed. A run of a layer,
    size and seed that ``records`` have already, under another configuration, is left out.
    """

    def setting(record: dict) -> dict:
        config = record["config"]
        free = ("learning_rate", "weight_decay", "seed")
        kept = {name: config[name] for name in ("dataset", "data_sha256", "validation", "device")}
        return kept | {name: value for name, value in config["settings"].items() if name not in free}

    def place(record: dict) -> tuple:
        config = record["config"]
        return config["size"], config["layer"], config["settings"]["seed"]

    taken = {place(record) for record in records}
    found = [read_record(path.parent) for path in sorted(Path(root).glob("*/record.json"))]
    others = [record for record in found if place(record) not in taken and setting(record) == setting(records[0])]
    return sorted([*records, *others], key=lambda record: (*place(record), record["notes"].get("retry", 0)))
