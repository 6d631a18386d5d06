"""Data sets: what they hold, how they are cut, and how they are called."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from picture_files import refused

from lipref import data
from lipref.data.datasets import stratified_order
from lipref.data.images import ImageData, Split
from lipref.errors import LiprefError

# --- digits


@pytest.fixture(scope="module")
def digits():
    return data.load_dataset("digits")


def test_digits_are_scikit_learns_whole_and_exact(digits):
    from sklearn.datasets import load_digits

    bunch = load_digits()
    assert (len(digits.train), len(digits.test)) == (1437, 360)
    assert (digits.image_size, digits.channels, digits.num_classes, digits.levels) == (8, 1, 10, 16)
    assert digits.classes == tuple("0123456789")
    assert digits.augmentation == "none"

    def rows(images, labels):
        flat = np.asarray(images).reshape(len(labels), -1).astype(int)
        return Counter((*row, label) for row, label in zip(flat.tolist(), labels.tolist(), strict=True))

    ours = rows(digits.train.images, digits.train.labels) + rows(digits.test.images, digits.test.labels)
    assert ours == rows(bunch.images, bunch.target)
    assert digits.train.images.max() == 16


def test_digits_are_split_by_class(digits):
    # In proportion to all 1797: 178, 182, 177, 183, 181, 182, 181, 179, 174, 180.
    assert torch.bincount(digits.test.labels).tolist() == [36, 36, 36, 37, 36, 36, 36, 36, 35, 36]
    assert torch.bincount(digits.train.labels).tolist() == [142, 146, 141, 146, 145, 146, 145, 143, 139, 144]


def test_digits_stay_the_same(digits):
    assert digits.fingerprint() == "ef445e9a45b120957ca56a0a92a6ee69b733df9d9452888fdf71949e1739ca68"


def test_digits_mean_is_that_of_the_training_pictures(digits):
    mean = digits.train.images.double().div(16).mean().item()
    assert digits.mean == pytest.approx((mean,), rel=1e-12)
    assert data.load_dataset("digits", limit_train=20).mean == digits.mean


# --- fingerprint and shapes


def tiny_data(**changes):
    split = Split(torch.arange(2 * 3 * 4 * 4).reshape(2, 3, 4, 4).to(torch.uint8), torch.tensor([0, 1]))
    parts = {"name": "x", "train": split, "test": split, "classes": ("a", "b"), "levels": 255, "mean": (0.0,) * 3}
    return ImageData(**parts | {"augmentation": "none", "source": "", "licence": ""} | changes)


def test_fingerprint_sees_every_part():
    whole = tiny_data()
    pixel = whole.train.images.clone()
    pixel[1, 2, 3, 3] ^= 1
    label = torch.tensor([1, 1])
    others = [
        tiny_data(train=Split(pixel, whole.train.labels)),
        tiny_data(test=Split(pixel, whole.test.labels)),
        tiny_data(train=Split(whole.train.images, label)),
        tiny_data(test=Split(whole.test.images, label)),
        tiny_data(classes=("a", "c")),
        tiny_data(levels=254),
    ]
    prints = {whole.fingerprint(), *(other.fingerprint() for other in others)}
    assert len(prints) == 7
    assert tiny_data(name="y", mean=(0.5,) * 3).fingerprint() == whole.fingerprint()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"mean": (0.0,)}, "1 channel mean"),
        ({"levels": 16}, "above levels=16"),
        ({"classes": ("a",)}, "at least two"),
        ({"augmentation": "mixup"}, "'mixup'"),
        ({"test": Split(torch.zeros(1, 1, 4, 4, dtype=torch.uint8), torch.tensor([0]))}, "differ in"),
        ({"test": Split(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.tensor([2]))}, "labels from 2 to 2"),
        ({"train": Split(torch.zeros(1, 3, 4, 2, dtype=torch.uint8), torch.tensor([0]))}, "2x4"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes, match):
    with pytest.raises(LiprefError, match=match):
        tiny_data(**changes)


@pytest.mark.parametrize(
    ("images", "labels", "match"),
    [
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, dtype=torch.int64), "uint8"),
        (torch.zeros(2, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), "uint8 of shape"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64), "shape \\(2,\\)"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int32), "int64"),
        (torch.zeros(0, 3, 4, 4, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64), "no pictures"),
    ],
)
def test_splits_of_another_form_are_refused(images, labels, match):
    with pytest.raises(LiprefError, match=match):
        Split(images, labels)


# --- subsets


@given(
    sizes=st.lists(st.integers(1, 40), min_size=2, max_size=6),
    seed=st.integers(0, 2**32 - 1),
    cut=st.floats(0, 1),
)
def test_every_beginning_of_the_stratified_order_is_stratified(sizes, seed, cut):
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed % 1000))]
    order = stratified_order(labels, seed)
    assert sorted(order.tolist()) == list(range(len(labels)))
    count = max(len(sizes), round(cut * len(labels)))
    counts = torch.bincount(labels[order[:count]], minlength=len(sizes))
    assert counts.min() >= 1
    # No class is more than one picture ahead of another, in proportion.
    ahead, behind = (counts - 1) / torch.tensor(sizes), counts / torch.tensor(sizes)
    assert ahead.max() <= behind.min() + 1e-6


def test_limits_are_balanced_nested_and_the_same_each_time(digits):
    def rows(split):
        return {bytes(image.numpy().tobytes()) for image in split.images}

    small = data.load_dataset("digits", limit_train=30, limit_test=20)
    large = data.load_dataset("digits", limit_train=55)
    assert torch.bincount(small.train.labels).tolist() == [3] * 10
    assert torch.bincount(small.test.labels).tolist() == [2] * 10
    assert set(torch.bincount(large.train.labels).tolist()) == {5, 6}
    assert rows(small.train) < rows(large.train) < rows(digits.train)
    assert rows(small.test) < rows(digits.test)
    assert data.load_dataset("digits", limit_train=30, limit_test=20).fingerprint() == small.fingerprint()


@pytest.mark.parametrize("limit", ["limit_train", "limit_test"])
@pytest.mark.parametrize("count", [0, -1, 9, 5000, 20.0, True])
def test_unfit_limits_are_refused(limit, count):
    refused(f"{limit}={count}", "digits", **{limit: count})


def test_validation_split_parts_the_training_pictures(digits):
    part = data.validation_split(digits, fraction=0.1, seed=3)
    assert (len(part.train), len(part.test)) == (1293, 144)
    together = torch.cat([part.train.images, part.test.images])
    labels = torch.cat([part.train.labels, part.test.labels])

    def rows(images, labels):
        return Counter(zip((image.numpy().tobytes() for image in images), labels.tolist(), strict=True))

    assert rows(together, labels) == rows(digits.train.images, digits.train.labels)
    assert set(torch.bincount(part.test.labels).tolist()) <= {14, 15}
    assert part.mean == digits.mean


def test_validation_split_depends_on_its_seed_alone(digits):
    first, again, other = (data.validation_split(digits, seed=seed).fingerprint() for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, 0.001, float("nan"), 0.999])
def test_unfit_fractions_are_refused(digits, fraction):
    with pytest.raises(LiprefError, match="fraction="):
        data.validation_split(digits, fraction=fraction)


def test_unfit_validation_seed_is_refused(digits):
    with pytest.raises(LiprefError, match="seed=-1"):
        data.validation_split(digits, seed=-1)


# --- names


def test_unknown_name_lists_the_known_ones():
    message = refused("unknown data set 'mnist'", "mnist")
    assert all(name in message for name in data.DATASETS)


def test_own_name_may_be_given():
    assert data.load_dataset("digits", as_name="digits").name == "digits"
