"""What reaches outside: torchvision, and the archives that it knows how to download."""

import os
import tarfile
import zipfile
from http.client import HTTPException
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

from lipref.errors import LiprefError


def import_torchvision() -> None:
    """Imports torchvision, which is slow and only some data sets need.

    Raises LiprefError that names both versions when it does not load: one that was built for another torch fails at
    import.
    """
    try:
        import torchvision
        import torchvision.transforms.v2  # noqa: F401
    except (ImportError, RuntimeError) as error:
        raise LiprefError(
            f"torchvision {_version('torchvision')} does not load with torch {_version('torch')} ({one_line(error)}): "
            "install matching versions of the two"
        ) from error


def fetch(title: str, url: str, md5: str, folder: str, root: Path) -> None:
    """Sees to it that ``root / folder`` exists: as it is, from an archive that lies in ``root``, or from ``url``.

    The archive (zip or tar) must have the checksum ``md5`` and contain ``folder``. It is unpacked aside and renamed,
    so an interrupted or parallel run never leaves half a folder.

    Raises LiprefError with the address and the place when that fails.
    """
    if (root / folder).is_dir():
        return
    import_torchvision()
    from torchvision.datasets import utils

    filename = url.rsplit("/", 1)[-1]
    given = root / filename
    if given.exists() and not utils.check_integrity(given, md5):
        raise LiprefError(f"{given}: its md5 is not {md5}: delete it or fetch {url} again")
    try:
        root.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=root, prefix=".fetch-") as aside:
            if not given.exists():
                utils.download_url(url, aside, filename, md5)
            utils.extract_archive(given if given.exists() else Path(aside) / filename, aside)
            try:
                os.replace(Path(aside) / folder, root / folder)
            except OSError:
                # Another run may have been first.
                if not (root / folder).is_dir():
                    raise
    except (OSError, RuntimeError, HTTPException, EOFError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise LiprefError(
            f"cannot download {title} ({one_line(error)}): "
            f"fetch {url} (md5 {md5}) by other means into {root} and run again"
        ) from error


def one_line(error: Exception) -> str:
    """The error's message without line breaks, or its type when it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "(not installed)"
