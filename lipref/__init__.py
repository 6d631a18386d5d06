"""Seven 1-Lipschitz convolution layers on equal terms: trained, certified, and compared.

The public names are imported when they are first used: ``import lipref`` alone stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lipref.activations import MaxMin
    from lipref.certification.bounds import audit, lipschitz_bound
    from lipref.certification.certify import certify, margins
    from lipref.certification.classifier import load
    from lipref.data import Batches, load_dataset
    from lipref.errors import LiprefError
    from lipref.layers import (
        AOLConv2d,
        BCOPConv2d,
        CayleyConv2d,
        CPLConv2d,
        LipschitzConv2d,
        LOTConv2d,
        SLLConv2d,
        SOCConv2d,
        StandardConv2d,
        fold,
        register,
    )
    from lipref.nets import convnet
    from lipref.training import TrainingConfig, train

__version__ = "0.1.0"

__all__ = [
    "AOLConv2d",
    "BCOPConv2d",
    "Batches",
    "CPLConv2d",
    "CayleyConv2d",
    "LOTConv2d",
    "LiprefError",
    "LipschitzConv2d",
    "MaxMin",
    "SLLConv2d",
    "SOCConv2d",
    "StandardConv2d",
    "TrainingConfig",
    "audit",
    "certify",
    "convnet",
    "fold",
    "lipschitz_bound",
    "load",
    "load_dataset",
    "margins",
    "register",
    "train",
]  # fmt: skip

_MODULES = {
    "activations": ("MaxMin",),
    "certification.bounds": ("audit", "lipschitz_bound"),
    "certification.certify": ("certify", "margins"),
    "certification.classifier": ("load",),
    "data": ("Batches", "load_dataset"),
    "errors": ("LiprefError",),
    "nets": ("convnet",),
    "training": ("TrainingConfig", "train"),
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'lipref' has no attribute {name!r}")
    module = next((module for module, names in _MODULES.items() if name in names), "layers")
    value = getattr(importlib.import_module(f"lipref.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
