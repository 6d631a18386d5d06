"""The data sets, where they come from, and parts of them."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lipref import paths
from lipref.data.files import fetch, import_torchvision, load_imagefolder
from lipref.data.images import CIFAR10_MEAN, ImageData, Split, channel_mean
from lipref.data.pictures import Listing, list_pictures, read_pictures
from lipref.errors import LiprefError, one_line, whole_number


def stratified_order(labels: Tensor, seed: int) -> Tensor:
    """An order of all pictures (int64, (N,)) of which every beginning is stratified.

    First comes one random picture of each class, then each class follows in proportion to its size. A shorter
    beginning is part of a longer one.
    """
    # RandomState's stream is frozen by NumPy's policy (NEP 19), so a split stays the same in years to come.
    shuffled = np.random.RandomState(seed).permutation(len(labels))
    classes = labels.numpy()[shuffled]
    sizes = np.bincount(classes)
    by_class = np.argsort(classes, kind="stable")
    rank = np.empty(len(classes), dtype=np.int64)
    rank[by_class] = np.concatenate([np.arange(size) for size in sizes])
    # Ties go by class: round-robin when classes have equal sizes.
    return torch.from_numpy(shuffled[np.lexsort((classes, rank / sizes[classes]))])


def limit(split: Split, count: int | None, num_classes: int, what: str) -> Split:
    """A stratified subset of ``count`` pictures, in the split's own order; all of them for None.

    It is the same on every call, and part of any larger one.

    Raises LiprefError for a count below the number of classes or above the number of pictures; ``what`` names the
    argument.
    """
    if count is None:
        return split
    count = whole_number(what, count, 0)
    if not num_classes <= count <= len(split):
        raise LiprefError(
            f"{what}={count}: give a whole number from {num_classes} (one picture per class) to {len(split)} (all)"
        )
    return split.take(stratified_order(split.labels, seed=0)[:count].sort().values)


def validation_split(data: ImageData, fraction: float = 0.1, seed: int = 0) -> ImageData:
    """The training pictures alone, parted in two: ``train`` is for training, ``test`` for validation.

    ``fraction`` of the training pictures, stratified and drawn by ``seed``, become the validation part; the test
    pictures are not part of the answer. Evaluated like any test split, the validation pictures are clean; the search
    of Prach et al. (CVPR 2024, arXiv 2311.16833) left the training augmentation on. The mean remains that of the data
    set.

    Raises LiprefError when a part would lack a class, or for a seed outside of 0 to 2**32 - 1.
    """
    if not 0 <= seed < 2**32:
        raise LiprefError(f"seed={seed}: give a whole number from 0 to 2**32 - 1")
    count = round(fraction * len(data.train)) if 0 < fraction < 1 else 0
    if count < data.num_classes:
        raise LiprefError(
            f"fraction={fraction} makes {count} validation pictures of {len(data.train)}: "
            f"give a number between 0 and 1 that leaves at least {data.num_classes}, one per class"
        )
    order = stratified_order(data.train.labels, seed)
    validation, training = order[:count].sort().values, order[count:].sort().values
    sizes = torch.bincount(data.train.labels[training], minlength=data.num_classes)
    if (sizes == 0).any():
        lost = data.classes[int(sizes.argmin())]
        raise LiprefError(
            f"fraction={fraction} leaves no training picture of class {lost!r}: give a smaller one or more pictures"
        )
    return replace(data, train=data.train.take(training), test=data.train.take(validation))


TEST_SIZE = 360


def load_digits() -> ImageData:
    """1797 grey 8x8 pictures of 10 digits with 17 grey values, 0 to 16.

    1437 to train, 360 to test, 35 to 37 of each digit. The data set has no split of its own: this one is stratified and
    always the same.
    """
    from sklearn import datasets

    bunch = datasets.load_digits()
    everything = Split(
        torch.from_numpy(bunch.images).to(torch.uint8)[:, None], torch.from_numpy(bunch.target).to(torch.int64)
    )
    order = stratified_order(everything.labels, seed=0)
    train = everything.take(order[TEST_SIZE:].sort().values)
    return ImageData(
        name="digits",
        train=train,
        test=everything.take(order[:TEST_SIZE].sort().values),
        classes=tuple(str(digit) for digit in bunch.target_names),
        levels=16,
        mean=channel_mean(train, levels=16),
        augmentation="none",
        source="Alpaydin and Kaynak, Optical Recognition of Handwritten Digits (UCI, 1998), from scikit-learn",
        licence="CC BY 4.0",
    )


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


FOLDER = "tiny-imagenet-200"
URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
MD5 = "90528d7ca1a48142e341f4ef8d21d0de"
IMAGENET_MEAN = (0.485, 0.456, 0.406)
LAYOUT = ("train/*/images/*.JPEG", "val/images/*.JPEG")
AGAIN = "delete the folder to have it downloaded again"


def load_tiny_imagenet(root: Path) -> ImageData:
    """100 000 training and 10 000 test pictures, 64x64, RGB, 200 classes.

    The test split is the official validation folder, as in Prach et al. (CVPR 2024, arXiv 2311.16833): the labels of
    the official test pictures are not public. Classes are in the order of their WordNet ids. ``root /
    "tiny-imagenet-200"`` is used as it is, or else downloaded.

    Raises LiprefError when it cannot be downloaded, has another layout, or files are missing or damaged.
    """
    fetch("Tiny ImageNet", URL, MD5, FOLDER, root)
    folder = root / FOLDER
    try:
        classes, train_files, test_files = _list(folder)
    except LiprefError as error:
        if odd := _other_layout(folder):
            raise LiprefError(
                f"{folder}: holds {odd}, which is not the original layout ({', '.join(LAYOUT)}): restore it, or rename "
                "the folder and give it as imagefolder:PATH, which takes train/<class>/*, val/<class>/* and no test/"
            ) from error
        raise
    train, test = read_pictures(folder, train_files, test_files, classes, root)
    return ImageData(
        name=FOLDER,
        train=train,
        test=test,
        classes=classes,
        levels=255,
        mean=IMAGENET_MEAN,
        augmentation="randaugment",
        source=f"Le and Yang, Tiny ImageNet Visual Recognition Challenge (2015), {URL}",
        licence="ImageNet's terms of access: non-commercial research and education",
    )


def _list(folder: Path) -> tuple[tuple[str, ...], Listing, Listing]:
    wnids = sorted(row[0] for row in _rows(folder / "wnids.txt"))
    words = {row[0]: row[-1].split(",")[0] for row in _rows(folder / "words.txt")}
    if missing := [wnid for wnid in wnids if wnid not in words]:
        raise LiprefError(f"{folder / 'words.txt'}: does not name {missing[0]}: {AGAIN}")
    classes = tuple(f"{wnid} {words[wnid]}" for wnid in wnids)
    return classes, _train(folder, wnids), _validation(folder, wnids)


def _other_layout(folder: Path) -> Path | None:
    """A training or validation picture where the original has none."""
    places = (Path(file).relative_to(folder) for file in list_pictures(str(folder))[0])
    found = (place for place in places if place.parts[0] in ("train", "val"))
    return next((place for place in found if not any(place.match(pattern) for pattern in LAYOUT)), None)


def _rows(file: Path) -> list[list[str]]:
    try:
        return [line.split("\t") for line in file.read_text(encoding="utf-8").splitlines() if line]
    except (OSError, UnicodeDecodeError) as error:
        raise LiprefError(f"{file}: cannot be read: {AGAIN}") from error


def _train(folder: Path, wnids: list[str]) -> Listing:
    listing = []
    for label, wnid in enumerate(wnids):
        place = folder / "train" / wnid / "images"
        names = sorted(file.name for file in place.glob("*.JPEG"))
        if not names:
            raise LiprefError(f"{place}: missing or without pictures (*.JPEG): {AGAIN}")
        listing += [(f"train/{wnid}/images/{name}", label) for name in names]
    return listing


def _validation(folder: Path, wnids: list[str]) -> Listing:
    annotations = folder / "val" / "val_annotations.txt"
    labels = {wnid: label for label, wnid in enumerate(wnids)}
    rows = _rows(annotations)
    for row in rows:
        if len(row) < 2 or row[1] not in labels:
            raise LiprefError(f"{annotations}: {' '.join(row)[:60]!r} names no known class: {AGAIN}")
    listed, present = {row[0] for row in rows}, {file.name for file in (folder / "val" / "images").glob("*.JPEG")}
    if listed != present:  # a copy that stopped half-way
        odd = sorted(listed ^ present)[0]
        state = "missing" if odd in listed else "not in val_annotations.txt"
        raise LiprefError(f"{folder / 'val' / 'images'}: {odd} is {state}: {AGAIN}")
    if absent := sorted(set(wnids) - {row[1] for row in rows}):
        raise LiprefError(f"{annotations}: no picture of class {absent[0]}: {AGAIN}")
    return [(f"val/images/{row[0]}", labels[row[1]]) for row in rows]


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
