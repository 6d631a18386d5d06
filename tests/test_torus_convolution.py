"""Convolutions in the real Fourier basis of a small torus are those of `conv2d_same`."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lipref.layers import LAYERS, AOLConv2d
from lipref.linalg import torus_convolution
from lipref.linalg.padding import conv2d_same
from lipref.linalg.torus_convolution import convolve, pays

MODES = ("circular", "zeros")


def results(function, x, weight, mode):
    """Value and gradients, of a sum with weights of its own."""
    x, weight = (value.detach().requires_grad_() for value in (x, weight))
    y = function(x, weight, mode)
    grad = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view_as(y)
    return y, *torch.autograd.grad(y, (x, weight), grad)


def direct(x, weight, mode):
    return conv2d_same(x, weight, None, mode)


@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9)), st.sampled_from((1, 3, 5)), st.sampled_from(MODES),
    st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)), st.integers(0, 9),
)  # fmt: skip
def test_it_is_the_direct_convolution_with_its_gradients(size, k, mode, counts, seed):
    draw = torch.Generator().manual_seed(seed)
    images, inputs, outputs = counts
    x = torch.randn(images, inputs, *size, dtype=torch.float64, generator=draw)
    weight = torch.randn(outputs, inputs, k, k, dtype=torch.float64, generator=draw)
    for one, other in zip(results(convolve, x, weight, mode), results(direct, x, weight, mode), strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("side", [4, 8])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_in_float32_value_and_gradients_are_those_of_float64(mode, side, scale):
    torch.manual_seed(0)
    x, weight = torch.randn(4, 64, side, side), scale * torch.randn(64, 64, 3, 3)
    precise = results(direct, x.double(), weight.double(), mode)
    for tolerance, one, other in zip((1e-5, 1e-4, 1e-4), results(convolve, x, weight, mode), precise, strict=True):
        assert (one - other).norm() < tolerance * other.norm()


@pytest.mark.parametrize(("side", "mode", "count"), [(4, "circular", 22), (8, "circular", 94), (4, "zeros", 37)])
def test_it_takes_a_sixth_to_a_quarter_of_the_products(side, mode, count):
    """Of the 9 per place that a direct convolution takes."""
    way = torus_convolution._way(side, side, 3, mode, "cpu", torch.float64)
    torus = side**2 if mode == "circular" else (side + 1) ** 2
    assert (len(way.of_taps), len(way.of_input), len(way.of_output)) == (count, torus, torus)
    assert count < 9 * side**2 * 0.26


@pytest.mark.parametrize("mode", MODES)
def test_it_is_differentiable_as_often_as_one_likes_and_by_torch_func(mode):
    torch.manual_seed(0)
    x = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, weight: convolve(x, weight, mode), (x, weight))
    assert torch.autograd.gradgradcheck(lambda x, weight: convolve(x, weight, mode), (x, weight))
    for argument in (0, 1):
        found, expected = (
            torch.func.jacrev(lambda *given, f=f: f(*given, mode), argument)(x.detach(), weight.detach())
            for f in (convolve, direct)
        )
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


def test_it_pays_for_small_images_of_many_channels_in_training_alone():
    x, weight = torch.zeros(32, 256, 4, 4), torch.zeros(256, 256, 3, 3)
    assert pays(x, weight, "circular")
    assert pays(torch.zeros(256, 256, 4, 4), weight, "zeros")
    assert not pays(x[:1], weight, "circular")  # the kernel's matrices cost more than the product
    assert not pays(torch.zeros(32, 256, 32, 32), weight, "circular")
    assert not pays(x, weight[..., :1, :1], "circular")
    assert not pays(x.double(), weight.double(), "circular")
    assert not pays(x.to("meta"), weight.to("meta"), "circular")
    assert not pays(x[:0], weight, "circular")
    with torch.no_grad():
        assert not pays(x, weight, "circular")


@pytest.mark.parametrize("layer", ["standard", "aol", "bcop"])
def test_layers_take_it_in_training_and_not_in_evaluation(layer, monkeypatch):
    """Where it pays; the function stays the same."""
    torch.manual_seed(0)
    module, x = LAYERS[layer](128, 128, 3), torch.randn(16, 128, 4, 4)
    with torch.no_grad():
        module.bias.normal_()
    calls = []
    monkeypatch.setattr(torus_convolution, "convolve", lambda *given: calls.append(1) or convolve(*given))
    trained = module(x)
    assert calls == [1]
    evaluated = module.eval()(x)
    assert calls == [1]
    torch.testing.assert_close(trained, evaluated, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(4, 4), (24, 24)])
def test_aol_scales_the_smaller_of_images_and_kernel(size):
    torch.manual_seed(0)
    layer = AOLConv2d(6, 6, 3)
    with torch.no_grad():
        layer.weight.normal_()
    x = torch.randn(2, 6, *size)
    y = layer(x)
    gradients = torch.autograd.grad(y.square().sum(), tuple(layer.parameters()))
    slow = conv2d_same(x, layer.effective_kernel(), layer.bias, "circular")
    torch.testing.assert_close(y, slow, rtol=1e-5, atol=1e-5)
    for one, other in zip(
        gradients, torch.autograd.grad(slow.square().sum(), tuple(layer.parameters())), strict=True
    ):  # fmt: skip
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)


def test_a_layer_of_ones_own_keeps_the_kernel_it_defines():
    class Halved(AOLConv2d):
        def effective_kernel(self):
            return 0.5 * super().effective_kernel()

    torch.manual_seed(0)
    layer, x = Halved(4, 4, 3), torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(layer(x), layer.eval()(x))
