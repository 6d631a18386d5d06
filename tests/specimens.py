"""Networks and layers that look certified and are not, and how each would pass without its one defence."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lipref.certification.bounds import known, network, tampering, users
from lipref.layers import LAYERS

SHAPE = (2, 4, 4)


class Twice(nn.Module):
    def forward(self, x):
        return 2 * x


class Doubled(nn.Module):
    def __init__(self):
        super().__init__()
        self.child = LAYERS["aol"](2, 2, 3)

    def forward(self, x):
        return 2 * self.child(x)


class OwnForward(nn.Sequential):
    def forward(self, x):
        return 2 * super().forward(x)


class Liar(nn.Module):
    def forward(self, x):
        return 3 * x

    def lipschitz_bound(self, size):
        return 0.5


class Louder(LAYERS["aol"]):
    def transform(self, x, operator):
        return 2 * super().transform(x, operator)


class ByKernel(nn.Module):
    def kernel(self):
        return 1.0

    def forward(self, x):
        return self.kernel() * x

    def lipschitz_bound(self, size):
        return 1.0


class OtherKernel(ByKernel):
    def kernel(self):
        return 2.0


class SameKernel(ByKernel):
    def extra_repr(self):
        return "the same map"


def sequence(*modules):
    return nn.Sequential(*modules)


def hooked(register, hook):
    def make():
        model = sequence(nn.Identity(), nn.ReLU())
        getattr(model[1], register)(hook)
        return model

    return make


def on_the_instance():
    model = sequence(nn.Identity())
    model[0].forward = lambda x: 2 * x
    return model


def behind_an_attribute():
    model = nn.Linear(4, 4)
    nn.init.eye_(model.weight)
    weight = model._parameters.pop("weight")
    model.__dict__["weight"] = 2 * weight.detach()
    model._parameters["weight"] = weight
    return model


def cold_power_iteration():
    torch.manual_seed(0)
    layer = LAYERS["cpl"](2, 2, 3, eval_iterations=1)
    with torch.no_grad():
        layer.u.zero_()[0, 0, 0, 0] = 1
        layer.bias.fill_(20)  # every ReLU is active
    return layer


def five_terms():
    torch.manual_seed(0)
    return LAYERS["soc"](2, 2, 7, eval_terms=5)


def weighted(name, value):
    def make():
        layer = LAYERS[name](2, 2, 3, dtype=torch.float64)
        with torch.no_grad():
            layer.weight[0, 0, 0, 0] = value
        return layer

    return make


def twice_the_same():
    layer = LAYERS["standard"](2, 2, 1, bias=False)
    with torch.no_grad():
        layer.weight.mul_(2)
    return sequence(layer, layer)


def mixed_axes():
    """Takes what a Flatten leaves of two images for one image of two channels."""
    return sequence(nn.Flatten(2), nn.PixelUnshuffle(2))


@dataclass
class Specimen:
    name: str
    make: Any
    undefend: Any  # (monkeypatch) -> None
    says: str | None  # in the reason of the refusal; None where the audit brings an honest bound above 1
    check: bool = False


def of_type(kind, constant=1.0):
    return lambda patch: patch.setitem(known.CONSTANTS, kind, lambda module, shape: constant)


def as_container(kind):
    return lambda patch: patch.setattr(network, "CONTAINERS", network.CONTAINERS | {kind})


def without(module, name, result=None):
    return lambda patch: patch.setattr(module, name, lambda *arguments: result)


def no_look_at_the_instance(patch):
    patch.setattr(tampering, "overridden", lambda module: None)
    patch.setattr(tampering, "unlike", lambda module, kind: None)


def each_child_once(patch):
    patch.setattr(network, "children", lambda module: module.named_children())


def bound_one(name):
    return lambda patch: patch.setattr(LAYERS[name], "lipschitz_bound", lambda self, size: 1.0)


no_hooks = without(tampering, "hooks")
DEEP = "0.1.0 (Twice)"
LIE = "says 0.5, but a Jacobian of it has norm 3"
SPECIMENS = [
    Specimen("overlapping max-pooling", lambda: nn.MaxPool2d(3, 1, 1), of_type(nn.MaxPool2d), "overlap"),
    Specimen("dilated max-pooling", lambda: nn.MaxPool2d(2, 2, 1, 2), of_type(nn.MaxPool2d), "dilation"),
    Specimen("GELU", lambda: sequence(nn.GELU()), of_type(nn.GELU), "0 (GELU): of an unknown type"),
    Specimen("SiLU", nn.SiLU, of_type(nn.SiLU), "unknown type"),
    Specimen("a parent that doubles", Doubled, as_container(Doubled), "Doubled"),
    Specimen("a Sequential of its own", lambda: OwnForward(nn.ReLU()), as_container(OwnForward), "OwnForward"),
    Specimen("a forward hook", hooked("register_forward_hook", lambda m, x, y: 2 * y), no_hooks, "1 (ReLU)"),
    Specimen("a pre-hook", hooked("register_forward_pre_hook", lambda m, x: (2 * x[0],)), no_hooks, "1 (ReLU)"),
    Specimen("forward on the instance", on_the_instance, no_look_at_the_instance, "on the instance"),
    Specimen("CPL, one cold power iteration", cold_power_iteration, bound_one("cpl"), None),
    Specimen("SOC, five terms, a large kernel", five_terms, bound_one("soc"), None),
    Specimen("the same layer twice", twice_the_same, each_child_once, None),
    Specimen("deep in nests", lambda: sequence(sequence(nn.ReLU(), sequence(Twice()))), of_type(Twice), DEEP),
    Specimen("an inherited bound", lambda: Louder(2, 2, 1), without(users, "inherited"), "overrides transform"),
    Specimen("an inherited promise", OtherKernel, without(users, "inherited"), "overrides kernel"),
    Specimen("a bound that lies", Liar, without(users, "contradicted"), LIE, True),
]  # fmt: skip
