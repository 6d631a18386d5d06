"""The configuration of a run, its folder and its record."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

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
    (`lipref.runs.provenance`) and ``torch`` the version of PyTorch. Results from before there were ``code`` and
    ``torch`` lack them: they are None then, and no part of the digest.
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
