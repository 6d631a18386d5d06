"""Packages of the optional extra ``notebooks``, imported where they are used."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from lipref.errors import LiprefError


def require(module: str) -> ModuleType:
    """Import a module of the optional extra ``notebooks``.

    Raises:
        LiprefError: it is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        package = (error.name or module).split(".")[0]
        raise LiprefError(
            f"{package} is missing: install the extra notebooks: pip install 'lipref[notebooks]'"
        ) from error
