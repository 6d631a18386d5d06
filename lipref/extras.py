"""Packages of the optional extras, imported where they are used."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from lipref.errors import LiprefError


def require(module: str, extra: str = "notebooks") -> ModuleType:
    """Import a module of an optional extra.

    Raises:
        LiprefError: it is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        package = (error.name or module).split(".")[0]
        raise LiprefError(f"{package} is missing: install the extra {extra}: pip install 'lipref[{extra}]'") from error
