"""One run, from its configuration to its record."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch

import lipref
from lipref import tensor_files
from lipref.certification.bounds import network_bound
from lipref.certification.certify import certify
from lipref.certification.float_error import evaluation_error
from lipref.certification.inputs import InputFormat
from lipref.data import Batches, ImageData, pixels, validation_split
from lipref.layers import LayerSpec
from lipref.nets import convnet, count_parameters
from lipref.runs.provenance import RUN, environment, fingerprint, write_json
from lipref.runs.records import FORMAT, NotDone, RunConfig, make_folder, read_record
from lipref.training import Progress, train
from lipref.training.config import TrainingConfig

CERTIFY_BATCH = 250


def configure(
    data: ImageData, spec: LayerSpec, size: str, settings: TrainingConfig, device: torch.device,
    validation: float = 0.0, augmented: bool = False,
) -> RunConfig:  # fmt: skip
    """The configuration of training ``spec`` in a network of ``size`` on ``data``.

    ``augmented`` keeps the training augmentation on the validation images.
    """
    return RunConfig(
        dataset=data.name,
        data_sha256=data.fingerprint(),
        train_images=len(data.train.labels),
        test_images=len(data.test.labels),
        validation=validation,
        size=size,
        layer=spec.label,
        layer_sha256=spec.source_sha256,
        version=lipref.__version__,
        code=fingerprint(RUN),
        torch=str(torch.__version__),
        settings=settings,
        device=device.type,
        augmented=True if validation and augmented else None,
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
    read_only: bool = False,
) -> dict:
    """Do the run in ``root / config.folder``, or what of it is missing, and return its record.

    The folder holds ``config.json``; ``checkpoint.safetensors`` while training lasts (and for good where it diverged:
    the last good state); then ``weights.safetensors``, ``metrics.csv`` and ``record.json``, written last. A finished
    run is read, not repeated; a record that is damaged or of another configuration is refused.

    Args:
        read_only: raise `NotDone` in place of doing anything that is missing.
        notes: added to the record, such as where the learning rate comes from; not part of the configuration.

    Raises:
        LiprefError: a folder that cannot be written, a damaged record or checkpoint.
    """
    folder = Path(root) / config.folder
    record = read_record(folder, config)
    if record is not None:
        return record
    if read_only:
        raise NotDone(config.folder)
    if config.validation:
        data = validation_split(data, config.validation)
    write_json(make_folder(folder) / "config.json", config.as_dict())
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
        "compile_seconds": outcome.compile_seconds,
        "notices": outcome.notices,
        "history": outcome.history,
        "notes": notes or {},
    }
    if outcome.status == "done":
        started = time.perf_counter()
        audit = network_bound(model)
        if config.augmented:
            held_out = Batches(data.test, data, CERTIFY_BATCH, settings.seed, device, torch.float64).epoch(0)
        else:
            held_out = pixels(data.test, data, device, torch.float64, CERTIFY_BATCH)
        error = evaluation_error(model, audit)
        certificate = certify(model, held_out, audit.bound, error if error.slope is not None else None)
        record["certificate"] = certificate.as_dict()
        record["rounding_not_bounded"] = list(error.unbounded)
        record["layer_bounds"] = [[name, kind, list(size), bound] for name, kind, size, bound in audit.layers]
        record["certify_seconds"] = time.perf_counter() - started
        about = {"config": config.as_dict(), "input": InputFormat.of(data).as_dict()}
        tensor_files.save(folder / "weights.safetensors", model.state_dict(), about)
    tensor_files.replace_file(folder / "metrics.csv", pd.DataFrame(outcome.history).to_csv(index=False).encode())
    write_json(folder / "record.json", record | {"environment": environment(device)})
    if outcome.status == "done":
        path.unlink(missing_ok=True)
    return read_record(folder, config)
