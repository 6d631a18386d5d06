"""Seven 1-Lipschitz convolution layers on equal terms: trained, certified, and compared.

The names of ``__all__`` are the entry points of the library. Each is imported when it is used: ``import lipref`` alone
does not import torch.
"""

from typing import TYPE_CHECKING

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
]

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
else:  # a type checker would take any name for one that `__getattr__` has
    _PLACES = {
        "activations": {"MaxMin"},
        "certification.bounds": {"audit", "lipschitz_bound"},
        "certification.certify": {"certify", "margins"},
        "certification.classifier": {"load"},
        "data": {"Batches", "load_dataset"},
        "errors": {"LiprefError"},
        "layers": {name for name in __all__ if name.endswith("Conv2d")} | {"fold", "register"},
        "nets": {"convnet"},
        "training": {"TrainingConfig", "train"},
    }

    def __getattr__(name: str):
        from importlib import import_module

        for place, names in _PLACES.items():
            if name in names:
                return getattr(import_module(f"lipref.{place}"), name)
        raise AttributeError(f"module 'lipref' has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
