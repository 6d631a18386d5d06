"""Any folder of pictures, one folder per class."""

import os
from pathlib import Path

from lipref.data.cifar import CIFAR10_MEAN
from lipref.data.fetch import import_torchvision
from lipref.data.images import ImageData, channel_mean
from lipref.data.pictures import Listing, read_pictures
from lipref.errors import LiprefError


def load_imagefolder(path: str, root: Path, name: str | None = None) -> ImageData:
    """Pictures under ``path/train/<class>/`` and ``path/test/<class>/`` (or ``val``, when there is no ``test``).

    Files are found as torchvision's ``ImageFolder`` does, hidden ones left out. All must be square with one power of
    two as their side; grey ones become RGB. The data set is called ``name``, or else like the folder. The mean is
    that of the training pictures; the name ``cifar10-jpeg`` stands for CIFAR-10 stored as JPEG and has CIFAR-10's
    mean.

    Raises LiprefError for a missing folder or split, class folders that are empty or differ between the splits, and
    unfit pictures.
    """
    folder = Path(os.path.abspath(os.path.expanduser(path)))
    if not path or not folder.is_dir():
        raise LiprefError(f"imagefolder:{path}: no such folder: give one that holds train/<class>/* and test/<class>/*")
    if not (folder / "train").is_dir():
        raise LiprefError(f"{folder}: has no folder 'train': put the training pictures into train/<class>/")
    evaluation = next((split for split in ("test", "val") if (folder / split).is_dir()), None)
    if evaluation is None:
        raise LiprefError(f"{folder}: has neither a folder 'test' nor 'val': put the test pictures into test/<class>/")
    classes, train = _list(folder, "train")
    others, test = _list(folder, evaluation)
    if classes != others:
        only = {"train": sorted(set(classes) - set(others)), evaluation: sorted(set(others) - set(classes))}
        text = "; ".join(f"only in {split}: {', '.join(names[:5])}" for split, names in only.items() if names)
        raise LiprefError(f"{folder}: class folders differ ({text}): give both splits the same ones")
    name = name or folder.name
    train_split, test_split = read_pictures(folder, train, test, classes, root)
    return ImageData(
        name=name,
        train=train_split,
        test=test_split,
        classes=classes,
        levels=255,
        mean=CIFAR10_MEAN if name == "cifar10-jpeg" else channel_mean(train_split, levels=255),
        augmentation="crop-flip",
        source=f"image folder {folder}",
        licence="not known: that of the folder's pictures",
    )


def _list(folder: Path, split: str) -> tuple[tuple[str, ...], Listing]:
    import_torchvision()
    from torchvision.datasets import ImageFolder
    from torchvision.datasets.folder import IMG_EXTENSIONS, has_file_allowed_extension

    where = folder / split
    # ImageFolder's paths begin with the one it is given. Strings, because pathlib takes seconds over many files.
    above = len(os.path.join(folder, ""))

    def wanted(file: str) -> bool:
        # Hidden: notebook checkpoints, and what other systems leave beside pictures.
        hidden = os.sep + "." in file[above:]
        return not hidden and has_file_allowed_extension(file, IMG_EXTENSIONS)

    try:
        found = ImageFolder(where, is_valid_file=wanted, allow_empty=True)
    except FileNotFoundError as error:
        raise LiprefError(f"{where}: has no class folders: put the pictures into {split}/<class>/") from error
    empty = sorted(set(range(len(found.classes))) - set(found.targets))
    if empty:
        kinds = " ".join(IMG_EXTENSIONS)
        raise LiprefError(
            f"{where / found.classes[empty[0]]}: holds no picture ({kinds}): add some or remove the class in all splits"
        )
    return tuple(found.classes), [(file[above:], label) for file, label in found.samples]
