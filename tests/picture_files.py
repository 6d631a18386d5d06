"""Small pictures in files, and how a data set of them is read or refused."""

import numpy as np
import pytest
from PIL import Image

from lipref import data
from lipref.errors import LiprefError


def write_picture(path, side=8, mode="RGB", seed=0, size=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = size or (side, side)
    shape = (height, width) if mode == "L" else (height, width, len(mode))
    array = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(array).save(path, **options)
    return array


def write_folder(folder, classes=("cat", "dog"), train=4, test=2, evaluation="test", side=8):
    """PNG pictures under ``folder``; answers {relative path: (side, side, 3) pixels}."""
    pixels = {}
    for split, count in (("train", train), (evaluation, test)):
        for name in classes:
            for i in range(count):
                path = f"{split}/{name}/{i:03}.png"
                pixels[path] = write_picture(folder / path, side, seed=len(pixels))
    return pixels


def load_folder(folder, root=None, **options):
    return data.load_dataset(f"imagefolder:{folder}", root=root or folder.parent / "root", **options)


def refused(match, *arguments, **options):
    with pytest.raises(LiprefError, match=match) as caught:
        data.load_dataset(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)
