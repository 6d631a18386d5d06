"""One picture file: read exactly and upright, or refused by name - alike for training and for prediction."""

import base64
import io
import shutil
import struct
import zlib

import numpy as np
import pytest
from picture_files import load_folder, refused, write_folder
from PIL import Image

from lipref.certification.inputs import InputFormat, Pictures
from lipref.errors import LiprefError

SIDE = 8
PIXELS = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def read(file):
    form = InputFormat(channels=3, image_size=SIDE, levels=255, mean=[0.0] * 3, classes=["a", "b"])
    (batch,) = Pictures(file, form).batches(1)
    return batch[0].numpy().transpose(1, 2, 0)


def refuses(content, suffix, match, tmp_path):
    """Both for a picture to predict and for one in a training folder."""
    file = tmp_path / f"picture{suffix}"
    file.write_bytes(content)
    with pytest.raises(LiprefError, match=match) as caught:
        read(file)
    assert str(file) in str(caught.value)
    shutil.rmtree(tmp_path / "pets", ignore_errors=True)
    write_folder(tmp_path / "pets")
    (tmp_path / f"pets/train/cat/picture{suffix}").write_bytes(content)
    refused(rf"pets/train/cat/picture\{suffix}: .*{match}", f"imagefolder:{tmp_path / 'pets'}", root=tmp_path)


def saved(kind, image=None, **options):
    buffer = io.BytesIO()
    (image or Image.fromarray(PIXELS)).save(buffer, kind, **options)
    return buffer.getvalue()


def png(pixels, colour):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = pixels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 8 * pixels.itemsize, colour, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def tiff(pixels, order=">", planar=1, compression=1, sample_format=1, photometric=2, palette=()):
    """``pixels``, (H, W, C), in one strip per plane."""
    height, width, channels = pixels.shape
    values = pixels.astype(pixels.dtype.newbyteorder(order))
    planes = [values] if planar == 1 else [values[..., i] for i in range(channels)]
    strips = [zlib.compress(plane.tobytes()) if compression == 8 else plane.tobytes() for plane in planes]
    starts = [8 + sum(map(len, strips[:i])) for i in range(len(strips))]
    tags = {256: [width], 257: [height], 258: [8 * pixels.itemsize] * channels, 259: [compression], 262: [photometric]}
    tags |= {273: starts, 277: [channels], 278: [height], 279: [len(strip) for strip in strips], 284: [planar]}
    tags |= ({338: [2]} if channels == 4 else {}) | {339: [sample_format] * channels}
    tags |= {320: palette} if palette else {}
    tags = dict(sorted(tags.items()))
    place = 8 + sum(map(len, strips))
    after, entries, more = place + 2 + 12 * len(tags) + 4, b"", b""
    for tag, numbers in tags.items():
        data = struct.pack(f"{order}{len(numbers)}H", *numbers)
        if len(data) > 4:
            data, more = struct.pack(f"{order}I", after + len(more)), more + data
        entries += struct.pack(f"{order}HHI", tag, 3, len(numbers)) + data.ljust(4, b"\0")
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, place)
    return head + b"".join(strips) + struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + more


def wide(channels):
    return np.random.default_rng(1).integers(0, 65536, (SIDE, SIDE, channels), dtype=np.uint16)


# --- more than 8 bits


@pytest.mark.parametrize(("channels", "colour"), [(1, 0), (3, 2), (2, 4), (4, 6)])
def test_png_of_16_bits_is_refused(channels, colour, tmp_path):
    assert np.array_equal(read_png(PIXELS, 2, tmp_path), PIXELS)  # what this test writes is a PNG
    refuses(png(wide(channels).astype(">u2"), colour), ".png", "16 bits per channel", tmp_path)


def read_png(pixels, colour, tmp_path):
    (tmp_path / "right.png").write_bytes(png(pixels, colour))
    return read(tmp_path / "right.png")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planar", [1, 2])
