"""Every quick way of the shared mathematics against a slow, obvious one: 1e-5 in value, 1e-4 in gradient."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from lipref.layers import LAYERS
from lipref.linalg import cayley, device_inverse, polar, self_correlation, spectrum, sylvester
from lipref.linalg.cayley import cayley_transform
from lipref.linalg.convolution_polynomial import convolution_polynomial
from lipref.linalg.elimination import inverse_by_elimination
from lipref.linalg.gram import input_gram
from lipref.linalg.minimax import cubic_steps
from lipref.linalg.padding import adjoint_kernel, conv2d_same
from lipref.linalg.polar import polar_factor
from lipref.linalg.projector_products import projector_products
from lipref.linalg.self_correlation import absolute_gram, absolute_self_correlation
from lipref.linalg.spectrum import apply_symbol, constrained_symbol, kernel_symbol
from lipref.linalg.sylvester import skew_sylvester

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
    for many in (0, 10**9):
        monkeypatch.setattr(self_correlation, "MANY", many)
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


@pytest.mark.parametrize("needed", [("x",), ("weight",)])
def test_the_exponential_gives_one_gradient_alone(needed):
    torch.manual_seed(0)
    arguments = {"x": torch.randn(2, 3, 4, 4), "weight": 0.1 * torch.randn(3, 3, 3, 3)}
    for name in needed:
        arguments[name].requires_grad_()
    ratios = 1 / torch.arange(1.0, 4.0)
    results = []
    for function in (convolution_polynomial, slow_exponential):
        y = function(arguments["x"], arguments["weight"], ratios, "zeros")
        results.append(torch.autograd.grad(y.square().sum(), [arguments[name] for name in needed])[0])
    assert torch.allclose(*results, rtol=1e-5, atol=1e-5)


def test_the_exponential_keeps_one_tensor():
    x = torch.randn(4, 3, 8, 8, requires_grad=True)
    weight = torch.randn(3, 3, 3, 3, requires_grad=True)
    kept = {}

    def pack(tensor):
        kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = convolution_polynomial(x, weight, 1 / torch.arange(1.0, 6.0), "zeros", recompute=True)
    assert y.requires_grad
    assert sum(kept.values()) == x.numel() + weight.numel() + 5


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


def test_cpl_s_estimate_is_the_bilinear_form_and_so_is_its_gradient():
    torch.manual_seed(0)
    layer = LAYERS["cpl"](4, 4, 3).double().train()
    u, weight = layer.u.clone(), layer.weight
    with torch.no_grad():
        v = F.normalize(conv2d_same(u, weight, None, "circular").flatten(), dim=0).view_as(u)
        new = conv2d_same(v, adjoint_kernel(weight), None, "circular")
        new = new / new.norm()
    slow = (conv2d_same(new, weight, None, "circular") * v).sum()
    fast = layer._estimate(1)
    assert torch.allclose(fast, slow, rtol=1e-12)
    assert torch.allclose(layer.u, new, atol=1e-12)
    slopes = [torch.autograd.grad(value, weight)[0] for value in (fast, slow)]
    assert torch.allclose(*slopes, atol=1e-12)


def slow_polar_factor(a):
    if a.shape[-2] < a.shape[-1]:
        return slow_polar_factor(a.mT).mT
    left, _, right = torch.linalg.svd(a, full_matrices=False)
    return left @ right


def with_values(shape, values, seed=0):
    """A matrix of ``shape`` with these singular values."""
    torch.manual_seed(seed)
    left, _, right = torch.linalg.svd(torch.randn(*shape, dtype=F64), full_matrices=False)
    return (left * values(min(shape[-2:]))) @ right


VALUES = {
    "equal": lambda m: torch.ones(m, dtype=F64),
    "near each other": lambda m: torch.linspace(0.8, 1.2, m, dtype=F64),
    "after training": lambda m: torch.linspace(1, 4, m, dtype=F64),
    "one large": lambda m: torch.cat((torch.full((1,), 5.0, dtype=F64), torch.ones(m - 1, dtype=F64))),
    "steep": lambda m: torch.logspace(0, 1.5, m, dtype=F64),
    "too steep": lambda m: torch.logspace(0, 3, m, dtype=F64),
}


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("shape", [(24, 24), (3, 40, 20), (9, 21), (1, 5), (5, 1)])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("on_cpu", [True, False])
def test_the_polar_factor_in_float32_is_that_of_float64(values, shape, scale, on_cpu, monkeypatch):
    monkeypatch.setattr(polar, "_on_cpu", lambda a: on_cpu)
    precise = with_values(shape, values)
    weight = (scale * precise).float().requires_grad_()
    precise = (weight.detach().double() / scale).requires_grad_()

    def pulled(function, argument):
        weights = torch.linspace(-1, 2, argument.numel(), dtype=argument.dtype).sin().view_as(argument)
        return torch.autograd.grad((function(argument) * weights).sum(), argument)[0]

    assert relative(polar_factor(weight), slow_polar_factor(precise)) < 1e-5
    assert relative(scale * pulled(polar_factor, weight), pulled(slow_polar_factor, precise)) < 1e-4


@pytest.mark.parametrize("least", [1e-3, 1e-4])
@pytest.mark.parametrize("shape", [(64, 64), (64, 32), (256, 256)])
@pytest.mark.parametrize("on_cpu", [True, False])
def test_one_small_singular_value_is_not_taken_for_none(least, shape, on_cpu, monkeypatch):
    """A step moves it by little, and yet it is far from 1."""
    monkeypatch.setattr(polar, "_on_cpu", lambda a: on_cpu)
    a = with_values(shape, lambda m: torch.cat((torch.ones(m - 1, dtype=F64), torch.full((1,), least, dtype=F64))))
    q = polar_factor(a.float())
    assert float(torch.linalg.svdvals(q)[-1]) > 0.9999
    assert relative(q, slow_polar_factor(a)) < 1e-7 / least


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("on_cpu", [True, False])
def test_singular_values_of_zero_stay_and_end_it(dtype, on_cpu, monkeypatch):
    monkeypatch.setattr(polar, "_on_cpu", lambda a: on_cpu)
    steps = []
    monkeypatch.setattr(polar, "_distance", lambda gram, of=polar._distance: steps.append(1) or of(gram))
    a = torch.eye(30, dtype=dtype)
    a[3, 3] = 0
    q = polar_factor(torch.stack((a, torch.zeros_like(a))))
    assert torch.allclose(q, torch.stack((a, torch.zeros_like(a))), atol=1e-6)
    assert len(steps) < 20


@pytest.mark.parametrize("values", ["equal", "after training", "steep"])
def test_the_gradient_of_few_rows_is_that_of_all(values):
    weight = with_values((24, 24), VALUES[values]).float().requires_grad_()
    precise = weight.detach().double().requires_grad_()
    weights = torch.zeros(24, 24, dtype=F64)
    weights[[2, 5]] = torch.linspace(-1, 2, 48, dtype=F64).sin().view(2, 24)
    found = torch.autograd.grad((polar_factor(weight) * weights.float()).sum(), weight)[0]
    expected = torch.autograd.grad((slow_polar_factor(precise) * weights).sum(), precise)[0]
    assert relative(found, expected) < 1e-4
    nothing = torch.autograd.grad((polar_factor(weight) * 0).sum(), weight)[0]
    assert not nothing.any()


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


@given(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12), st.integers(0, 99))
def test_the_polar_factor_of_any_matrix(batch, rows, columns, seed):
    a = torch.randn(batch, rows, columns, dtype=F64, generator=torch.Generator().manual_seed(seed))
    q = polar_factor(a)
    assert float(torch.linalg.matrix_norm(q, 2).amax()) <= 1 + 1e-12
    assert torch.allclose(q, slow_polar_factor(a), atol=1e-9)


@given(st.integers(1, 12), st.floats(0, 0.2), st.integers(0, 99))
def test_the_sylvester_equation_is_solved(count, deviation, seed):
    torch.manual_seed(seed)
    s = torch.randn(2, count, count)
    s = s - s.mT
    basis = torch.linalg.qr(torch.randn(2, count, count))[0]
    h = (basis * (1 + deviation * torch.linspace(-1, 1, count))) @ basis.mT
    x = skew_sylvester(h, s)
    assert x is not None
    assert torch.equal(x, -x.mT)
    assert relative(h @ x + x @ h, s + torch.finfo(s.dtype).tiny) < 1e-5 if count > 1 else not x.any()


@pytest.mark.parametrize("h", [torch.diag(torch.tensor([1.0, 9.0])), torch.full((2, 2), float("nan"))])
def test_the_sylvester_equation_far_from_the_identity_is_left_to_others(h):
    assert skew_sylvester(h, torch.tensor([[0.0, 1.0], [-1.0, 0.0]])) is None


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


@pytest.mark.parametrize("largest", [device_inverse.LARGEST, 0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5, 5), (2, 2, 40, 40), (3, 70, 70)])
@pytest.mark.parametrize("scale", [0.0, 0.5, 3.0])
def test_inverses_as_a_gpu_computes_them(largest, dtype, shape, scale, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(device_inverse, "LARGEST", largest)
    a = scale * torch.randn(*shape, dtype=dtype) / shape[-1] ** 0.5
    matrix = torch.eye(shape[-1]) + a - a.mH
    exact = torch.linalg.inv(matrix.to(torch.complex128))
    assert relative(device_inverse.inverse_on_device(matrix), exact) < 1e-5
    assert relative(cayley._on_device(matrix), exact) < 2e-6
    half = torch.randn(*shape, dtype=dtype) / shape[-1] ** 0.5
    matrix = matrix + half.mH @ half
    assert relative(cayley._on_device(matrix), torch.linalg.inv(matrix.to(torch.complex128))) < 2e-6


@pytest.mark.parametrize("side", [32, 256])
def test_rounding_of_a_few_long_directions_is_noticed(side):
    """Rows are short, but the condition of what Cholesky factorises is large: as of weights after some training."""
    turn = torch.arange(side) * 2 * torch.pi / side
    skew = torch.outer(turn.cos(), turn.sin()) - torch.outer(turn.sin(), turn.cos())
    matrix = (torch.eye(side) + 3.8 * skew / skew.norm(dim=-1).max())[None]
    exact = torch.linalg.inv(matrix.double())
    assert relative(device_inverse.inverse_on_device(matrix), exact) > 4e-6
    assert relative(cayley._on_device(matrix), exact) < 1e-6


def test_an_inverse_that_cannot_be_had_is_not_a_number():
    matrix = torch.eye(33).repeat(2, 1, 1)
    matrix[1, 0, 1], matrix[1, 1, 0] = 1e4, -1e4
    for found in (device_inverse.by_cholesky(matrix), device_inverse.inverse_of_positive(matrix + matrix.mT)):
        assert found[0].isfinite().all()
    for found in (device_inverse.by_cholesky(matrix), device_inverse.inverse_of_positive(-torch.eye(3)[None])):
        assert found[-1].isnan().any() or torch.allclose(found[-1] @ matrix[-1], torch.eye(33), atol=1e-3)


@pytest.mark.parametrize("invert", [device_inverse.by_cholesky, device_inverse.by_factorising])
def test_the_inverse_of_what_is_not_a_number_is_none(invert):
    matrix = torch.eye(40).repeat(2, 1, 1)
    matrix[0, 3, 2] = torch.nan
    assert invert(matrix)[0].isnan().any()


@pytest.mark.parametrize(("low", "steps"), [(0.7, 1), (0.25, 2), (1 / 64, 5), (1e-4, 10)])
def test_cubics_bring_an_interval_near_one_and_never_above(low, steps):
    found = cubic_steps(low, 0.75)
    assert len(found) <= steps
    x = torch.cat((torch.logspace(-9, 0, 4001, dtype=F64), torch.linspace(low, 1, 4001, dtype=F64)))
    y = x
    for linear, cubic in found:
        y = linear * y - cubic * y**3
        assert y.min() >= 0
        assert y.max() <= 1 + 1e-15
    assert y[x >= low].min() >= 0.75
    assert cubic_steps(0.8, 0.75) == ()


@pytest.mark.parametrize("values", VALUES)
def test_the_sylvester_equation_with_few_questions_and_far_from_the_identity(values):
    torch.manual_seed(0)
    h = with_values((2, 24, 24), VALUES[values])
    h = torch.linalg.eigh(h @ h.mT)
    h = (h[1] * h[0].sqrt()[..., None, :]) @ h[1].mT
    s = torch.randn(2, 24, 24, dtype=F64)
    s = s - s.mT
    x, _ = sylvester.skew_sylvester_on_device(h.float(), s.float())
    condition = float(torch.linalg.cond(h).amax())
    assert (x is None) == (condition > 1.01 * sylvester.FARTHEST)
    if x is None:
        return
    eye = torch.eye(24, dtype=F64)
    exact = torch.stack([
        torch.linalg.solve(torch.kron(one, eye) + torch.kron(eye, one), other.flatten()).view(24, 24)
        for one, other in zip(h, s, strict=True)
    ])  # fmt: skip
    assert relative(x, exact) < 1e-4


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
