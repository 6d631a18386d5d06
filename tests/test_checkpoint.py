import math
import os
import pickle
import re

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from lipref import tensor_files
from lipref.errors import LiprefError

META = {"epoch": 3, "sum": 0.1 + 0.2, "history": [{"loss": 1e-300}], "text": 'é "quoted"\n', "none": None, "flag": True}


def bits(tensor):
    return tensor.dtype, tuple(tensor.shape), tensor.contiguous().reshape(-1).view(torch.uint8).tolist()


def refusal(path):
    with pytest.raises(LiprefError) as caught:
        tensor_files.load(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "checkpoint.safetensors"


@pytest.fixture
def saved(path):
    tensor_files.save(path, {"weight": torch.arange(6.0).reshape(2, 3), "steps": torch.tensor(7)}, META)
    return path


def test_bits_shapes_and_dtypes_survive(path):
    base = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    payload = torch.tensor([0x7FC01234, 0x7F800001, -0x80000000, 1], dtype=torch.int32).view(torch.float32)
    tensors = {
        "payload of nan, -0.0, subnormal": payload,
        "float64": base.double() / 3,
        "int64": torch.tensor([-(2**63), 2**63 - 1]),
        "uint8": torch.arange(256, dtype=torch.uint8),
        "bool": torch.tensor([True, False]),
        "half": base.half(),
        "bfloat16": base.bfloat16(),
        "0-d float": torch.tensor(math.pi),
        "0-d bool": torch.tensor(True),
        "empty": torch.zeros(0, 3),
        "transposed": base.t(),
        "strided": base[::2, 1::3],
        "expanded": base[:1].expand(5, 6),
        "channels last": base.reshape(1, 2, 3, 4).contiguous(memory_format=torch.channels_last),
        "shared": base,
        "shared twice": base,
        "row of shared": base[1],
        "parameter": torch.nn.Parameter(base),
    }
    tensor_files.save(path, tensors, META)
    loaded, meta = tensor_files.load(path)
    assert meta == META
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert bits(loaded[name]) == bits(tensor.detach()), name
        assert not loaded[name].requires_grad


@given(
    shape=st.lists(st.integers(0, 4), max_size=4),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.int64, torch.uint8, torch.bool]),
    seed=st.integers(0, 2**31),
    name=st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda name: name != "__metadata__"),
)
def test_any_tensor_survives(tmp_path_factory, shape, dtype, seed, name):
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    tensor = torch.randint(0, 256, (*shape, 8), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    tensor = tensor.bool() if dtype == torch.bool else tensor.view(dtype)
    tensor_files.save(path, {name: tensor.transpose(0, -1)}, {"name": name})
    loaded, meta = tensor_files.load(path)
    assert bits(loaded[name]) == bits(tensor.transpose(0, -1))
    assert meta == {"name": name}


def test_nothing_to_store(path):
    tensor_files.save(path, {}, {})
    assert tensor_files.load(path) == ({}, {})


def test_the_loaded_tensors_do_not_depend_on_the_file(saved):
    loaded, _ = tensor_files.load(saved)
    before = bits(loaded["weight"])
    saved.write_bytes(bytes(saved.stat().st_size))
    assert bits(loaded["weight"]) == before


@pytest.mark.parametrize("length", [640, 896, 1152, 1408])
def test_a_header_length_may_look_like_the_start_of_a_pickle(path, length):
    tensor_files.save(path, {}, {"x": ""})
    text = "a" * (length - int.from_bytes(path.read_bytes()[:8], "little"))
    tensor_files.save(path, {}, {"x": text})
    assert path.read_bytes()[0] == 0x80
    assert tensor_files.load(path)[1] == {"x": text}


def test_any_flipped_bit_is_found(saved):
    whole = saved.read_bytes()
    for position in range(len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << bit
            saved.write_bytes(damaged)
            with pytest.raises(LiprefError, match=re.escape(str(saved))):
                tensor_files.load(saved)


def test_any_truncation_and_any_addition_is_found(saved):
    whole = saved.read_bytes()
    for length in range(len(whole)):
        saved.write_bytes(whole[:length])
        with pytest.raises(LiprefError, match=re.escape(str(saved))):
            tensor_files.load(saved)
    saved.write_bytes(whole + b"\0")
    assert "damaged" in refusal(saved)


def test_exchanged_tensors_are_found(path):
    """A valid safetensors file whose parts are all there, under other names."""
    tensor_files.save(path, {"a": torch.zeros(2), "b": torch.ones(2)}, {})
    with safetensors.safe_open(path, framework="pt") as file:
        labels = file.metadata()
    path.write_bytes(safetensors.torch.save({"a": torch.ones(2), "b": torch.zeros(2)}, labels))
    assert "SHA-256" in refusal(path)
    path.write_bytes(safetensors.torch.save({"a": torch.zeros(2), "b": torch.ones(2)}, {**labels, "meta": '{"x": 1}'}))
    assert "SHA-256" in refusal(path)
    path.write_bytes(safetensors.torch.save({"a": torch.zeros(2), "b": torch.ones(2)}, {**labels, "version": "2"}))
    assert "version '2'" in refusal(path)


def test_missing_empty_and_folder(tmp_path):
    assert "no such checkpoint" in refusal(tmp_path / "absent")
    (tmp_path / "empty").touch()
    assert "empty" in refusal(tmp_path / "empty")
    assert "folder" in refusal(tmp_path)
    assert "cannot be read" in refusal(tmp_path / "empty" / "below a file")


def test_foreign_safetensors_file(tmp_path):
    safetensors.torch.save_file({"weight": torch.zeros(2)}, tmp_path / "foreign")
    assert "lipref-checkpoint" in refusal(tmp_path / "foreign")


class Trap:
    def __reduce__(self):
        return os.mkdir, (os.environ["TRAP"],)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("writer", ["pickle", "zip"])
def test_a_pickle_is_refused_and_never_opened(tmp_path, monkeypatch, writer, protocol):
    monkeypatch.setenv("TRAP", str(tmp_path / "sprung"))
    path = tmp_path / "foreign.pt"
    if writer == "pickle":
        path.write_bytes(pickle.dumps(Trap(), protocol=protocol))
    else:
        torch.save({"x": Trap()}, path, pickle_protocol=protocol)
    assert "could run code" in refusal(path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "meta", [{"loss": math.nan}, {"loss": math.inf}, {1: "key"}, {"shape": (1, 2)}, {"x": torch.tensor(1.0)}]
)
def test_metadata_that_json_would_change_is_refused(saved, meta):
    before = saved.read_bytes()
    with pytest.raises(LiprefError, match=re.escape(str(saved))):
        tensor_files.save(saved, {}, meta)
    assert saved.read_bytes() == before


@pytest.mark.parametrize("value", [[1.0], None, torch.zeros(2, 2).to_sparse()])
def test_what_is_not_a_dense_tensor_is_refused(path, value):
    with pytest.raises(LiprefError, match="'odd' is not a dense tensor"):
        tensor_files.save(path, {"odd": value}, {})


def test_a_failed_write_leaves_the_old_file(saved, monkeypatch):
    before = saved.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LiprefError, match="No space left on device"):
        tensor_files.save(saved, {"weight": torch.zeros(9)}, {})
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_the_file_is_complete_before_it_takes_its_place(saved, monkeypatch):
    before, seen = saved.read_bytes(), []

    def replace(source, target, real=os.replace):
        assert saved.read_bytes() == before
        seen.append(tensor_files.load(source)[1])
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    tensor_files.save(saved, {"weight": torch.zeros(9)}, {"new": 1})
    assert seen == [{"new": 1}]
    assert tensor_files.load(saved)[1] == {"new": 1}


def test_leftovers_of_killed_writers_are_removed_once_they_are_old(saved):
    old, fresh, other = (saved.parent / f".{name}.tmp" for name in (saved.name + ".1", saved.name + ".2", "other.3"))
    for file in (old, fresh, other):
        file.write_bytes(b"half")
    os.utime(old, (0, 0))
    os.utime(other, (0, 0))
    tensor_files.save(saved, {}, {})
    assert sorted(saved.parent.iterdir()) == sorted([saved, fresh, other])


def test_metadata_that_are_no_object_are_refused(path):
    for meta in ([1, 2], "text", 3, None):
        tensor_files.save(path, {}, meta)
        assert "no JSON object" in refusal(path)


def test_a_link_stays_and_its_target_is_replaced(tmp_path):
    (tmp_path / "real").mkdir()
    target, link, dangling = tmp_path / "real" / "file", tmp_path / "link", tmp_path / "dangling"
    target.write_bytes(b"old")
    link.symlink_to(target)
    dangling.symlink_to(tmp_path / "new" / "file")
    for path in (link, dangling):
        tensor_files.replace_file(path, b"data")
        assert path.is_symlink()
        assert path.read_bytes() == b"data"
    assert list(target.parent.iterdir()) == [target]


def test_a_device_and_a_pipe_are_written_through(tmp_path):
    master, slave = os.openpty()
    tensor_files.replace_file(os.ttyname(slave), b"data")
    assert os.read(master, 99) == b"data"
    os.close(slave)
    os.close(master)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    tensor_files.replace_file(pipe, b"data")
    assert os.read(reader, 99) == b"data"
    os.close(reader)
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


def test_what_cannot_be_written_is_told_with_the_first_reason(tmp_path):
    (tmp_path / "file").touch()
    for path, reason in (
        (tmp_path / "file" / "x.csv", "Not a directory|File exists"),
        (tmp_path / "file" / "further" / "x.csv", "Not a directory|File exists"),
        (tmp_path / ("x" * 300), "File name too long"),
        (tmp_path / "nul\0", "null byte"),
        (tmp_path, "Is a directory"),
    ):
        with pytest.raises(LiprefError, match=f"cannot be written .*({reason})"):
            tensor_files.replace_file(path, b"")
    assert sorted(tmp_path.iterdir()) == [tmp_path / "file"]


@pytest.mark.skipif(os.name != "posix", reason="permission bits are POSIX")
def test_the_file_obeys_the_umask(path):
    previous = os.umask(0o022)
    try:
        tensor_files.save(path, {}, {})
    finally:
        os.umask(previous)
    assert path.stat().st_mode & 0o777 == 0o644
