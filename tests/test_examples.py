"""The layers of examples/ keep what they promise."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jacobian import impulse_jacobian

from lipref.certification.bounds import network_bound
from lipref.layers import SOCConv2d, resolve
from lipref.nets import convnet
from lipref.paths import ROOT

SOC4 = resolve(f"{ROOT / 'examples' / 'soc4.py'}:SOC4").cls


def largest(cls, k, seed, scale, training):
    """The norm of the layer's linear part, with sigma where it has converged to."""
    torch.manual_seed(seed)
    layer = cls(3, 3, k, bias=False, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.mul_(scale)
        layer.weight[0, 1, 0, 0] += 3 * scale  # one long direction
    layer.train()
    for _ in range(2):
        layer.updates = 0  # 50 iterations again
        layer(torch.zeros(1, 3, 4, 4, dtype=torch.float64))
    layer.train(training)
    jacobian = impulse_jacobian(layer, 3, (4, 4))
    return float(torch.linalg.matrix_norm(jacobian, 2))


@settings(max_examples=20)
@given(st.sampled_from([1, 3]), st.integers(0, 99), st.floats(0.01, 10), st.booleans())
def test_four_terms_do_not_expand_in_training_either(k, seed, scale, training):
    assert largest(SOC4, k, seed, scale, training) <= 1 + 1e-12


def test_five_terms_do():
    assert max(largest(SOCConv2d, 3, seed, 1.0, True) for seed in range(5)) > 1 + 1e-5


def test_it_is_proved_and_evaluation_is_what_was_trained():
    layer = SOC4(4, 4, 3).eval()
    assert layer.lipschitz_bound((8, 8)) <= 1 + 1e-9
    assert len(layer.operator((8, 8))["ratios"]) == len(layer.train().prepare((8, 8))["ratios"]) == 4
    bound = network_bound(convnet("XS", SOC4, image_size=8)).bound
    assert bound == pytest.approx(1, abs=1e-6)


def test_soc_that_recomputes_trains_as_soc():
    """The whole network's gradients, with two images and the same weights."""
    lean = resolve(f"{ROOT / 'examples' / 'soc_recompute.py'}:SOCRecompute").cls
    images, found = torch.randn(2, 3, 16, 16), []
    for layer in (SOCConv2d, lean):
        torch.manual_seed(0)
        model = convnet("XS", layer, image_size=16)
        assert all(getattr(module, "recompute", layer is lean) == (layer is lean) for module in model)
        found.append(torch.autograd.grad(model(images).square().sum(), tuple(model.parameters())))
    for one, other in zip(*found, strict=True):
        assert (one - other).norm() <= 1e-4 * other.norm()
