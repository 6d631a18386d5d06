"""The names of layers, and how a user's own gets one."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType
from typing import TypeVar

from torch import nn

from lipref.errors import LiprefError

LAYERS: dict[str, type[nn.Module]] = {}
M = TypeVar("M", bound=nn.Module)
_PREFIX = "lipref_user_"  # of the modules of users' files


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
    return module.rpartition("_")[0] if module.startswith(_PREFIX) else module, cls.__qualname__


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
        module = _import_file(Path(place), sha256) if own else _import_module(place)
        cls = getattr(module, name, None)
        if cls is None:
            raise LiprefError(f"{place} has no class {name!r}; it has: {', '.join(_module_classes(module)) or 'none'}")
        if not (inspect.isclass(cls) and issubclass(cls, nn.Module)):
            raise LiprefError(f"{text} is not a torch.nn.Module class with the signature of torch.nn.Conv2d")
        spec = LayerSpec(name, cls, module.__source_sha256__ if own else _source_digest(cls))
    if sha256 is not None and spec.source_sha256 != sha256:
        raise LiprefError(_other(text, sha256))
    return spec


def _other(text: object, sha256: str) -> str:
    return f"layer {str(text)!r} is another than that of SHA-256 {sha256[:16]}...: give the unchanged file"


def excluded() -> dict[str, type[nn.Module]]:
    """The methods that the paper leaves out, by name; `LAYERS` does not have them."""
    from lipref.layers.excluded import EXCLUDED  # needed by few

    return EXCLUDED


class _FromSource(SourceFileLoader):
    """Executes what the file says now, whatever is cached of it, and has the SHA-256 of that."""

    sha256: str | None = None

    def get_code(self, fullname: str) -> CodeType:
        source = self.get_data(self.path)
        self.sha256 = hashlib.sha256(source).hexdigest()
        return self.source_to_code(source, self.path)


class _Beside:
    """Finds modules and packages beside a user's file: their top ``names``, and the ``loaders`` of what was found."""

    def __init__(self, file: Path) -> None:
        # Beside an installed file everything that is installed would be found.
        self.folders = [] if "site-packages" in file.parts else [str(file.parent)]
        self.loaders: list[_FromSource] = []
        self.names: set[str] = set()

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        for folder in self.folders if path is None else path if _top(name) in self.names else ():
            spec = FileFinder(folder, (_FromSource, SOURCE_SUFFIXES)).find_spec(name)
            if spec is not None and spec.loader is not None:
                self.loaders.append(spec.loader)
            elif spec is None or getattr(PathFinder.find_spec(name, path), "loader", None) is not None:
                continue  # a folder without __init__.py gives way to an installed package
            self.names.add(_top(name))
            return spec
        return None

    def imported(self) -> set[str]:
        """Top names of what would be found here, but is in ``sys.modules`` already."""
        found = set()
        for name in {_top(name) for name in sys.modules} - {"lipref", "__main__"}:
            file = getattr(sys.modules.get(name), "__file__", None)
            if file and os.path.isabs(file) and not name.startswith(_PREFIX):
                place = Path(file).resolve()
                place = place.parent if place.name == "__init__.py" else place
                found |= {name} if str(place.parent) in self.folders else set()
        return found


def _top(name: str) -> str:
    return name.partition(".")[0]


def _from_source(module: ModuleType) -> bool:
    return isinstance(getattr(module, "__loader__", None), _FromSource)


def _drop(tops: set[str]) -> dict[str, ModuleType]:
    """Take modules of these top names out of ``sys.modules``."""
    return {name: sys.modules.pop(name) for name in list(sys.modules) if _top(name) in tops}


def _import_file(path: Path, sha256: str | None) -> ModuleType:
    """The module of a user's file; ``__source_sha256__`` is that of what was executed."""
    try:
        source = path.read_bytes()
    except OSError:
        raise LiprefError(f"no file {path}; give the path of the Python file that defines your layer") from None
    own = hashlib.sha256(source).hexdigest()
    if sha256 is not None and sha256.partition("+")[0] != own:
        raise LiprefError(_other(path, sha256))
    place = path.resolve()
    module_name = f"{_PREFIX}{path.stem}_{hashlib.sha256(str(place).encode()).hexdigest()[:8]}_{own[:16]}"
    module = sys.modules.get(module_name)
    if module is not None and all(_digest(Path(file)) == digest for file, digest in module.__beside__.items()):
        return module
    module = module_from_spec(spec_from_file_location(module_name, path))
    beside = _Beside(place)
    # What users' files have imported before, and what the program itself has: that comes back.
    _drop({_top(name) for name, other in sys.modules.items() if _from_source(other)})
    aside = _drop(beside.imported())
    sys.modules[module_name] = module  # so that the file's own classes can be found by name
    sys.meta_path.insert(0, beside)
    try:
        exec(compile(source, module.__file__, "exec", dont_inherit=True), vars(module))
    except BaseException as error:
        _drop({module_name, *beside.names})
        if not isinstance(error, Exception):
            raise
        raise LiprefError(f"{path} could not be imported: {type(error).__name__}: {error}") from error
    finally:
        sys.meta_path.remove(beside)
        _drop({_top(name) for name in aside})
        sys.modules.update(aside)
    module.__beside__ = {loader.path: loader.sha256 for loader in beside.loaders if loader.sha256}
    parts = sorted((Path(file).relative_to(place.parent).as_posix(), sha) for file, sha in module.__beside__.items())
    module.__source_sha256__ = f"{own}+{hashlib.sha256(repr(parts).encode()).hexdigest()}" if parts else own
    return module


def _digest(file: Path) -> str | None:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None


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