@pytest.mark.parametrize("compression", [1, 8])
@pytest.mark.parametrize("channels", [3, 4])
def test_tiff_of_16_bits_is_refused(order, planar, compression, channels, tmp_path):
    whole = np.full((SIDE, SIDE, channels), 255, dtype=np.uint8)
    whole[..., :3] = PIXELS
    (tmp_path / "right.tif").write_bytes(tiff(whole, order, planar, compression))
    assert np.array_equal(read(tmp_path / "right.tif"), PIXELS)
    refuses(tiff(wide(channels), order, planar, compression), ".tif", "16 bits per channel", tmp_path)


def test_tiff_of_other_samples_is_refused(tmp_path):
    grey = PIXELS[..., :1]
    refuses(tiff(wide(1), photometric=1), ".tif", "16 bits per channel", tmp_path)
    refuses(tiff(grey, photometric=1, sample_format=2), ".tiff", "signed samples", tmp_path)


def test_tiff_palettes_of_16_bits_are_refused(tmp_path):
    indices = np.arange(SIDE * SIDE, dtype=np.uint8).reshape(SIDE, SIDE, 1)
    colours = np.random.default_rng(2).integers(0, 256, (3, 256))
    for palette in (colours * 256, colours * 257):
        (tmp_path / "right.tif").write_bytes(tiff(indices, photometric=3, palette=palette.ravel().tolist()))
        assert np.array_equal(read(tmp_path / "right.tif"), colours.T[indices[..., 0]])
    odd = (colours * 256 + 1).ravel().tolist()
    refuses(tiff(indices, photometric=3, palette=odd), ".tif", "16 bits per channel in its palette", tmp_path)


