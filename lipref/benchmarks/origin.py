"""Where other people's code comes from: address, version, and the git commit whose files it has."""

from __future__ import annotations

import hashlib
import os
import subprocess
from importlib import metadata
from importlib.resources import files
from pathlib import Path

from lipref.benchmarks.foreign import Foreign, sources


def origin(code: Foreign) -> dict:
    """Of ``code`` as it is imported here, without the name of any folder of this machine.

    Returns:
        ``name``, ``url``, ``package``, ``sha256`` of its Python files; ``version``, None where it is not installed;
        ``commit`` and ``dirty``, None where it does not lie in the top folder of a git checkout. Dirty: the package's
        Python files are not those of the commit; whatever else lies in the checkout does not count.
    """
    found = {"name": code.name, "url": code.url, "package": code.package, "sha256": code.sha256()}
    return found | {"version": _version(code.package)} | _commit(code.package)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit(package: str) -> dict:
    folder = files(package)
    unknown = {"commit": None, "dirty": None}
    if not isinstance(folder, Path):  # in a wheel
        return unknown
    top = folder.parent.resolve()
    said = _git(top, "rev-parse", "--show-toplevel")
    if said is None or Path(said.strip()).resolve() != top:  # installed below a repository, it is no part of it
        return unknown
    commit, listed = _git(top, "rev-parse", "--verify", "HEAD"), _git(top, "ls-tree", "-rz", "HEAD", "--", package)
    if commit is None or listed is None:
        return unknown
    entries = [entry.split("\t", 1) for entry in listed.split("\0") if entry.endswith(".py")]
    kept = {name: described.split()[2] for described, name in entries}
    here = {f"{package}/{name}": _blob(text) for name, text in sources(package)}
    return {"commit": commit.strip(), "dirty": kept != here}


def _blob(text: bytes) -> str:
    return hashlib.sha1(f"blob {len(text)}\0".encode() + text, usedforsecurity=False).hexdigest()


def _git(folder: Path, *arguments: str) -> str | None:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        return subprocess.run(command, env=variables, capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return None
