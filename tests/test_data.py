"""Data sets: what they hold, how they are cut, and how they refuse what is wrong."""

import hashlib
import os
import pickle
import shutil
import subprocess
import sys
import urllib.error
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lipref import data
from lipref.data.images import ImageData, Split
from lipref.data.splits import stratified_order
from lipref.errors import LiprefError

# --- folders of small pictures


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


@pytest.fixture
def folder(tmp_path):
    write_folder(tmp_path / "pets")
    return tmp_path / "pets"


def load_folder(folder, root=None, **options):
    return data.load(f"imagefolder:{folder}", root=root or folder.parent / "root", **options)


def refused(match, *arguments, **options):
    with pytest.raises(LiprefError, match=match) as caught:
        data.load(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def only_cache(root):
    (file,) = (root / "cache").iterdir()
    return file


# --- digits


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


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
    assert data.load("digits", limit_train=20).mean == digits.mean


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

    small = data.load("digits", limit_train=30, limit_test=20)
    large = data.load("digits", limit_train=55)
    assert torch.bincount(small.train.labels).tolist() == [3] * 10
    assert torch.bincount(small.test.labels).tolist() == [2] * 10
    assert set(torch.bincount(large.train.labels).tolist()) == {5, 6}
    assert rows(small.train) < rows(large.train) < rows(digits.train)
    assert rows(small.test) < rows(digits.test)
    assert data.load("digits", limit_train=30, limit_test=20).fingerprint() == small.fingerprint()


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


def test_as_name_renames(folder):
    assert load_folder(folder).name == "pets"
    assert load_folder(folder, as_name="animals").name == "animals"
    assert data.load("digits", as_name="digits").name == "digits"


@pytest.mark.parametrize("name", ["", " ", "a/b", "a\\b"])
def test_names_that_make_no_folder_are_refused(name):
    refused("as_name=", "digits", as_name=name)


def test_built_in_names_are_reserved(folder, tmp_path):
    refused("'cifar10' is reserved", f"imagefolder:{folder}", root=tmp_path, as_name="cifar10")
    folder.rename(tmp_path / "digits")
    refused("'digits' is reserved", f"imagefolder:{tmp_path / 'digits'}", root=tmp_path)


# --- image folders


@pytest.mark.parametrize("evaluation", ["test", "val"])
def test_image_folder_holds_the_pictures(tmp_path, evaluation):
    written = write_folder(tmp_path / "pets", evaluation=evaluation)
    pets = load_folder(tmp_path / "pets")
    assert pets.classes == ("cat", "dog")
    assert (pets.levels, pets.augmentation, pets.image_size, pets.channels) == (255, "crop-flip", 8, 3)
    for split, name in ((pets.train, "train"), (pets.test, evaluation)):
        expected = [pixels for path, pixels in sorted(written.items()) if path.startswith(name)]
        assert np.array_equal(split.images.numpy().transpose(0, 2, 3, 1), np.stack(expected))
        assert split.labels.tolist() == [0] * (len(expected) // 2) + [1] * (len(expected) // 2)


def test_test_goes_before_val(folder):
    shutil.copytree(folder / "train", folder / "val")
    assert len(load_folder(folder).test) == 4


def test_image_folder_mean_is_that_of_all_training_pictures(folder):
    whole, limited = load_folder(folder), load_folder(folder, limit_train=2)
    mean = whole.train.images.double().div(255).mean(dim=(0, 2, 3))
    assert whole.mean == pytest.approx(tuple(mean.tolist()), rel=1e-12)
    assert limited.mean == whole.mean
    assert len(limited.train) == 2


def test_cifar10_jpeg_has_the_mean_of_cifar10(folder):
    mean = (0.49139968, 0.48215841, 0.44653091)
    assert load_folder(folder, as_name="cifar10-jpeg").mean == mean
    folder.rename(folder.parent / "cifar10-jpeg")
    assert load_folder(folder.parent / "cifar10-jpeg").mean == mean


def test_grey_pictures_become_rgb(folder):
    grey = write_picture(folder / "train/cat/000.png", mode="L")
    first = load_folder(folder).train.images[0].numpy()
    assert np.array_equal(first, np.stack([grey] * 3))


def test_opaque_alpha_is_dropped_and_transparency_refused(folder, tmp_path):
    rgba = np.full((8, 8, 4), 255, dtype=np.uint8)
    rgba[..., 0] = 7
    Image.fromarray(rgba).save(folder / "train/cat/000.png")
    assert load_folder(folder).train.images[0, :, 0, 0].tolist() == [7, 255, 255]
    rgba[0, 0, 3] = 254
    Image.fromarray(rgba).save(folder / "train/cat/000.png")
    refused(r"cat/000\.png: has transparent pixels", f"imagefolder:{folder}", root=tmp_path)


def test_sixteen_bit_pictures_are_refused(folder, tmp_path):
    Image.fromarray(np.full((8, 8), 3000, dtype=np.uint16)).save(folder / "train/cat/000.png")
    refused(r"cat/000\.png: has colour mode I;16", f"imagefolder:{folder}", root=tmp_path)


def test_hidden_and_other_files_are_left_out(folder):
    before = load_folder(folder).fingerprint()
    write_picture(folder / "train/cat/.ipynb_checkpoints/000.png", seed=99)
    write_picture(folder / "train/cat/._000.png", seed=99)
    (folder / "train/cat/notes.txt").write_text("x")
    assert load_folder(folder).fingerprint() == before


@pytest.mark.parametrize(
    ("file", "size", "match"),
    [
        ("train/cat/000.png", (20, 30), "20x30 pixels, but pictures must be square"),
        ("train/cat/000.png", (12, 12), "12x12 pixels, but a side must be a power of two"),
        ("train/dog/002.png", (16, 16), "16x16 pixels, but .*000.png has 8x8"),
        ("test/dog/001.png", (16, 16), "16x16 pixels, but .*train/cat/000.png has 8x8"),
    ],
)
def test_pictures_of_another_size_are_refused(folder, tmp_path, file, size, match):
    write_picture(folder / file, size=size)
    message = refused(match, f"imagefolder:{folder}", root=tmp_path)
    assert message.startswith(str(folder / file))
    assert "resize" in message


def test_damaged_pictures_are_refused(folder, tmp_path):
    write_picture(folder / "train/cat/000.jpg", side=8, quality=95)
    whole = (folder / "train/cat/000.jpg").read_bytes()
    for damaged in (whole[: len(whole) - 80], whole[:40], b"", b"no picture at all"):
        (folder / "train/cat/000.jpg").write_bytes(damaged)
        refused(r"cat/000\.jpg: not a readable picture", f"imagefolder:{folder}", root=tmp_path)
    png = (folder / "train/cat/000.png").read_bytes()
    (folder / "train/cat/000.jpg").unlink()
    (folder / "train/cat/000.png").write_bytes(png[:60] + b"\0\0\0\0" + png[64:])
    refused(r"cat/000\.png: not a readable picture", f"imagefolder:{folder}", root=tmp_path)


def test_missing_parts_of_a_folder_are_refused(folder, tmp_path):
    name = f"imagefolder:{folder}"
    refused("no such folder", f"imagefolder:{tmp_path / 'nowhere'}", root=tmp_path)
    refused("no such folder", "imagefolder:", root=tmp_path)
    (folder / "test/dog").rename(folder / "test/wolf")
    assert "only in train: dog; only in test: wolf" in refused("class folders differ", name, root=tmp_path)
    (folder / "test/wolf").rename(folder / "test/dog")
    shutil.rmtree(folder / "train/cat")
    (folder / "train/cat").mkdir()
    refused("train/cat: holds no picture", name, root=tmp_path)
    shutil.rmtree(folder / "train")
    refused("no folder 'train'", name, root=tmp_path)
    (folder / "train").mkdir()
    refused("train: has no class folders", name, root=tmp_path)
    shutil.rmtree(folder / "test")
    refused("neither a folder 'test' nor 'val'", name, root=tmp_path)


# --- the cache


def test_second_reading_comes_from_the_cache(folder, tmp_path, monkeypatch):
    first = load_folder(folder, tmp_path)
    monkeypatch.setattr(Image, "open", lambda *_: pytest.fail("a picture was decoded again"))
    second = load_folder(folder, tmp_path)
    assert second.fingerprint() == first.fingerprint()
    assert only_cache(tmp_path).stat().st_mode & 0o777 == 0o666 & ~current_umask(tmp_path)


def current_umask(tmp_path):
    (tmp_path / "plain").touch()
    return 0o666 & ~(tmp_path / "plain").stat().st_mode


def test_changed_folder_is_read_again(folder, tmp_path):
    prints = [load_folder(folder, tmp_path).fingerprint()]
    write_picture(folder / "train/cat/000.png", seed=50)
    prints.append(load_folder(folder, tmp_path).fingerprint())
    write_picture(folder / "train/cat/004.png", seed=51)
    prints.append(load_folder(folder, tmp_path).fingerprint())
    (folder / "train/cat/004.png").rename(folder / "train/dog/004.png")
    prints.append(load_folder(folder, tmp_path).fingerprint())
    assert len(set(prints)) == 4
    only_cache(tmp_path)


def test_same_size_in_an_old_file_is_seen_by_its_time(folder, tmp_path):
    file = folder / "train/cat/000.bmp"
    write_picture(file, seed=1)
    before = load_folder(folder, tmp_path).fingerprint()
    size = file.stat().st_size
    write_picture(file, seed=2)
    os.utime(file, (1, 1))
    assert file.stat().st_size == size
    assert load_folder(folder, tmp_path).fingerprint() != before


def test_folders_alike_from_outside_do_not_share_a_cache(tmp_path):
    prints = set()
    for place in ("a", "b"):
        for i, path in enumerate(("train/x/0.bmp", "train/y/0.bmp", "test/x/0.bmp", "test/y/0.bmp")):
            write_picture(tmp_path / place / "pets" / path, seed=i + 10 * (place == "b"))
            os.utime(tmp_path / place / "pets" / path, (1, 1))
        prints.add(load_folder(tmp_path / place / "pets", tmp_path / "root").fingerprint())
    assert len(prints) == 2


@pytest.mark.parametrize("damage", ["cut", "flip", "garbage", "empty"])
def test_damaged_cache_is_made_anew(folder, tmp_path, damage):
    before = load_folder(folder, tmp_path).fingerprint()
    cache = only_cache(tmp_path)
    whole = cache.read_bytes()
    flipped = whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:]
    cache.write_bytes({"cut": whole[:-9], "flip": flipped, "garbage": b"x" * 4000, "empty": b""}[damage])
    with pytest.warns(UserWarning, match="is damaged"):
        assert load_folder(folder, tmp_path).fingerprint() == before
    assert load_folder(folder, tmp_path).fingerprint() == before


def test_root_that_cannot_be_written_is_refused(folder, tmp_path):
    (tmp_path / "file").write_text("x")
    refused("cannot write .*another root", f"imagefolder:{folder}", root=tmp_path / "file")


def test_many_pictures_show_progress_and_nothing_on_stdout(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("lipref.data.pictures.PROGRESS_FROM", 1)
    load_folder(folder, tmp_path)
    assert capsys.readouterr().out == ""


# --- Tiny ImageNet


def write_tiny(root, wnids=("n02", "n01"), train=3, val=4):
    folder = root / "tiny-imagenet-200"
    for k, wnid in enumerate(wnids):
        for i in range(train):
            write_picture(folder / f"train/{wnid}/images/{wnid}_{i}.JPEG", seed=10 * k + i)
        (folder / f"train/{wnid}/{wnid}_boxes.txt").write_text("boxes\n")
    rows = []
    for i in range(val):
        write_picture(folder / f"val/images/val_{i}.JPEG", seed=100 + i)
        rows.append(f"val_{i}.JPEG\t{wnids[i % len(wnids)]}\t0\t32\t44\t62\n")
    (folder / "val/val_annotations.txt").write_text("".join(rows))
    (folder / "wnids.txt").write_text("".join(f"{wnid}\n" for wnid in wnids))
    (folder / "words.txt").write_text("n01\tgoldfish, Carassius auratus\nn02\tbullfrog, Rana\nn03\telse\n")
    return folder


def test_tiny_imagenet_is_read_from_its_layout(tmp_path):
    folder = write_tiny(tmp_path)
    tiny = data.load("tiny-imagenet-200", root=tmp_path)
    assert tiny.name == "tiny-imagenet-200"
    assert tiny.classes == ("n01 goldfish", "n02 bullfrog")
    assert tiny.mean == (0.485, 0.456, 0.406)
    assert tiny.augmentation == "randaugment"
    assert tiny.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert tiny.test.labels.tolist() == [1, 0, 1, 0]
    for split, place, path in ((tiny.train, 4, "train/n02/images/n02_1.JPEG"), (tiny.test, 2, "val/images/val_2.JPEG")):
        decoded = np.asarray(Image.open(folder / path))
        assert np.array_equal(split.images[place].numpy().transpose(1, 2, 0), decoded)


def test_incomplete_tiny_imagenet_is_refused(tmp_path):
    folder = write_tiny(tmp_path / "whole")

    def damaged(change, match):
        root = tmp_path / "damaged"
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(folder, root / folder.name)
        change(root / folder.name)
        assert "delete" in refused(match, "tiny-imagenet-200", root=root)

    damaged(lambda f: (f / "wnids.txt").unlink(), "wnids.txt: cannot be read")
    damaged(lambda f: (f / "words.txt").write_text("n01\tx\n"), "does not name n02")
    damaged(lambda f: (f / "val/val_annotations.txt").unlink(), "val_annotations.txt: cannot be read")
    damaged(lambda f: (f / "val/val_annotations.txt").write_text("val_0.JPEG\tn09\n"), "no known class")
    damaged(lambda f: (f / "val/images/val_1.JPEG").unlink(), "val_1.JPEG is missing")
    damaged(lambda f: write_picture(f / "val/images/val_9.JPEG"), "val_9.JPEG is not in val_annotations.txt")
    damaged(lambda f: shutil.rmtree(f / "train/n01"), "n01/images: missing or without pictures")


# --- downloads


def no_network(url, root, *_):
    raise urllib.error.URLError("no route to host")


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("cifar10", "cifar-10-python.tar.gz"),
        ("cifar100", "cifar-100-python.tar.gz"),
        ("tiny-imagenet-200", "http://cs231n.stanford.edu/tiny-imagenet-200.zip"),
    ],
)
def test_failing_download_says_what_to_fetch_where(name, address, tmp_path, monkeypatch):
    monkeypatch.setattr("torchvision.datasets.utils.download_url", no_network)
    message = refused("no route to host", name, root=tmp_path / "root")
    assert address in message
    assert f"into {tmp_path / 'root'}" in message
    assert list((tmp_path / "root").iterdir()) == []


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A zip file of a small Tiny ImageNet that has the expected checksum."""
    folder = write_tiny(tmp_path / "made")
    file = tmp_path / "made/tiny-imagenet-200.zip"
    with zipfile.ZipFile(file, "w") as packed:
        for path in sorted(folder.rglob("*")):
            packed.write(path, path.relative_to(folder.parent))
    monkeypatch.setattr("lipref.data.tiny_imagenet.MD5", hashlib.md5(file.read_bytes()).hexdigest())
    return file


def test_download_is_unpacked(archive, tmp_path, monkeypatch):
    def download(url, root, filename, md5):
        assert url.endswith(filename)
        shutil.copy(archive, Path(root) / filename)

    monkeypatch.setattr("torchvision.datasets.utils.download_url", download)
    assert len(data.load("tiny-imagenet-200", root=tmp_path / "root").train) == 6
    assert sorted(path.name for path in (tmp_path / "root").iterdir()) == ["cache", "tiny-imagenet-200"]


def test_archive_in_the_root_is_used_without_network(archive, tmp_path, monkeypatch):
    monkeypatch.setattr("torchvision.datasets.utils.download_url", no_network)
    (tmp_path / "root").mkdir()
    given = tmp_path / "root" / archive.name
    shutil.copy(archive, given)
    assert len(data.load("tiny-imagenet-200", root=tmp_path / "root").train) == 6
    shutil.rmtree(tmp_path / "root/tiny-imagenet-200")
    given.write_bytes(given.read_bytes()[:-1])
    refused("its md5 is not", "tiny-imagenet-200", root=tmp_path / "root")


@pytest.fixture
def small_cifar(tmp_path, monkeypatch):
    """Ten training and four test pictures in CIFAR-10's own format, with checksums to match."""
    from torchvision.datasets import CIFAR10

    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()

    def write(name, content):
        (folder / name).write_bytes(pickle.dumps(content))
        return [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]

    def batch(count, seed):
        pixels = np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)
        return {"data": pixels, "labels": [i % 2 for i in range(count)]}

    train, test = [batch(5, 0), batch(5, 1)], batch(4, 2)
    lists = [write(f"data_batch_{i}", part) for i, part in enumerate(train)]
    monkeypatch.setattr(CIFAR10, "train_list", lists)
    monkeypatch.setattr(CIFAR10, "test_list", [write("test_batch", test)])
    name, md5 = write("batches.meta", {"label_names": ["airplane", "automobile"]})
    monkeypatch.setattr(CIFAR10, "meta", {"filename": name, "key": "label_names", "md5": md5})
    return folder, train, test


