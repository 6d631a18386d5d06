"""Ways in which a module computes something else than its type says."""

from __future__ import annotations

import torch
from torch import Tensor, nn


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
    """Attributes of the instance in place of its class's methods, its parameters or its compiled call."""
    own = vars(module)
    for name in own:
        if callable(getattr(type(module), name, None)):
            return f"{name} is overridden on the instance; define a class with a lipschitz_bound of its own"
        if name in module._parameters or name in module._buffers or name in module._modules:
            return f"a plain attribute hides its registered {name}; delete the attribute"
    if own.get("_compiled_call_impl") is not None:
        return "it is compiled; audit the module that is not"
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
