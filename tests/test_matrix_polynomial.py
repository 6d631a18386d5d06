"""1x1 convolutions and their polynomials on images of few places are those made of direct convolutions."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from lipref.layers import LAYERS
from lipref.linalg import matrix_polynomial, padding
from lipref.linalg.convolution_polynomial import convolution_polynomial
from lipref.linalg.padding import conv2d_same, conv2d_same_adjoint

SIZES = ((1, 1), (2, 2), (1, 3), (4, 1))
RATIOS = [1.0, 0.5, 1 / 3, 0.25, 0.2]


def drawn(count, inputs, outputs, size, dtype=torch.float64, seed=0):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(count, inputs, *size, dtype=dtype, generator=draw)
    weight = torch.randn(outputs, inputs, 1, 1, dtype=dtype, generator=draw) / inputs**0.5
    return x.requires_grad_(), weight.requires_grad_(), torch.randn(outputs, dtype=dtype, generator=draw)


def results(y, *inputs):
    return y, *torch.autograd.grad(y, inputs, torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view_as(y))


def agree(found, expected, tolerance=1e-12):
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def slow_polynomial(x, weight, terms):
    y = term = x
    for ratio in RATIOS[:terms]:
        term = ratio * F.conv2d(term, weight)
        y = y + term
    return y


@given(
    st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.sampled_from(SIZES), st.booleans(), st.booleans(),
    st.integers(0, 9),
)  # fmt: skip
def test_a_convolution_is_the_direct_one_with_its_gradients(count, inputs, outputs, size, biased, last, seed):
    x, weight, bias = drawn(count, inputs, outputs, size, seed=seed)
    bias = bias.requires_grad_() if biased else None
    if last:
        x = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    given_ = [x, weight, *([bias] if biased else [])]
    assert padding.trains_by_places(x)
    y = conv2d_same(x, weight, bias, "circular")
    assert y.is_contiguous()
    agree(results(y, *given_), results(F.conv2d(x, weight, bias), *given_))
    z = drawn(count, outputs, 1, size, seed=seed)[0]
    agree(
        results(conv2d_same_adjoint(z, weight, "zeros"), z, weight), results(F.conv_transpose2d(z, weight), z, weight)
    )


@given(
    st.integers(1, 3), st.integers(1, 5), st.sampled_from(SIZES), st.integers(1, 5), st.integers(0, 9), st.booleans()
)
def test_a_polynomial_is_that_of_direct_convolutions_with_its_gradients(count, channels, size, terms, seed, recompute):
    x, weight, _ = drawn(count, channels, channels, size, seed=seed)
    expected = results(slow_polynomial(x, weight, terms), x, weight)
    agree(results(matrix_polynomial.matrix_polynomial(x, weight, RATIOS[:terms], recompute), x, weight), expected)
    ratios = torch.tensor(RATIOS[:terms], dtype=x.dtype)
    agree(results(convolution_polynomial(x, weight, ratios, "zeros", recompute), x, weight), expected)


def test_in_float32_they_are_those_of_float64():
    x, weight, bias = (value.detach().requires_grad_() for value in drawn(8, 64, 64, (2, 2), torch.float32))
    exact = [value.detach().double().requires_grad_() for value in (x, weight, bias)]
    pairs = (
        (results(conv2d_same(x, weight, bias, "zeros"), x, weight, bias), results(F.conv2d(*exact), *exact)),
        (results(matrix_polynomial.matrix_polynomial(x, weight, RATIOS), x, weight),
         results(slow_polynomial(*exact[:2], 5), *exact[:2])),
    )  # fmt: skip
    for found, expected in pairs:
        for tolerance, one, other in zip((1e-5, *[1e-4] * 3), found, expected, strict=False):
            assert (one - other).norm() < tolerance * other.norm()


@pytest.mark.parametrize("recompute", [False, True])
def test_the_polynomial_has_second_derivatives(recompute):
    x, weight, _ = drawn(2, 3, 3, (2, 1))

    def function(x, weight):
        return matrix_polynomial.matrix_polynomial(x, weight, RATIOS[:3], recompute)

    assert torch.autograd.gradcheck(function, (x, weight))
    assert torch.autograd.gradgradcheck(function, (x, weight))


def test_what_is_not_trained_gets_no_gradient():
    for trained in (0, 1):
        given_ = [value.detach() for value in drawn(2, 3, 3, (2, 2))[:2]]
        given_[trained].requires_grad_()
        expected = results(slow_polynomial(*given_, 5), given_[trained])
        agree(results(matrix_polynomial.matrix_polynomial(*given_, RATIOS), given_[trained]), expected)


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")  # torch's own, at its first forward derivative
@pytest.mark.parametrize("recompute", [False, True])
def test_soc_takes_it_in_training_on_images_of_few_places(recompute, monkeypatch):
    torch.manual_seed(0)
    module, x = LAYERS["soc"](8, 8, 1, recompute=recompute), torch.randn(3, 8, 2, 2)
    module.track_power_vectors = False
    calls = []
    function = matrix_polynomial.matrix_polynomial
    monkeypatch.setattr(matrix_polynomial, "matrix_polynomial", lambda *given: calls.append(1) or function(*given))
    y = module(x)
    assert calls == [1]
    monkeypatch.setattr(matrix_polynomial, "pays", lambda *given: False)
    assert (module(x) - y).norm() < 1e-5 * y.norm()
    monkeypatch.undo()
    monkeypatch.setattr(matrix_polynomial, "matrix_polynomial", lambda *given: pytest.fail("not here"))
    module(torch.randn(3, 8, 4, 4))
    torch.func.vmap(lambda x: module(x[None])[0])(x)
    with torch.autograd.forward_ad.dual_level():
        module(torch.autograd.forward_ad.make_dual(x, x))
    module.eval()(x)


def test_evaluation_and_what_counts_operations_are_direct():
    x = torch.randn(2, 3, 2, 2)
    with torch.no_grad():
        assert not padding.trains_by_places(x)
    assert not padding.trains_by_places(torch.randn(2, 3, 3, 2))
    assert not padding.trains_by_places(x[:0])
    assert conv2d_same(x[0], torch.ones(1, 3, 1, 1), None, "zeros").shape == (1, 2, 2)  # one image
    assert not padding.trains_by_places(x[:, :, :0])
    with torch.autocast("cpu"):
        assert not padding.trains_by_places(x)
    with torch._subclasses.FakeTensorMode() as mode:
        assert not padding.trains_by_places(mode.from_tensor(x))


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("side", [1, 2])
def test_a_batch_may_be_empty(layer, side):
    module = LAYERS[layer](4, 4, 1)
    x = torch.randn(0, 4, side, side, requires_grad=True)
    y = module(x)
    assert y.shape == x.shape
    y.sum().backward()
    assert x.grad.shape == x.shape


def test_batches_of_gradients():
    x, weight, _ = drawn(2, 3, 3, (2, 1))
    found = torch.autograd.functional.jacobian(
        lambda *given: matrix_polynomial.matrix_polynomial(*given, RATIOS), (x, weight), vectorize=True
    )
    expected = torch.autograd.functional.jacobian(lambda *given: slow_polynomial(*given, 5), (x, weight))
    agree(found, expected)
