"""What the audit refuses by name, and that the bound of what it accepts holds."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jacobian import points, slope_at
from specimens import SHAPE, Louder, SameKernel, Twice, behind_an_attribute, mixed_axes, sequence
from torch import nn
from torch.nn.utils import parametrize

from lipref.activations import MaxMin
from lipref.certification.bounds import audit
from lipref.errors import LiprefError
from lipref.layers import LAYERS, Folded
from lipref.nets import FirstChannels, PadChannels

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
