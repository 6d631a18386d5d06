"""False certificates, refuted by attacks; proved ones of the same networks, which are not."""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor, nn

from lipref.attacks import attack
from lipref.attacks.perturbation import check_counts
from lipref.certification.bounds import audit
from lipref.certification.certify import certify
from lipref.data import ImageData, Split, load_dataset, pixels
from lipref.errors import LiprefError
from lipref.soundness.specimens import SHAPE, SPECIMENS

COLUMNS = ["specimen", "claim", "images", "claimed", "certified_claimed", "refuted_claimed", "proved",
           "certified_proved", "refuted_proved"]  # fmt: skip
_STEPS = 30


def refuted(images: int = 100, seed: int = 0, only: str | None = None) -> pd.DataFrame:
    """Train each specimen on digits, certify it twice, and attack it within every certified radius.

    Everything is computed on the CPU; the numbers depend on the arguments and, where training in float32 rounds
    otherwise, on the machine. Refuted is an image that is classified wrongly by the certified function within the
    radius that was certified for it.

    Args:
        images: the first so many test images of digits.
        seed: of initialisation, of the order of training images, and of the attack's starts.
        only: the name of one specimen; default all of `lipref.soundness.specimens.SPECIMENS`.

    Returns:
        A row per specimen: ``specimen``; ``claim``, in words; ``images``; ``claimed``, the constant that is claimed,
        how many images it certifies and how many of these are refuted; ``proved``, the audit's bound, and the same.

    Raises:
        LiprefError: a number of images out of range, or a specimen that is not known.
    """
    check_counts(images=images)
    chosen = [specimen for specimen in SPECIMENS if only in (None, specimen.name)]
    if not chosen:
        raise LiprefError(f"only={only!r}: give one of {', '.join(specimen.name for specimen in SPECIMENS)}")
    data = load_dataset("digits")
    if images > len(data.test):
        raise LiprefError(f"images={images}: give a number from 1 to {len(data.test)}, the test images of digits")
    train_x, train_y = _inputs(data.train, data, torch.float32)
    x, y = _inputs(data.test.take(torch.arange(images)), data, torch.float64)
    rows = []
    for specimen in chosen:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            claim = specimen.make(train_x, train_y)
        proved = audit(claim.model, SHAPE).bound
        counts = [
            _attacked(claim.model, certify(read, [(x, y)], bound).radii, x, y, seed)
            for read, bound in ((claim.read, claim.claimed), (claim.model, proved))
        ]
        cells = (specimen.name, specimen.how, images, claim.claimed, *counts[0], proved, *counts[1])
        rows.append(dict(zip(COLUMNS, cells, strict=True)))
    return pd.DataFrame(rows, columns=COLUMNS)


def _inputs(split: Split, data: ImageData, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return next(iter(pixels(split, data, "cpu", dtype, len(split))))


def _attacked(model: nn.Module, radii: Tensor, x: Tensor, y: Tensor, seed: int) -> tuple[int, int]:
    """How many images are certified, and how many of these are refuted within their radii."""
    sure = radii > 0
    if not sure.any():
        return 0, 0
    found = attack(model, x[sure], y[sure], radii[sure], steps=_STEPS, restarts=1, seed=seed)
    return int(sure.sum()), int(found.success.sum())
