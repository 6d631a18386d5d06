"""A fingerprint of the library's source, so that results of other code are never read as this one's."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import lipref

PACKAGE = Path(lipref.__file__).resolve().parent

# Modules and packages that decide the numbers of a run, and of a measurement.
RUN = (
    "activations", "certification/bounds", "certification/certify", "certification/float_error", "data", "experiment",
    "layers", "linalg", "losses", "nets", "training",
)  # fmt: skip
COST = (
    "activations", "certification/certify", "cost", "layers", "linalg", "losses", "memory", "nets", "rounds",
    "training", "workloads",
)  # fmt: skip
# Imported by those, but without a say in any number: errors, files, provenance, names.
NO_NUMBERS = ("certification/inputs", "errors", "extras", "fingerprint", "paths", "provenance", "runs", "tensor_files")


@cache
def fingerprint(names: tuple[str, ...], package: Path = PACKAGE) -> str:
    """SHA-256 over what the modules and packages ``names`` of the library say, read once per process.

    Comments, docstrings and formatting play no part: what counts is the syntax tree of every file, as `ast.dump` writes
    it. That form may change with Python's minor version, so the fingerprint is one per Python version.

    Args:
        names: ``"training"`` or ``"certification/certify"`` for a file, ``"layers"`` for a package with all its files.
        package: the library's folder.
    """
    digest = hashlib.sha256()
    for name in sorted(names):
        for path in files(name, package):
            text = ast.dump(without_docstrings(ast.parse(path.read_bytes())))
            digest.update(f"{path.relative_to(package).as_posix()}\n{text}\n".encode())
    return digest.hexdigest()


def files(name: str, package: Path = PACKAGE) -> Iterator[Path]:
    """The source files of a module or package of the library."""
    folder = package / name
    yield from sorted(folder.rglob("*.py")) if folder.is_dir() else [package / f"{name}.py"]


def without_docstrings(tree: ast.AST) -> ast.AST:
    """``tree``, changed: no module, class or function in it has a docstring."""
    for node in ast.walk(tree):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return tree
