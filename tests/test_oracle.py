"""Every method against its formulas written a second time (`oracle.py`), in float64."""

import math

import numpy as np
import oracle
import pytest
import torch

from lipref.layers import LAYERS
from lipref.linalg.norms import conv_norm_bound
from lipref.linalg.spectrum import kernel_symbol

SIZES = [(8, 8), (5, 7), (2, 3)]
CHANNELS = [(3, 3), (2, 3), (3, 2)]
TOLERANCE = {"lot": 1e-9}


def random_layer(name, in_channels, out_channels, k, padding_mode, seed=0, **kwargs):
    """A float64 layer whose every parameter is random; power vectors as constructed."""
    torch.manual_seed(seed)
    layer = LAYERS[name](in_channels, out_channels, k, padding_mode=padding_mode, dtype=torch.float64, **kwargs)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return layer


def arrays(layer):
    return {name: value.detach().numpy().copy() for name, value in layer.state_dict().items()}


def reference(name, layer, x):
    """The oracle's evaluation of the layer."""
    p, mode, size = arrays(layer), layer.padding_mode, x.shape[2:]
    if name == "cpl":
        return oracle.cpl(x, p, mode, oracle.cpl_squared_norm(p["weight"], size, mode))
    if name == "soc":
        return oracle.soc(x, p, mode, layer.out_channels, oracle.soc_kernel(p["weight"]))
    return getattr(oracle, name)(x, p, mode)


def assert_close(actual, expected, tolerance):
    difference = np.abs(actual.detach().numpy() - expected).max()
    assert difference <= tolerance * (1 + np.abs(expected).max()), f"differs by {difference:.2e}"


# Names are written out: a layer that someone registers has no oracle.
METHODS = ["standard", "aol", "bcop", "cayley", "cpl", "lot", "sll", "soc"]
CASES = [
    (name, *channels, k, mode)
    for name in METHODS
    for channels in CHANNELS
    if channels[0] == channels[1] or not LAYERS[name].square_only
    for k in (1, 3, 5)
    for mode in LAYERS[name].padding_modes
]


@pytest.mark.parametrize(("name", "in_channels", "out_channels", "k", "mode"), CASES)
def test_evaluation_is_the_formula(name, in_channels, out_channels, k, mode):
    layer = random_layer(name, in_channels, out_channels, k, mode).eval()
    for size in SIZES:
        x = torch.randn(2, in_channels, *size, dtype=torch.float64)
        assert_close(layer(x), reference(name, layer, x.numpy()), TOLERANCE.get(name, 1e-10))


@pytest.mark.parametrize(
    ("name", "in_channels", "out_channels", "k", "mode"), [c for c in CASES if c[0] not in ("cpl", "soc")]
)
def test_training_is_the_same_formula(name, in_channels, out_channels, k, mode):
    layer = random_layer(name, in_channels, out_channels, k, mode).train()
    x = torch.randn(2, in_channels, 5, 7, dtype=torch.float64)
    assert_close(layer(x), reference(name, layer, x.numpy()), TOLERANCE.get(name, 1e-10))


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize("tracked", [True, False])
def test_cpl_in_training_divides_by_one_power_iteration(k, mode, tracked):
    layer = random_layer("cpl", 3, 3, k, mode).train()
    layer.track_power_vectors = tracked
    for size in SIZES:
        p = arrays(layer)
        x = torch.randn(2, 3, *size, dtype=torch.float64)
        corner = oracle.cpl_corner(p["u"], size, k, mode)
        estimate, u = oracle.cpl_power_iteration(p["weight"], corner, 1)
        if not tracked:
            response = oracle.convolve(corner, p["weight"], "circular")
            estimate, u = np.sqrt((response**2).sum()) / np.sqrt((corner**2).sum()), corner
        assert_close(layer(x), oracle.cpl(x.numpy(), p, mode, estimate**2), 1e-10)
        p["u"][..., : u.shape[-2], : u.shape[-1]] = u
        assert_close(layer.u, p["u"], 1e-12)


@pytest.mark.parametrize("k", [1, 3])
def test_cpl_can_evaluate_with_the_published_estimate(k):
    layer = random_layer("cpl", 3, 3, k, "zeros", eval_iterations=4).eval()
    p = arrays(layer)
    x = torch.randn(2, 3, 5, 7, dtype=torch.float64)
    estimate, _ = oracle.cpl_power_iteration(p["weight"], oracle.cpl_corner(p["u"], (5, 7), k, "zeros"), 4)
    assert_close(layer(x), oracle.cpl(x.numpy(), p, "zeros", estimate**2), 1e-10)
    assert_close(layer.u, p["u"], 0)


