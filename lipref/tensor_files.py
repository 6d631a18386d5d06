"""Tensors and progress in one checked file, replaced atomically.

The file is a safetensors file. Its text metadata carry a format tag, a version, a JSON document, and a SHA-256 over
that document and over the name, dtype, shape and bytes of every tensor. Nothing is ever pickled or unpickled.
"""

import contextlib
import glob
import hashlib
import json
import os
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from lipref.errors import LiprefError, one_line

FORMAT = "lipref-checkpoint"
VERSION = "1"

_STALE_SECONDS = 3600.0
_PICKLES = {b"PK\x03\x04": "a zip archive, as torch.save writes it", b"\x80": "a pickle"}


def save(path: str | os.PathLike[str], tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
    """Write tensors and metadata to ``path``; whoever reads ``path`` sees the old file or the new one, whole.

    Args:
        path: The file; its folder is made if needed.
        tensors: Dense tensors of any shape, dtype, stride and device, also ones that share memory. Values keep their
            bits; strides, the device and the sharing are not kept.
        meta: Anything that JSON keeps as it is: string keys, lists, finite numbers.

    Raises:
        LiprefError: ``meta`` or a tensor cannot be kept exactly, or the file cannot be written.
    """
    path = Path(path)
    text = _dump(path, meta)
    # Copies, because safetensors refuses memory that is shared or strided.
    stored = {name: _dense(path, name, tensor) for name, tensor in tensors.items()}
    labels = {"format": FORMAT, "version": VERSION, "meta": text, "sha256": _digest(stored, text)}
    try:
        data = safetensors.torch.save(stored, labels)
    except (KeyError, RuntimeError, ValueError, safetensors.SafetensorError) as error:
        raise LiprefError(f"{path}: cannot store these tensors ({one_line(error)}): convert them first") from None
    replace_file(path, data)


def load(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file that `save` wrote.

    Returns:
        The tensors, contiguous, on ``device``, and the metadata.

    Raises:
        LiprefError: the file is missing, damaged in any bit, or not one of ours. A pickle is refused unread.
    """
    path = Path(path)
    _refuse_foreign(path)
    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            labels = file.metadata() or {}
            # Clones, because the originals may be windows into the file, which can be replaced at any time.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a mapping
    except OSError as error:
        raise LiprefError(f"{path}: cannot be read ({error.strerror or one_line(error)}): check the path") from None
    except (safetensors.SafetensorError, KeyError, RuntimeError, ValueError) as error:
        raise LiprefError(
            f"{path}: damaged, or not a checkpoint ({one_line(error)}): delete it or restore a copy"
        ) from None
    if labels.get("format") != FORMAT:
        raise LiprefError(f"{path}: a safetensors file without the tag {FORMAT!r}: give a checkpoint that lipref wrote")
    version = labels.get("version")
    if version != VERSION:
        raise LiprefError(
            f"{path}: checkpoint version {version!r}, this lipref reads {VERSION!r}: use the one that wrote it"
        )
    text = labels.get("meta", "")
    if labels.get("sha256") != _digest(tensors, text):
        raise LiprefError(f"{path}: damaged, its SHA-256 does not match its contents: delete it or restore a copy")
    try:
        meta = json.loads(text)
    except (ValueError, RecursionError):
        meta = None
    if not isinstance(meta, dict):
        raise LiprefError(f"{path}: its metadata are no JSON object: give a checkpoint that lipref wrote")
    return {name: tensor.to(device) for name, tensor in tensors.items()}, meta


def replace_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Write ``data`` to ``path``: a regular file atomically, a device, pipe or socket by writing to it.

    Atomically is by a temporary file in the same folder, flushed to the disk, then renamed. A symbolic link stays, and
    its target is written.

    Raises:
        LiprefError: the file cannot be written, or is a folder; a regular file is then as it was.
    """
    path = Path(path)
    temporary = None
    try:
        if path.exists() and not path.is_file():
            with path.open("wb") as file:  # fails for a folder
                file.write(data)
            return
        target = Path(os.path.realpath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
        _remove_stale(target)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise LiprefError(f"{path}: cannot be written ({reason}): choose another place or make room") from None
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):  # the first error is the one to tell
                temporary.unlink(missing_ok=True)


def _remove_stale(path: Path) -> None:
    """Remove the temporary files of writers that were killed; no write takes an hour."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with contextlib.suppress(OSError):  # another process was faster
            if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                left.unlink()


def _dump(path: Path, meta: dict[str, Any]) -> str:
    try:
        text = json.dumps(meta, allow_nan=False)
        unchanged = json.loads(text) == meta
    except (TypeError, ValueError) as error:
        raise LiprefError(f"{path}: metadata that JSON cannot hold ({one_line(error)}): convert it first") from None
    if not unchanged:
        raise LiprefError(f"{path}: metadata that JSON would change: use string keys and lists, no tuples")
    return text


def _dense(path: Path, name: str, tensor: Tensor) -> Tensor:
    if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or tensor.is_quantized:
        raise LiprefError(f"{path}: {name!r} is not a dense tensor: store dense tensors only")
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and values."""
    return _digest({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, "")


def _digest(tensors: dict[str, Tensor], text: str) -> str:
    """SHA-256 over everything that `load` hands out; lengths before the parts keep different contents apart."""
    sha256 = hashlib.sha256()

    def add(part: bytes | memoryview) -> None:
        sha256.update(f"{len(part)}:".encode())
        sha256.update(part)

    for part in (FORMAT, VERSION, text):
        add(part.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        add(name.encode())
        add(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        add(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha256.hexdigest()


def _refuse_foreign(path: Path) -> None:
    if path.is_dir():
        raise LiprefError(f"{path}: a folder, not a checkpoint: give the file inside it")
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except FileNotFoundError:
        raise LiprefError(f"{path}: no such checkpoint: check the path, or train first") from None
    except OSError as error:
        raise LiprefError(f"{path}: cannot be read ({error.strerror or one_line(error)}): check the path") from None
    if not start:
        raise LiprefError(f"{path}: an empty file: delete it or restore a copy")
    if start[8:] == b"{":
        return  # safetensors: eight bytes of length, which may look like any signature, then JSON
    for signature, kind in _PICKLES.items():
        if start.startswith(signature):
            raise LiprefError(
                f"{path}: {kind}, which could run code when loaded: convert it with lipref.tensor_files.save"
            )
