"""Whether a module is what its type says: as its constructor makes it from its settings, but for its numbers."""

from __future__ import annotations

import inspect
from collections import OrderedDict

import torch
from torch import Tensor, nn

from lipref.nets import ConvNet

REGISTRIES = ("_parameters", "_buffers", "_modules")
# What a copy is made by: one of a module's own may give another function.
COPYING = ("__copy__", "__deepcopy__", "__getstate__", "__reduce__", "__reduce_ex__", "__setstate__")
# Attributes that differ between modules of equal settings and that evaluation in float64 does not read.
STATE = {"training", "track_power_vectors", "_cached", "_given", "_started", "_factory", "updates"}
CONVNET = ("size", "layer", "num_classes", "in_channels", "image_size", "width")


class Refused(Exception):
    """Why a module brings no proved constant; the message follows its path and type."""


def global_hooks() -> str | None:
    """Hooks on every module of the process that could change what a module computes."""
    hooks = nn.modules.module
    if hooks._global_forward_hooks or hooks._global_forward_pre_hooks:
        return "a global forward hook is registered; remove it"
    return None


def hooks(module: nn.Module) -> str | None:
    """Forward hooks of this module. Backward hooks leave the forward map alone."""
    if module._forward_hooks or module._forward_pre_hooks:
        return "a forward hook or pre-hook could change its result; remove it"
    return None


def overridden(module: nn.Module) -> str | None:
    """Attributes of the instance in place of its class's methods, its parameters, its compiled call or its copy."""
    own = vars(module)
    for name in REGISTRIES:
        if type(own.get(name)) not in (dict, OrderedDict):
            return f"its {name} is a {type(own.get(name)).__name__}, no plain dict"
    if own.get("_compiled_call_impl") is not None:
        return "it is compiled; audit the module that is not"
    for name in own:
        if callable(getattr(type(module), name, None)) or name in COPYING:
            return f"{name} is overridden on the instance; define a class with a lipschitz_bound of its own"
        if any(name in own[registry] for registry in REGISTRIES):
            return f"a plain attribute hides its registered {name}; delete the attribute"
    return None


def unusual_tensors(module: nn.Module) -> str | None:
    """Tensor subclasses, which may compute anything, and values that are not finite."""
    for name, value in (*module._parameters.items(), *module._buffers.items()):
        if value is None:
            continue
        if type(value) not in (nn.Parameter, Tensor):
            return f"{name} is a {type(value).__name__}, no plain tensor"
        if not_finite(value):
            return f"{name} is not finite; its weights are damaged or its training diverged"
    return None


def not_finite(value: Tensor) -> bool:
    """Whether any number in it is NaN or infinite."""
    return (value.is_floating_point() or value.is_complex()) and not bool(torch.isfinite(value).all())


def tampering(module: nn.Module) -> str | None:
    """The first reason why this one module, without those inside it, may not do what its type says."""
    return hooks(module) or overridden(module) or unusual_tensors(module)


def unlike(module: nn.Module, kind: type[nn.Module]) -> str | None:
    """In what a module differs from one that ``kind`` makes from the same settings: attributes, names, shapes.

    The values of parameters and buffers may be any; the modules inside a container are not compared.
    """
    try:
        made = like(module, kind)
    except Exception as error:
        return f"{kind.__name__} cannot be made from its settings ({str(error).splitlines()[0]})"
    if reason := other_attributes(vars(module), vars(made), kind):
        return reason
    for registry in ("_parameters", "_buffers"):
        if reason := other_tensors(vars(module)[registry], vars(made)[registry]):
            return reason
    if not isinstance(module, nn.Sequential) and module._modules.keys() != made._modules.keys():
        return f"its modules are {', '.join(module._modules) or 'none'}; make it anew"
    return None


def like(module: nn.Module, kind: type[nn.Module], bias: bool | None = None) -> nn.Module:
    """What the constructor of ``kind`` makes from the settings of ``module``, on the meta device.

    Args:
        bias: whether there is one, where the parameters do not tell.
    """
    own = vars(module)
    if kind is ConvNet:
        return ConvNet(OrderedDict(), **{name: own[name] for name in CONVNET if name in own})
    names = set()
    for cls in kind.__mro__:
        if "__init__" in vars(cls):
            parameters = inspect.signature(cls.__init__).parameters
            names |= parameters.keys()
            if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
                break  # it takes nothing for the constructor that it calls
    settings = {name: own[name] for name in names if name in own}
    if "bias" in names:
        settings["bias"] = module._parameters.get("bias") is not None if bias is None else bias
    bare = type(kind.__name__, (kind,), {"reset_parameters": lambda self: None})  # values are of no interest
    with torch.device("meta"):
        return bare(**settings)


def other_attributes(own: dict, made: dict, kind: type) -> str | None:
    """The first plain attribute that one of the two lacks, or that differs."""
    if extra := own.keys() - made.keys() - STATE:
        return f"it has an attribute {min(extra)} of its own, which no {kind.__name__} has; delete it"
    if missing := made.keys() - own.keys() - STATE:
        return f"it lacks the attribute {min(missing)} of a {kind.__name__}; make it anew"
    for name, value in made.items():
        if name in STATE or name in REGISTRIES or "_hooks" in name or name == "_is_full_backward_hook":
            continue
        if type(own[name]) is not type(value) or own[name] != value:
            return f"its {name} is {own[name]}, where its settings make it {value}; make it anew"
    return None


def other_tensors(own: dict[str, Tensor | None], made: dict[str, Tensor | None]) -> str | None:
    """The first parameter or buffer that is too many, missing, or of another shape or kind of number."""
    for name in own.keys() | made.keys():
        value, expected = own.get(name), made.get(name)
        if (value is None) != (expected is None):
            return f"{name} is {'missing' if value is None else 'one tensor too many'}; make it anew"
        if value is None:
            continue
        if value.shape != expected.shape:
            return f"{name} is {tuple(value.shape)}, where its settings make it {tuple(expected.shape)}; make it anew"
        if value.is_complex() or value.is_floating_point() != expected.is_floating_point():
            return f"{name} is of {value.dtype}, where its settings make it {expected.dtype}; convert it"
    return None
