"""The bound that a user's class brings or inherits, and whether it speaks of the map that the class computes."""

from __future__ import annotations

from abc import ABC
from typing import Generic

from torch import nn

from lipref.certification.bounds.linear import Shape, steepest
from lipref.certification.bounds.tampering import COPYING, Refused
from lipref.layers import (
    AOLConv2d,
    BCOPConv2d,
    CayleyConv2d,
    CPLConv2d,
    LOTConv2d,
    SLLConv2d,
    SOCConv2d,
    StandardConv2d,
)
from lipref.layers.excluded import EXCLUDED

# The library's own, by identity: a name or a module can be anybody's.
LIBRARY = {AOLConv2d, BCOPConv2d, CPLConv2d, CayleyConv2d, LOTConv2d, SLLConv2d, SOCConv2d, StandardConv2d}
LIBRARY |= set(EXCLUDED.values())
TORCH = {cls for kind in vars(nn).values() if isinstance(kind, type) for cls in kind.__mro__}
OWN = {cls for kind in LIBRARY for cls in kind.__mro__}
# What a class may define and still inherit proofs: what sets settings and values, which are checked on the instance,
# what prints, and what Python itself puts there.
HARMLESS = {
    "__init__", "make_parameters", "reset_parameters", "init_head", "extra_repr", "__repr__", "complexity",
    "__module__", "__qualname__", "__doc__", "__annotations__", "__annotate__", "__annotate_func__",
    "__annotations_cache__", "__firstlineno__", "__static_attributes__", "__dict__", "__weakref__", "__orig_bases__",
    "__parameters__", "__abstractmethods__", "_abc_impl",
}  # fmt: skip
PROOFS = {"lipschitz_bound", "rounding_error"}  # each stands by itself


def inherited(kind: type[nn.Module], proof: str = "lipschitz_bound") -> str | None:
    """Why a method, a proof, does not speak of the map of a class: it is inherited and the map may not be.

    Every class of the MRO that the proof's own class did not know, mixins among them, may define nothing but `HARMLESS`
    names.
    """
    owner = next((cls for cls in kind.__mro__ if proof in vars(cls)), None)
    if owner is None:
        return f"{proof} is set on the instance; define it in the class"
    if owner in OWN:  # which knows all of the layer's classes
        owner = next((cls for cls in kind.__mro__ if cls in LIBRARY), owner)
    for cls in kind.__mro__:
        if cls not in (*owner.__mro__, Generic, ABC) and (names := vars(cls).keys() - HARMLESS - (PROOFS - {proof})):
            return f"{cls.__name__} overrides {min(names)} but inherits {proof}; define it there too"
    return None


def library_class(kind: type[nn.Module]) -> type[nn.Module] | None:
    """The layer of the library whose map and bound ``kind`` has: itself, or what it derives from by harmless names.

    Raises:
        Refused: derived from one by names that may change the map.
    """
    base = next((cls for cls in kind.__mro__ if cls in LIBRARY), None)
    owner = next((cls for cls in kind.__mro__ if "lipschitz_bound" in vars(cls)), None)
    if base is None or owner not in OWN:
        return None
    if reason := inherited(kind):
        raise Refused(reason)
    return base


def copied_otherwise(module: nn.Module) -> str | None:
    """Classes in a user's module with copying of their own: what is audited and executed is a copy."""
    for cls in {cls for inner in module.modules() for cls in type(inner).__mro__} - TORCH - OWN:
        if names := [name for name in COPYING if name in vars(cls)]:
            return f"{cls.__name__} defines {names[0]}, so that its copy may be another function; remove it"
    return None


def states_its_rounding(kind: type[nn.Module]) -> bool:
    """Whether ``rounding`` is the word of a class that is not the library's."""
    return next((cls for cls in kind.__mro__ if "rounding_error" in vars(cls)), None) not in {None, *OWN}


def user_bound(module: nn.Module, size: tuple[int, int]) -> float:
    """``module.lipschitz_bound(size)``, taken at its word.

    Raises:
        Refused: no bound, or one that is inherited while the map is not.
    """
    if reason := inherited(type(module)):
        raise Refused(reason)
    try:
        return float(module.lipschitz_bound(size))
    except NotImplementedError:
        raise Refused("it brings no bound; define lipschitz_bound(size)") from None


def contradicted(module: nn.Module, bound: float, shape: Shape, out: Shape) -> str | None:
    """What a Jacobian says against the bound, where one is small enough to have."""
    slope = steepest(module, shape, out)
    if slope is not None and slope > bound * (1 + 1e-9):
        return f"its lipschitz_bound says {bound:g}, but a Jacobian of it has norm {slope:g}; mend the bound"
    return None
