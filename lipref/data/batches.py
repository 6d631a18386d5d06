"""Batches and their augmentation, on the device and without any state."""

import hashlib
from collections.abc import Iterator
from operator import index

import torch
import torch.nn.functional as F
from torch import Tensor

from lipref.data.files import import_torchvision
from lipref.data.images import ImageData, Split
from lipref.errors import LiprefError, whole_number

TOGETHER = 32  # batches at most
BYTES = 2**28  # of them, in float32


class Batches:
    """Shuffled, augmented training batches without any state.

    The order of an epoch depends on (seed, epoch) alone and the augmentation of a batch on (seed, epoch, step) alone,
    so an epoch begun at step ``start`` yields, bit for bit, what an undisturbed run would. Draws are made on the CPU,
    so they do not depend on the device, and never touch torch's global random state.

    The pictures are kept on ``device`` as bytes; conversion and augmentation happen there, batch by batch. A last
    partial batch is kept, as in Prach et al. (CVPR 2024, arXiv 2311.16833): batches of 256, 196 of them for 50 000
    pictures.

    Args:
        split: the pictures to train on, ``data.train``, or to test on, ``data.test`` with ``augment=False``.
        data: the data set it comes from, for levels, mean and augmentation.
        batch_size: pictures per batch, at least 1.
        seed: of the order and the augmentation.
        device: where the pictures are kept and the batches are made.
        dtype: of the batches, a floating one.
        augment: False leaves the data set's augmentation out.

    Raises:
        LiprefError: a batch size below 1, a dtype that is not a floating one, or a split of another shape than the data
            set.

    Example:
        >>> from lipref import Batches, load_dataset
        >>> data = load_dataset("digits")
        >>> batches = Batches(data.train, data, batch_size=64, seed=0, device="cpu")
        >>> len(batches)
        23
        >>> images, labels = next(batches.epoch(0))
        >>> images.shape, labels.shape
        (torch.Size([64, 1, 8, 8]), torch.Size([64]))
    """

    def __init__(
        self,
        split: Split,
        data: ImageData,
        batch_size: int,
        seed: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        augment: bool = True,
    ) -> None:
        self.batch_size = whole_number("batch_size", batch_size)
        if split.images.shape[1:] != data.train.images.shape[1:]:
            found, wanted = tuple(split.images.shape[1:]), tuple(data.train.images.shape[1:])
            raise LiprefError(
                f"the split's pictures are {found}, those of {data.name} {wanted}: give a split of {data.name}"
            )
        self.seed = seed
        self.augmentation = data.augmentation if augment else "none"
        self._images = split.images.to(device)
        self._labels = split.labels.to(device)
        self._normalise = _Normalise(data, device, dtype)

    def __len__(self) -> int:
        """Steps in an epoch."""
        return -(-len(self._labels) // self.batch_size)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """(images (B, C, H, W), labels int64 (B,)) of one epoch, from step ``start`` on, 0 <= start <= len(self).

        Raises LiprefError for an epoch below 0 or a start outside of the epoch.
        """
        if epoch < 0:
            raise LiprefError(f"epoch={epoch}: give 0 or more")
        if not 0 <= start <= len(self):
            raise LiprefError(f"start={start}: give a step from 0 to {len(self)}")
        return self._steps(epoch, start)

    def _steps(self, epoch: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        count, device = len(self._labels), self._images.device
        order = torch.randperm(count, generator=_generator("order", self.seed, epoch), device="cpu").to(device)
        if self.augmentation == "crop-flip":
            # One draw for the epoch, in the order of use: a batch's part depends on its step alone, and one copy to the
            # device serves all.
            padding = self._images.shape[-1] // 8
            draws = _generator("crop-flip", self.seed, epoch)
            offsets = torch.randint(2 * padding + 1, (count, 2), generator=draws, device="cpu").to(device)
            flips = torch.randint(2, (count,), generator=draws, device="cpu").bool().to(device)
        # On CUDA many batches are made in one call: launching its few kernels takes longer than their work.
        together = 1
        if device.type == "cuda" and self.augmentation != "randaugment":
            together = max(1, min(TOGETHER, BYTES // (4 * self._images[: self.batch_size].numel())))
        for first in range(start, len(self), together):
            here = slice(first * self.batch_size, (first + together) * self.batch_size)
            images = self._images[order[here]]
            if self.augmentation == "randaugment":
                images = randaugment(images, _seed("randaugment", self.seed, epoch, first))
            images = self._normalise(images)
            if self.augmentation == "crop-flip":
                images = crop_flip(images, offsets[here], flips[here], padding)
            labels = self._labels[order[here]]
            yield from zip(images.split(self.batch_size), labels.split(self.batch_size), strict=True)


def pixels(
    split: Split, data: ImageData, device: torch.device | str, dtype: torch.dtype, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """All pictures in the split's order, mean subtracted, nothing augmented: for evaluation.

    Yields (images (B, C, H, W) in ``dtype``, labels int64 (B,)) on ``device``.

    Raises LiprefError for a batch size below 1 or a dtype that is not a floating one.
    """
    batch_size = whole_number("batch_size", batch_size)
    normalise = _Normalise(data, device, dtype)
    parts = zip(split.images.split(batch_size), split.labels.split(batch_size), strict=True)
    return ((normalise(images.to(device)), labels.to(device)) for images, labels in parts)


class _Normalise:
    """uint8 (B, C, H, W) to ``uint8 / levels - mean`` in ``dtype``."""

    def __init__(self, data: ImageData, device: torch.device | str, dtype: torch.dtype) -> None:
        if not dtype.is_floating_point:
            raise LiprefError(f"dtype={dtype}: give a floating one such as torch.float32")
        self._dtype = dtype
        # Half precision rounds once, at the end.
        self._work = dtype if dtype in (torch.float32, torch.float64) else torch.float32
        # Tensors on the device, because CUDA divides by a Python number through its rounded reciprocal.
        self._levels = torch.tensor(data.levels, dtype=self._work, device=device)
        self._mean = torch.tensor(data.mean, dtype=self._work, device=device)[:, None, None]

    def __call__(self, images: Tensor) -> Tensor:
        return images.to(self._work).div_(self._levels).sub_(self._mean).to(self._dtype)


def _seed(purpose: str, *numbers: int) -> int:
    # index(): a NumPy integer counts as the number that it is.
    text = " ".join([purpose, *(str(index(number)) for number in numbers)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _generator(purpose: str, *numbers: int) -> torch.Generator:
    return torch.Generator(device="cpu").manual_seed(_seed(purpose, *numbers))


RANDAUGMENT_GROUP = 8


def crop_flip(images: Tensor, offsets: Tensor, flips: Tensor, padding: int) -> Tensor:
    """Random crop with zero padding, then horizontal flip, each picture its own.

    images: (B, C, H, W), mean already subtracted, so that the padding has the mean colour. offsets: int64, (B, 2),
    row and column of the crop's corner in the padded picture, 0 to 2 * padding. flips: bool, (B,). Gives (B, C, H,
    W).
    """
    _, channels, height, width = images.shape
    padded = F.pad(images, (padding,) * 4)
    rows = offsets[:, :1] + torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device).expand(len(images), width)
    columns = offsets[:, 1:] + torch.where(flips[:, None], width - 1 - columns, columns)
    batch = torch.arange(len(images), device=images.device)
    channel = torch.arange(channels, device=images.device)
    return padded[batch[:, None, None, None], channel[:, None, None], rows[:, None, :, None], columns[:, None, None, :]]


def randaugment(images: Tensor, seed: int) -> Tensor:
    """RandAugment (Cubuk et al., 2020, arXiv 1909.13719), two operations of magnitude 9 of 31.

    images: bytes, uint8, (B, 3, H, W), as is the answer.

    Deviation from the usual practice, and from Prach et al. (CVPR 2024): the operations are drawn once per group of 8
    pictures, not once per picture, because they run on the device on whole groups. Batches are shuffled, so the groups
    change every epoch.

    The global random state is left as it was. Raises LiprefError when torchvision does not load.
    """
    import_torchvision()
    from torchvision.transforms import v2

    policy = v2.RandAugment(num_ops=2, magnitude=9)
    # torchvision draws from torch's default CPU generator; torch.manual_seed would also reseed the accelerators'.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        return torch.cat([policy(group) for group in images.split(RANDAUGMENT_GROUP)])
