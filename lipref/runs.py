"""The configuration of a run, its folder, its record, and the table of all runs."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import torch

from lipref import checkpoint
from lipref.audit import network_bound
from lipref.certify import RADII, certify
from lipref.data import Batches, ImageData, pixels, validation_split
from lipref.errors import LiprefError
from lipref.layers import LayerSpec
from lipref.nets import convnet, count_parameters
from lipref.provenance import environment, write_json
from lipref.training import Progress, Settings, train

FORMAT = 1
CERTIFY_BATCH = 250


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides a run's numbers, and therefore its folder.

    ``data_sha256`` is the fingerprint of the pictures after limiting; ``layer_sha256`` that of a user's source file
    (None for the built-in layers); ``validation`` the share of the training images that is held out and certified in
    place of the test set (0: the test set); ``device`` the kind of device, ``cpu`` or ``cuda``.
    """

    dataset: str
    data_sha256: str
    train_images: int
    test_images: int
    validation: float
    size: str
    layer: str
    layer_sha256: str | None
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


def configure(
    data: ImageData, spec: LayerSpec, size: str, settings: Settings, device: torch.device, validation: float = 0.0
) -> RunConfig:
    """The configuration of training ``spec`` in a network of ``size`` on ``data``."""
    return RunConfig(
        dataset=data.name,
        data_sha256=data.fingerprint(),
        train_images=len(data.train.labels),
        test_images=len(data.test.labels),
        validation=validation,
        size=size,
        layer=spec.label,
        layer_sha256=spec.source_sha256,
        settings=settings,
        device=device.type,
    )


def execute(
    config: RunConfig,
    data: ImageData,
    spec: LayerSpec,
    root: Path,
    *,
    device: torch.device,
    checkpoint_seconds: float = 120.0,
    on_progress: Callable[[Progress], None] | None = None,
    notes: dict | None = None,
) -> dict:
    """Do the run in ``root / config.folder``, or what of it is missing, and return its record.

    The folder holds ``config.json``; ``checkpoint.safetensors`` while training lasts (and for good where it diverged:
    the last good state); then ``weights.safetensors``, ``metrics.csv`` and ``record.json``, written last. A finished
    run is read, not repeated; a record that is damaged or of another configuration is refused.

    Args:
        notes: added to the record, such as where the learning rate comes from; not part of the configuration.

    Raises:
        LiprefError: a folder that cannot be written, a damaged record or checkpoint.
    """
    folder = Path(root) / config.folder
    record = read_record(folder, config)
    if record is not None:
        return record
    write_json(make_folder(folder) / "config.json", config.as_dict())
    if config.validation:
        data = validation_split(data, config.validation)
    settings = config.settings
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(settings.seed)
        model = convnet(config.size, spec, data.num_classes, data.channels, data.image_size).to(device)
    batches = Batches(data.train, data, settings.batch_size, settings.seed, device)
    path = folder / "checkpoint.safetensors"
    outcome = train(
        model, batches, settings, checkpoint_path=path, checkpoint_seconds=checkpoint_seconds,
        on_progress=on_progress, config_digest=config.digest,
    )  # fmt: skip
    record = {
        "format": FORMAT,
        "digest": config.digest,
        "config": config.as_dict(),
        "status": outcome.status,
        "diverged": outcome.diverged,
        "parameters": count_parameters(model),
        "steps": outcome.steps,
        "train_seconds": outcome.train_seconds,
        "history": outcome.history,
        "notes": notes or {},
    }
    if outcome.status == "done":
        started = time.perf_counter()
        audit = network_bound(model)
        held_out = pixels(data.test, data, device, torch.float64, CERTIFY_BATCH)
        certificate = certify(model, held_out, audit.bound)
        record["certificate"] = certificate.as_dict()
        record["layer_bounds"] = [[name, kind, list(size), bound] for name, kind, size, bound in audit.layers]
        record["certify_seconds"] = time.perf_counter() - started
        checkpoint.save(folder / "weights.safetensors", model.state_dict(), {"config": config.as_dict()})
    pd.DataFrame(outcome.history).to_csv(folder / "metrics.csv", index=False)
    write_json(folder / "record.json", record | {"environment": environment(device)})
    if outcome.status == "done":
        path.unlink(missing_ok=True)
    return read_record(folder, config)


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
        probe.unlink()
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
        return line
    certificate = record["certificate"]
    line |= {"proved": certificate["proved"], "lipschitz_bound": certificate["lipschitz_bound"]}
    shares = {"accuracy": certificate["accuracy"]}
    shares |= {f"cra_{radius * 255}": certificate["cra"][f"{radius * 255}/255"] for radius in RADII}
    for name, share in shares.items():
        line |= {name: share["value"], f"{name}_low": share["low"], f"{name}_high": share["high"]}
    return line


def table(root: Path) -> pd.DataFrame:
    """The table of all runs below ``root``, read from their folders."""
    records = (read_record(path.parent) for path in sorted(Path(root).glob("*/record.json")))
    return pd.DataFrame([row(record) for record in records])
