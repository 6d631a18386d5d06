"""Downloads, and folders of pictures."""

import os
import tarfile
import unicodedata
import zipfile
from collections import Counter
from http.client import HTTPException
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

from lipref.data.images import CIFAR10_MEAN, ImageData, channel_mean
from lipref.data.pictures import (
    Listing,
    hidden,
    list_pictures,
    printable,
    read_pictures,
    unreadable,
    warn_left_out,
)
from lipref.errors import LiprefError, one_line


def import_torchvision() -> None:
    """Imports torchvision, which is slow and only some data sets need.

    Raises LiprefError that names both versions when it does not load: one that was built for another torch fails at
    import.
    """
    try:
        import torchvision
        import torchvision.transforms.v2  # noqa: F401
    except (ImportError, RuntimeError) as error:
        raise LiprefError(
            f"torchvision {_version('torchvision')} does not load with torch {_version('torch')} ({one_line(error)}): "
            "install matching versions of the two"
        ) from error


def fetch(title: str, url: str, md5: str, folder: str, root: Path) -> None:
    """Sees to it that ``root / folder`` exists: as it is, from an archive that lies in ``root``, or from ``url``.

    The archive (zip or tar) must have the checksum ``md5`` and contain ``folder``. It is unpacked aside and renamed,
    so an interrupted or parallel run never leaves half a folder.

    Raises LiprefError with the address and the place when that fails.
    """
    if (root / folder).is_dir():
        return
    import_torchvision()
    from torchvision.datasets import utils

    filename = url.rsplit("/", 1)[-1]
    given = root / filename
    if given.exists() and not utils.check_integrity(given, md5):
        raise LiprefError(f"{given}: its md5 is not {md5}: delete it or fetch {url} again")
    try:
        root.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=root, prefix=".fetch-") as aside:
            if not given.exists():
                utils.download_url(url, aside, filename, md5)
            utils.extract_archive(given if given.exists() else Path(aside) / filename, aside)
            try:
                os.replace(Path(aside) / folder, root / folder)
            except OSError:
                # Another run may have been first.
                if not (root / folder).is_dir():
                    raise
    except (OSError, RuntimeError, HTTPException, EOFError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise LiprefError(
            f"cannot download {title} ({one_line(error)}): "
            f"fetch {url} (md5 {md5}) by other means into {root} and run again"
        ) from error


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "(not installed)"


def load_imagefolder(path: str, root: Path, name: str | None = None) -> ImageData:
    """Pictures under ``path/train/<class>/`` and ``path/test/<class>/`` (or ``val``, when there is no ``test``).

    Files are found by `list_pictures`, in the order of torchvision's ``ImageFolder``; a warning counts those that are
    left out. All must be square with one power of two as their side; grey ones become RGB. Classes are called like
    their folders, in Unicode's normal form NFC. The data set is called ``name``, or else like the folder. The mean is
    that of the training pictures; the name ``cifar10-jpeg`` stands for CIFAR-10 stored as JPEG and has CIFAR-10's
    mean.

    Raises LiprefError for a missing folder or split, class folders that are empty or differ between the splits, and
    unfit pictures.
    """
    folder = Path(os.path.abspath(os.path.expanduser(path)))
    shown = printable(folder)
    if not path or not folder.is_dir():
        raise LiprefError(
            f"imagefolder:{printable(path)}: no such folder: give one that holds train/<class>/* and test/<class>/*"
        )
    if not (folder / "train").is_dir():
        raise LiprefError(f"{shown}: has no folder 'train': put the training pictures into train/<class>/")
    evaluation = next((split for split in ("test", "val") if (folder / split).is_dir()), None)
    if evaluation is None:
        raise LiprefError(f"{shown}: has neither a folder 'test' nor 'val': put the test pictures into test/<class>/")
    classes, train, left_out = _list(folder, "train")
    others, test, left_out_too = _list(folder, evaluation)
    warn_left_out(folder, left_out + left_out_too, "no pictures of a known format in a class folder")
    if classes != others:
        only = {"train": sorted(set(classes) - set(others)), evaluation: sorted(set(others) - set(classes))}
        text = "; ".join(f"only in {split}: {', '.join(names[:5])}" for split, names in only.items() if names)
        raise LiprefError(f"{shown}: class folders differ ({text}): give both splits the same ones")
    name = name or printable(folder.name)
    train_split, test_split = read_pictures(folder, train, test, classes, root)
    return ImageData(
        name=name,
        train=train_split,
        test=test_split,
        classes=classes,
        levels=255,
        mean=CIFAR10_MEAN if name == "cifar10-jpeg" else channel_mean(train_split, levels=255),
        augmentation="crop-flip",
        source=f"image folder {shown}",
        licence="not known: that of the folder's pictures",
    )


def _list(folder: Path, split: str) -> tuple[tuple[str, ...], Listing, Counter[str]]:
    where, places = folder / split, {}
    _, folders, files = next(os.walk(where, onerror=unreadable))
    others = Counter(os.path.splitext(name)[1].lower() for name in files if not hidden(name))
    for called in sorted(folders):
        # A link to a folder above is no class.
        if hidden(called) or where.resolve().is_relative_to(os.path.realpath(where / called)):
            continue
        # macOS and Linux write the same accented name differently.
        name = unicodedata.normalize("NFC", printable(called))
        if name in places:
            raise LiprefError(f"{printable(where)}: two folders are called {name!r} but for Unicode's form: join them")
        places[name] = os.path.join(where, called)
    if not places:
        raise LiprefError(f"{printable(where)}: has no class folders: put the pictures into {split}/<class>/")
    classes, listing = tuple(sorted(places)), []
    # Strings, because pathlib takes seconds over many files.
    above = len(os.path.join(folder, ""))
    for label, name in enumerate(classes):
        files, left_out = list_pictures(places[name])
        others += left_out
        if not files:
            kinds = f", only {', '.join(sorted(left_out))}" if left_out else ""
            raise LiprefError(
                f"{printable(places[name])}: holds no picture{kinds}: add some or remove the class in all splits"
            )
        listing += [(file[above:], label) for file in files]
    return classes, listing, others
