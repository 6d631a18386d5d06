"""Batches: stateless, exact, and augmented as an obvious loop over the pictures would."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lipref import data
from lipref.data import datasets
from lipref.data.batches import crop_flip, randaugment
from lipref.errors import LiprefError

COUNT, SIDE = 37, 16


def random_split(count=COUNT, channels=3, side=SIDE, seed=0, levels=255):
    draws = torch.Generator().manual_seed(seed)
    images = torch.randint(levels + 1, (count, channels, side, side), generator=draws).to(torch.uint8)
    return data.Split(images, torch.arange(count) % 5)


def random_data(augmentation="crop-flip", channels=3, levels=255, mean=(0.49139968, 0.48215841, 0.44653091)):
    return data.ImageData(
        name="noise",
        train=random_split(channels=channels, levels=levels),
        test=random_split(11, channels, seed=1, levels=levels),
        classes=tuple("abcde"),
        levels=levels,
        mean=mean[:channels],
        augmentation=augmentation,
        source="",
        licence="",
    )


def batches(source, batch_size=8, seed=0, **options):
    return data.Batches(source.train, source, batch_size, seed, "cpu", **options)


def same(left, right):
    pairs = list(zip(left, right, strict=True))
    return bool(pairs) and all(torch.equal(a, b) and torch.equal(x, y) for (a, x), (b, y) in pairs)


# --- statelessness


@pytest.mark.parametrize("augmentation", ["none", "crop-flip", "randaugment"])
@settings(max_examples=15)
@given(seed=st.integers(-(2**70), 2**70), epoch=st.integers(0, 10**6), start=st.integers(0, 4))
def test_resumed_epoch_equals_an_undisturbed_one(augmentation, seed, epoch, start):
    source = random_data(augmentation)
    whole = list(batches(source, seed=seed).epoch(epoch))
    torch.randn(3)
    fresh = batches(source, seed=seed)
    for _ in zip(fresh.epoch(epoch + 1), range(2), strict=False):
        pass
    assert same(whole[start:], fresh.epoch(epoch, start))


def test_start_at_the_end_yields_nothing():
    assert list(batches(random_data()).epoch(0, 5)) == []


def test_epochs_and_seeds_differ():
    source = random_data("none")
    orders = {
        tuple(torch.cat([labels for _, labels in batches(source, seed=s).epoch(e)]).tolist())
        for s, e in itertools.product(range(4), range(4))
    }
    assert len(orders) == 16


def test_steps_are_augmented_differently():
    source = random_data("randaugment")
    source = replace(source, train=source.train.take(torch.zeros(64, dtype=torch.int64)))
    images = torch.cat([images for images, _ in batches(source).epoch(0)])
    assert len(images.unique(dim=0)) >= 4


def test_numpy_numbers_are_numbers():
    import numpy as np

    source = random_data()
    assert same(batches(source, seed=3).epoch(2, 1), batches(source, seed=np.int64(3)).epoch(np.int64(2), np.int64(1)))


@pytest.mark.parametrize("augmentation", ["none", "crop-flip", "randaugment"])
def test_global_random_state_is_neither_read_nor_moved(augmentation):
    source = random_data(augmentation)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = list(batches(source).epoch(0))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert same(first, batches(source).epoch(0))


def test_another_default_device_changes_nothing():
    for source in (random_data("randaugment"), random_data("crop-flip")):
        expected = list(batches(source).epoch(0))
        with torch.device("meta"):
            assert same(expected, batches(source).epoch(0))


# --- coverage


@given(batch_size=st.integers(1, 50), epoch=st.integers(0, 100))
def test_every_picture_comes_once(batch_size, epoch):
    source = random_data("none")
    loader = batches(source, batch_size)
    parts = list(loader.epoch(epoch))
    assert len(loader) == len(parts) == -(-COUNT // batch_size)
    assert [len(labels) for _, labels in parts[:-1]] == [batch_size] * (len(parts) - 1)
    images, labels = (torch.cat(part) for part in zip(*parts, strict=True))
    expected = torch.cat([images for images, _ in data.pixels(source.train, source, "cpu", torch.float32, COUNT)])
    # Each picture is met with its own label.
    match = (images[:, None] == expected[None]).flatten(2).all(2)
    assert torch.equal(match.sum(0), torch.ones(COUNT, dtype=torch.int64))
    assert torch.equal(source.train.labels[match.int().argmax(1)], labels)


def test_paper_has_196_steps():
    source = random_data("none")
    many = source.train.take(torch.arange(50_000) % COUNT)
    assert len(data.Batches(many, source, 256, 0, "cpu")) == 196


# --- mean subtraction


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("levels", "channels"), [(255, 3), (16, 1)])
def test_mean_subtraction_is_exact(dtype, levels, channels):
    source = random_data("none", channels, levels)
    whole = source.test.images.double() / levels - torch.tensor(source.mean, dtype=torch.float64)[:, None, None]
    found = list(data.pixels(source.test, source, "cpu", dtype, 4))
    assert [len(labels) for _, labels in found] == [4, 4, 3]
    images, labels = (torch.cat(part) for part in zip(*found, strict=True))
    assert images.dtype == dtype
    assert torch.equal(labels, source.test.labels)
    if dtype == torch.float64:
        assert torch.equal(images, whole)
    else:
        # One rounding each of pixel, mean and difference; the half precision, one more.
        error = (images.double() - whole).abs().max()
        assert error <= torch.finfo(torch.float32).eps + (dtype == torch.bfloat16) * torch.finfo(dtype).eps / 2


def test_grey_levels_reach_zero_and_one():
    source = random_data("none", 1, 16, mean=(0.0,))
    images = torch.cat([images for images, _ in batches(source).epoch(0)])
    assert torch.equal(images.unique(), torch.arange(17) / 16)


@pytest.mark.parametrize("augmentation", ["crop-flip", "randaugment"])
def test_augmentation_can_be_left_out(augmentation):
    plain = batches(random_data("none")).epoch(3)
    assert same(plain, batches(random_data(augmentation), augment=False).epoch(3))
    assert not same(batches(random_data("none")).epoch(3), batches(random_data(augmentation)).epoch(3))


# --- crop and flip


def slow_crop_flip(image, offset, flip, padding):
    channels, height, width = image.shape
    padded = torch.zeros(channels, height + 2 * padding, width + 2 * padding, dtype=image.dtype)
    padded[:, padding : padding + height, padding : padding + width] = image
    top, left = offset.tolist()
    cropped = padded[:, top : top + height, left : left + width]
    return cropped.flip(-1) if flip else cropped


@settings(max_examples=40)
@given(
    channels=st.sampled_from([1, 3]),
    side=st.sampled_from([4, 8, 32]),
    padding=st.integers(0, 4),
    seed=st.integers(0, 10**6),
)
def test_crop_and_flip_equal_a_loop_over_the_pictures(channels, side, padding, seed):
    draws = torch.Generator().manual_seed(seed)
    images = torch.randn(6, channels, side, side, generator=draws)
    offsets = torch.randint(2 * padding + 1, (6, 2), generator=draws)
    flips = torch.randint(2, (6,), generator=draws).bool()
    expected = [slow_crop_flip(*parts, padding) for parts in zip(images, offsets, flips, strict=True)]
    assert torch.equal(crop_flip(images, offsets, flips, padding), torch.stack(expected))


def test_batches_draw_each_crop_and_flip_alike():
    """Every one of the (2 * 2 + 1)^2 crops of a 16x16 picture, flipped or not, is about equally frequent."""
    source = random_data()
    one = source.train.take(torch.zeros(5000, dtype=torch.int64))
    found = torch.cat([images for images, _ in data.Batches(one, source, 500, 7, "cpu").epoch(0)])
    (image,), _ = next(data.pixels(one.take(torch.tensor([0])), source, "cpu", torch.float32, 1))
    counts = []
    for top, left, flip in itertools.product(range(5), range(5), (False, True)):
        expected = slow_crop_flip(image, torch.tensor([top, left]), flip, padding=SIDE // 8)
        counts.append(int((found == expected).flatten(1).all(1).sum()))
    assert sum(counts) == 5000
    assert len(counts) == 50
    # 100 each is expected, with a standard deviation of 10.
    assert min(counts) > 60
    assert max(counts) < 140


# --- RandAugment


def test_randaugment_keeps_the_form_and_stays_on_bytes():
    images = random_split(20, side=32).images
    changed = randaugment(images, seed=1)
    assert changed.dtype == torch.uint8
    assert changed.shape == images.shape
    assert not torch.equal(changed, images)
    assert torch.equal(changed, randaugment(images, seed=1))
    assert not torch.equal(changed, randaugment(images, seed=2))


def test_randaugment_draws_once_per_group_of_eight():
    images = random_split(1, side=32).images.expand(64, -1, -1, -1)
    groups = randaugment(images, seed=0).split(8)
    assert all(len(group.unique(dim=0)) == 1 for group in groups)
    assert len({group[0].numpy().tobytes() for group in groups}) >= 5


# --- refusals


@pytest.mark.parametrize("batch_size", [0, -1, 2.0, True])
def test_unfit_batch_sizes_are_refused(batch_size):
    source = random_data()
    with pytest.raises(LiprefError, match=f"batch_size={batch_size}"):
        batches(source, batch_size)
    with pytest.raises(LiprefError, match=f"batch_size={batch_size}"):
        data.pixels(source.test, source, "cpu", torch.float32, batch_size)


def test_any_whole_number_is_a_batch_size():
    source = random_data()
    assert type(batches(source, np.int64(8)).batch_size) is int
    sizes = [len(labels) for _, labels in data.pixels(source.test, source, "cpu", torch.float32, np.uint8(3))]
    assert sizes[0] == 3
    assert sum(sizes) == len(source.test)
    count = np.int64(source.num_classes)
    assert len(datasets.limit(source.train, count, source.num_classes, "limit_train")) == count


@pytest.mark.parametrize(("epoch", "start", "match"), [(-1, 0, "epoch=-1"), (0, -1, "start=-1"), (0, 6, "start=6")])
def test_places_outside_of_a_run_are_refused(epoch, start, match):
    with pytest.raises(LiprefError, match=match):
        batches(random_data()).epoch(epoch, start)


def test_other_dtypes_and_splits_are_refused():
    source = random_data()
    with pytest.raises(LiprefError, match=r"dtype=torch\.int64"):
        batches(source, dtype=torch.int64)
    with pytest.raises(LiprefError, match="give a split of noise"):
        data.Batches(random_split(side=8), source, 8, 0, "cpu")
