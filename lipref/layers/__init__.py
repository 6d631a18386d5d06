"""The seven 1-Lipschitz layers of the comparison, and the unconstrained convolution."""

from lipref.layers.base import LipschitzConv2d
from lipref.layers.folded import Folded
from lipref.layers.folding import fold
from lipref.layers.registry import LAYERS, LayerSpec, register, resolve

# In the order of every table; importing a method registers it.
from lipref.layers.standard import StandardConv2d  # isort: skip
from lipref.layers.aol import AOLConv2d  # isort: skip
from lipref.layers.bcop import BCOPConv2d  # isort: skip
from lipref.layers.cayley import CayleyConv2d  # isort: skip
from lipref.layers.cpl import CPLConv2d  # isort: skip
from lipref.layers.lot import LOTConv2d  # isort: skip
from lipref.layers.sll import SLLConv2d  # isort: skip
from lipref.layers.soc import SOCConv2d  # isort: skip

__all__ = [
    "LAYERS",
    "AOLConv2d",
    "BCOPConv2d",
    "CPLConv2d",
    "CayleyConv2d",
    "Folded",
    "LOTConv2d",
    "LayerSpec",
    "LipschitzConv2d",
    "SLLConv2d",
    "SOCConv2d",
    "StandardConv2d",
    "fold",
    "register",
    "resolve",
]
