"""Tiny ImageNet, CIFAR, and what happens when they or torchvision are not there."""

import hashlib
import pickle
import shutil
import subprocess
import sys
import urllib.error
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from picture_files import refused, write_picture
from PIL import Image

from lipref import data

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
    tiny = data.load_dataset("tiny-imagenet-200", root=tmp_path)
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


def test_other_layouts_of_tiny_imagenet_are_named(tmp_path):
    whole = write_tiny(tmp_path / "whole")

    def other(change, odd):
        root = tmp_path / "other"
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(whole, root / whole.name)
        change(root / whole.name)
        message = refused(f"holds {odd}, which is not the original layout", "tiny-imagenet-200", root=root)
        assert "imagefolder:PATH" in message
        assert "delete" not in message
        return root / whole.name

    def flat_train(folder):
        for images in folder.glob("train/*/images"):
            for file in images.iterdir():
                file.rename(images.parent / file.name)
            images.rmdir()

    def classes_in_val(folder):
        for row in (folder / "val/val_annotations.txt").read_text().splitlines():
            file, wnid = row.split("\t")[:2]
            (folder / "val" / wnid).mkdir(exist_ok=True)
            (folder / "val/images" / file).rename(folder / "val" / wnid / file)
        (folder / "val/images").rmdir()

    def both(folder):
        flat_train(folder)
        classes_in_val(folder)
        for file in (*folder.glob("*.txt"), *folder.glob("*/*.txt"), *folder.glob("*/*/*.txt")):
            file.unlink()

    def other_format(folder):
        for file in folder.glob("*/*/images/*.JPEG"):
            file.rename(file.with_suffix(".png"))

    other(flat_train, "train/n01/n01_0.JPEG")
    other(classes_in_val, "val/n0./val_.*.JPEG")
    other(other_format, "train/n01/images/n01_0.png")
    folder = other(both, "train/n01/n01_0.JPEG")
    # The remedy works.
    folder.rename(tmp_path / "mine")
    assert data.load_dataset(f"imagefolder:{tmp_path / 'mine'}", root=tmp_path / "root").classes == ("n01", "n02")


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
    monkeypatch.setattr("lipref.data.datasets.MD5", hashlib.md5(file.read_bytes()).hexdigest())
    return file


def test_download_is_unpacked(archive, tmp_path, monkeypatch):
    def download(url, root, filename, md5):
        assert url.endswith(filename)
        shutil.copy(archive, Path(root) / filename)

    monkeypatch.setattr("torchvision.datasets.utils.download_url", download)
    assert len(data.load_dataset("tiny-imagenet-200", root=tmp_path / "root").train) == 6
    assert sorted(path.name for path in (tmp_path / "root").iterdir()) == ["cache", "tiny-imagenet-200"]


def test_archive_in_the_root_is_used_without_network(archive, tmp_path, monkeypatch):
    monkeypatch.setattr("torchvision.datasets.utils.download_url", no_network)
    (tmp_path / "root").mkdir()
    given = tmp_path / "root" / archive.name
    shutil.copy(archive, given)
    assert len(data.load_dataset("tiny-imagenet-200", root=tmp_path / "root").train) == 6
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
    cifar = data.load_dataset("cifar10", root=folder.parent)
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
    code = "import sys; from lipref import data; data.load_dataset('digits'); sys.exit('torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("error", ["RuntimeError('operator torchvision::nms does not exist')", "ImportError('gone')"])
def test_torchvision_that_does_not_load_is_named(tmp_path, monkeypatch, error):
    (tmp_path / "fake/torchvision").mkdir(parents=True)
    (tmp_path / "fake/torchvision/__init__.py").write_text(f"raise {error}\n")
    monkeypatch.syspath_prepend(tmp_path / "fake")
    for module in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, module)
    message = refused("does not load with torch", "cifar10", root=tmp_path)
    assert torch.__version__.split("+")[0] in message
