"""Picture files to tensors: decoded once, then read from one checked cache file."""

import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import track
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from lipref.data.fetch import one_line
from lipref.data.images import Split, fingerprint
from lipref.errors import LiprefError

# Goes up when the decoder or the file's layout changes.
CACHE_VERSION = 1
PROGRESS_FROM = 2000

# (path below the data set's folder, label)
Listing = Sequence[tuple[str, int]]


def read_pictures(
    folder: Path, train: Listing, test: Listing, classes: tuple[str, ...], root: Path
) -> tuple[Split, Split]:
    """The listed pictures as RGB bytes, (N, 3, S, S): training and test split.

    They come from ``root / "cache"`` if nothing changed since the pictures were last decoded: neither their paths nor
    their sizes nor their times of modification. A damaged cache file is reported by a warning and made anew.

    Raises LiprefError for a picture that cannot be decoded, is transparent, or is not square with a power of two as
    its side, the same for all.
    """
    # One file per folder: a changed folder replaces its old one, and folders alike from outside share nothing.
    where = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:12]
    cache = root / "cache" / f"{folder.name}-{where}.safetensors"
    manifest = _manifest(folder, train, test, classes)
    if (cached := _read_cache(cache, manifest, classes)) is not None:
        return cached
    first: tuple[Path, int] | None = None
    splits = []
    for listing in (train, test):
        images, first = _decode(folder, listing, first)
        splits.append(Split(images, torch.tensor([label for _, label in listing], dtype=torch.int64)))
    _write_cache(cache, manifest, classes, splits[0], splits[1])
    return splits[0], splits[1]


def _manifest(folder: Path, train: Listing, test: Listing, classes: tuple[str, ...]) -> str:
    digest = hashlib.sha256(json.dumps([CACHE_VERSION, list(classes)]).encode())
    for listing in (train, test):
        digest.update(b"split\n")
        for path, label in listing:
            try:
                status = (folder / path).stat()
            except OSError as error:
                raise LiprefError(f"{folder / path}: {error.strerror or error}: restore or remove this file") from error
            digest.update(json.dumps([path, label, status.st_size, status.st_mtime_ns]).encode())
    return digest.hexdigest()


def _decode(folder: Path, listing: Listing, first: tuple[Path, int] | None) -> tuple[torch.Tensor, tuple[Path, int]]:
    """The listed pictures as (N, 3, S, S), and the one, with its side, that all others must agree with.

    first: that picture; None makes it the first of the listing.
    """
    files = [folder / path for path, _ in listing]
    if first is None:
        first = files[0], read_picture(files[0]).shape[0]
        side = first[1]
        if side & (side - 1):
            raise LiprefError(
                f"{first[0]}: {side}x{side} pixels, but a side must be a power of two: resize all, e.g. to 32x32"
            )
    pictures = np.empty((len(files), 3, first[1], first[1]), dtype=np.uint8)
    shown = track(
        files,
        description=f"decoding {folder.name}",
        console=Console(stderr=True),
        transient=True,
        disable=len(files) < PROGRESS_FROM,
    )
    for place, file in zip(pictures, shown, strict=True):
        picture = read_picture(file)
        if (side := len(picture)) != first[1]:
            raise LiprefError(
                f"{file}: {side}x{side} pixels, but {first[0]} has {first[1]}x{first[1]}: resize all to one size"
            )
        place[:] = picture.transpose(2, 0, 1)
    return torch.from_numpy(pictures), first


def read_picture(file: Path) -> np.ndarray:
    """One square picture as RGB, uint8, (S, S, 3)."""
    try:
        with Image.open(file) as image:
            image.load()
            mode = image.mode
            opaque = True
            if image.has_transparency_data:
                image = image.convert("RGBA")
                opaque = image.getchannel("A").getextrema()[0] == 255
            size, picture = image.size, np.asarray(image.convert("RGB"))
    except FileNotFoundError as error:
        raise LiprefError(f"{file}: no such file") from error
    except Exception as error:  # Pillow's decoders raise all sorts, SyntaxError and struct.error among them.
        raise LiprefError(f"{file}: not a readable picture ({one_line(error)}): restore or remove it") from error
    if size[0] != size[1]:
        raise LiprefError(
            f"{file}: {size[0]}x{size[1]} pixels, but pictures must be square: crop or resize all, e.g. to 32x32"
        )
    if not opaque:
        raise LiprefError(f"{file}: has transparent pixels: flatten it onto a background first")
    if mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
        # Pillow would clip 16-bit and float pictures and guess the colours of print ones.
        raise LiprefError(f"{file}: has colour mode {mode}: convert it to 8-bit RGB or grey first")
    return picture


def _read_cache(cache: Path, manifest: str, classes: tuple[str, ...]) -> tuple[Split, Split] | None:
    if not cache.is_file():
        return None
    try:
        with safe_open(cache, framework="pt") as file:
            about = file.metadata()
            if about["manifest"] != manifest:
                return None
            train, test = (
                Split(file.get_tensor(f"{part}.images"), file.get_tensor(f"{part}.labels"))
                for part in ("train", "test")
            )
        if fingerprint(train, test, classes, 255) == about["fingerprint"]:
            return train, test
        reason = "its checksum is wrong"
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        reason = one_line(error)
    warnings.warn(f"{cache} is damaged ({reason}); decoding the pictures again", stacklevel=2)
    return None


def _write_cache(cache: Path, manifest: str, classes: tuple[str, ...], train: Split, test: Split) -> None:
    tensors = {
        f"{name}.{part}": getattr(split, part)
        for name, split in (("train", train), ("test", test))
        for part in ("images", "labels")
    }
    about = {"manifest": manifest, "fingerprint": fingerprint(train, test, classes, 255)}
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache.parent, prefix=".write-") as aside:
            part = Path(aside) / cache.name
            part.touch()
            mode = part.stat().st_mode
            save_file(tensors, part, metadata=about)
            # safetensors makes its files private; a shared folder of data sets keeps the user's own default.
            part.chmod(mode)
            os.replace(part, cache)
    except (OSError, SafetensorError) as error:
        raise LiprefError(f"cannot write {cache} ({one_line(error)}): make room or give another root") from error
