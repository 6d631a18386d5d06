"""How far an execution in single precision is from the certified function: measured, not proved."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lipref.errors import LiprefError

PRECISIONS = ("float32", "tf32")


@dataclass(frozen=True)
class Deviation:
    """On ``images`` pictures: ``largest`` l2 distance of the logits from those in float64, ``changed`` predictions."""

    precision: str
    images: int
    largest: float
    changed: int


def deviation(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], precision: str = "float32") -> Deviation:
    """Compare an execution in single precision with the certified one, in float64, on ``(images, labels)``.

    It says nothing of other pictures. Operators are prepared in float64 both times, and rounded once for ``precision``.

    Args:
        model: in any dtype; it is copied. It runs where it is.
        batches: mean-subtracted images in units of [0, 1], as `lipref.data.pixels` makes them.
        precision: ``float32``, with TF32 off, or ``tf32``, on a CUDA device.

    Raises:
        LiprefError: an unknown precision, tf32 without CUDA, or no images.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    if precision not in PRECISIONS:
        raise LiprefError(f"precision={precision!r} is unknown; known: {', '.join(PRECISIONS)}")
    if precision == "tf32" and device.type != "cuda":
        raise LiprefError(f"precision='tf32' needs a CUDA device, but the network is on {device.type}: use float32")
    exact, rough = copy.deepcopy(model).eval().double(), copy.deepcopy(model).eval().float()
    images, largest, changed = 0, 0.0, 0
    with torch.no_grad():
        for x, _ in batches:
            x = x.to(device)
            right = exact(x.to(torch.float64, copy=True))  # a module may work in place
            with _matmuls(tf32=precision == "tf32"):
                found = rough(x.to(torch.float32, copy=True))
            images += len(x)
            largest = max(largest, float((found.double() - right).norm(dim=1).max()))
            changed += int((found.argmax(1) != right.argmax(1)).sum())
    if not images:
        raise LiprefError("no images to compare on")
    return Deviation(precision, images, largest, changed)


@contextlib.contextmanager
def _matmuls(tf32: bool) -> Iterator[None]:
    settings = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [setting.allow_tf32 for setting in settings]
    for setting in settings:
        setting.allow_tf32 = tf32
    try:
        yield
    finally:
        for setting, value in zip(settings, before, strict=True):
            setting.allow_tf32 = value
