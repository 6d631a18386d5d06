"""The names of layers, and how a user's own gets one."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from lipref.errors import LiprefError

LAYERS: dict[str, type[nn.Module]] = {}


def register(name: str) -> Callable[[type[nn.Module]], type[nn.Module]]:
    """Class decorator: from now on every command, sweep, table and figure takes ``name``.

    Raises:
        LiprefError: if another class has that name already.
    """

    def decorate(cls: type[nn.Module]) -> type[nn.Module]:
        taken = LAYERS.get(name)
        if taken is not None and (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
            raise LiprefError(
                f"layer name {name!r} is taken by {taken.__module__}.{taken.__qualname__}; choose another"
            )
        LAYERS[name] = cls
        return cls

    return decorate


@dataclass(frozen=True)
class LayerSpec:
    """A layer as commands name it: ``label`` for tables, the class, and for a user's own the source file's SHA-256."""

    label: str
    cls: type[nn.Module]
    source_sha256: str | None = None

    @property
    def builtin(self) -> bool:
        return self.source_sha256 is None


def resolve(text: str) -> LayerSpec:
    """Find a layer: a registered name, an excluded one, ``path/to/file.py:Class`` or ``package.module:Class``.

    Raises:
        LiprefError: unknown name (lists the known ones), missing file or class, a file that fails to import, or no
        ``nn.Module`` class.
    """
    if text not in LAYERS and text in excluded():
        return LayerSpec(text, excluded()[text])
    if text in LAYERS:
        cls = LAYERS[text]
        own = not cls.__module__.startswith("lipref.")
        return LayerSpec(text, cls, _source_digest(cls) if own else None)
    place, separator, name = text.rpartition(":")
    if not separator or not place or not name:
        raise LiprefError(
            f"unknown layer {text!r}; known: {', '.join(LAYERS)}; excluded by the paper: {', '.join(excluded())}; "
            "your own: path/to/file.py:ClassName"
        )
    module = _import_file(Path(place)) if place.endswith(".py") else _import_module(place)
    cls = getattr(module, name, None)
    if cls is None:
        raise LiprefError(f"{place} has no class {name!r}; it has: {', '.join(_module_classes(module)) or 'none'}")
    if not (inspect.isclass(cls) and issubclass(cls, nn.Module)):
        raise LiprefError(f"{text} is not a torch.nn.Module class with the signature of torch.nn.Conv2d")
    return LayerSpec(name, cls, _source_digest(cls))


def excluded() -> dict[str, type[nn.Module]]:
    """The methods that the paper leaves out, by name; `LAYERS` does not have them."""
    from lipref.layers.excluded import EXCLUDED  # needed by few

    return EXCLUDED


def _import_file(path: Path):
    if not path.is_file():
        raise LiprefError(f"no file {path}; give the path of the Python file that defines your layer")
    module_name = f"lipref_user_{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # so that the file's own classes can be found by name
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[module_name]
        raise LiprefError(f"{path} could not be imported: {type(error).__name__}: {error}") from error
    return module


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


def _source_digest(cls: type) -> str:
    """SHA-256 of the file that defines ``cls``: an edited layer is another layer, and its runs are other runs."""
    try:
        return hashlib.sha256(Path(inspect.getfile(cls)).read_bytes()).hexdigest()
    except (OSError, TypeError):
        return hashlib.sha256(f"{cls.__module__}.{cls.__qualname__}".encode()).hexdigest()
