"""The handwritten digits that come with scikit-learn: 8x8 pictures for quick, offline runs."""

import torch

from lipref.data.images import ImageData, Split, channel_mean
from lipref.data.splits import stratified_order

TEST_SIZE = 360


def load_digits() -> ImageData:
    """1797 grey 8x8 pictures of 10 digits with 17 grey values, 0 to 16.

    1437 to train, 360 to test, 35 to 37 of each digit. The data set has no split of its own: this one is stratified and
    always the same.
    """
    from sklearn import datasets

    bunch = datasets.load_digits()
    everything = Split(
        torch.from_numpy(bunch.images).to(torch.uint8)[:, None], torch.from_numpy(bunch.target).to(torch.int64)
    )
    order = stratified_order(everything.labels, seed=0)
    train = everything.take(order[TEST_SIZE:].sort().values)
    return ImageData(
        name="digits",
        train=train,
        test=everything.take(order[:TEST_SIZE].sort().values),
        classes=tuple(str(digit) for digit in bunch.target_names),
        levels=16,
        mean=channel_mean(train, levels=16),
        augmentation="none",
        source="Alpaydin and Kaynak, Optical Recognition of Handwritten Digits (UCI, 1998), from scikit-learn",
        licence="CC BY 4.0",
    )
