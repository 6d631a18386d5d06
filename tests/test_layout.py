"""Images with their channels innermost, as networks train quickest on a CPU: the same numbers in another order."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lipref import nets
from lipref.activations import MaxMin
from lipref.forward import Forward
from lipref.layers import LAYERS, layout
from lipref.layers.layout import laid_out
from lipref.linalg.padding import adjoint_kernel, circular_pad, conv2d_same, conv2d_same_adjoint
from lipref.nets import FirstChannels, convnet
from lipref.speed import Speed

INNERMOST = torch.channels_last


def innermost(x):
    return x.is_contiguous(memory_format=INNERMOST) and not x.is_contiguous()


@given(st.integers(1, 6), st.integers(1, 6), st.integers(2, 5), st.integers(1, 2), st.integers(0, 9))
def test_circular_padding_is_the_same_in_either_order(height, width, channels, pad, seed):
    torch.manual_seed(seed)
    x = torch.randn(2, channels, height, width, dtype=torch.float64, requires_grad=True)
    other = x.detach().contiguous(memory_format=INNERMOST).requires_grad_()
    y, same = circular_pad(x, pad), circular_pad(other, pad)
    assert torch.equal(y, same)
    if innermost(other) and pad <= min(height, width):
        assert innermost(same)
    grad = torch.randn_like(y)
    given = grad.contiguous(memory_format=INNERMOST)
    expected = torch.autograd.grad(y, x, grad)[0]
    torch.testing.assert_close(torch.autograd.grad(same, other, given)[0], expected, rtol=1e-12, atol=1e-12)


def test_circular_padding_with_channels_innermost_has_second_derivatives():
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64).contiguous(memory_format=INNERMOST).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: circular_pad(x, 1), x)
    assert torch.autograd.gradgradcheck(lambda x: circular_pad(x, 1) ** 3, x)


@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("size", [(5, 6), (1, 1), (2, 3)])
def test_the_adjoint_convolution_needs_no_adjoint_kernel(mode, k, size):
    torch.manual_seed(0)
    y, weight = torch.randn(2, 4, *size, dtype=torch.float64), torch.randn(4, 3, k, k, dtype=torch.float64)
    expected = conv2d_same(y, adjoint_kernel(weight), None, mode)
    torch.testing.assert_close(conv2d_same_adjoint(y, weight, mode), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("given_order", [torch.contiguous_format, INNERMOST])
def test_first_channels_give_a_gradient_in_the_order_of_the_images(given_order):
    module = FirstChannels(3)
    for order in (torch.contiguous_format, INNERMOST):
        x = torch.randn(2, 5, 4, 4).contiguous(memory_format=order).requires_grad_()
        y = module(x)
        assert torch.equal(y, x[:, :3])
        grad = torch.randn(2, 3, 4, 4).contiguous(memory_format=given_order)
        found = torch.autograd.grad(y, x, grad)[0]
        assert found.is_contiguous(memory_format=order)
        assert torch.equal(found[:, :3], grad)
        assert not found[:, 3:].any()


def test_only_this_librarys_convolutions_get_channels_innermost():
    x = torch.randn(2, 8, 16, 16)

    class Own(LAYERS["aol"]):
        def transform(self, x, operator):
            return super().transform(x.view(x.shape), operator)

    assert innermost(laid_out(x, LAYERS["aol"](8, 8, 3)))
    assert not innermost(laid_out(x.double(), LAYERS["aol"](8, 8, 3).double()))
    other = x.contiguous(memory_format=INNERMOST)
    for module in (LAYERS["cayley"](8, 8, 3), Own(8, 8, 3)):
        assert laid_out(other, module).is_contiguous()
    assert laid_out(x[:, :, :4, :4], LAYERS["aol"](8, 8, 3)).is_contiguous()
    assert laid_out(other, MaxMin()) is other
    with torch.no_grad():
        assert not innermost(laid_out(x, LAYERS["aol"](8, 8, 3)))


@pytest.mark.parametrize("layer", ["standard", "aol", "bcop", "cayley", "cpl", "lot", "sll", "soc"])
def test_a_network_trains_as_it_does_row_by_row(layer, monkeypatch):
    torch.manual_seed(0)
    x, labels = torch.rand(4, 3, 32, 32), torch.arange(4)
    results = []
    for number in range(2):
        torch.manual_seed(1)
        model = convnet("XS", layer).train()
        orders = []
        model.block0_act0.register_forward_hook(
            lambda _, inputs, __, orders=orders: orders.append(innermost(inputs[0]))
        )
        if number:
            monkeypatch.setattr(nets, "laid_out", lambda x, module: x)
        logits = model(x)
        nn.functional.cross_entropy(logits, labels).backward()
        results.append((logits, [p.grad for p in model.parameters() if p.grad is not None]))
        assert orders == [not number and layer not in ("cayley", "lot")]
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-4, atol=1e-5)
    for one, other in zip(results[0][1], results[1][1], strict=True):
        assert (one - other).norm() <= 1e-4 * other.norm() + 1e-7


def test_the_gradient_comes_back_in_the_order_that_the_images_had():
    x = torch.randn(2, 8, 16, 16).contiguous(memory_format=INNERMOST).requires_grad_()
    y = layout._InOrder.apply(x, torch.contiguous_format)
    assert y.is_contiguous()
    assert innermost(torch.autograd.grad(y, x, torch.randn(2, 8, 16, 16))[0])


def test_batched_gradients_of_a_whole_network_are_those_one_by_one():
    torch.manual_seed(0)
    model = convnet("XS", "standard").train()
    x = torch.rand(2, 3, 32, 32)

    def loss(picture):
        return model(picture[None]).square().sum()

    together = torch.func.vmap(torch.func.grad(loss))(x)
    for picture, found in zip(x, together, strict=True):
        torch.testing.assert_close(found, torch.func.grad(loss)(picture), rtol=1e-4, atol=1e-5)
    assert torch.func.jacrev(lambda picture: model(picture[None])[0])(x[0]).shape == (10, 3, 32, 32)


class Viewing(nn.Module):
    def forward(self, x):
        return x.view(len(x), -1).view(x.shape)


def test_modules_of_ones_own_may_view_their_images():
    class Own(LAYERS["aol"]):
        def forward(self, x):
            return super().forward(x.view(len(x), -1).view(x.shape))

    x = torch.randn(2, 8, 16, 16).contiguous(memory_format=INNERMOST)
    hooked = LAYERS["aol"](8, 8, 3)
    hooked.register_forward_hook(lambda _, __, y: y.view(len(y), -1).view(y.shape))
    for module in (nn.Sequential(nn.ReLU(), Viewing()), Own(8, 8, 3), hooked):
        given = laid_out(x, module)
        assert given.is_contiguous()
        module(given)
    frozen = LAYERS["aol"](8, 8, 3).eval()
    assert laid_out(x, frozen).is_contiguous()


def test_what_first_channels_give_may_be_changed_in_place():
    x = torch.randn(2, 8, 4, 4).contiguous(memory_format=INNERMOST).requires_grad_()
    nn.Sequential(FirstChannels(4), nn.ReLU(inplace=True))(
        x.clone(memory_format=torch.preserve_format)
    ).sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize("layer", ["standard", "aol", "sll", "soc"])
def test_bfloat16_trains_small_images_of_many_channels(layer):
    """Within autocast nothing is convolved in the Fourier basis."""
    torch.manual_seed(0)
    model = convnet("S", layer).train()
    logits = Forward(model, Speed(precision="bf16"), None)(torch.rand(16, 3, 32, 32))
    logits.sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
