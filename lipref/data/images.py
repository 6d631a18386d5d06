"""A data set in memory: two splits of pictures as bytes, and what is needed to turn them into network inputs."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lipref.errors import LiprefError

AUGMENTATIONS = ("none", "crop-flip", "randaugment")

CIFAR10_MEAN = (0.49139968, 0.48215841, 0.44653091)


@dataclass(frozen=True, eq=False)
class Split:
    """Pictures and their classes.

    images: uint8, (N, C, H, W), values 0 to ``ImageData.levels``.
    labels: int64, (N,), indices into ``ImageData.classes``.

    Raises LiprefError when a shape or dtype is another, or there are no pictures.
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.dim() != 4:
            found = f"{self.images.dtype} {tuple(self.images.shape)}"
            raise LiprefError(f"images are {found}: give uint8 of shape (N, C, H, W)")
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            found = f"{self.labels.dtype} {tuple(self.labels.shape)}"
            raise LiprefError(f"labels are {found}: give int64 of shape ({len(self.images)},)")
        if len(self.labels) == 0:
            raise LiprefError("a split has no pictures: give at least one")

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Tensor) -> "Split":
        """The pictures at ``indices`` (int64, (M,)), in that order."""
        return Split(self.images[indices], self.labels[indices])


@dataclass(frozen=True, eq=False)
class ImageData:
    """A data set for classification.

    A picture's input to a network is ``uint8 / levels - mean``: pixels stay in units of [0, 1], only the channel mean
    is subtracted and nothing is divided by a standard deviation, so that an l2 distance between inputs is one between
    pictures (Prach et al., CVPR 2024, arXiv 2311.16833).

    levels: the largest byte value, 255, or 16 for the digits. mean: per channel, in [0, 1] units. augmentation: what
    training batches undergo, "none", "crop-flip" or "randaugment" (see ``lipref.data.batches``). source, licence:
    text for records.

    Raises LiprefError when the parts do not fit together.
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    levels: int
    mean: tuple[float, ...]
    augmentation: str
    source: str
    licence: str

    def __post_init__(self) -> None:
        shape = tuple(self.train.images.shape[1:])
        if shape[1] != shape[2]:
            raise LiprefError(f"{self.name}: pictures are {shape[2]}x{shape[1]}: give square ones")
        if tuple(self.test.images.shape[1:]) != shape:
            found = f"{shape} and {tuple(self.test.images.shape[1:])}"
            raise LiprefError(f"{self.name}: training and test pictures differ in (C, H, W), {found}: give one shape")
        if len(self.classes) < 2:
            raise LiprefError(f"{self.name}: {len(self.classes)} class(es): classification needs at least two")
        for split in (self.train, self.test):
            low, high = int(split.labels.min()), int(split.labels.max())
            if low < 0 or high >= len(self.classes):
                raise LiprefError(f"{self.name}: labels from {low} to {high}: give 0 to {len(self.classes) - 1}")
            if (top := int(split.images.max())) > self.levels:
                raise LiprefError(
                    f"{self.name}: a pixel is {top}, above levels={self.levels}: give the right number of levels"
                )
        if len(self.mean) != shape[0]:
            raise LiprefError(
                f"{self.name}: {len(self.mean)} channel mean(s) for {shape[0]} channel(s): give one per channel"
            )
        if self.augmentation not in AUGMENTATIONS:
            raise LiprefError(
                f"{self.name}: augmentation {self.augmentation!r}: choose one of {', '.join(AUGMENTATIONS)}"
            )

    @property
    def image_size(self) -> int:
        """Side of the square pictures, in pixels."""
        return self.train.images.shape[-1]

    @property
    def channels(self) -> int:
        """1 for grey pictures, 3 for RGB."""
        return self.train.images.shape[1]

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.classes)

    def fingerprint(self) -> str:
        """sha256 (hex) of pixels and labels of both splits, class names and levels: what a result depends on."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        return fingerprint(self.train, self.test, self.classes, self.levels)


def fingerprint(train: Split, test: Split, classes: tuple[str, ...], levels: int) -> str:
    """See `ImageData.fingerprint`."""
    digest = hashlib.sha256(json.dumps([list(classes), levels]).encode())
    for split in (train, test):
        digest.update(str(tuple(split.images.shape)).encode())
        digest.update(split.images.cpu().contiguous().numpy())
        digest.update(split.labels.cpu().contiguous().numpy())
    return digest.hexdigest()


def channel_mean(split: Split, levels: int) -> tuple[float, ...]:
    """Mean of each channel over all pictures and positions, in [0, 1] units.

    The sum is one of integers, so it is exact.
    """
    totals = split.images.sum(dim=(0, 2, 3), dtype=torch.int64)
    count = split.images.numel() // split.images.shape[1]
    return tuple(total / (count * levels) for total in totals.tolist())
