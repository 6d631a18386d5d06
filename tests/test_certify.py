"""Margins, radii and CRA on hand-computed cases; the network's bound."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lipref.attacks.perturbation import judged_margins
from lipref.certification.bounds import network_bound
from lipref.certification.certify import RADII, EvaluationError, Proportion, certified_radii, certify, margins
from lipref.certification.precision import deviation
from lipref.errors import LiprefError
from lipref.layers import LAYERS
from lipref.nets import convnet


def test_margins_by_hand():
    logits = torch.tensor([[3.0, 1.0, 2.0], [1.0, 4.0, 4.0], [0.0, 5.0, 1.0]])
    assert margins(logits, torch.tensor([0, 1, 2])).tolist() == [1.0, 0.0, -4.0]
    with pytest.raises(LiprefError, match="two classes"):
        margins(torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64))


def test_radii_are_exact_fractions():
    assert list(RADII) == [Fraction(36, 255), Fraction(72, 255), Fraction(108, 255), Fraction(1)]


@given(st.floats(1e-3, 1e3), st.floats(0.1, 10))
def test_radius_formula(margin, lipschitz):
    radius = certified_radii(torch.tensor([margin], dtype=torch.float64), lipschitz).item()
    assert radius == pytest.approx(margin / (math.sqrt(2) * lipschitz), rel=1e-15)
    assert radius * math.sqrt(2) * lipschitz <= margin * (1 + 4e-16)


def identity_batches(logits, labels):
    return [(torch.as_tensor(logits, dtype=torch.float32), torch.as_tensor(labels))]


def test_cra_counts_strictly_and_ties_fail():
    step = math.sqrt(2) * 36 / 255
    logits = [[0.0, 0.0], [step * 1.01, 0.0], [step * 0.99, 0.0], [-9.0, 0.0], [9.0, 0.0]]
    found = certify(nn.Identity(), identity_batches(logits, [0, 0, 0, 0, 0]), 1.0)
    assert found.accuracy.count == 3
    assert [share.count for share in found.cra.values()] == [2, 1, 1, 1]


def test_a_margin_exactly_at_the_radius_fails():
    # 1/2 of a margin of sqrt(2): the radius 1 is met exactly at most, never exceeded.
    found = certify(nn.Identity(), [(torch.tensor([[math.sqrt(2), 0.0]], dtype=torch.float64), torch.tensor([0]))], 1.0)
    assert found.cra[Fraction(1)].count == 0


def test_cra_is_divided_by_the_bound():
    logits = identity_batches([[1.0, 0.0]], [0])  # radius 1 / (sqrt(2) L)
    for lipschitz, counts in ((0.5, [1, 1, 1, 1]), (1.0, [1, 1, 1, 0]), (2.0, [1, 1, 0, 0]), (6.0, [0, 0, 0, 0])):
        found = certify(nn.Identity(), logits, lipschitz)
        assert [share.count for share in found.cra.values()] == counts
    unproved = certify(nn.Identity(), logits, None)
    assert not unproved.proved
    assert unproved.as_dict()["lipschitz_bound"] is None


def test_interval_is_clopper_pearson():
    low, high = Proportion(0, 10).interval
    assert low == 0
    assert high == pytest.approx(1 - 0.025**0.1, rel=1e-9)
    low, high = Proportion(7, 10).interval
    assert (low, high) == (pytest.approx(0.3475, abs=1e-4), pytest.approx(0.9333, abs=1e-4))


@pytest.mark.parametrize("bound", [0.0, -1.0, math.inf, math.nan])
def test_impossible_bounds_are_refused(bound):
    with pytest.raises(LiprefError, match="bound"):
        certify(nn.Identity(), identity_batches([[1.0, 0.0]], [0]), bound)


def test_nothing_and_nan_are_refused():
    with pytest.raises(LiprefError, match="no images"):
        certify(nn.Identity(), [], 1.0)
    with pytest.raises(LiprefError, match="not finite"):
        certify(nn.Identity(), identity_batches([[math.nan, 0.0]], [0]), 1.0)


@pytest.mark.parametrize("name", LAYERS)
def test_certification_prepares_anew_in_float64(name):
    torch.manual_seed(0)
    model = convnet("XS", name, 3, 1, 4).eval()
    x, labels = torch.rand(5, 1, 4, 4), torch.tensor([0, 1, 2, 0, 1])
    model(x)
    for parameter in model.parameters():
        parameter.data.mul_(1.5)
    fresh = convnet("XS", name, 3, 1, 4)
    fresh.load_state_dict(model.state_dict())
    bound = network_bound(model).bound
    assert bound == network_bound(fresh).bound
    assert torch.equal(certify(model, [(x, labels)], bound).radii, certify(fresh, [(x, labels)], bound).radii)
    assert certify(model, [(x, labels)], bound).radii.dtype == torch.float64
    assert next(model.parameters()).dtype == torch.float32


@pytest.mark.parametrize("name", LAYERS)
def test_network_bound_holds_between_points(name):
    torch.manual_seed(1)
    model = convnet("XS", name, 5, 1, 8).double().eval()
    audit = network_bound(model)
    assert len(audit.layers) == 17
    if LAYERS[name].proved:
        assert audit.bound <= 1 + 1e-6
    x = torch.rand(20, 1, 8, 8, dtype=torch.float64)
    for scale in (1e-3, 1.0):
        d = scale * torch.randn_like(x)
        change = (model(x + d) - model(x)).norm(dim=1)
        assert (change <= audit.bound * d.flatten(1).norm(dim=1) * (1 + 1e-9)).all()


class Unproved(nn.Conv2d):
    def __init__(self, in_channels, out_channels, kernel_size, bias=True):
        super().__init__(in_channels, out_channels, kernel_size, padding="same", bias=bias)


def test_a_layer_without_a_bound_proves_nothing():
    audit = network_bound(convnet("XS", Unproved, image_size=8))
    assert audit.bound is None
    assert len(audit.unproved) == 17


class Loud(LAYERS["aol"]):
    def forward(self, x):
        return 10 * super().forward(x)


class LoudInside(LAYERS["aol"]):
    def prepare(self, size):
        operator = super().prepare(size)
        return operator | {"weight": 10 * operator["weight"]}


class Halved(LAYERS["aol"]):
    def effective_kernel(self):
        return 0.5 * super().effective_kernel()


class HalvedWithBound(Halved):
    def lipschitz_bound(self, size):
        return LAYERS["standard"].lipschitz_bound(self, size)


def test_an_inherited_bound_says_nothing_of_an_overridden_map():
    for cls in (Loud, LoudInside):
        assert network_bound(convnet("XS", cls, 10, 1, 8)).bound is None
    # Even where the kernel is all that changes: what a class is, its author has to say.
    assert network_bound(convnet("XS", Halved, 10, 1, 8)).bound is None
    assert network_bound(convnet("XS", HalvedWithBound, 10, 1, 8)).bound < 1e-4
    model = convnet("XS", "aol", 10, 1, 8)
    model.head.forward = lambda x: 10 * x
    assert network_bound(model).bound is None


def test_hooks_and_repeated_modules_do_not_slip_through():
    model = convnet("XS", "standard", 10, 1, 8)
    with torch.no_grad():
        model.block0_conv0.weight.mul_(2)
    once = network_bound(model).bound
    model.block0_conv1 = model.block0_conv0
    assert network_bound(model).bound > 1.9 * once
    for register in ("register_forward_hook", "register_forward_pre_hook"):
        model = convnet("XS", "aol", 10, 1, 8)
        getattr(model.block0_act0, register)(lambda *arguments: None)
        assert network_bound(model).bound is None
    with pytest.raises(LiprefError, match="plain ConvNet"):
        network_bound(nn.Sequential(nn.Conv2d(1, 1, 1)))


def test_a_tampered_kept_operator_is_not_certified():
    torch.manual_seed(0)
    model = convnet("XS", "aol", 3, 1, 4).double().eval()
    batch = [(torch.rand(4, 1, 4, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 0]))]
    honest = certify(model, batch, 1.0).radii
    model(batch[0][0])
    model.head._cached[1]["weight"].mul_(100)
    assert torch.equal(certify(model, batch, 1.0).radii, honest)


def test_averaging_over_mirror_images():
    """The certified function is the average of both logits; its Jacobian keeps the bound."""
    torch.manual_seed(0)
    model = convnet("XS", "bcop", 3, 3, 4).eval()
    x, y = torch.rand(16, 3, 4, 4) - 0.5, torch.randint(3, (16,))
    bound = network_bound(model).bound
    found = certify(model, [(x, y)], bound, tta="flip")
    twin = model.double()
    with torch.no_grad():
        logits = (twin(x.double()) + twin(x.double().flip(-1))) / 2
    assert torch.allclose(found.radii, certified_radii(margins(logits, y), bound), rtol=1e-9)
    plain, mirrored = (certify(model, [(z, y)], bound, tta="flip").radii for z in (x, x.flip(-1)))
    assert torch.allclose(plain, mirrored, rtol=1e-9)
    assert not torch.allclose(plain, certify(model, [(x, y)], bound).radii, rtol=1e-3)
    jacobian = torch.autograd.functional.jacobian(lambda z: (twin(z) + twin(z.flip(-1)))[0] / 2, x[:1].double())
    assert torch.linalg.matrix_norm(jacobian.flatten(1), 2) <= bound
    with pytest.raises(LiprefError, match="shift"):
        certify(model, [(x, y)], bound, tta="shift")


# ---- pictures and labels that are another thing ----

PICTURES = torch.rand(4, 1, 4, 4, dtype=torch.float64) - 0.5


@pytest.mark.parametrize(
    ("images", "labels", "says"),
    [
        ((16 * PICTURES).to(torch.uint8), [0, 1, 2, 0], "images are torch.uint8"),
        ((16 * PICTURES).long(), [0, 1, 2, 0], "images are torch.int64"),
        (16 * PICTURES, [0, 1, 2, 0], r"outside of \[-1, 1\]"),
        (PICTURES * math.nan, [0, 1, 2, 0], r"outside of \[-1, 1\]"),
        (PICTURES, [0], r"\(1,\) for 4 pictures"),
        (PICTURES, [[1, 0, 0]] * 4, r"\(4, 3\) for 4 pictures"),
        (PICTURES, [1.0, 2.0, 0.0, 1.0], "labels are torch.float32"),
        (PICTURES, [True, False, True, True], "labels are torch.bool"),
        (PICTURES, [1, 2, 3, 1], "labels from 1 to 3: give 0 to 2"),
        (PICTURES, [-1, 2, 0, 1], "labels from -1 to 2"),
        (PICTURES[:0], [], "no images"),
        (PICTURES[:, 0], [0, 1, 2, 0], r"shape \(4, 4, 4\)"),
        (PICTURES.bfloat16(), [0, 1, 2, 0], "torch.bfloat16"),
        (PICTURES, [1j, 0, 0, 1], "labels are torch.complex64"),
    ],
)
def test_only_a_networks_own_input_is_certified(images, labels, says):
    model = convnet("XS_1x1", "aol", 3, 1, 4)
    with pytest.raises(LiprefError, match=says):
        certify(model, [(images, torch.tensor(labels, dtype=None if labels else torch.int64))], 1.0)
    for kind in (torch.uint8, torch.int32):
        found = certify(model, [(PICTURES, torch.tensor([0, 1, 2, 0], dtype=kind))], 1.0)
        assert torch.equal(found.radii, certify(model, [(PICTURES, torch.tensor([0, 1, 2, 0]))], 1.0).radii)


def test_margins_take_one_class_per_picture():
    for labels in (torch.tensor([0]), torch.tensor([[1, 0]] * 3), torch.tensor([0.0, 1.0, 0.0])):
        with pytest.raises(LiprefError, match="labels are"):
            margins(torch.zeros(3, 2), labels)


@pytest.mark.parametrize("tta", [None, "flip"])
def test_modules_that_work_in_place_leave_the_pictures_alone(tta):
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(16, 3)]
    plain, in_place = (nn.Sequential(nn.ReLU(inplace=each), *layers).double() for each in (False, True))
    images, labels = PICTURES.clone(), torch.tensor([0, 1, 2, 0])
    found = certify(in_place, [(images, labels)], 1.0, tta=tta)
    assert torch.equal(images, PICTURES)
    assert torch.equal(found.radii, certify(plain, [(PICTURES, labels)], 1.0, tta=tta).radii)
    deviation(in_place, [(images, labels)])
    judged_margins(in_place, images, labels, 4)
    assert torch.equal(images, PICTURES)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"pairs": torch.zeros(3, 3)}, "pairs are not positive"),
        ({"pairs": torch.full((3, 3), math.nan)}, "pairs are not positive"),
        ({"error": EvaluationError(-1.0, 0.0)}, "no bound of a rounding"),
        ({"error": EvaluationError(math.nan, 0.0)}, "no bound of a rounding"),
        ({"error": 0.1}, "no bound of a rounding"),
        ({"lipschitz": True}, "not a positive finite number"),
        ({"lipschitz": "1"}, "not a positive finite number"),
        ({"lipschitz": network_bound(convnet("XS_1x1", "aol", 3, 1, 4))}, "`bound` of its audit"),
        ({"batches": (PICTURES, torch.zeros(4))}, "no pair of tensors"),
        ({"batches": [(PICTURES.numpy(), [0, 1, 2, 0])]}, "no pair of tensors"),
    ],
)
def test_numbers_that_prove_nothing_are_refused(options, says):
    given = {"batches": [(PICTURES, torch.tensor([0, 1, 2, 0]))], "lipschitz": 1.0} | options
    with pytest.raises(LiprefError, match=says):
        certify(convnet("XS_1x1", "aol", 3, 1, 4), **given)
