"""The bounds of rounding hold, and what they bound is taken off the margins."""

import math

import pytest
import torch

from lipref.certification.bounds import network_bound
from lipref.certification.certify import EvaluationError, certify
from lipref.certification.float_error import evaluation_error
from lipref.errors import LiprefError
from lipref.layers import LAYERS
from lipref.layers import frequency as frequency_layers
from lipref.linalg.float_error import absolute_norm, gamma
from lipref.linalg.spectrum import apply_symbol_densely, kernel_symbol
from lipref.nets import convnet

SINGLE = 2.0**-24


def rounded(operator, real, complex_):
    return {name: value.to(complex_ if value.is_complex() else real) for name, value in operator.items()}


@pytest.mark.parametrize("name", LAYERS)
def test_float32_is_within_its_bound_of_float64(name, monkeypatch):
    """The same bound with float32's roundoff: float64 stands in for the real numbers."""
    monkeypatch.setattr(frequency_layers, "apply_symbol", apply_symbol_densely)
    torch.manual_seed(0)
    closest = 0.0
    for channels, kernel_size, side in ((1, 3, 5), (3, 1, 4), (4, 5, 3), (8, 3, 8), (24, 3, 7)):
        for padding_mode in LAYERS[name].padding_modes:
            layer = LAYERS[name](channels, channels, kernel_size, padding_mode=padding_mode)
            for parameter in layer.parameters():
                parameter.data.add_(0.3 * torch.randn_like(parameter))
            size = (side, side)
            operator = rounded(layer.double().eval().operator(size), torch.float32, torch.complex64)
            exact = rounded(operator, torch.float64, torch.complex128)
            bound = layer.rounding_error(exact, size, SINGLE)
            x = torch.randn(4, channels, *size) * torch.logspace(-3, 3, 4)[:, None, None, None]
            with torch.no_grad():
                error = layer.transform(x, operator).double() - layer.transform(x.double(), exact)
                at_zero = layer.transform(torch.zeros_like(x[:1], dtype=torch.float64), exact)
            error = error.flatten(1).norm(dim=1)
            allowed = bound.slope * x.double().flatten(1).norm(dim=1) + bound.constant
            assert (error <= allowed).all()
            assert float(at_zero.norm()) <= bound.at_zero * (1 + 1e-9)
            closest = max(closest, float((error / allowed).max()))
    assert closest > 1e-3  # a bound of no use would pass anything


def test_dense_transforms_are_the_fast_ones():
    torch.manual_seed(0)
    for side in (1, 2, 5, 8, 9):
        weight = torch.randn(3, 2, 3, 3, dtype=torch.float64)
        x, symbol = torch.randn(2, 2, side, side, dtype=torch.float64), kernel_symbol(weight, (side, side))
        spectrum = torch.fft.rfft2(x).permute(2, 3, 1, 0)
        fast = torch.fft.irfft2((symbol @ spectrum).permute(3, 2, 0, 1), s=(side, side))
        torch.testing.assert_close(apply_symbol_densely(x, symbol), fast)


@pytest.mark.parametrize("name", LAYERS)
def test_the_error_of_a_network_is_small_and_holds(name):
    torch.manual_seed(0)
    model = convnet("XS", name, 10, 1, 8).double().eval()
    error = evaluation_error(model, network_bound(model))
    x = torch.rand(8, 1, 8, 8, dtype=torch.float64) - 0.5
    allowed = error.at(x.flatten(1).norm(dim=1))
    assert allowed.max() < 1e-7
    # The same numbers, summed in another order: images one by one, and mirrored channels of the first layers' sums.
    with torch.no_grad():
        together = model(x)
        alone = torch.cat([model(image[None]) for image in x])
    assert ((together - alone).norm(dim=1) <= 2 * allowed).all()


