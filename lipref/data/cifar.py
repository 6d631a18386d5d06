"""CIFAR-10 and CIFAR-100, the original files, through torchvision."""

from pathlib import Path

import torch

from lipref.data.fetch import fetch, import_torchvision, one_line
from lipref.data.images import ImageData, Split
from lipref.errors import LiprefError

CIFAR10_MEAN = (0.49139968, 0.48215841, 0.44653091)
CIFAR100_MEAN = (0.5071, 0.4865, 0.4409)


def load_cifar10(root: Path) -> ImageData:
    """50 000 training and 10 000 test pictures, 32x32, RGB, 10 classes; downloaded into ``root`` if missing."""
    return _load("cifar10", "CIFAR10", CIFAR10_MEAN, root)


def load_cifar100(root: Path) -> ImageData:
    """50 000 training and 10 000 test pictures, 32x32, RGB, 100 classes; downloaded into ``root`` if missing."""
    return _load("cifar100", "CIFAR100", CIFAR100_MEAN, root)


def _load(name: str, torchvision_name: str, mean: tuple[float, ...], root: Path) -> ImageData:
    import_torchvision()
    from torchvision import datasets

    cifar = getattr(datasets, torchvision_name)
    fetch(torchvision_name, cifar.url, cifar.tgz_md5, cifar.base_folder, root)
    try:
        parts = [cifar(root, train=train) for train in (True, False)]
    except (RuntimeError, OSError) as error:
        folder = root / cifar.base_folder
        raise LiprefError(f"{folder}: {one_line(error)}: delete this folder to have it downloaded again") from error
    train, test = (
        Split(
            torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(part.targets, dtype=torch.int64)
        )
        for part in parts
    )
    return ImageData(
        name=name,
        train=train,
        test=test,
        classes=tuple(parts[0].classes),
        levels=255,
        mean=mean,
        augmentation="crop-flip",
        source=f"Krizhevsky, Learning Multiple Layers of Features from Tiny Images (2009), {cifar.url}",
        licence="none stated; the authors ask to be cited",
    )