@pytest.mark.parametrize(("in_channels", "out_channels"), CHANNELS)
@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("mode", ["zeros", "circular"])
def test_soc_in_training_divides_by_tracked_norms(in_channels, out_channels, k, mode):
    layer = random_layer("soc", in_channels, out_channels, k, mode).train()
    for step, size in enumerate(SIZES):
        layer.track_power_vectors = step < 2
        p = arrays(layer)
        x = torch.randn(2, in_channels, *size, dtype=torch.float64)
        iterations = (50 if int(p["updates"]) % 200 == 0 else 1) if layer.track_power_vectors else 0
        kernel = oracle.soc_training_kernel(p["weight"], p, iterations)
        assert_close(layer(x), oracle.soc(x.numpy(), p, mode, out_channels, kernel, 5), 1e-9)
        for name in ("u1", "v1", "u2", "v2"):
            assert_close(getattr(layer, name), p[name], 1e-9)
        assert int(layer.updates) == min(step + 1, 2)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_soc_evaluates_as_accurately_as_with_the_published_number_of_terms(k):
    layer = random_layer("soc", 3, 3, k, "circular").eval()
    p, x = arrays(layer), torch.randn(2, 3, 5, 7, dtype=torch.float64)
    kernel, radius = oracle.soc_kernel(p["weight"]), 1.0 if k == 1 else 0.7 * k
    exact = oracle.soc(x.numpy(), p, "circular", 3, kernel, 40)
    allowed = 2 * min(1e-5, radius**13 / math.factorial(13)) + 1e-12  # twice: the error, and the division by it
    assert np.linalg.norm(layer(x).detach().numpy() - exact) <= allowed * np.linalg.norm(x.numpy())


def test_soc_can_evaluate_with_the_published_number_of_terms():
    layer = random_layer("soc", 3, 3, 5, "zeros", eval_terms=7).eval()
    p = arrays(layer)
    x = torch.randn(2, 3, 5, 7, dtype=torch.float64)
    assert_close(layer(x), oracle.soc(x.numpy(), p, "zeros", 3, oracle.soc_kernel(p["weight"]), 7), 1e-10)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_the_four_unfoldings_of_a_skew_kernel_come_in_pairs(k):
    rng = np.random.default_rng(0)
    norms = [np.linalg.norm(u, 2) for u in oracle.unfoldings(oracle.skew_kernel(rng.standard_normal((4, 4, k, k))))]
    assert norms[0] == pytest.approx(norms[1], rel=1e-12)
    assert norms[2] == pytest.approx(norms[3], rel=1e-12)


# --- the oracle's own parts against each other, and the library's spectrum against both -----------------------------


@pytest.mark.parametrize("size", [(8, 8), (5, 7), (2, 3), (1, 1), (1, 4)])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_symbol_is_the_convolution_in_the_frequency_domain(size, k):
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((3, 2, k, k))
    x = rng.standard_normal((2, 2, *size))
    symbol = oracle.symbol(kernel, size)
    np.testing.assert_allclose(oracle.apply_symbol(x, symbol), oracle.convolve(x, kernel, "circular"), atol=1e-11)
    half = kernel_symbol(torch.tensor(kernel), size).numpy()
    np.testing.assert_allclose(half, symbol[:, : size[1] // 2 + 1], atol=1e-12)


def test_symbol_is_the_conjugate_fft_of_the_kernel_centred():
    """On images no smaller than the kernel: the whole spectrum by NumPy's FFT."""
    kernel, (height, width) = np.random.default_rng(0).standard_normal((3, 2, 3, 3)), (7, 6)
    spectrum = np.conj(np.fft.fft2(kernel, s=(height, width)))
    f1, f2 = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    centred = np.exp(-2j * np.pi * (f1 / height + f2 / width)) * spectrum
    np.testing.assert_allclose(np.moveaxis(centred, (0, 1), (2, 3)), oracle.symbol(kernel, (height, width)), atol=1e-12)


@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize("size", [(5, 4), (2, 3), (1, 1)])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_the_dense_matrix_agrees_and_its_norm_is_bounded(mode, size, k):
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((3, 2, k, k))
    x, y = rng.standard_normal((1, 2, *size)), rng.standard_normal((1, 3, *size))
    matrix = oracle.convolution_matrix(kernel, size, mode)
    np.testing.assert_allclose(matrix @ x.ravel(), oracle.convolve(x, kernel, mode).ravel(), atol=1e-12)
    np.testing.assert_allclose(y.ravel() @ matrix, oracle.convolve_adjoint(y, kernel, mode).ravel(), atol=1e-12)
    norm, bound = np.linalg.norm(matrix, 2), conv_norm_bound(torch.tensor(kernel), size, mode)
    grid = size if mode == "circular" else (size[0] + k - 1, size[1] + k - 1)
    assert norm <= bound * (1 + 1e-14)
    assert bound == pytest.approx(oracle.convolution_norm(kernel, grid, "circular"), rel=1e-10)
    assert bound >= oracle.convolution_norm(kernel, grid, "circular")
