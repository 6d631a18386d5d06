"""Tiny ImageNet, in its own folder layout."""

from pathlib import Path

from lipref.data.fetch import fetch
from lipref.data.images import ImageData
from lipref.data.pictures import Listing, list_pictures, read_pictures
from lipref.errors import LiprefError

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
