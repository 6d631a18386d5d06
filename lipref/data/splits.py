"""Stratified, seeded parts of a data set."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from lipref.data.images import ImageData, Split
from lipref.errors import LiprefError, whole_number


def stratified_order(labels: Tensor, seed: int) -> Tensor:
    """An order of all pictures (int64, (N,)) of which every beginning is stratified.

    First comes one random picture of each class, then each class follows in proportion to its size. A shorter
    beginning is part of a longer one.
    """
    # RandomState's stream is frozen by NumPy's policy (NEP 19), so a split stays the same in years to come.
    shuffled = np.random.RandomState(seed).permutation(len(labels))
    classes = labels.numpy()[shuffled]
    sizes = np.bincount(classes)
    by_class = np.argsort(classes, kind="stable")
    rank = np.empty(len(classes), dtype=np.int64)
    rank[by_class] = np.concatenate([np.arange(size) for size in sizes])
    # Ties go by class: round-robin when classes have equal sizes.
    return torch.from_numpy(shuffled[np.lexsort((classes, rank / sizes[classes]))])


def limit(split: Split, count: int | None, num_classes: int, what: str) -> Split:
    """A stratified subset of ``count`` pictures, in the split's own order; all of them for None.

    It is the same on every call, and part of any larger one.

    Raises LiprefError for a count below the number of classes or above the number of pictures; ``what`` names the
    argument.
    """
    if count is None:
        return split
    count = whole_number(what, count, 0)
    if not num_classes <= count <= len(split):
        raise LiprefError(
            f"{what}={count}: give a whole number from {num_classes} (one picture per class) to {len(split)} (all)"
        )
    return split.take(stratified_order(split.labels, seed=0)[:count].sort().values)


def validation_split(data: ImageData, fraction: float = 0.1, seed: int = 0) -> ImageData:
    """The training pictures alone, parted in two: ``train`` is for training, ``test`` for validation.

    ``fraction`` of the training pictures, stratified and drawn by ``seed``, become the validation part; the test
    pictures are not part of the answer. Evaluated like any test split, the validation pictures are clean; the search
    of Prach et al. (CVPR 2024, arXiv 2311.16833) left the training augmentation on. The mean remains that of the data
    set.

    Raises LiprefError when a part would lack a class, or for a seed outside of 0 to 2**32 - 1.
    """
    if not 0 <= seed < 2**32:
        raise LiprefError(f"seed={seed}: give a whole number from 0 to 2**32 - 1")
    count = round(fraction * len(data.train)) if 0 < fraction < 1 else 0
    if count < data.num_classes:
        raise LiprefError(
            f"fraction={fraction} makes {count} validation pictures of {len(data.train)}: "
            f"give a number between 0 and 1 that leaves at least {data.num_classes}, one per class"
        )
    order = stratified_order(data.train.labels, seed)
    validation, training = order[:count].sort().values, order[count:].sort().values
    sizes = torch.bincount(data.train.labels[training], minlength=data.num_classes)
    if (sizes == 0).any():
        lost = data.classes[int(sizes.argmin())]
        raise LiprefError(
            f"fraction={fraction} leaves no training picture of class {lost!r}: give a smaller one or more pictures"
        )
    return replace(data, train=data.train.take(training), test=data.train.take(validation))
