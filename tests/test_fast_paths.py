"""Every quick way of the shared mathematics against a slow, obvious one: 1e-5 in value, 1e-4 in gradient."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from lipref.layers import LAYERS
from lipref.linalg import convolution_polynomial as convolution_polynomial_module
from lipref.linalg import self_correlation, spectrum
from lipref.linalg.cayley import cayley_transform
from lipref.linalg.convolution_polynomial import convolution_polynomial
from lipref.linalg.elimination import inverse_by_elimination
from lipref.linalg.gram import input_gram
from lipref.linalg.padding import adjoint_kernel, conv2d_same
from lipref.linalg.projector_products import projector_products
from lipref.linalg.self_correlation import absolute_gram, absolute_self_correlation
from lipref.linalg.spectrum import apply_symbol, constrained_symbol, kernel_symbol

F64 = torch.float64


def slow_absolute_gram(weight):
    return input_gram(weight).abs().sum((2, 3))


def slow_exponential(x, weight, ratios, mode):
    y = x
    for ratio in ratios.flip(0):
        y = x + ratio * conv2d_same(y, weight, None, mode)
    return y


def relative(one, other):
    return float((one.detach() - other.detach()).norm() / other.detach().norm())


def gradient(function, argument):
    weights = torch.linspace(-1, 2, argument.shape[1] ** 2, dtype=argument.dtype).view(argument.shape[1], -1)
    return torch.autograd.grad((function(argument) * weights).sum(), argument)[0]


@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 9))
def test_absolute_self_correlation_is_the_sum_over_taps(outputs, inputs, seed):
    weight = torch.randn(outputs, inputs, 3, 3, dtype=F64, generator=torch.Generator().manual_seed(seed))
    weight.requires_grad_()
    assert torch.allclose(absolute_self_correlation(weight), slow_absolute_gram(weight), rtol=1e-12)
    assert torch.allclose(gradient(absolute_self_correlation, weight), gradient(slow_absolute_gram, weight), rtol=1e-10)


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


@pytest.mark.parametrize("shape", [(5, 5), (7, 4), (4, 7)])
def test_the_product_of_a_1x1_kernel_and_its_gradient_are_those_of_the_sum_over_taps(shape):
    torch.manual_seed(0)
    weight = torch.randn(*shape, 1, 1, dtype=F64, requires_grad=True)
    assert torch.allclose(absolute_gram(weight), slow_absolute_gram(weight), rtol=1e-12)
    assert torch.allclose(gradient(absolute_gram, weight), gradient(slow_absolute_gram, weight), rtol=1e-12)


def test_a_kernel_near_the_identity_needs_no_sum_over_the_taps(monkeypatch):
    def fail(_):
        raise AssertionError

    torch.manual_seed(0)
    weight = torch.nn.init.dirac_(torch.empty(64, 64, 3, 3)) + 1e-4 * torch.randn(64, 64, 3, 3)
    monkeypatch.setattr(self_correlation, "input_gram", fail)
    absolute_self_correlation(weight)


def test_few_and_many_entries_near_zero_are_summed_alike(monkeypatch):
    torch.manual_seed(0)
    weight = torch.randn(40, 40, 3, 3) * (torch.rand(40, 1, 1, 1) < 0.1)
    weight[:, ::2, 1:] = 0
    results = []
    for few in (0, 10**9):
        monkeypatch.setattr(self_correlation, "FEW", few)
        monkeypatch.setattr(self_correlation, "MOST", few)
        results.append(absolute_self_correlation(weight))
    assert torch.allclose(*results, rtol=1e-6)


def test_a_nan_in_the_kernel_is_a_nan_in_the_gram():
    weight = torch.randn(128, 128, 3, 3)
    weight[3, 5, 0, 1] = torch.nan
    assert absolute_gram(weight)[5].isnan().all()


@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize("size", [(5, 6), (1, 1), (2, 3)])
@pytest.mark.parametrize("terms", [1, 2, 5])
@pytest.mark.parametrize("recompute", [False, True])
def test_the_exponential_and_its_gradient_are_horners(mode, size, terms, recompute):
    torch.manual_seed(0)
    weight = torch.randn(3, 3, 3, 3, dtype=F64)
    weight = (0.2 * (weight - adjoint_kernel(weight))).requires_grad_()
    x = torch.randn(2, 3, *size, dtype=F64, requires_grad=True)
    ratios = 1 / torch.arange(1, terms + 1, dtype=F64)
    results = []
    for function in (convolution_polynomial, slow_exponential):
        y = function(x, weight, ratios, mode)
        results.append(
            (y, *torch.autograd.grad(y, (x, weight), torch.linspace(-1, 1, y.numel(), dtype=F64).view_as(y)))
        )
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("needed", ["x", "weight"])
@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize("recompute", [False, True])
def test_the_exponential_gives_one_gradient_alone(needed, mode, recompute):
    torch.manual_seed(0)
    arguments = {"x": torch.randn(2, 3, 4, 4), "weight": 0.1 * torch.randn(3, 3, 3, 3)}
    arguments[needed].requires_grad_()
    ratios = 1 / torch.arange(1.0, 4.0)
    results = []
    for function, options in ((convolution_polynomial, (recompute,)), (slow_exponential, ())):
        y = function(arguments["x"], arguments["weight"], ratios, mode, *options)
        results.append(torch.autograd.grad(y.square().sum(), arguments[needed])[0])
    assert torch.allclose(*results, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize("trained", [("x",), ("x", "weight")])
def test_the_exponential_that_recomputes_has_second_derivatives(mode, trained):
    torch.manual_seed(0)
    given = {"x": torch.randn(1, 2, 3, 4, dtype=F64), "weight": 0.3 * torch.randn(2, 2, 3, 3, dtype=F64)}
    inputs = tuple(given[name].requires_grad_() for name in trained)
    ratios = 1 / torch.arange(1, 4, dtype=F64)

    def function(*inputs):
        return convolution_polynomial(*(given | dict(zip(trained, inputs, strict=True))).values(), ratios, mode, True)

    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)
    found = torch.autograd.functional.jacobian(function, inputs, vectorize=True)
    for one, other in zip(found, torch.autograd.functional.jacobian(function, inputs), strict=True):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-12)


def test_what_recomputes_makes_no_more_convolutions_than_it_has_to(monkeypatch):
    """All terms forward, all but the last anew, and one call for both gradients of each."""
    x, weight = (torch.randn(*shape, requires_grad=True) for shape in ((2, 3, 9, 9), (3, 3, 3, 3)))
    calls = []
    function = convolution_polynomial_module.conv2d_same
    monkeypatch.setattr(
        convolution_polynomial_module, "conv2d_same", lambda *given: calls.append(1) or function(*given)
    )
    y = convolution_polynomial(x, weight, 1 / torch.arange(1.0, 6.0), "zeros", recompute=True)
    assert len(calls) == 5
    y.sum().backward()
    assert len(calls) == 5 + 4


@pytest.mark.parametrize("trained", [True, False])
def test_what_recomputes_within_an_autocast(trained):
    """Of images that a layer before made in few digits; the backward pass within it or not."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, 9, 9).bfloat16().requires_grad_()
    weight = (0.1 * torch.randn(3, 3, 3, 3)).requires_grad_(trained)
    inputs = (x, weight) if trained else (x,)
    ratios, found = 1 / torch.arange(1.0, 6.0), []
    for recompute in (True, False):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = convolution_polynomial(x, weight, ratios, "zeros", recompute)
            within = torch.autograd.grad(y.sum(), inputs, retain_graph=True)
        after = torch.autograd.grad(y.sum(), inputs)
        assert recompute is False or all(map(torch.equal, within, after))
        found.append(after)
    for one, other in zip(*found, strict=True):
        assert (one.float() - other.float()).norm() < 3e-2 * other.float().norm()