def test_the_rounding_is_taken_off_the_margin():
    model = torch.nn.Flatten()
    margin = 0.5 + 2.0**-30
    images = torch.tensor([[margin, 0.0], [0.0, 0.0]], dtype=torch.float64)[:, :, None, None]
    labels = torch.tensor([0, 0])
    plain = certify(model, [(images, labels)], 1.0)
    careful = certify(model, [(images, labels)], 1.0, EvaluationError(1e-3, 1e-4))
    lost = math.sqrt(2) * (1e-3 * margin + 1e-4)
    assert float(careful.radii[0]) == pytest.approx((margin - lost) / math.sqrt(2), rel=1e-8)
    assert careful.radii[0] < plain.radii[0] <= margin / math.sqrt(2)
    assert careful.radii[1] < 0
    assert careful.as_dict()["largest_evaluation_error"] == pytest.approx(1e-3 * margin + 1e-4)


def test_a_margin_within_the_rounding_certifies_nothing():
    images = torch.tensor([1e-13, 0.0], dtype=torch.float64).reshape(1, 2, 1, 1)
    label = torch.tensor([0])
    assert certify(torch.nn.Flatten(), [(images, label)], 1.0).radii[0] > 0
    assert certify(torch.nn.Flatten(), [(images, label)], 1.0, EvaluationError(0.0, 1e-12)).radii[0] < 0


def test_networks_that_underflow_are_not_bounded():
    """All activations are zero in float64, and are not in real numbers: later layers bring them back."""
    torch.manual_seed(0)
    model = convnet("XS", "standard", 10, 1, 8).double().eval()
    convs = [module for module in model.modules() if isinstance(module, LAYERS["standard"])]
    with torch.no_grad():
        for place, module in enumerate(convs):
            module.weight *= 1e-30 if place < 11 else 1e65
    audit = network_bound(model)
    assert audit.bound is not None
    assert evaluation_error(model, audit).unbounded[0]
    with torch.no_grad():
        for module in convs:
            module.weight.fill_(0)
        convs[0].weight[0, 0] = 1e7
    assert evaluation_error(model, network_bound(model)).unbounded == ("first",)


def test_a_layer_without_a_bound_of_its_rounding_is_named():
    model = convnet("XS", "examples/my_layer.py:MyConv", 10, 1, 8)
    error = evaluation_error(model, network_bound(model))
    assert error.slope is None
    assert "first" in error.unbounded


def test_absolute_norms_and_gamma():
    torch.manual_seed(0)
    for shape in ((3, 5), (4, 4), (2, 6, 3)):
        matrices = torch.randn(shape, dtype=torch.complex128)
        assert absolute_norm(matrices) >= float(torch.linalg.matrix_norm(matrices.abs(), 2).max())
    assert gamma(100, SINGLE) > 100 * SINGLE


def test_averaging_over_mirror_images_keeps_the_constant():
    """The averaged map's Jacobian does not exceed the bound, and its margins are those of the average."""
    torch.manual_seed(0)
    model = convnet("XS", "aol", 10, 1, 8).double().eval()
    audit = network_bound(model)
    error = evaluation_error(model, audit)
    images, labels = torch.rand(6, 1, 8, 8, dtype=torch.float64) - 0.5, torch.arange(6)
    plain, averaged = (certify(model, [(images, labels)], audit.bound, error, tta) for tta in (None, "flip"))
    mirrored = certify(model, [(images.flip(-1), labels)], audit.bound, error, "flip")
    torch.testing.assert_close(averaged.radii, mirrored.radii, rtol=0, atol=1e-12)  # the average is symmetric
    assert not torch.allclose(averaged.radii, plain.radii)
    x = images[0]

    def average(x):
        return (model(x[None]) + model(x[None].flip(-1)))[0] / 2

    jacobian = torch.autograd.functional.jacobian(average, x).flatten(1)
    assert float(torch.linalg.matrix_norm(jacobian, 2)) <= audit.bound * (1 + 1e-12)
    assert (averaged.errors >= plain.errors).all()
    with pytest.raises(LiprefError, match="rotate"):
        certify(model, [(images, labels)], audit.bound, error, "rotate")
