"""Networks that look certified and are not: each is refused, and would pass if its one defence were taken out."""

import math
import warnings
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jacobian import jacobian_at
from torch import nn
from torch.nn.utils import parametrize

from lipref import certify as certification
from lipref.activations import MaxMin
from lipref.audit import audit, known, network, tampering, users
from lipref.certify import certify
from lipref.errors import LiprefError
from lipref.layers import LAYERS, Folded, LipschitzConv2d
from lipref.linalg import polar
from lipref.nets import FirstChannels, PadChannels, convnet

SHAPE = (2, 4, 4)


def slope_at(model, x):
    """Largest singular value of the Jacobian of the certified function at x ``(C, H, W)``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        jacobian = jacobian_at(model.double().eval(), x.double())
    return float(torch.linalg.matrix_norm(jacobian, 2))


def points(shape=SHAPE, count=3):
    torch.manual_seed(5)
    return [scale * torch.randn(shape, dtype=torch.float64) for scale in (0.1, 1.0, 3.0)[:count]]


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
    Specimen("forward on the instance", on_the_instance, without(tampering, "overridden"), "on the instance"),
    Specimen("CPL, one cold power iteration", cold_power_iteration, bound_one("cpl"), None),
    Specimen("SOC, five terms, a large kernel", five_terms, bound_one("soc"), None),
    Specimen("the same layer twice", twice_the_same, each_child_once, None),
    Specimen("deep in nests", lambda: sequence(sequence(nn.ReLU(), sequence(Twice()))), of_type(Twice), DEEP),
    Specimen("an inherited bound", lambda: Louder(2, 2, 1), without(users, "inherited"), "overrides transform"),
    Specimen("an inherited promise", OtherKernel, without(users, "inherited"), "overrides kernel"),
    Specimen("a bound that lies", Liar, without(users, "contradicted"), LIE, True),
]  # fmt: skip


@pytest.mark.parametrize("specimen", SPECIMENS, ids=lambda specimen: specimen.name)
def test_a_specimen_is_refused_and_would_pass_undefended(specimen, monkeypatch):
    xs = points()

    def make():
        torch.manual_seed(0)
        return specimen.make()

    steep = max(slope_at(make(), x) for x in xs)
    found = audit(make(), SHAPE, check=specimen.check)
    if specimen.says is None:
        assert not found.unproved
        assert found.bound >= steep * (1 - 1e-9)
    else:
        assert found.bound is None
        assert specimen.says in found.unproved[0]
    specimen.undefend(monkeypatch)
    undefended = audit(make(), SHAPE, check=specimen.check)
    assert undefended.unproved == []
    assert undefended.bound < steep * (1 - 1e-9)


def test_a_global_hook(monkeypatch):
    handle = nn.modules.module.register_module_forward_hook(lambda module, x, y: 2 * y)
    try:
        assert "global" in audit(nn.ReLU(), SHAPE).unproved[0]
        monkeypatch.setattr(tampering, "global_hooks", lambda: None)
        assert audit(nn.ReLU(), SHAPE).bound < 1.01
        assert slope_at(nn.ReLU(), points()[1]) > 1.9
    finally:
        handle.remove()


@pytest.mark.parametrize(
    ("name", "value"),
    [*((name, value) for name in ("cpl", "sll", "lot") for value in (math.nan, math.inf)), ("lot", 1e300)],
)
def test_damaged_weights(name, value, monkeypatch):
    layer = weighted(name, value)()
    assert "weight" in audit(layer, SHAPE).unproved[0]
    monkeypatch.setattr(tampering, "not_finite", lambda value: False)
    monkeypatch.setattr(known, "moderate", lambda module: None)
    assert audit(layer, SHAPE).bound == pytest.approx(1)  # max(1, NaN) is 1
    assert not torch.isfinite(layer.eval()(points()[1][None])).all()


def test_a_polar_factor_from_a_start_that_is_not_normalised(monkeypatch):
    torch.manual_seed(0)
    layer = LAYERS["bcop"](2, 2, 1, iterations=3).double()
    with torch.no_grad():
        layer.matrix.mul_(4)
    assert audit(layer, SHAPE).bound < 1 + 1e-9
    monkeypatch.setattr(polar, "_scaled", lambda a: a)
    steep = slope_at(layer, points()[0])
    assert steep > 1.1
    assert audit(layer, SHAPE).bound >= steep  # the kernel is measured as it is
    bound_one("bcop")(monkeypatch)
    assert audit(layer, SHAPE).bound < steep


def test_a_softplus_jumps_at_its_threshold(monkeypatch):
    x = torch.tensor([[[20.0, 20.0 + 1e-12]]], dtype=torch.float64)
    y = nn.Softplus()(x)
    assert float((y[..., 1] - y[..., 0]).abs()) > 1000 * 1e-12
    assert "jumps" in audit(nn.Softplus(), (1, 1, 2)).unproved[0]
    assert audit(nn.Softplus(threshold=40), (1, 1, 2)).bound == pytest.approx(1)
    of_type(nn.Softplus)(monkeypatch)
    assert audit(nn.Softplus(), (1, 1, 2)).bound is not None


# ---- a bound of one size, weights of another time ----


def test_a_bound_of_another_image_size():
    layer = LAYERS["standard"](1, 1, 3, bias=False).double()
    with torch.no_grad():
        layer.weight.zero_()[0, 0, 1] = torch.tensor([-1.0, 2.0, -1.0])
    small = audit(layer, (1, 1, 1))
    assert small.bound < 1e-9  # on one pixel the taps cancel
    assert slope_at(layer, torch.randn(1, 8, 8)) > 3.9
    assert small.bound_for((1, 1, 1)) == small.bound
    with pytest.raises(LiprefError, match="not \\(1, 8, 8\\)"):
        small.bound_for((1, 8, 8))
    model = convnet("XS_1x1", "aol", 3, 1, 4)
    with pytest.raises(LiprefError, match="expected"):
        model(torch.zeros(1, 1, 8, 8))
    assert "takes images of (1, 4, 4)" in audit(nn.Sequential(model), (1, 8, 8)).unproved[0]


def in_place(layer):
    with torch.no_grad():
        layer.weight.add_(0.5)


def through_data(layer):
    layer.weight.data[0, 0] = 3


def load(layer):
    layer.load_state_dict({name: 2 * value + 1 for name, value in layer.state_dict().items()})


def step(layer):
    layer.weight.grad = torch.randn_like(layer.weight)
    torch.optim.Adam(layer.parameters(), lr=0.5).step()


def to_float64(layer):
    layer.to(torch.float64)


def other_size(layer):
    pass


@pytest.mark.parametrize("edit", [in_place, through_data, load, step, to_float64, other_size])
def test_a_kept_operator_is_never_stale(edit, monkeypatch):
    torch.manual_seed(0)
    size = (6, 5) if edit is other_size else (4, 4)

    def kept_then_edited():
        torch.manual_seed(1)
        layer = LAYERS["lot"](2, 2, 3).eval()
        layer.operator((4, 4))
        edit(layer)
        return layer

    def is_fresh(layer):
        kept, fresh = layer.operator(size)["symbol"], honest(layer, size)["symbol"]
        return kept.shape == fresh.shape and kept.dtype == fresh.dtype and torch.equal(kept, fresh)

    prepare = LipschitzConv2d.operator

    def honest(layer, size):
        layer._kept = None
        return prepare(layer, size)

    assert is_fresh(kept_then_edited())
    careless = lambda self, size: self._kept[1] if self._kept else prepare(self, size)  # noqa: E731
    monkeypatch.setattr(LipschitzConv2d, "operator", careless)
    assert not is_fresh(kept_then_edited())


def test_tied_logits_certify_nothing(monkeypatch):
    batch = [(torch.ones(1, 2), torch.tensor([0]))]
    assert certify(nn.Identity(), batch, 1.0).accuracy.count == 0
    honest = certification.margins
    monkeypatch.setattr(certification, "margins", lambda *a, **k: honest(*a, **k) + 1)
    assert certify(nn.Identity(), batch, 1.0).accuracy.count == 1


@pytest.mark.parametrize("way", ["autocast", "tf32", "bf16"])
def test_low_precision_does_not_reach_the_certificate(way):
    torch.manual_seed(0)
    model = convnet("XS", "aol", 3, 1, 4).eval()
    if way == "bf16":
        model = model.bfloat16()
    batch = [(torch.rand(6, 1, 4, 4), torch.tensor([0, 1, 2, 0, 1, 2]))]
    double = audit(model.double(), (1, 4, 4)).bound if way == "bf16" else audit(model, (1, 4, 4)).bound
    model = model.bfloat16() if way == "bf16" else model
    radii = certify(model, batch, double).radii
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium" if way == "tf32" else before)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=way == "autocast"):
            assert audit(model, (1, 4, 4)).bound == double
            found = certify(model, batch, double).radii
            if way == "autocast":  # what float32 would become here, and float64 does not
                conv, x = nn.Conv2d(1, 4, 3), batch[0][0]
                low, high = conv(x), conv.double()(x.double())
                assert (low - high).abs().max() > 1e-4
                assert high.dtype == torch.float64
    finally:
        torch.set_float32_matmul_precision(before)
    assert found.dtype == torch.float64
    assert torch.equal(found, radii)


# ---- refused by name ----


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (behind_an_attribute(), "hides its registered weight"),
        (mixed_axes(), "it needs images"),
        (nn.Flatten(0), "no batch"),
        (nn.PixelUnshuffle(3), "does not take an input of (2, 4, 4)"),
        (sequence(LAYERS["aol"](3, 3, 1)), "in_channels=3"),
        (nn.BatchNorm2d(2, track_running_stats=False), "mixes the images"),
        (nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"), "reflect"),
        (nn.LeakyReLU(math.nan), "nan"),
        (parametrize.register_parametrization(nn.Conv2d(2, 2, 1), "weight", Twice()), "ParametrizedConv2d"),
        (Folded(Louder(2, 2, 1), (4, 4)), "folded from Louder"),
        (sequence(nn.ReLU(), nn.Hardshrink()), "1 (Hardshrink)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refused_by_name(model, says):
    found = audit(model, SHAPE)
    assert found.bound is None
    assert says in found.unproved[0]


def test_an_affine_layer_without_a_bound_is_measured_not_proved():
    found = audit(sequence(Twice()), SHAPE)
    assert found.bound is None
    assert found.measured["0"] == pytest.approx(2)
    assert "measured, not proved" in found.unproved[0]
    assert audit(nn.GELU(), SHAPE).measured == {}


def test_honest_bounds_pass_the_check_and_a_bad_shape_is_refused():
    class Half(nn.Module):
        def forward(self, x):
            return 0.5 * x

        def lipschitz_bound(self, size):
            return 0.5

    assert audit(Half(), SHAPE, check=True).bound == pytest.approx(0.5)
    for _ in range(2):
        assert audit(SameKernel(), SHAPE, check=True).bound == pytest.approx(1)
    for shape in ((2, 4), (2, 4, 0), (2, 4, 4.0)):
        with pytest.raises(LiprefError, match=r"not \(C, H, W\)"):
            audit(Half(), shape)


# ---- what is accepted holds ----


def batch_norm(seed):
    norm = nn.BatchNorm2d(4)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            tensor.copy_(torch.randn(4, generator=generator))
        norm.running_var.copy_(torch.rand(4, generator=generator) + 0.1)
    return norm


def layer(name, k=3):
    return lambda: LAYERS[name](4, 4, k)


def folded(name):
    def make():
        made = LAYERS[name](4, 4, 3).eval()
        return Folded(made, (4, 4))

    return make


KEEP = [
    MaxMin, nn.ReLU, nn.ReLU6, nn.Tanh, nn.Sigmoid, nn.Hardtanh, nn.Identity, nn.Dropout,
    lambda: nn.LeakyReLU(-1.7), lambda: nn.ELU(2.5), lambda: nn.Softplus(2.0, 40), lambda: batch_norm(3),
    lambda: nn.Conv2d(4, 4, 3, padding=1), lambda: nn.Conv2d(4, 4, 3, padding="same", padding_mode="circular"),
    lambda: nn.Conv2d(4, 4, (3, 5), padding=(1, 2), groups=2), lambda: nn.Conv2d(4, 4, 3, padding=2, dilation=2),
    lambda: nn.ConvTranspose2d(4, 4, 3, padding=1), lambda: nn.Linear(4, 4),
    lambda: sequence(nn.PixelUnshuffle(2), nn.Conv2d(16, 16, 1), nn.PixelShuffle(2)),
    lambda: sequence(PadChannels(6), nn.Conv2d(6, 5, 3, padding=1), FirstChannels(4)),
    lambda: sequence(nn.Conv2d(4, 4, 2, stride=2), nn.ConvTranspose2d(4, 4, 2, stride=2)),
    lambda: sequence(nn.ZeroPad2d(2), nn.MaxPool2d(2, padding=0)), lambda: sequence(nn.ZeroPad2d(2), nn.AvgPool2d(2)),
    *(layer(name) for name in LAYERS), *(folded(name) for name in LAYERS),
]  # fmt: skip


@pytest.mark.parametrize("index", range(len(KEEP)))
def test_the_bound_of_every_known_part_holds(index):
    torch.manual_seed(index)
    model = KEEP[index]()
    found = audit(model, (4, 4, 4))
    assert found.unproved == []
    steep = max(slope_at(model, x) for x in points((4, 4, 4)))
    assert steep <= found.bound * (1 + 1e-9)
    if not isinstance(model, nn.Sequential | nn.Sigmoid | nn.LeakyReLU | nn.ELU):
        assert found.bound <= max(1.5 * steep, 1 + 1e-6)  # and is no mere large number


nested = st.recursive(
    st.integers(0, len(KEEP) - 1), lambda inner: st.lists(inner, min_size=1, max_size=3), max_leaves=5
)


def built(plan):
    return KEEP[plan]() if isinstance(plan, int) else sequence(*(built(part) for part in plan))


@settings(max_examples=40)
@given(plan=nested, seed=st.integers(0, 10**6), tail=st.booleans())
def test_the_bound_of_nested_networks_holds(plan, seed, tail):
    torch.manual_seed(seed)
    model = sequence(built(plan), nn.Flatten(), nn.Linear(64, 5)) if tail else built(plan)
    found = audit(model, (4, 4, 4))
    assert found.unproved == []
    for x in points((4, 4, 4), 2):
        assert slope_at(model, x) <= found.bound * (1 + 1e-9)