@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(2, 8, 9, 7), (3, 4, 1, 1), (2, 1, 4, 4)])
def test_without_gradients_the_exponential_is_the_same_function(mode, order, shape, monkeypatch):
    """On images that lie in another order; certificates bound the rounding of sums in any order."""
    torch.manual_seed(0)
    x, weight = torch.randn(shape).contiguous(memory_format=order), 0.1 * torch.randn(shape[1], shape[1], 3, 3)
    ratios, given, orders = 1 / torch.arange(1.0, 10.0), x.clone(), []
    function = convolution_polynomial_module.conv2d_same

    def seen(y, *others):
        orders.append(y.is_contiguous(memory_format=torch.channels_last))
        return function(y, *others)

    expected = slow_exponential(x.double(), weight.double(), ratios.double(), mode)
    monkeypatch.setattr(convolution_polynomial_module, "conv2d_same", seen)
    with torch.no_grad():
        y = convolution_polynomial(x, weight, ratios, mode)
    assert all(orders)
    assert len(orders) == 9
    assert y.is_contiguous()
    assert torch.equal(x, given)
    assert (y - expected).norm() <= 1e-6 * expected.norm()


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")  # torch's own, at its first forward derivative
def test_what_recomputes_has_forward_derivatives_and_maps():
    """By the direct way, which keeps all."""
    x, weight = (torch.randn(*shape, requires_grad=True) for shape in ((2, 3, 9, 9), (3, 3, 3, 3)))
    ratios = 1 / torch.arange(1.0, 4.0)
    expected = convolution_polynomial(x, weight, ratios, "zeros")
    found = torch.func.vmap(lambda x: convolution_polynomial(x[None], weight, ratios, "zeros", True)[0])(x)
    assert torch.allclose(found, expected, atol=1e-5)
    with torch.autograd.forward_ad.dual_level():
        dual = convolution_polynomial(torch.autograd.forward_ad.make_dual(x, x), weight, ratios, "zeros", True)
        tangent = torch.autograd.forward_ad.unpack_dual(dual).tangent
        with torch.no_grad():
            dual = convolution_polynomial(torch.autograd.forward_ad.make_dual(x, x), weight, ratios, "zeros")
            other = torch.autograd.forward_ad.unpack_dual(dual).tangent
    for each in (tangent, other):
        assert torch.allclose(each, expected, atol=1e-5)  # it is linear in x


@pytest.mark.parametrize(("channels", "side", "k"), [(8, 8, 3), (64, 4, 3), (8, 9, 3), (8, 2, 1), (8, 4, 1)])
def test_soc_that_recomputes_keeps_one_tensor_and_is_the_same_function(channels, side, k):
    """In the Fourier basis twice, as a product of matrices, and directly with one tap."""
    torch.manual_seed(0)
    layer = LAYERS["soc"](channels, channels, k)
    layer.track_power_vectors = False
    x = torch.randn(64, channels, side, side, requires_grad=True)
    found, kept = [], []
    for layer.recompute in (False, True):
        images = {}

        def pack(tensor, images=images):
            if tensor.numel() >= x.numel() and tensor.data_ptr() != x.data_ptr():
                images[tensor.data_ptr()] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            y = layer(x)
        kept.append(sum(tensor.numel() for tensor in images.values()) / x.numel())
        found.append((y, *torch.autograd.grad(y.square().sum(), (x, *layer.parameters()))))
    assert kept[0] >= 4
    assert kept[1] <= 1  # of 1x1 layers places and images lie in another order
    for one, other in zip(*found, strict=True):
        assert (one - other).norm() <= 1e-5 * other.norm()


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