@pytest.mark.parametrize(
    ("kind", "suffix", "channels", "plain"),
    [(b"P5", ".pgm", 1, 0), (b"P6", ".ppm", 3, 0), (b"P2", ".pgm", 1, 1), (b"P3", ".ppm", 3, 1)],
)
def test_ppm_of_other_than_bytes_is_refused(kind, suffix, channels, plain, tmp_path):
    def ppm(pixels, top):
        header = kind + b" %d %d %d\n" % (SIDE, SIDE, top)
        return header + (" ".join(map(str, pixels.ravel())).encode() if plain else pixels.tobytes())

    small = PIXELS[..., :channels]
    for top in (255, 85, 15, 1):  # the greys of `top` are some of those of 255
        few = np.minimum(small, top)
        (tmp_path / f"right{suffix}").write_bytes(ppm(few, top))
        expected = np.broadcast_to(few * np.uint8(255 // top), PIXELS.shape)
        assert np.array_equal(read(tmp_path / f"right{suffix}"), expected)
    refuses(ppm(wide(channels).astype(">u2"), 65535), suffix, "16 bits per channel", tmp_path)
    refuses(ppm((wide(channels) % 1024).astype(">u2"), 1023), suffix, "16 bits per channel", tmp_path)
    refuses(ppm(small % 101, 100), suffix, "samples from 0 to 100", tmp_path)


@pytest.mark.parametrize("suffix", [".jp2", ".j2k"])
@pytest.mark.parametrize(
    ("depth", "match"), [(15, "16 bits per channel"), (11, "12 bits"), (4, "5 bits"), (135, "sign")]
)
def test_jpeg2000_of_other_than_bytes_is_refused(suffix, depth, match, tmp_path):
    content = saved("JPEG2000", no_jp2=suffix == ".j2k")
    (tmp_path / f"right{suffix}").write_bytes(content)
    assert np.array_equal(read(tmp_path / f"right{suffix}"), PIXELS)
    start = content.index(b"\xff\x4f\xff\x51") + 42  # the depths of the codestream's components, three bytes each
    assert content[start : start + 9] == bytes([7, 1, 1]) * 3
    refuses(content[: start + 3] + bytes([depth]) + content[start + 4 :], suffix, match, tmp_path)


# One colour, 8x8, by libavif with bitspersample=10.
AVIF_10_BITS = (
    "c-muNU{FXasVqn=%S>Yc0uY^>nP!-qnV9D5Xy^zOdYzkElE?r7iWw<6MNl?FL1uCZ0~+8f$SlbPvlxL`E;A=T8N_h`@fjhajKV-#7Kk-6GxO5mYNddj"
    "R3<1dvCP2GIX@>KY*$uhK~Vva_RcIw&Ii&WnZ*UEQ2RKbSfC)YA`>LQ%*Dk8q<9j`44oSl96&<C$@w`&dC55y3`{`C)&LX|&n(D=`3dMS7DlFK79dkK"
    "Hzlz|h=Gg4f@6O^6BFA6BYyc$Ni7c;#DJ0$O#5u|0jF^@m;"
)


def test_avif_of_10_bits_is_refused(tmp_path):
    (tmp_path / "right.avif").write_bytes(saved("AVIF"))
    read(tmp_path / "right.avif")
    refuses(zlib.decompress(base64.b85decode(AVIF_10_BITS)), ".avif", "10 or 12 bits per channel", tmp_path)


def test_bmp_of_16_bits_per_pixel_is_refused(tmp_path):
    header = struct.pack("<2sIIIIiiHHIIiiII", b"BM", 54 + 2 * SIDE**2, 0, 54, 40, SIDE, SIDE, 1, 16, 0, 0, 0, 0, 0, 0)
    refuses(header + wide(1).tobytes(), ".bmp", "16 bits per pixel", tmp_path)


def test_few_bits_are_read_exactly(tmp_path):
    grey = Image.fromarray(PIXELS[..., 0] // 128 * 255)
    grey.convert("1").save(tmp_path / "one.png")
    assert np.array_equal(read(tmp_path / "one.png")[..., 0], np.asarray(grey))
    few = Image.fromarray(PIXELS).quantize(16)
    for suffix in ("png", "gif", "bmp", "tif"):
        few.save(tmp_path / f"few.{suffix}", **({"bits": 4} if suffix == "png" else {}))
        assert np.array_equal(read(tmp_path / f"few.{suffix}"), np.asarray(few.convert("RGB")))


# --- more than one picture, other formats


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "AVIF", "MPO"])
def test_several_frames_are_refused(kind, tmp_path):
    other = Image.fromarray(PIXELS[::-1].copy())
    content = saved(kind, save_all=True, append_images=[other])
    suffix = {"TIFF": ".tif", "MPO": ".jpg"}.get(kind, f".{kind.lower()}")
    refuses(content, suffix, "has 2 frames or pages", tmp_path)


def test_other_formats_are_refused_by_their_contents(tmp_path):
    refuses(saved("TGA"), ".png", "the format TGA.*convert it to PNG", tmp_path)


# --- orientation

UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: stored.swapaxes(0, 1)[:, ::-1],
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: stored.swapaxes(0, 1)[::-1],
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "TIFF-deflate", "WEBP", "JPEG", "AVIF"])
def test_pictures_are_turned_upright(kind, orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    # Quarters of a picture, which lossy formats keep.
    stored = np.kron(np.array([[0, 70], [140, 210]]), np.ones((SIDE // 2, SIDE // 2)))
    stored = np.repeat(stored[..., None], 3, axis=2).astype(np.uint8)
    options = {"TIFF-deflate": {"compression": "tiff_adobe_deflate"}, "WEBP": {"lossless": True}}.get(kind, {})
    kind = kind.split("-")[0]
    file = tmp_path / f"picture.{kind.lower()}"
    file.write_bytes(saved(kind, Image.fromarray(stored), exif=exif, **options))
    found = read(file)
    assert np.abs(found.astype(int) - UPRIGHT[orientation](stored)).max() <= (20 if kind in ("JPEG", "AVIF") else 0)


def test_training_pictures_are_turned_upright(tmp_path):
    write_folder(tmp_path / "pets")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PIXELS).save(tmp_path / "pets/train/cat/000.png", exif=exif)
    found = load_folder(tmp_path / "pets").train.images[0].numpy().transpose(1, 2, 0)
    assert np.array_equal(found, UPRIGHT[6](PIXELS))
