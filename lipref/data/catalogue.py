"""Data sets by name."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from lipref import paths
from lipref.data.cifar import load_cifar10, load_cifar100
from lipref.data.digits import load_digits
from lipref.data.imagefolder import load_imagefolder
from lipref.data.images import ImageData
from lipref.data.splits import limit
from lipref.data.tiny_imagenet import load_tiny_imagenet
from lipref.errors import LiprefError

FOLDER_PREFIX = "imagefolder:"
_LOADERS = {
    "digits": lambda root: load_digits(),
    "cifar10": load_cifar10,
    "cifar100": load_cifar100,
    "tiny-imagenet-200": load_tiny_imagenet,
}
DATASETS = (*_LOADERS, f"{FOLDER_PREFIX}PATH")


@dataclass(frozen=True)
class Shape:
    """What of a data set decides the cost of a network: its pictures are ``(channels, image_size, image_size)``."""

    image_size: int
    channels: int
    num_classes: int
    train_images: int


_SHAPES = {
    "digits": Shape(8, 1, 10, 1437),
    "cifar10": Shape(32, 3, 10, 50_000),
    "cifar100": Shape(32, 3, 100, 50_000),
    "tiny-imagenet-200": Shape(64, 3, 200, 100_000),
}


def load_dataset(
    name: str,
    root: str | os.PathLike[str] | None = None,
    *,
    limit_train: int | None = None,
    limit_test: int | None = None,
    as_name: str | None = None,
) -> ImageData:
    """The data set ``name``, one of `DATASETS`.

    ``imagefolder:PATH`` is any folder with ``train/<class>/*`` and ``test/<class>/*``.

    Args:
        name: one of `DATASETS`; ``digits`` needs no download.
        root: where data sets are downloaded to and decoded pictures are cached, by default the repository's
            ``data/datasets``.
        limit_train, limit_test: stratified subsets of that many pictures, the same every time, smaller ones part of
            larger ones; the mean stays that of all training pictures.
        as_name: the name to report instead of its own; built-in names are reserved for the original data.

    Returns:
        The pictures as bytes, ``train`` and ``test`` (``images`` uint8 ``(N, C, H, W)``, ``labels`` int64 ``(N,)``),
        and what turns them into inputs.

    Raises:
        LiprefError: an unknown name, unfit limits, missing or damaged files, and downloads that fail.

    Example:
        >>> from lipref import load_dataset
        >>> data = load_dataset("digits", limit_train=100)
        >>> data.channels, data.image_size, data.num_classes, len(data.train), len(data.test)
        (1, 8, 10, 100, 360)
    """
    if as_name is not None and (not as_name.strip() or "/" in as_name or "\\" in as_name):
        raise LiprefError(f"as_name={as_name!r}: give a name without slashes")
    place = paths.DATASETS if root is None else Path(os.path.abspath(os.path.expanduser(root)))
    if name.startswith(FOLDER_PREFIX):
        data = load_imagefolder(name.removeprefix(FOLDER_PREFIX), place, as_name)
    elif name in _LOADERS:
        data = _LOADERS[name](place)
    else:
        raise LiprefError(f"unknown data set {name!r}: choose one of {', '.join(DATASETS)}")
    called = as_name or data.name
    if called in _LOADERS and called != name:
        raise LiprefError(f"{name}: the name {called!r} is reserved for the original data: give another with as_name")
    return replace(
        data,
        name=called,
        train=limit(data.train, limit_train, data.num_classes, "limit_train"),
        test=limit(data.test, limit_test, data.num_classes, "limit_test"),
    )


def shape(name: str, root: str | os.PathLike[str] | None = None) -> Shape:
    """The shape of the data set ``name``; nothing is downloaded for it, but an image folder is read.

    Raises LiprefError as `load_dataset` does.
    """
    if name in _SHAPES:
        return _SHAPES[name]
    data = load_dataset(name, root)
    return Shape(data.image_size, data.channels, data.num_classes, len(data.train))
