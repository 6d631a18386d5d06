"""The names of layers, and how a user's own gets one."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

from torch import nn

from lipref.errors import LiprefError
from lipref.layers.user_file import PREFIX, another_file, import_file

LAYERS: dict[str, type[nn.Module]] = {}
M = TypeVar("M", bound=nn.Module)


def register(name: str) -> Callable[[type[M]], type[M]]:
    """Class decorator: from now on every command, sweep, table and figure takes ``name``.

    Args:
        name: of the layer, for commands and tables.

    Returns:
        A decorator that gives the class back as it is.

    Raises:
        LiprefError: if another class has that name already.

    Example:
        >>> from lipref import LOTConv2d, convnet, register
        >>> @register("lot20")
        ... class LOT20(LOTConv2d):
        ...     def __init__(self, *args, **options):
        ...         super().__init__(*args, terms=20, **options)
        >>> convnet("XS", "lot20", image_size=8).layer
        'lot20'
    """

    def decorate(cls: type[M]) -> type[M]:
        taken = LAYERS.get(name)
        if taken is not None and _place(taken) != _place(cls):
            raise LiprefError(
                f"layer name {name!r} is taken by {taken.__module__}.{taken.__qualname__}; choose another"
            )
        LAYERS[name] = cls
        return cls

    return decorate


def _place(cls: type) -> tuple[str, str]:
    """Where a class is defined: the same for all contents of a user's file."""
    module = cls.__module__
    return module.rpartition("_")[0] if module.startswith(PREFIX) else module, cls.__qualname__


@dataclass(frozen=True)
class LayerSpec:
    """A layer as commands name it: ``label`` for tables, the class, and for a user's own the source file's SHA-256.

    Where the file imports others from its own folder, "+" and a SHA-256 over those follow.
    """

    label: str
    cls: type[nn.Module]
    source_sha256: str | None = None

    @property
    def builtin(self) -> bool:
        return self.source_sha256 is None


def resolve(text: str, sha256: str | None = None) -> LayerSpec:
    """Find a layer: a registered name, an excluded one, ``path/to/file.py:Class`` or ``package.module:Class``.

    An edited file is executed anew, and so is one that imports an edited file from its own folder.

    Args:
        sha256: refuse another ``source_sha256``; nothing of a file of another SHA-256 is executed.

    Raises:
        LiprefError: unknown name (lists the known ones), missing file or class, a file that fails to import, or no
        ``nn.Module`` class.
    """
    place, separator, name = text.rpartition(":")
    if text in LAYERS:
        cls = LAYERS[text]
        spec = LayerSpec(text, cls, None if cls.__module__.startswith("lipref.") else _source_digest(cls))
    elif text in excluded():
        spec = LayerSpec(text, excluded()[text])
    elif not separator or not place or not name:
        raise LiprefError(
            f"unknown layer {text!r}; known: {', '.join(LAYERS)}; excluded by the paper: {', '.join(excluded())}; "
            "your own: path/to/file.py:ClassName"
        )
    else:
        own = place.endswith(".py")
        module = import_file(Path(place), sha256) if own else _import_module(place)
        cls = getattr(module, name, None)
        if cls is None:
            raise LiprefError(f"{place} has no class {name!r}; it has: {', '.join(_module_classes(module)) or 'none'}")
        if not (inspect.isclass(cls) and issubclass(cls, nn.Module)):
            raise LiprefError(f"{text} is not a torch.nn.Module class with the signature of torch.nn.Conv2d")
        spec = LayerSpec(name, cls, module.__source_sha256__ if own else _source_digest(cls))
    if sha256 is not None and spec.source_sha256 != sha256:
        raise LiprefError(another_file(text, sha256))
    return spec


def excluded() -> dict[str, type[nn.Module]]:
    """The methods that the paper leaves out, by name; `LAYERS` does not have them."""
    from lipref.layers.excluded import EXCLUDED  # needed by few

    return EXCLUDED


def _import_module(name: str):
    sys.path.insert(0, os.getcwd())  # as python -m would
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise LiprefError(f"module {name!r} could not be imported: {type(error).__name__}: {error}") from error
    finally:
        sys.path.pop(0)


def _module_classes(module) -> list[str]:
    return [n for n, c in vars(module).items() if inspect.isclass(c) and issubclass(c, nn.Module)]


@cache  # that of the code that was imported, should the file be edited later
def _source_digest(cls: type) -> str:
    """SHA-256 of the file that defines ``cls``: an edited layer is another layer, and its runs are other runs."""
    known = getattr(sys.modules.get(cls.__module__), "__source_sha256__", None)
    if known is not None:
        return known
    try:
        return hashlib.sha256(Path(inspect.getfile(cls)).read_bytes()).hexdigest()
    except (OSError, TypeError):
        return hashlib.sha256(f"{cls.__module__}.{cls.__qualname__}".encode()).hexdigest()
