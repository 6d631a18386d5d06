"""Picture files to tensors: decoded once, then read from one checked cache file."""

import hashlib
import json
import os
import struct
import tempfile
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, TiffImagePlugin
from rich.console import Console
from rich.progress import track
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from lipref.data.images import Split, fingerprint
from lipref.errors import LiprefError, one_line

# Goes up when the decoder or the file's layout changes.
CACHE_VERSION = 2
PROGRESS_FROM = 2000
# Pillow's names. Of these formats `_not_bytes` knows which files hold more than Pillow would read.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
# What systems leave beside pictures, in lower case.
SYSTEM = ("__macosx", "@eadir", "lost+found", "$recycle.bin", "system volume information", "thumbs.db", "desktop.ini")

# (path below the data set's folder, label)
Listing = Sequence[tuple[str, int]]


def read_pictures(
    folder: Path, train: Listing, test: Listing, classes: tuple[str, ...], root: Path
) -> tuple[Split, Split]:
    """The listed pictures as RGB bytes, (N, 3, S, S): training and test split.

    They come from ``root / "cache"`` if neither the files' paths nor their contents changed since they were last
    decoded. A damaged cache file is reported by a warning and made anew.

    Raises LiprefError for a picture that `read_picture` refuses, or whose side is not a power of two, the same for all.
    """
    # One file per folder: a changed folder replaces its old one, and folders alike from outside share nothing.
    where = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:12]
    cache = root / "cache" / f"{printable(folder.name)}-{where}.safetensors"
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
            # Contents, because archives restore times. It takes a tenth of the decoding's time.
            try:
                content = hashlib.sha256((folder / path).read_bytes())
            except OSError as error:
                where = printable(folder / path)
                raise LiprefError(f"{where}: {error.strerror or error}: restore or remove this file") from error
            digest.update(json.dumps([path, label, content.hexdigest()]).encode())
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
                f"{printable(first[0])}: {side}x{side} pixels, but a side must be a power of two: "
                "resize all, e.g. to 32x32"
            )
    pictures = np.empty((len(files), 3, first[1], first[1]), dtype=np.uint8)
    shown = track(
        files,
        description="decoding pictures",
        console=Console(stderr=True),
        transient=True,
        disable=len(files) < PROGRESS_FROM,
    )
    for place, file in zip(pictures, shown, strict=True):
        picture = read_picture(file)
        if (side := len(picture)) != first[1]:
            raise LiprefError(
                f"{printable(file)}: {side}x{side} pixels, but {printable(first[0])} has {first[1]}x{first[1]}: "
                "resize all to one size"
            )
        place[:] = picture.transpose(2, 0, 1)
    return torch.from_numpy(pictures), first


def printable(path: str | os.PathLike[str]) -> str:
    """``path`` for messages and tables: bytes that are not UTF-8 are escaped, because they cannot be written."""
    return str(path).encode(errors="surrogateescape").decode(errors="backslashreplace")


def hidden(name: str) -> bool:
    """Whether a file or folder of this name is none of the user's: hidden, or left there by the system."""
    return name.startswith(".") or name.lower() in SYSTEM


def list_pictures(folder: str) -> tuple[list[str], Counter[str]]:
    """The picture files in ``folder`` and all folders below, and how many other files there are of each suffix.

    Pictures are known by the suffixes of `FORMATS`; hidden files and folders are neither. The order is that of
    torchvision's ``ImageFolder``. Links are followed, but every folder is read once, under the first name, and not
    through a link to a folder above.

    Raises LiprefError for a folder that cannot be read and a picture that is no file, such as a broken link.
    """
    suffixes = {suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS}
    others: Counter[str] = Counter()
    found = []
    top = Path(os.path.realpath(folder))
    above = {*top.parents, *(place.resolve() for place in Path(os.path.abspath(folder)).parents)}
    seen = {str(place) for place in above if not place.is_relative_to(top)}
    for place, folders, files in os.walk(folder, followlinks=True, onerror=unreadable):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not hidden(name))
        found.append((place, sorted(name for name in files if not hidden(name))))
    pictures = []
    for place, files in sorted(found):
        for name in files:
            path, suffix = os.path.join(place, name), os.path.splitext(name)[1].lower()
            if suffix not in suffixes:
                others[suffix] += 1
            elif not os.path.isfile(path):
                raise LiprefError(f"{printable(path)}: not a file, or a broken link: restore or remove it")
            else:
                pictures.append(path)
    return pictures, others


def unreadable(error: OSError) -> None:
    """Raises LiprefError for a folder that ``os.walk`` cannot read and would pass over."""
    where = printable(error.filename)
    raise LiprefError(f"{where}: {error.strerror}: make this folder readable or remove it") from error


