"""What a result was made with: versions, commit, device, threads, command.

And a fingerprint of the library's source, so that results of other code are never read as this one's.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import lipref
from lipref.errors import LiprefError
from lipref.paths import ROOT
from lipref.tensor_files import replace_file


def environment(device: str | torch.device) -> dict[str, Any]:
    """Describe the software, the machine and the command, for the record of a result.

    Args:
        device: The device that computed the result.

    Returns:
        A dict that JSON can hold: lipref (version), commit (None outside a git checkout of this repository), dirty
        (whether anything differs from the commit, untracked files included; None without a commit), python, torch,
        torchvision and numpy (versions, None if absent), platform, cpu (model), cpu_capability (the widest vector
        instructions that torch uses on it), cores (those that this process may use), threads (of one torch operation),
        device (a dict: type, and for CUDA also name, memory_bytes, capability, driver, cuda and cudnn), command (the
        home folder written as ~, any other absolute path after NAME: by its last name), time (UTC, ISO 8601).
    """
    commit = _commit()
    return {
        "lipref": lipref.__version__,
        "commit": commit,
        "dirty": None if commit is None else bool(_git("status", "--porcelain")),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torchvision": _version("torchvision"),
        "numpy": _version("numpy"),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "device": _device(torch.device(device)),
        "command": _command(sys.argv),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def machine(device: str | torch.device) -> str:
    """Name of what computes: the GPU's for a CUDA device, the CPU's model for any other."""
    device = torch.device(device)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu()


def cores() -> int:
    """How many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def write_json(path: str | os.PathLike[str], obj: Any) -> None:
    """Write ``obj`` as JSON, atomically, its keys in their own order.

    Raises:
        LiprefError: a value that JSON cannot hold, NaN and infinities among them, or a file that cannot be written.
    """
    try:
        text = json.dumps(obj, indent=2, ensure_ascii=False, allow_nan=False)
        data = f"{text}\n".encode()
    except (TypeError, ValueError) as error:
        raise LiprefError(f"{path}: cannot be written as JSON ({error}): use None where there is no number") from None
    replace_file(path, data)


def _commit() -> str | None:
    """The commit of this very repository, not of one that happens to hold the folder lipref was installed in."""
    top = _git("rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != ROOT:
        return None
    return _git("rev-parse", "--verify", "HEAD")


def _git(*arguments: str) -> str | None:
    # Variables such as GIT_DIR, which git sets inside its hooks, would point to another repository.
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return _output(["git", "--no-optional-locks", "-C", str(ROOT), *arguments], variables)


def _output(command: list[str], variables: dict[str, str] | None = None) -> str | None:
    """What a program prints, or None if it is absent or fails."""
    try:
        return subprocess.run(
            command, env=variables, capture_output=True, text=True, check=True, timeout=30
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)  # without importing it, which can take seconds
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        model = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        model = None
    return model[1].strip() if model else platform.processor() or platform.machine()


def _device(device: torch.device) -> dict[str, Any]:
    if device.type != "cuda":
        return {"type": device.type}
    properties = torch.cuda.get_device_properties(device)
    return {
        "type": device.type,
        "name": properties.name,
        "memory_bytes": properties.total_memory,
        "capability": f"{properties.major}.{properties.minor}",
        "driver": _driver(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def _driver() -> str | None:
    """The NVIDIA driver's version: one for all devices of a machine."""
    listed = _output(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"])
    return listed.splitlines()[0].strip() if listed else None


def _command(argv: Sequence[str]) -> str:
    program = argv[0] if argv else ""
    # `python -m package` puts the path of the package's __main__.py in place of its name.
    if os.path.basename(program) == "__main__.py":
        start = ["python", "-m", os.path.basename(os.path.dirname(program))]
    else:
        start = [os.path.basename(program)]
    command = shlex.join([*start, *argv[1:]])
    home = os.path.expanduser("~").rstrip("/")
    if home:
        command = re.sub(rf"(?<![^\s'\"=:,]){re.escape(home)}(?![^\s'\"/\\:,])", "~", command)
    return re.sub(r"(?<=\w:)/(?!/)(?:[^\s'\"/,]+/)*(?=[^\s'\"/,])", ".../", command)


PACKAGE = Path(lipref.__file__).resolve().parent

# Modules and packages that decide the numbers of a run, and of a measurement.
RUN = (
    "activations", "certification/bounds", "certification/certify", "certification/float_error", "data", "layers",
    "linalg", "losses", "nets", "runs/experiment", "training",
)  # fmt: skip
COST = (
    "activations", "bench/cost", "bench/memory", "bench/rounds", "bench/workloads", "certification/certify", "layers",
    "linalg", "losses", "nets", "training",
)  # fmt: skip
# Imported by those, but without a say in any number: errors, files, provenance, names.
NO_NUMBERS = (
    "certification/inputs", "errors", "extras", "paths", "runs/provenance", "runs/records", "tensor_files",
)  # fmt: skip


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