def test_cifar10_keeps_the_channels_in_order(small_cifar):
    folder, train, test = small_cifar
    cifar = data.load("cifar10", root=folder.parent)
    pixels = np.concatenate([part["data"] for part in train]).reshape(-1, 3, 32, 32)
    assert np.array_equal(cifar.train.images.numpy(), pixels)
    assert np.array_equal(cifar.test.images.numpy().reshape(4, -1), test["data"])
    assert cifar.train.labels.tolist() == [0, 1, 0, 1, 0] * 2
    assert cifar.classes == ("airplane", "automobile")
    assert cifar.mean == (0.49139968, 0.48215841, 0.44653091)
    assert (cifar.levels, cifar.augmentation) == (255, "crop-flip")


def test_damaged_cifar10_is_refused(small_cifar):
    folder, *_ = small_cifar
    with (folder / "test_batch").open("ab") as file:
        file.write(b"x")
    assert str(folder) in refused("corrupted.*delete this folder", "cifar10", root=folder.parent)


# --- torchvision


def test_torchvision_waits_until_it_is_needed():
    code = "import sys; from lipref import data; data.load('digits'); sys.exit('torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("error", ["RuntimeError('operator torchvision::nms does not exist')", "ImportError('gone')"])
def test_torchvision_that_does_not_load_is_named(folder, tmp_path, monkeypatch, error):
    (tmp_path / "fake/torchvision").mkdir(parents=True)
    (tmp_path / "fake/torchvision/__init__.py").write_text(f"raise {error}\n")
    monkeypatch.syspath_prepend(tmp_path / "fake")
    for module in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, module)
    message = refused("does not load with torch", f"imagefolder:{folder}", root=tmp_path)
    assert torch.__version__.split("+")[0] in message
