"""The module of a user's own file: executed as it is now, with what it imports from its folder, and hashed."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Sequence
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType

from lipref.errors import LiprefError

PREFIX = "lipref_user_"  # of the modules of users' files


def another_file(text: object, sha256: str) -> str:
    """The refusal of a layer whose file has another SHA-256 than is asked for."""
    return f"layer {str(text)!r} is another than that of SHA-256 {sha256[:16]}...: give the unchanged file"


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
            if file and os.path.isabs(file) and not name.startswith(PREFIX):
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


def import_file(path: Path, sha256: str | None) -> ModuleType:
    """The module of a user's file; ``__source_sha256__`` is that of what was executed."""
    try:
        source = path.read_bytes()
    except OSError:
        raise LiprefError(f"no file {path}; give the path of the Python file that defines your layer") from None
    own = hashlib.sha256(source).hexdigest()
    if sha256 is not None and sha256.partition("+")[0] != own:
        raise LiprefError(another_file(path, sha256))
    place = path.resolve()
    module_name = f"{PREFIX}{path.stem}_{hashlib.sha256(str(place).encode()).hexdigest()[:8]}_{own[:16]}"
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
