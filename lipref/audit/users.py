"""The bound that a user's layer brings, and whether it speaks of the map that the layer computes."""

from __future__ import annotations

from torch import nn

from lipref.audit.linear import Shape, steepest
from lipref.audit.tampering import Refused

# What the bound of a library layer speaks of. A class that overrides one of these must bring a bound of its own.
_MAP = {
    "__call__", "__getattr__", "__getattribute__", "forward", "transform", "prepare", "operator", "float64_twin",
    "train", "eval", "_apply", "_call_impl",
    "_skew", "_sigma", "_unfoldings", "_terms", "_estimate", "margin",
    "operator_bound",
}  # fmt: skip
# What may differ from the class that brings the bound, where that class is the user's.
_HARMLESS = {"reset_parameters", "extra_repr", "initialise_end"}


def inherited(kind: type[nn.Module]) -> str | None:
    """Why a bound does not speak of the map of a class: it is inherited and the map is not."""
    owner = next((cls for cls in kind.__mro__ if "lipschitz_bound" in vars(cls)), None)
    if owner is None:
        return "lipschitz_bound is set on the instance; define it in the class"
    library = owner.__module__.startswith("lipref.")
    for cls in kind.__mro__[: kind.__mro__.index(owner)]:
        changed = vars(cls).keys() & (_MAP if library else _MAP | _methods(owner))
        if changed and not cls.__module__.startswith("lipref."):
            return f"{cls.__name__} overrides {sorted(changed)[0]} but inherits lipschitz_bound; define it there too"
    return None


def _methods(owner: type[nn.Module]) -> set[str]:
    """What a user's bound may rest on: everything that its class has but settings of Python's own."""
    return {name for name in dir(owner) if not name.startswith("__")} - _HARMLESS


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
