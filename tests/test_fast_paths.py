"""Every quick way of the shared mathematics against a slow, obvious one: 1e-5 in value, 1e-4 in gradient."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from lipref.layers import LAYERS
from lipref.layers.bcop import _projector_products as projector_products
from lipref.linalg import spectrum
from lipref.linalg.cayley import cayley_transform
from lipref.linalg.elimination import inverse_by_elimination
from lipref.linalg.gram import absolute_gram
from lipref.linalg.padding import adjoint_kernel, conv2d_same
from lipref.linalg.spectrum import apply_symbol, constrained_symbol, kernel_symbol

F64 = torch.float64


def slow_absolute_gram(weight):
    transposed = weight.transpose(0, 1)
    return F.conv2d(transposed, transposed, padding=weight.shape[-1] - 1).abs().sum((2, 3))


def relative(one, other):
    return float((one.detach() - other.detach()).norm() / other.detach().norm())


def gradient(function, argument):
    weights = torch.linspace(-1, 2, argument.shape[1] ** 2, dtype=argument.dtype).view(argument.shape[1], -1)
    return torch.autograd.grad((function(argument) * weights).sum(), argument)[0]


@pytest.mark.parametrize("k", [1, 3, 5])
@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 9))
def test_absolute_gram_is_the_sum_over_taps(k, outputs, inputs, seed):
    weight = torch.randn(outputs, inputs, k, k, dtype=F64, generator=torch.Generator().manual_seed(seed))
    weight.requires_grad_()
    assert torch.allclose(absolute_gram(weight), slow_absolute_gram(weight), rtol=1e-12)
    assert torch.allclose(gradient(absolute_gram, weight), gradient(slow_absolute_gram, weight), rtol=1e-10)


def test_absolute_gram_of_several_kernels_and_its_second_derivative():
    torch.manual_seed(0)
    weights = torch.randn(2, 70, 64, 3, 3, requires_grad=True)
    for found in (absolute_gram(weights), torch.func.vmap(absolute_gram)(weights)):
        assert torch.allclose(found, torch.stack([absolute_gram(weight) for weight in weights]), rtol=1e-5)
    slopes = []
    for weight in (weights[0].detach(), weights[0].detach().double()):
        weight = weight.requires_grad_()
        (slope,) = torch.autograd.grad(absolute_gram(weight).square().sum(), weight, create_graph=True)
        slopes.append(torch.autograd.grad(slope.square().sum(), weight)[0])
    assert relative(*slopes) < 1e-4


@pytest.mark.parametrize("shape", [(128, 128), (200, 130), (130, 200), (256, 256)])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_in_float32_value_and_gradient_are_those_of_float64(shape, scale):
    torch.manual_seed(0)
    weight = (scale * torch.randn(*shape, 3, 3)).requires_grad_()
    precise = weight.detach().double().requires_grad_()
    assert relative(absolute_gram(weight), slow_absolute_gram(precise)) < 1e-5
    assert relative(gradient(absolute_gram, weight), gradient(slow_absolute_gram, precise)) < 1e-4


@pytest.mark.parametrize("near", [0, 1e-9, 1e-7, 1e-3])
def test_zeros_of_the_self_correlation_have_no_sign(near):
    """Training starts from the identity, where all but the diagonal is 0: rounding must not decide the gradient."""
    torch.manual_seed(0)
    weight = torch.nn.init.dirac_(torch.empty(128, 128, 3, 3))
    weight = (weight + near * torch.randn_like(weight)).requires_grad_()
    precise = weight.detach().double().requires_grad_()
    assert relative(gradient(absolute_gram, weight), gradient(slow_absolute_gram, precise)) < 1e-4


def test_a_nan_in_the_kernel_is_a_nan_in_the_gram():
    weight = torch.randn(128, 128, 3, 3)
    weight[3, 5, 0, 1] = torch.nan
    assert absolute_gram(weight)[5].isnan().all()


@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3, 5]))
def test_half_of_a_half_spectrum_is_mapped_to_the_whole(height, width, k):
    weight = torch.randn(3, 3, k, k, dtype=F64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    symbol = kernel_symbol(weight, (height, width))
    seen = []

    def function(matrices):
        seen.append(matrices)
        return cayley_transform(matrices)

    mapped = constrained_symbol(weight, (height, width), function)
    slow = cayley_transform(symbol)
    assert torch.allclose(mapped, slow, atol=1e-12)
    direction = torch.randn(symbol.shape, dtype=symbol.dtype, generator=torch.Generator().manual_seed(1))
    gradients = [torch.autograd.grad((direction.conj() * result).real.sum(), weight)[0] for result in (mapped, slow)]
    assert torch.allclose(*gradients, atol=1e-10)
    real = [matrices for matrices in seen if not matrices.is_complex()]
    pairs = [matrices for matrices in seen if matrices.is_complex()]
    assert sum(map(len, real)) + 2 * sum(map(len, pairs)) == height * width  # every frequency is reckoned with once


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
@pytest.mark.parametrize("scale", [0.01, 0.3, 3.0, 30.0])
@pytest.mark.parametrize("shape", [(3, 16, 16), (20, 16, 16), (2, 10, 33, 33), (20, 21, 9)])
def test_the_cayley_transform_in_float32_is_that_of_float64(shape, dtype, scale):
    torch.manual_seed(0)
    v = (scale * torch.randn(shape, dtype=dtype)).requires_grad_()
    precise = v.detach().to(torch.complex128 if dtype.is_complex else F64).requires_grad_()
    one, other = cayley_transform(v), cayley_transform(precise)
    assert relative(one, other) < 1e-5 * max(1.0, scale)
    weights = torch.randn(shape)
    first, second = (
        torch.autograd.grad((q.real * weights).sum(), argument)[0] for q, argument in ((one, v), (other, precise))
    )
    assert relative(first, second) < 1e-4 * max(1.0, scale)


@pytest.mark.parametrize(("size", "torus"), [((32, 32), (16, 16)), ((4, 7), (6, 9)), ((2, 20), (4, 16))])
def test_cpl_s_estimate_is_the_bilinear_form_and_so_is_its_gradient(size, torus):
    torch.manual_seed(0)
    layer = LAYERS["cpl"](4, 4, 3).double().train()
    before, weight = layer.u.clone(), layer.weight
    u = before[..., : torus[0], : torus[1]]
    with torch.no_grad():
        v = F.normalize(conv2d_same(u, weight, None, "circular").flatten(), dim=0).view_as(u)
        new = conv2d_same(v, adjoint_kernel(weight), None, "circular")
        new = new / new.norm()
    slow = (conv2d_same(new, weight, None, "circular") * v).sum()
    fast = layer._estimate(1, size)
    assert torch.allclose(fast, slow, rtol=1e-12)
    before[..., : torus[0], : torus[1]] = new
    assert torch.allclose(layer.u, before, atol=1e-12)
    slopes = [torch.autograd.grad(value, weight)[0] for value in (fast, slow)]
    assert torch.allclose(*slopes, atol=1e-12)


def slow_projector_products(matrix, frames):
    """By matrix convolution of the 2x2 taps as they are defined."""
    eye = torch.eye(len(matrix), dtype=matrix.dtype)
    p = [frame @ frame.mT for frame in frames]
    taps = {(0, 0): eye}
    for first, second in zip(p[::2], p[1::2], strict=True):
        pair = {(a, b): (first, eye - first)[a] @ (second, eye - second)[b] for a in (0, 1) for b in (0, 1)}
        found = {}
        for (i, j), left in taps.items():
            for (a, b), right in pair.items():
                found[i + a, j + b] = found.get((i + a, j + b), 0) + left @ right
        taps = found
    k = 1 + len(frames) // 2
    blocks = [torch.stack([matrix.mT @ taps[row, column] for row in range(k)]) for column in range(k)]
    return torch.stack(blocks).permute(3, 2, 0, 1)


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize(("n", "m"), [(6, 6), (7, 4), (1, 1)])
def test_projector_products_are_the_matrix_convolution(n, m, k):
    torch.manual_seed(0)
    matrix = torch.randn(n, m, dtype=F64, requires_grad=True)
    frames = torch.randn(2 * (k - 1), n, n // 2, dtype=F64, requires_grad=True)
    fast, slow = (product(matrix, frames) for product in (projector_products, slow_projector_products))
    assert fast.shape == (n, m, k, k)
    assert torch.allclose(fast, slow, rtol=1e-10, atol=1e-10)
    weights = torch.randn(n, m, k, k, dtype=F64)
    leaves = [matrix, frames] if k > 1 else [matrix]
    gradients = [torch.autograd.grad((value * weights).sum(), leaves) for value in (fast, slow)]
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (6, 4), (5, 3)])
@pytest.mark.parametrize("needed", [("x",), ("symbol",), ("x", "symbol")])
def test_the_product_of_spectra_and_its_gradient_are_the_dense_ones(size, needed):
    torch.manual_seed(0)
    precise = {
        "x": torch.randn(3, 4, *size, dtype=F64),
        "symbol": kernel_symbol(torch.randn(5, 4, 3, 3, dtype=F64), size),
    }
    quick = {name: tensor.to(torch.float32 if name == "x" else torch.complex64) for name, tensor in precise.items()}
    weights, found = torch.randn(3, 5, *size, dtype=F64), []
    for tensors in (quick, precise):
        for name in needed:
            tensors[name].requires_grad_()
        y = apply_symbol(**tensors)
        found.append([y, *torch.autograd.grad((y * weights).sum(), [tensors[name] for name in needed])])
    for one, other in zip(*found, strict=True):
        assert relative(one, other) < 1e-5


def test_a_product_that_nothing_is_asked_of_has_no_gradient():
    class Stopped(torch.autograd.Function):
        @staticmethod
        def forward(ctx, y):
            return y.clone()

        @staticmethod
        def backward(ctx, grad):
            return None

    x = torch.randn(2, 3, 4, 4).requires_grad_()
    symbol = torch.randn(4, 3, 5, 3, dtype=torch.complex64).requires_grad_()
    Stopped.apply(apply_symbol(x, symbol)).sum().backward()
    assert x.grad is None
    assert symbol.grad is None


@given(st.integers(1, 3), st.integers(1, 40), st.floats(0, 10), st.integers(0, 99))
def test_elimination_without_pivots_inverts_what_has_a_positive_part(number, side, scale, seed):
    torch.manual_seed(seed)
    a = scale * torch.randn(number, side, side, dtype=torch.complex128)
    half = torch.randn(number, side, side, dtype=torch.complex128)
    matrix = torch.eye(side) + a - a.mH + half @ half.mH
    inverse = inverse_by_elimination(matrix)
    residual = torch.linalg.matrix_norm(matrix @ inverse - torch.eye(side), 2)
    assert float((residual / torch.linalg.cond(matrix)).amax()) < 1e-11


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (6, 4), (5, 3)])
def test_several_kernels_have_the_symbols_of_each(size):
    torch.manual_seed(0)
    weights = torch.randn(3, 5, 4, 3, 3, dtype=F64, requires_grad=True)
    together = constrained_symbol(weights, size, lambda v: v @ v.mH @ v)
    alone = torch.stack([constrained_symbol(weight, size, lambda v: v @ v.mH @ v) for weight in weights], dim=2)
    assert torch.allclose(together, alone, rtol=1e-12, atol=1e-12)
    pull = torch.randn_like(alone)
    slopes = [torch.autograd.grad(value, weights, pull)[0] for value in (together, alone)]
    assert torch.allclose(*slopes, rtol=1e-12, atol=1e-12)


def test_constants_made_in_inference_mode_serve_training():
    spectrum._constants.cache_clear()
    weight = torch.randn(3, 3, 3, 3, requires_grad=True)
    with torch.inference_mode():
        before = constrained_symbol(weight, (4, 6), cayley_transform).clone()
    after = constrained_symbol(weight, (4, 6), cayley_transform)
    after.abs().sum().backward()
    assert torch.equal(before, after)
    assert spectrum._constants.cache_info().misses == 1
