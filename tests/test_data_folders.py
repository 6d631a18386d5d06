"""Image folders: every picture as it is, or a refusal that names it; and their cache."""

import os
import shutil
import sys
import unicodedata

import numpy as np
import pytest
from picture_files import load_folder, refused, write_folder, write_picture
from PIL import Image

from lipref.certification.inputs import InputFormat, Pictures
from lipref.errors import LiprefError

FORM = InputFormat(channels=3, image_size=8, levels=255, mean=[0.0] * 3, classes=["cat", "dog"])


@pytest.fixture
def folder(tmp_path):
    write_folder(tmp_path / "pets")
    return tmp_path / "pets"


def only_cache(root):
    (file,) = (root / "cache").iterdir()
    return file


# --- names


def test_as_name_renames(folder):
    assert load_folder(folder).name == "pets"
    assert load_folder(folder, as_name="animals").name == "animals"


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


SYSTEM_FOLDERS = ["__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information", ".git"]


@pytest.mark.parametrize("name", [".ipynb_checkpoints", *SYSTEM_FOLDERS])
def test_hidden_and_system_files_are_left_out(folder, name):
    before = load_folder(folder)
    for place in ("train", "test", "train/cat", "test/dog"):
        write_picture(folder / place / name / "000.png", seed=99)
        write_picture(folder / place / "._000.png", seed=99)
        for file in (".DS_Store", "Thumbs.db", "desktop.ini"):
            (folder / place / file).write_text("x")
    found = load_folder(folder)
    assert found.classes == before.classes
    assert found.fingerprint() == before.fingerprint()
    assert len(Pictures(folder / "train", FORM)) == 8


def test_files_that_are_left_out_are_counted(folder):
    before = load_folder(folder).fingerprint()
    for file in ("train/cat/p.heic", "train/cat/deep/q.HEIC", "test/dog/notes.txt", "train/README"):
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text("x")
    with pytest.warns(UserWarning, match=r"pets: left out 4 file.*: 1 without suffix, 2 \.heic, 1 \.txt") as caught:
        assert load_folder(folder).fingerprint() == before
    assert len(caught) == 1
    with pytest.warns(UserWarning, match=r"train/cat: left out 2 file.*: 2 \.heic"):
        assert len(Pictures(folder / "train/cat", FORM)) == 4
    (folder / "train/wolf").mkdir()
    (folder / "train/wolf/p.heic").write_text("x")
    refused(r"train/wolf: holds no picture, only \.heic", f"imagefolder:{folder}")


def test_training_and_prediction_read_the_same_files(folder):
    for suffix in Image.registered_extensions():
        (folder / f"train/cat/x{suffix}").write_bytes((folder / "train/cat/000.png").read_bytes())
    with pytest.warns(UserWarning, match="left out"):
        training = int((load_folder(folder).train.labels == 0).sum())
    with pytest.warns(UserWarning, match="left out"):
        prediction = Pictures(folder / "train/cat", FORM)
    assert len(prediction) == training
    suffixes = {name.rpartition(".")[2] for name in prediction.names}
    assert suffixes >= {"jpg", "jpeg", "jfif", "png", "ppm", "bmp", "pgm", "tif", "tiff", "webp", "gif", "jp2", "avif"}


def test_order_is_that_of_torchvision(folder):
    from torchvision.datasets import ImageFolder

    for i, file in enumerate(
        ("cat/b/1.png", "cat/b.c/1.png", "cat/B/1.png", "cat-2/1.png", "cat/a/z/1.png", "cat/1.JPG")
    ):
        write_picture(folder / "train" / file, seed=50 + i)
        write_picture(folder / "test" / file, seed=80 + i)
    found, expected = load_folder(folder), ImageFolder(folder / "train")
    assert found.classes == tuple(expected.classes)
    assert found.train.labels.tolist() == expected.targets
    pixels = np.stack([np.asarray(image) for image, _ in expected])
    assert np.array_equal(found.train.images.numpy().transpose(0, 2, 3, 1), pixels)


# --- links


@pytest.mark.parametrize("target", [".", "..", "../.."])
def test_links_to_a_folder_above_are_not_followed(folder, target):
    before = load_folder(folder).fingerprint()
    os.symlink(target, folder / "train/cat/all")
    assert load_folder(folder).fingerprint() == before
    assert len(Pictures(folder / "train", FORM)) == 8
    assert len(Pictures(folder / "train/cat", FORM)) == 4
    os.symlink(target, folder / "train/all")
    assert load_folder(folder).fingerprint() == before


