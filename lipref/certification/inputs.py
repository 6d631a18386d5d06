"""Pictures as people have them - arrays, files, folders - to the exact pixels that a network takes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from lipref.data import ImageData
from lipref.data.pictures import list_pictures, printable, read_picture, warn_left_out
from lipref.errors import LiprefError

Images = Tensor | np.ndarray | str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


@dataclass(frozen=True)
class InputFormat:
    """What turns a picture into a network's input, ``uint8 / levels - mean``, and an output into a class.

    Pictures have ``channels`` and the side ``image_size``; ``mean`` is per channel, in units of [0, 1].
    """

    channels: int
    image_size: int
    levels: int
    mean: list[float]
    classes: list[str]

    @classmethod
    def of(cls, data: ImageData) -> InputFormat:
        """That of a data set."""
        return cls(data.channels, data.image_size, data.levels, list(data.mean), list(data.classes))

    def as_dict(self) -> dict:
        return asdict(self)


class Pictures:
    """``images`` for a network of the format ``form``; files are decoded batch by batch.

    Attributes: ``names``, one per picture: its path, or its number; ``resized``, whether a picture so far was resized.

    Args:
        images: uint8 pixels, ``(N, C, H, W)``, ``(N, H, W, C)`` or, of one channel, ``(N, H, W)``; a path of a picture
            or of a folder; or a list of paths. Folders are searched to the bottom, as `list_pictures` does, with a
            warning for files that are no pictures. Files are turned upright as their EXIF orientation says.
        form: what the network takes.
        resize: bring square pictures of another side to the network's.

    Raises:
        LiprefError: pixels that are not uint8, a shape that does not fit, no pictures.
    """

    def __init__(self, images: Images, form: InputFormat, resize: bool = False) -> None:
        self.form, self.resize, self.resized = form, resize, False
        if isinstance(images, str | os.PathLike):
            images = [images]
        if isinstance(images, list | tuple) and all(isinstance(path, str | os.PathLike) for path in images):
            self._source: Tensor | list[Path] = [file for path in images for file in _files(Path(path))]
            self.names = pd.Index([printable(file) for file in self._source], name="picture", dtype=object)
        elif isinstance(images, Tensor | np.ndarray):
            self._source = _pixels(images, form)
            self.names = pd.RangeIndex(len(self._source), name="picture")
        else:
            raise LiprefError(f"images are {type(images).__name__}: give one array or tensor of uint8, or paths")
        if not len(self._source):
            raise LiprefError("there are no pictures: give at least one")

    def __len__(self) -> int:
        return len(self._source)

    def batches(self, batch_size: int) -> Iterator[Tensor]:
        """Pixels, uint8 ``(B, C, H, W)``, in order.

        Raises:
            LiprefError: a file that is no usable picture, or a picture of another size where ``resize`` is false.
        """
        for start in range(0, len(self), batch_size):
            names, part = self.names[start : start + batch_size], self._source[start : start + batch_size]
            pictures = part if isinstance(part, Tensor) else [_decode(file, self.form) for file in part]
            yield torch.stack([self._fit(name, picture) for name, picture in zip(names, pictures, strict=True)])

    def _fit(self, name: object, picture: Tensor) -> Tensor:
        side, (height, width) = self.form.image_size, picture.shape[1:]
        if (height, width) == (side, side):
            return picture
        if height != width:
            raise LiprefError(f"picture {name} is {width}x{height}, the network takes {side}x{side}: crop it")
        if not self.resize:
            raise LiprefError(
                f"picture {name} is {width}x{height}, the network takes {side}x{side}: resize it (resize=True, "
                "--resize); its certificate is then for the resized picture"
            )
        self.resized = True
        channels = [Image.fromarray(channel.numpy()).resize((side, side), Image.Resampling.BILINEAR)
                    for channel in picture.contiguous()]  # fmt: skip
        return torch.from_numpy(np.stack([np.asarray(channel) for channel in channels]))


def _pixels(images: Tensor | np.ndarray, form: InputFormat) -> Tensor:
    if images.dtype not in (torch.uint8, np.uint8):
        raise LiprefError(
            f"pixels are {images.dtype}: give uint8, 0 to {form.levels}; a certificate is for exact pixels, "
            "and how others were scaled or rounded is not known"
        )
    # A copy, because arrays may be read-only or run backwards.
    images = images.detach().cpu() if isinstance(images, Tensor) else torch.from_numpy(images.copy())
    shape = tuple(images.shape)
    if images.dim() == 3 and form.channels == 1:
        images = images[:, None]
    elif images.dim() == 4 and shape[1] != form.channels:
        images = images.permute(0, 3, 1, 2)
    if images.dim() != 4 or images.shape[1] != form.channels or 0 in shape[1:]:
        raise LiprefError(f"images have shape {shape}: give (N, {form.channels}, H, W) or (N, H, W, {form.channels})")
    return images


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found, others = list_pictures(str(path))
    warn_left_out(path, others, "no pictures of a known format")
    if not found:
        raise LiprefError(f"{printable(path)}: no picture in this folder: give one with pictures, or the files")
    return sorted(map(Path, found))


def _decode(file: Path, form: InputFormat) -> Tensor:
    picture = torch.from_numpy(read_picture(file).copy()).permute(2, 0, 1)
    if form.channels == 1:
        if not (picture == picture[:1]).all():
            raise LiprefError(f"{printable(file)}: has colours, but this network takes grey pictures: convert it first")
        picture = picture[:1]
    return picture
