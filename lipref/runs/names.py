"""Names in text: of layers, sizes, devices and data sets, as options and parameters give them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from lipref.errors import LiprefError
from lipref.layers import LAYERS, resolve
from lipref.nets import SIZES
from lipref.paths import ROOT


def short_name(dataset: str) -> str:
    """``digits``, or for an image folder the name of the folder."""
    return Path(dataset.removeprefix("imagefolder:")).resolve().name


def split_names(text: str, option: str) -> tuple[str, ...]:
    """``"aol, soc"`` -> ``("aol", "soc")``; empty and repeated names are refused."""
    parts = tuple(part.strip() for part in text.split(","))
    if not all(parts):
        raise LiprefError(f"{option} {text!r} has an empty part; separate names by single commas")
    twice = {part for part in parts if parts.count(part) > 1}
    if twice:
        raise LiprefError(f"{option} {text!r} names {', '.join(sorted(twice))} twice; every name may stand once")
    return parts


def whole_numbers(text: str, option: str) -> tuple[int, ...]:
    """``"0,1,2"`` -> ``(0, 1, 2)``."""
    return tuple(_whole(part, option) for part in split_names(text, option))


def _whole(text: str, option: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise LiprefError(f"{option} {text!r} is no whole number") from None


def layer_names(text: str) -> tuple[str, ...]:
    """Names separated by commas; ``all`` stands for every registered layer.

    The relative path of a file that does not exist here is looked for in the repository.
    """
    names = []
    for part in split_names(text, "--layers"):
        names += LAYERS if part == "all" else [_found(part)]
    return split_names(",".join(names), "--layers")


def _found(name: str) -> str:
    place, separator, cls = name.rpartition(":")
    if separator and place.endswith(".py") and not Path(place).is_file() and (ROOT / place).is_file():
        return f"{ROOT / place}:{cls}"
    return name


def check_layers(names: Sequence[str]) -> tuple[str, ...]:
    """``names``, resolved once: unknown ones and two of one label are refused."""
    labels = [resolve(name).label for name in names]
    if len(set(labels)) < len(labels):
        raise LiprefError(f"--layers {','.join(names)} names a layer twice; every name may stand once")
    return tuple(names)


def check_sizes(sizes: Sequence[str]) -> tuple[str, ...]:
    """``sizes``, all of them known."""
    for size in sizes:
        if size not in SIZES:
            raise LiprefError(f"unknown size {size!r}; known: {', '.join(SIZES)}")
    return tuple(sizes)


def known_device(device: str) -> torch.device:
    """``cpu`` or a CUDA device, whether it is here or not."""
    try:
        parsed = torch.device(device)
    except RuntimeError:
        parsed = None
    if parsed is None or parsed.type not in ("cpu", "cuda"):
        raise LiprefError(f"unknown device {device!r}; here: {', '.join(_usable())}")
    return parsed


def check_device(device: str) -> torch.device:
    """``cpu``, or a CUDA device that is there."""
    parsed = known_device(device)
    count = torch.cuda.device_count() if parsed.type == "cuda" else 1
    if parsed.type not in _usable() or (parsed.index or 0) >= count:
        raise LiprefError(f"device {device!r} is not available on this machine; here: {', '.join(_usable())}")
    return parsed


def _usable() -> list[str]:
    return ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