def test_links_elsewhere_are_followed_once(folder, tmp_path):
    before = load_folder(folder)
    shutil.move(folder / "train/cat", tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", folder / "train/cat")
    assert load_folder(folder).fingerprint() == before.fingerprint()
    os.symlink(folder, tmp_path / "elsewhere/back")  # a loop over two links
    os.symlink(tmp_path / "elsewhere", folder / "train/cat/again")
    assert load_folder(folder).fingerprint() == before.fingerprint()
    assert len(Pictures(folder / "train", FORM)) == 8


def test_link_that_is_given_is_followed(folder):
    os.symlink("..", folder / "up")
    shutil.copytree(folder / "train", folder.parent / "other")
    assert len(Pictures(folder / "up", FORM)) == 20


def test_broken_links_and_unreadable_folders_are_refused(folder, tmp_path, monkeypatch):
    os.symlink("nowhere", folder / "train/cat/x.png")
    refused(r"cat/x\.png: not a file, or a broken link", f"imagefolder:{folder}", root=tmp_path)
    with pytest.raises(LiprefError, match="broken link"):
        Pictures(folder, FORM)
    (folder / "train/cat/x.png").unlink()
    (folder / "train/cat/deep").mkdir()
    scandir = os.scandir

    def denied(path):
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    refused("cat/deep: Permission denied: make this folder readable", f"imagefolder:{folder}", root=tmp_path)


# --- names of files and classes


def test_classes_are_matched_by_their_normal_form(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    written = write_folder(tmp_path / "pets", classes=(composed, "cafg"))
    (tmp_path / "pets/train" / composed).rename(tmp_path / "pets/train" / decomposed)
    pets = load_folder(tmp_path / "pets")
    assert pets.classes == ("cafg", composed)
    for split, name in ((pets.train, "train"), (pets.test, "test")):
        for label, called in enumerate(pets.classes):
            expected = [pixels for path, pixels in written.items() if path.startswith(f"{name}/{called}/")]
            found = split.images[split.labels == label].numpy().transpose(0, 2, 3, 1)
            assert np.array_equal(found, np.stack(expected))
    write_picture(tmp_path / "pets/train" / composed / "0.png")
    refused("two folders are called 'café' but for Unicode's form", f"imagefolder:{tmp_path / 'pets'}", root=tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_not_utf8_are_read_and_can_be_printed(tmp_path):
    odd = os.fsdecode(b"caf\xe9")
    folder = tmp_path / odd / odd
    write_folder(folder, classes=(odd, "dog"))
    (folder / "train" / odd / "000.png").rename(folder / "train" / odd / f"{odd}.png")
    for _ in range(2):  # the second time from the cache
        pets = load_folder(folder, tmp_path / "root")
        for text in (pets.name, pets.source, *pets.classes):
            text.encode()
    assert pets.classes == ("caf\\xe9", "dog")
    pictures = Pictures(folder, FORM)
    "".join(pictures.names).encode()
    assert sum(map(len, pictures.batches(4))) == 12
    for damage, name in ((b"x", odd), (b"", f"x.{odd}")):
        (folder / "train" / odd / f"{name}.png").write_bytes(damage)
        refused("not a readable picture", f"imagefolder:{folder}", root=tmp_path).encode()
        (folder / "train" / odd / f"{name}.png").unlink()
    shutil.rmtree(folder / "train" / odd)
    refused("only in test: caf", f"imagefolder:{folder}", root=tmp_path).encode()
    shutil.rmtree(folder / "train")
    refused("has no folder 'train'", f"imagefolder:{folder}", root=tmp_path).encode()


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


def test_same_size_and_time_in_a_changed_file_are_seen(folder, tmp_path):
    file = folder / "train/cat/000.bmp"
    for seed in (1, 2):
        pixels = write_picture(file, seed=seed)
        os.utime(file, (1, 1))
        found = load_folder(folder, tmp_path).train.images.numpy().transpose(0, 2, 3, 1)
        assert np.array_equal(found[0], pixels)


def test_files_touched_come_from_the_cache(folder, tmp_path, monkeypatch):
    before = load_folder(folder, tmp_path).fingerprint()
    os.utime(folder / "train/cat/000.png", (1, 1))
    monkeypatch.setattr(Image, "open", lambda *_: pytest.fail("a picture was decoded again"))
    assert load_folder(folder, tmp_path).fingerprint() == before


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