def warn_left_out(folder: Path, others: Counter[str], what: str) -> None:
    """One warning for all files that are not read, if there are any. what: why not."""
    if others:
        kinds = ", ".join(
            f"{count} {printable(suffix) or 'without suffix'}" for suffix, count in sorted(others.items())
        )
        where = printable(folder)
        warnings.warn(f"{where}: left out {others.total()} file(s), {what}: {kinds}", stacklevel=3)


def read_picture(file: Path) -> np.ndarray:
    """One square picture as RGB, uint8, (S, S, 3), turned upright as its EXIF orientation says.

    Raises LiprefError for a file that is not read exactly: another format than `FORMATS`, several frames or pages,
    samples that are not 8 bits (Pillow would keep their upper bits), transparency, colours other than RGB and grey; and
    for a picture that cannot be decoded or is not square.
    """
    name = printable(file)
    try:
        with Image.open(file) as image:
            _check_exact(image, file)
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            mode = image.mode
            opaque = True
            if image.has_transparency_data:
                image = image.convert("RGBA")
                opaque = image.getchannel("A").getextrema()[0] == 255
            size, picture = image.size, np.asarray(image.convert("RGB"))
    except LiprefError:
        raise
    except FileNotFoundError as error:
        raise LiprefError(f"{name}: no such file") from error
    except Exception as error:  # Pillow's decoders raise all sorts, SyntaxError and struct.error among them.
        # Pillow's own message may name the file.
        reason = printable(one_line(error))
        raise LiprefError(f"{name}: not a readable picture ({reason}): restore or remove it") from error
    if size[0] != size[1]:
        raise LiprefError(
            f"{name}: {size[0]}x{size[1]} pixels, but pictures must be square: crop or resize all, e.g. to 32x32"
        )
    if not opaque:
        raise LiprefError(f"{name}: has transparent pixels: flatten it onto a background first")
    if mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
        # Pillow would clip float pictures and guess the colours of print ones.
        raise LiprefError(f"{name}: has colour mode {mode}: convert it to 8-bit RGB or grey first")
    return picture


def _check_exact(image: Image.Image, file: Path) -> None:
    """Raises LiprefError for an opened picture of which Pillow would read a part, or round it, without a word."""
    name = printable(file)
    if image.format not in FORMATS:
        raise LiprefError(f"{name}: has the format {image.format}, not one of {', '.join(FORMATS)}: convert it to PNG")
    if (frames := getattr(image, "n_frames", 1)) > 1:
        raise LiprefError(f"{name}: has {frames} frames or pages: save the one you mean to a file of its own")
    if samples := _not_bytes(image, file):
        raise LiprefError(f"{name}: has {samples}: convert it to 8 bits per channel first")


def _not_bytes(image: Image.Image, file: Path) -> str | None:
    """The samples of an opened picture, in words, where 8 bits do not hold them: Pillow's mode does not tell."""
    if image.format == "TIFF":
        tags = image.tag_v2
        if (bits := max(tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,)))) > 8:
            return f"{bits} bits per channel"
        if set(tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))) != {1}:
            return "signed samples"
        # A palette has 16 bits; bytes are written there as their upper byte or as both.
        if any(value & 255 not in (0, value >> 8) for value in tags.get(TiffImagePlugin.COLORMAP, ())):
            return "16 bits per channel in its palette"
    elif image.format == "JPEG2000":
        content = file.read_bytes()
        size = content.index(b"\xff\x4f\xff\x51")  # the codestream's beginning, and its marker SIZ
        (count,) = struct.unpack_from(">H", content, size + 40)
        if odd := {depth for depth in content[size + 42 :: 3][:count] if depth != 7}:
            return f"{(max(odd) & 127) + 1} bits per channel" if max(odd) < 128 else "signed samples"
    elif image.format == "AVIF":
        # Each of the boxes av1C has the flag of more than 8 bits in its third byte.
        if any(box[2] & 64 for box in file.read_bytes().split(b"av1C")[1:]):
            return "10 or 12 bits per channel"
    else:
        for decoder, _, _, arguments in image.tile:
            raw, *rest = arguments if isinstance(arguments, tuple) else (arguments,)
            if decoder.startswith("ppm") and rest and 255 % rest[0]:
                return "16 bits per channel" if rest[0] > 255 else f"samples from 0 to {rest[0]}"
            if raw in ("BGR;15", "BGR;16"):
                return "16 bits per pixel"
            if str(raw).endswith(";16B"):
                return "16 bits per channel"
    return None


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
    warnings.warn(f"{printable(cache)} is damaged ({reason}); decoding the pictures again", stacklevel=2)
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
        raise LiprefError(
            f"cannot write {printable(cache)} ({one_line(error)}): make room or give another root"
        ) from error
