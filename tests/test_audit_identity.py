"""A bound is proved for an exact known type, as its constructor makes it; whatever differs is refused."""

import contextlib
import inspect
import math
from collections import OrderedDict

import pytest
import torch
from jacobian import points, slope_at
from random_modules import draw_one, exceeds
from torch import nn

from lipref.certification.bounds import audit, network_bound
from lipref.certification.float_error import evaluation_error
from lipref.errors import LiprefError
from lipref.layers import LAYERS, AOLConv2d, BCOPConv2d, Folded, SLLConv2d, SOCConv2d
from lipref.layers.excluded import EXCLUDED
from lipref.layers.kernel import KernelConv2d
from lipref.linalg.norms import conv_norm_bound, norm_bound
from lipref.nets import convnet

SHAPE = (3, 3, 3)
METHODS = {**LAYERS, **EXCLUDED}


def built(cls, k=3):
    torch.manual_seed(0)
    return cls(3, 3, 1 if cls.__name__.startswith("BnB") else k).double().eval()


# ---- every method of every layer, overridden ----

PYTHON = {"__class__", "__new__", "__init__", "__init_subclass__", "__subclasshook__", "__dir__", "__sizeof__"}


def times(value, factor):
    if isinstance(value, dict):
        return {name: times(each, factor) for name, each in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(times(each, factor) for each in value)
    scalable = isinstance(value, torch.Tensor) and value.dtype != torch.bool
    return value * factor if scalable or (isinstance(value, int | float) and not isinstance(value, bool)) else value


def times_result(call, factor):
    return lambda *arguments, **options: times(call(*arguments, **options), factor)


def overrides(cls, factor):
    """(name, member): every method, property and numeric setting of a class with its result multiplied."""
    for name in sorted(set(dir(cls)) - PYTHON):
        member = inspect.getattr_static(cls, name)
        if isinstance(member, property):
            yield name, property(lambda self, get=member.fget: times(get(self), factor))
        elif isinstance(member, staticmethod | classmethod):
            yield name, staticmethod(times_result(getattr(cls, name), factor))
        elif callable(member):
            yield name, times_result(member, factor)
        elif isinstance(member, int | float):
            yield name, times(member, factor)


def is_above_its_slope(layer):
    """Whether what is proved of a layer, if anything, is true."""
    try:
        bound = audit(layer, SHAPE).bound
    except LiprefError:
        return True
    return bound is None or max(slope_at(layer, x) for x in points(SHAPE, 2)) <= bound * (1 + 1e-9)


@pytest.mark.parametrize("factor", [10, -10])
@pytest.mark.parametrize("name", METHODS)
def test_an_overridden_member_proves_nothing_beyond_its_slope(name, factor):
    cls, tried = METHODS[name], 0
    for member, value in overrides(cls, factor):
        layers = []
        with contextlib.suppress(Exception):  # a class that cannot be made proves nothing
            layers.append(built(type(cls.__name__, (cls,), {member: value})))
        with contextlib.suppress(Exception):
            layer = built(cls)
            vars(layer)[member] = value.__get__(layer) if callable(value) else value
            layers.append(layer)
        for layer in layers:
            tried += 1
            assert is_above_its_slope(layer), f"{name}.{member} times {factor}"
    assert tried > 100


# ---- inherited proofs ----


class Tenfold(KernelConv2d):
    def transform(self, x, operator):
        return 10 * super().transform(x, operator)


class Mixed(BCOPConv2d, Tenfold):
    """The change comes after the class that owns the bound."""


class Setting(SLLConv2d):
    EPSILON = -10.0


class Reset(SOCConv2d):
    def reset_parameters(self):
        super().reset_parameters()
        self.kappa = 5.0


class Four(SOCConv2d):
    """As `examples/soc4.py`: another setting of the constructor."""

    def __init__(self, *args, **options):
        super().__init__(*args, train_terms=4, eval_terms=4, **options)


@pytest.mark.parametrize("cls", [Tenfold, Mixed, Setting, Reset])
def test_a_subclass_that_may_change_the_map_is_refused(cls):
    assert audit(built(cls), SHAPE).bound is None


def test_a_property_in_place_of_a_parameter_is_refused():
    class Weight(AOLConv2d):
        weight = property(lambda self: 10 * self._parameters["weight"])

    layer = built(AOLConv2d)
    layer.__class__ = Weight
    assert audit(layer, SHAPE).bound is None


def test_a_subclass_with_another_setting_is_proved():
    layer = built(Four)
    found = audit(layer, SHAPE)
    assert found.unproved == []
    assert found.trusted == []
    assert max(slope_at(layer, x) for x in points(SHAPE)) <= found.bound * (1 + 1e-9)
    assert audit(layer.fold((3, 3)), SHAPE).bound == pytest.approx(found.bound, rel=1e-6)


class Shift(AOLConv2d):
    """The identity in real numbers, of which float64 leaves two digits after the point."""

    def transform(self, x, operator):
        return (x + 2.0**50) - 2.0**50

    def lipschitz_bound(self, size):
        return 1.0


class InFloat32(AOLConv2d):
    def transform(self, x, operator):
        operator = {name: value.float() for name, value in operator.items()}
        return super().transform(x.float(), operator).to(x.dtype)

    def lipschitz_bound(self, size):
        return 1.0


@pytest.mark.parametrize("cls", [Shift, InFloat32])
def test_the_rounding_of_another_map_is_not_inherited(cls):
    model = convnet("XS_1x1", cls, 3, 1, 4)
    found = network_bound(model)
    assert found.bound is not None
    assert len(found.trusted) == len(found.layers)  # said to be its author's word
    error = evaluation_error(model, found)
    assert error.slope is None
    assert "first" in error.unbounded


# ---- what is audited is what is executed ----


def five(conv):
    with torch.no_grad():
        conv.weight.copy_(5 * torch.eye(conv.weight.shape[0])[:, :, None, None])
    return conv


def copies_itself_as_another(model):
    model.__deepcopy__ = lambda memo: nn.Sequential(nn.Identity())


def compiled(model):
    model[0]._compiled_call_impl = lambda x: 10 * x


def other_modules(model):
    class Reversed(OrderedDict):
        def values(self):
            return [nn.Identity()]

    model.__dict__["_modules"] = Reversed(model._modules)


def forward_on_the_instance(model):
    model.forward = lambda x: 10 * x


@pytest.mark.parametrize(
    "edit", [copies_itself_as_another, compiled, other_modules, forward_on_the_instance], ids=lambda edit: edit.__name__
)
def test_the_given_object_is_looked_at_before_any_copy(edit):
    model = nn.Sequential(five(nn.Conv2d(3, 3, 1))).double().eval()
    assert audit(model, SHAPE).bound == pytest.approx(5)
    edit(model)
    assert audit(model, SHAPE).bound is None


def test_a_users_layer_with_copying_of_its_own_is_refused():
    class Copied(nn.Module):
        def forward(self, x):
            return 10 * x

        def lipschitz_bound(self, size):
            return 10.0

        def __deepcopy__(self, memo):
            return nn.Identity()

    assert "__deepcopy__" in audit(Copied(), SHAPE).unproved[0]


def set_attribute(name, value):
    def edit(module):
        setattr(module, name, value)

    return edit


def set_tensor(name, make):
    def edit(module):
        registry = module._parameters if name in module._parameters else module._buffers
        old = registry.get(name)
        registry[name] = make(old if old is None else old.detach())

    return edit


def parameter(make):
    return lambda value: nn.Parameter(make(value))


def folded(name, k=3):
    return Folded(built(METHODS[name], k), (3, 3)).double()


OTHERWISE = {
    "a padding changed afterwards": (
        lambda: nn.Conv2d(3, 3, 3, padding=2, padding_mode="circular"), set_attribute("padding", (1, 1))
    ),
    "a 5x1 kernel": (
        lambda: nn.Conv2d(3, 3, 3, padding=1), set_tensor("weight", parameter(lambda w: w.new_ones(3, 3, 5, 1)))
    ),
    "a 2x2 kernel": (lambda: AOLConv2d(3, 3, 3), set_tensor("weight", parameter(lambda w: w[..., :2, :2]))),
    "two frames of four": (lambda: BCOPConv2d(3, 3, 3), set_tensor("frames", parameter(lambda f: f[:2]))),
    "a parameter too many": (
        lambda: LAYERS["lot"](3, 3, 3), lambda m: m.register_parameter("scale", nn.Parameter(torch.ones(3).double()))
    ),
    "a buffer too many": (lambda: SOCConv2d(3, 3, 3), lambda m: m.register_buffer("scale", torch.ones(3).double())),
    "a buffer too few": (lambda: LAYERS["cpl"](3, 3, 3, eval_iterations=1), lambda m: delattr(m, "u")),
    "complex weights": (lambda: nn.Linear(3, 3), set_tensor("weight", parameter(lambda w: w.to(torch.complex128)))),
    "integer weights": (
        lambda: nn.Linear(3, 3), set_tensor("weight", lambda w: nn.Parameter((9 * w).long(), requires_grad=False))
    ),
    "a setting of the instance": (lambda: SLLConv2d(3, 3, 3), set_attribute("EPSILON", -10.0)),
    "other numbers of terms": (lambda: SOCConv2d(3, 3, 3), set_attribute("kappa", 3.0)),
    "ReLU6 with other ends": (nn.ReLU6, set_attribute("max_val", 9.0)),
    "folded SLL, a step": (lambda: folded("sll"), lambda m: m.register_buffer("step", -50 * torch.ones(3).double())),
    "folded CPL, a small adjoint": (lambda: folded("cpl"), set_tensor("adjoint", lambda a: a[..., :1, :1])),
    "folded SOC, no scale": (lambda: folded("soc"), lambda m: delattr(m, "scale")),
    "folded LOT, half of its symbol": (lambda: folded("lot"), set_tensor("symbol", lambda s: s[:2])),
    "folded Cayley as real": (lambda: folded("cayley"), lambda m: setattr(m, "_complex", set())),
    "folded Sandwich, one of its maps": (lambda: folded("sandwich"), lambda m: delattr(m, "enter")),
    "folded LOT, another method's transform": (
        lambda: folded("lot"), lambda m: vars(m._bare).update(transform=lambda x, operator: 10 * x)
    ),
    "folded for another padding": (lambda: folded("sll"), lambda m: vars(m._bare).update(padding_mode="reflect")),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHERWISE)
def test_what_is_not_as_its_constructor_makes_it_is_refused(case):
    make, edit = OTHERWISE[case]
    torch.manual_seed(0)
    module = make().double().eval()
    assert audit(module, SHAPE).unproved == [] or "no bound; use 'zeros'" in audit(module, SHAPE).unproved[0]
    edit(module)
    assert audit(module, SHAPE).bound is None


@pytest.mark.parametrize("name", METHODS)
def test_a_layer_after_training_is_still_as_its_constructor_makes_it(name):
    layer = built(METHODS[name]).train()
    for bias in (True, False):
        layer = METHODS[name](3, 3, layer.kernel_size, bias=bias).double().train()
        layer.track_power_vectors = False
        layer(torch.randn(1, *SHAPE, dtype=torch.float64)).sum().backward()
        layer.eval()(torch.randn(1, *SHAPE, dtype=torch.float64))
        assert audit(layer, SHAPE).unproved == []
        assert audit(layer.fold(SHAPE[1:]), SHAPE).unproved == []


# ---- numbers ----


def test_a_step_that_is_not_positive_has_no_bound():
    layer = built(SLLConv2d)
    layer.EPSILON = -10.0
    with pytest.raises(LiprefError, match="not finite and positive"):
        layer.lipschitz_bound((3, 3))


@pytest.mark.parametrize("name", LAYERS)
def test_the_bound_of_a_nan_is_no_number_of_use(name):
    layer = built(LAYERS[name])
    with torch.no_grad():
        next(layer.parameters()).fill_(math.nan)
        for weight in layer.parameters():
            weight.fill_(math.nan)
    try:
        bound = layer.lipschitz_bound((3, 3))
    except (LiprefError, RuntimeError):
        return
    assert math.isnan(bound)


@pytest.mark.parametrize("weight", [torch.ones(2, 2, 5, 1), torch.ones(2, 2, 2, 2), torch.ones(2, 2, 3, 3).long()])
def test_kernels_that_have_no_bound_are_refused(weight):
    with pytest.raises(LiprefError, match="odd k"):
        conv_norm_bound(weight, (4, 4), "zeros")


@pytest.mark.parametrize("size", [1e-150, 1e-200, 1e-310, 5e-324])
def test_tiny_weights_have_a_bound(size):
    conv = nn.Conv2d(2, 2, 3, padding=1, dtype=torch.float64, bias=False)
    nn.init.constant_(conv.weight, size)
    assert audit(conv, (2, 3, 3)).unproved == []
    assert conv_norm_bound(conv.weight, (3, 3), "zeros") >= 18 * size * (1 - 1e-9)
    assert 4 * size * (1 - 1e-9) <= norm_bound(torch.full((4, 4), size, dtype=torch.float64)) < 1e-100


# ---- random chains of torch's modules, some of them changed afterwards ----


def test_random_chains_are_below_their_bounds():
    found = [draw_one(seed) for seed in range(200)]
    assert [row["seed"] for row in found if exceeds(row)] == []
    assert sum(row["bound"] is not None for row in found) > 100


# ---- what a reviewer found ----


@pytest.mark.parametrize("kernel", [(2,), [2], 2, (2, 2), (2, 1)])
@pytest.mark.parametrize("divisor", [None, 1, -3])
def test_average_pooling_reads_its_kernel_as_torch_does(kernel, divisor):
    pool = nn.AvgPool2d(kernel, divisor_override=divisor)
    found = audit(pool, (2, 4, 4))
    assert found.unproved == []
    assert slope_at(pool, points((2, 4, 4))[1]) == pytest.approx(found.bound, rel=1e-9)


def test_padding_that_mixes_pictures_is_refused():
    assert audit(nn.ZeroPad2d((0, 0, 0, 0, 0, 0, 1, -1)), SHAPE).bound is None


def test_complex_numbers_in_a_folded_layer_are_refused():
    layer = folded("soc")
    layer._buffers["bias"] = layer._buffers["bias"] * 1j
    assert audit(layer, SHAPE).bound is None


def test_the_rounding_that_an_author_states_is_said_to_be_so():
    class Exact(AOLConv2d):
        def rounding_error(self, operator, size, unit):
            return super().rounding_error(operator, size, 0.0)

    found = audit(built(Exact), SHAPE)
    assert found.bound is not None
    assert found.trusted == ["model (Exact, rounding)"]


@pytest.mark.parametrize("given", [("aol", SHAPE), (nn.ReLU, SHAPE), (nn.ReLU(), 5), (nn.ReLU(), None)])
def test_what_is_no_module_or_shape_is_refused_in_a_line(given):
    with pytest.raises(LiprefError):
        audit(*given)
