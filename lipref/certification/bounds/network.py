"""The walk over a network's modules, and the product of their bounds."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from numbers import Integral

import torch
from torch import nn

from lipref.certification.bounds import tampering, users
from lipref.certification.bounds.folded import folded_bound, unlike_folded
from lipref.certification.bounds.known import CONSTANTS, NEEDS_IMAGES, NOT_EXPANDING
from lipref.certification.bounds.linear import Shape, measured_norm
from lipref.certification.bounds.tampering import Refused
from lipref.certification.bounds.users import LIBRARY, library_class
from lipref.errors import LiprefError
from lipref.layers import Folded
from lipref.nets import ConvNet

CONTAINERS = {nn.Sequential, ConvNet}

# A network that is constant still needs something to divide by.
TINY = 1e-30


@dataclass(frozen=True)
class Audit:
    """Upper bounds per layer and their product.

    ``bound`` is None where a part of the network proves nothing; ``unproved`` then has one line for each such part:
    its path in the model, its type and the reason. ``layers`` is a list of ``(path, type, (H, W), bound)`` of all
    modules except those that never expand by their type, bound None where there is none and size ``(1, 1)`` for
    features. ``trusted`` has the paths and types of layers whose bound is their author's word, no proof of the
    library's: a ``lipschitz_bound`` that a user's class brings, or a ``rounding``. ``measured`` has the norms of layers
    that looked affine: numbers to look at, which no bound includes.
    ``shape`` is that of the image, ``(C, H, W)``: the bound holds for it alone.
    """

    bound: float | None
    layers: list[tuple[str, str, tuple[int, int], float | None]]
    unproved: list[str]
    measured: dict[str, float] = field(default_factory=dict)
    trusted: list[str] = field(default_factory=list)
    shape: Shape | None = None

    def bound_for(self, shape: Iterable[int]) -> float | None:
        """The bound, for images of ``shape`` ``(C, H, W)``.

        Raises:
            LiprefError: audited for another shape.
        """
        if tuple(shape) != self.shape:
            raise LiprefError(f"audited for images of {self.shape}, not {tuple(shape)}; audit the model for that shape")
        return self.bound


def audit(module: nn.Module, shape: Sequence[int], *, check: bool = False) -> Audit:
    """Rigorous upper bounds of a network's layers, and of the network in evaluation, in l2, on images of ``shape``.

    The product of its parts' bounds, rounded upwards, each for the real-arithmetic map that the stored weights define,
    in float64. Parts are known by their exact type (docs/certificates.md has the list); whatever else is there is
    refused by name. A user's layer takes part with its own ``lipschitz_bound(size)``; without one, a small layer that
    looks affine is measured, which proves nothing and is reported apart.

    Args:
        module: a plain ``nn.Sequential``, nested or not, a `ConvNet`, or one layer; it is copied and stays as it is.
        shape: ``(C, H, W)`` of one image.
        check: compare the bound of every user's layer with Jacobians at random points, where they have at most
            2e7 entries, and refuse a bound below.

    Returns:
        The table per module, ``layers``; ``bound``, the product, or None where ``unproved`` names a module.

    Raises:
        LiprefError: a shape that is none, or a module that cannot be copied to the CPU and to float64.

    Example:
        >>> from torch import nn
        >>> from lipref import AOLConv2d, audit
        >>> found = audit(nn.Sequential(AOLConv2d(3, 8, 3), nn.GELU()), (3, 8, 8))
        >>> [(path, kind, size) for path, kind, size, bound in found.layers]
        [('0', 'AOLConv2d', (8, 8)), ('1', 'GELU', (8, 8))]
        >>> found.bound is None
        True
        >>> found.unproved
        ['1 (GELU): of an unknown type, without a bound; define lipschitz_bound(size)']
    """
    if not isinstance(module, nn.Module):
        raise LiprefError(f"module={module!r} is a {type(module).__name__}: give a torch.nn.Module")
    sizes = list(shape) if isinstance(shape, Sequence) else []
    whole = [n for n in sizes if isinstance(n, Integral) and not isinstance(n, bool) and n > 0]
    if len(sizes) != 3 or len(whole) != 3:
        raise LiprefError(f"shape={shape} is not (C, H, W) of one image; give three whole numbers of at least 1")
    return _audit(module, tuple(map(int, whole)), check=check, measure=True, strict=False)


def lipschitz_bound(module: nn.Module, shape: Sequence[int]) -> float:
    """Rigorous upper bound of a network's Lipschitz constant in evaluation, in l2, on images of ``shape``.

    The bound of its `audit`, which tells more.

    Args:
        module: as for `audit`.
        shape: ``(C, H, W)`` of one image; the bound holds for no other.

    Returns:
        The product of the modules' bounds, rounded upwards. That of a user's layer is its author's word.

    Raises:
        LiprefError: a module that proves nothing, by its path and type, a shape that is none or does not fit, or a
            module that cannot be copied to the CPU and to float64.

    Example:
        >>> from lipref import convnet, lipschitz_bound
        >>> model = convnet("XS", "soc", num_classes=10, in_channels=1, image_size=8)
        >>> round(lipschitz_bound(model, (1, 8, 8)), 3)
        1.0
    """
    found = audit(module, shape)
    if found.bound is None:
        more = f" (and {len(found.unproved) - 1} more, see lipref.audit)" if len(found.unproved) > 1 else ""
        raise LiprefError(f"no bound of {type(module).__name__}: {found.unproved[0]}{more}")
    return found.bound


def network_bound(model: ConvNet) -> Audit:
    """`audit` of a `ConvNet` at its own image size, without measurements.

    Raises:
        LiprefError: not a plain `ConvNet`, or a layer that fails in float64.
    """
    if type(model) is not ConvNet or "forward" in vars(model):
        raise LiprefError(
            f"{type(model).__name__} is not a plain ConvNet; lipref.audit(model, (C, H, W)) takes other networks"
        )
    shape = (model.in_channels, model.image_size, model.image_size)
    return _audit(model, shape, check=False, measure=False, strict=True)


def _audit(model: nn.Module, shape: Shape, *, check: bool, measure: bool, strict: bool) -> Audit:
    # Outside inference mode, because Jacobians need gradients.
    with torch.inference_mode(False), torch.no_grad():
        walk = _Walk(check, measure, strict)
        if reason := tampering.global_hooks():
            walk.unproved.append(f"all modules: {reason}")
        walk.visit("", model, shape, ())
    if not math.isfinite(walk.product):
        walk.unproved.append("the product of the layers' bounds overflows")
    return Audit(None if walk.unproved else walk.product, walk.rows, walk.unproved, walk.measured, walk.trusted, shape)


def _copied(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model).to("cpu").double().eval()
    except Exception as error:
        what = str(error).split("\n")[0]
        raise LiprefError(
            f"{type(model).__name__} cannot be copied to the CPU in float64 ({type(error).__name__}: {what}); "
            "remove what stands in the way, such as weight normalisation by hooks"
        ) from error


class _Walk:
    """Visits modules in the order in which they are applied, and multiplies."""

    def __init__(self, check: bool, measure: bool, strict: bool) -> None:
        self.check, self.measure, self.strict = check, measure, strict
        self.product, self.rows, self.unproved, self.measured, self.trusted = 1.0, [], [], {}, []

    def visit(self, path: str, module: nn.Module | None, shape: Shape, above: tuple[nn.Module, ...]) -> Shape | None:
        """Audit one module on inputs of ``shape``; the shape of its outputs, or None where nothing can follow."""
        if module is None or any(module is other for other in above):
            return self._stop(path, module, "an empty place" if module is None else "it contains itself")
        if type(module) not in CONTAINERS:
            return self._leaf(path, module, shape)
        if reason := tampering.tampering(module) or tampering.unlike(module, type(module)):
            self._refuse(path, module, reason)
        if type(module) is ConvNet:
            expected = (module.in_channels, module.image_size, module.image_size)
            if shape != expected:
                return self._stop(path, module, f"it takes images of {expected}, not {shape}")
        for name, child in children(module):
            shape = self.visit(f"{path}.{name}" if path else name, child, shape, (*above, module))
            if shape is None:
                return None
        return shape

    def _leaf(self, path: str, module: nn.Module, shape: Shape) -> Shape | None:
        # Of the module itself: a copy may be another.
        changed = kind = None
        try:
            changed = next(filter(None, map(tampering.tampering, module.modules())), None)
            kind = _known(module)
            if kind is None:
                changed = changed or users.copied_otherwise(module)
            else:
                changed = changed or (unlike_folded(module) if kind is Folded else tampering.unlike(module, kind))
        except Refused as reason:
            changed = changed or str(reason)
        except Exception as error:
            changed = changed or f"its settings are none of its type's ({type(error).__name__}: {error})"
        module = _copied(module)
        try:
            out = _output_shape(module, shape)
        except Exception as error:
            if changed:
                return self._stop(path, module, changed)
            if self.strict and not isinstance(error, Refused):
                raise
            what = str(error).split("\n")[0]
            return self._stop(path, module, f"it does not take an input of {shape} ({what}); change the image size")
        bound = None
        try:
            if changed:
                raise Refused(changed)
            bound = self._bound(path, module, kind, shape, out)
        except Refused as reason:
            self._refuse(path, module, str(reason))
        except Exception as error:
            if self.strict:
                raise
            self._refuse(path, module, f"its bound fails: {type(error).__name__}: {str(error).splitlines()[0]}")
        if users.states_its_rounding(type(module)):
            self.trusted.append(f"{path or 'model'} ({type(module).__name__}, rounding)")
        if bound is not None:
            self.product = math.nextafter(self.product * bound, math.inf)
        if bound is None or type(module) not in NOT_EXPANDING:
            self.rows.append((path or "model", type(module).__name__, _size(shape), bound))
        return out

    def _bound(self, path: str, module: nn.Module, kind: type | None, shape: Shape, out: Shape) -> float:
        if kind in CONSTANTS:
            bound = CONSTANTS[kind](module, shape)
        elif kind is Folded:
            bound = folded_bound(module, shape)
        elif callable(getattr(module, "lipschitz_bound", None)):
            bound = users.user_bound(module, _size(shape))
            self.trusted.append(f"{path or 'model'} ({type(module).__name__})")
            if self.check and (reason := users.contradicted(module, bound, shape, out)):
                raise Refused(reason)
        else:
            self._unknown(path, module, shape, out)
        if not (math.isfinite(bound) and bound >= 0):
            raise Refused(f"its bound, {bound}, is not a finite number of at least 0")
        return max(bound, TINY)

    def _unknown(self, path: str, module: nn.Module, shape: Shape, out: Shape) -> None:
        norm = measured_norm(module, shape, out) if self.measure else None
        if norm is None:
            raise Refused("of an unknown type, without a bound; define lipschitz_bound(size)")
        self.measured[path or "model"] = norm
        raise Refused(f"measured, not proved: as if affine, of norm {norm:g}; define lipschitz_bound(size)")

    def _refuse(self, path: str, module: nn.Module | None, reason: str) -> None:
        self.unproved.append(f"{path or 'model'} ({type(module).__name__}): {reason}")

    def _stop(self, path: str, module: nn.Module | None, reason: str) -> None:
        self._refuse(path, module, f"{reason}; nothing after it was audited")


def _known(module: nn.Module) -> type | None:
    """The type whose constant a module has, where that is proved here."""
    return type(module) if type(module) in CONSTANTS or type(module) is Folded else library_class(type(module))


def children(module: nn.Module) -> Iterable[tuple[str, nn.Module]]:
    """In the order of application; not ``named_children()``, which leaves out a module that comes twice."""
    return module._modules.items()


def _size(shape: Shape) -> tuple[int, int]:
    return shape[1:] if len(shape) == 3 else (1, 1)


def _output_shape(module: nn.Module, shape: Shape) -> Shape:
    if type(module) in NEEDS_IMAGES | LIBRARY and len(shape) != 3:
        raise Refused("it needs images")
    if type(module) in LIBRARY:  # without preparing an operator
        if shape[0] != module.in_channels:
            raise Refused(f"it has in_channels={module.in_channels}")
        return (module.out_channels, *shape[1:])
    y = module(torch.zeros(2, *shape, dtype=torch.float64))
    if not isinstance(y, torch.Tensor) or y.dim() < 2 or y.shape[0] != 2:
        raise Refused("it gives no batch of tensors back")
    return tuple(y.shape[1:])
