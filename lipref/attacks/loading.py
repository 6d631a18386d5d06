"""A trained run, read from its folder: the network, its data, its configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lipref.attacks.ball import Box
from lipref.certification.classifier import load as load_classifier
from lipref.data import ImageData, load_dataset, pixels, validation_split
from lipref.errors import LiprefError
from lipref.nets import ConvNet
from lipref.training.record import read_record


@dataclass(frozen=True)
class Target:
    """What is attacked: a network in evaluation, and inputs ``images`` (N, C, H, W), float64, with their ``labels``.

    ``names`` are the places of the images in the run's test set; ``box`` the lowest and highest input; ``record`` the
    run's.
    """

    model: ConvNet
    images: Tensor
    labels: Tensor
    names: list[int]
    box: Box
    record: dict


def load_target(
    folder: Path, images: int, device: torch.device, *, dataset: str | None = None, data_root: Path | None = None,
    layer: str | None = None,
) -> Target:  # fmt: skip
    """Read the run in ``folder`` with the first ``images`` of the pictures that it was certified on.

    Args:
        dataset: where the record's name is not one that `lipref.load_dataset` knows: ``imagefolder:PATH``.
        layer: where the record's layer is a user's own: ``path/to/file.py:Class``.

    Raises:
        LiprefError: no finished run, other pictures or another layer than the run had, or too many images.
    """
    record = read_record(folder)
    if record is None:
        raise LiprefError(f"{folder} holds no record.json: give the folder of a finished run")
    if record["status"] != "done":
        raise LiprefError(f"the run in {folder} diverged: give one that is done")
    config = record["config"]
    data = _data(config, dataset, data_root)
    other = None if layer == config["layer"] else layer  # a run's own name needs no file
    classifier = load_classifier(folder, data=data, layer=other, device=device)
    if classifier.config.digest != record["digest"]:
        raise LiprefError(f"{folder}: the weights are not those of its record.json: give the folder as the run left it")
    data = validation_split(data, config["validation"]) if config["validation"] else data
    if not 1 <= images <= len(data.test):
        raise LiprefError(f"--images {images}: give a number from 1 to {len(data.test)}, the run's test images")
    x, labels = next(iter(pixels(data.test.take(torch.arange(images)), data, device, torch.float64, images)))
    mean = torch.tensor(data.mean, dtype=torch.float64, device=device)[:, None, None]
    return Target(classifier.model, x, labels, list(range(images)), (-mean, 1 - mean), record)


def _data(config: dict, dataset: str | None, data_root: Path | None) -> ImageData:
    name = dataset or config["dataset"]
    as_name = config["dataset"] if name.startswith("imagefolder:") else None
    try:
        data = load_dataset(
            name, data_root, limit_train=config["train_images"], limit_test=config["test_images"], as_name=as_name
        )
    except LiprefError as error:
        raise LiprefError(f"the run's data: {error} (give them with --dataset imagefolder:PATH)") from None
    if data.fingerprint() != config["data_sha256"]:
        raise LiprefError(f"{name}: these are not the pictures that the run was made with; give them with --dataset")
    return data
