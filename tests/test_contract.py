"""The contract that every layer keeps: it does not expand, its bound holds, its gradients are right.

Everything is held against the dense float64 Jacobian of the layer in evaluation.
"""

import pytest
import torch
from contract import METHODS, RESIDUAL, SAME_IN_TRAINING, build, cases, distance, randomise, train_briefly
from hypothesis import given, settings
from hypothesis import strategies as st
from jacobian import activate_every_relu, impulse_jacobian, jacobian_at

from lipref.layers import CPLConv2d, SOCConv2d

SHAPES = [  # in_channels, out_channels, kernel size, image
    (1, 1, 1, (1, 1)),
    (1, 1, 3, (3, 5)),
    (2, 2, 5, (2, 2)),
    (3, 3, 3, (7, 6)),
    (3, 3, 1, (8, 8)),
    (5, 5, 5, (3, 5)),
    (8, 8, 3, (5, 3)),
    (32, 32, 3, (2, 2)),
    (1, 2, 3, (1, 1)),
    (2, 5, 3, (7, 6)),
    (5, 2, 5, (3, 5)),
    (8, 3, 1, (2, 2)),
    (3, 32, 3, (2, 2)),
]


def largest(jacobian: torch.Tensor) -> float:
    return float(torch.linalg.matrix_norm(jacobian, 2))


def assert_bound_holds(layer, name: str, size: tuple[int, int]) -> None:
    """Singular values <= bound <= 1: with every ReLU active, at random points, and between pairs of points."""
    layer.eval()
    channels = layer.in_channels
    points = torch.randn(2, channels, *size, dtype=torch.float64)
    jacobians = {}
    if name in RESIDUAL:
        jacobians["at a random point"] = jacobian_at(layer, points[0])
        jacobians["at a far point"] = jacobian_at(layer, 1e3 * points[1])
    if name not in RESIDUAL:
        jacobians["of the affine map"] = impulse_jacobian(layer, channels, size)
    bound = layer.lipschitz_bound(size)
    near = points + 1e-3 * torch.randn_like(points)
    with torch.no_grad():
        for other in (points.flip(0), near):
            stretch = (layer(points) - layer(other)).flatten(1).norm(dim=1) / (points - other).flatten(1).norm(dim=1)
            assert float(stretch.max()) <= bound * (1 + 1e-9)
    if name in RESIDUAL and layer.bias is not None:
        activate_every_relu(layer)
        assert layer.lipschitz_bound(size) == bound  # the bias has no say
        jacobians["with every ReLU active"] = impulse_jacobian(layer, channels, size)
    for where, jacobian in jacobians.items():
        assert largest(jacobian) <= bound * (1 + 1e-9), where
    if layer.proved:
        assert bound <= 1 + 1e-6


@pytest.mark.parametrize("weights", ["initial", "trained", 1e-3, 1e3])
@pytest.mark.parametrize(("name", "in_channels", "out_channels", "k", "size", "mode"), cases(*SHAPES))
def test_the_bound_holds(name, in_channels, out_channels, k, size, mode, weights):
    layer = build(name, in_channels, out_channels, k, mode)
    if weights == "trained":
        train_briefly(layer, size)
    elif weights != "initial":
        randomise(layer, weights)
    assert_bound_holds(layer, name, size)


@pytest.mark.parametrize("name", METHODS)
@settings(max_examples=25)
@given(data=st.data())
def test_the_bound_holds_for_any_weights(name, data):
    channels = st.sampled_from([1, 2, 3, 4, 6])
    in_channels = data.draw(channels)
    out_channels = in_channels if METHODS[name].square_only else data.draw(channels)
    size = data.draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    mode = data.draw(st.sampled_from(METHODS[name].padding_modes))
    layer = build(
        name, in_channels, out_channels, data.draw(st.sampled_from([1, 3, 5])), mode, bias=data.draw(st.booleans())
    )
    with torch.no_grad():
        for parameter in layer.parameters():  # each at a scale of its own
            scale = 10 ** data.draw(st.floats(-3, 3))
            parameter.copy_(scale * torch.randn_like(parameter))
    assert_bound_holds(layer, name, size)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("edit", ["zero", "one tap", "equal channels"])
def test_the_bound_holds_for_degenerate_weights(name, edit):
    for mode in METHODS[name].padding_modes:
        layer = randomise(build(name, mode=mode))
        with torch.no_grad():
            for parameter_name, parameter in layer.named_parameters():
                if parameter_name == "bias":
                    continue
                if edit == "zero":
                    parameter.zero_()
                elif edit == "one tap" and parameter.dim() == 4:
                    parameter[..., 1:, :] = 0
                    parameter[..., 1:] = 0
                elif edit == "equal channels" and parameter.dim() >= 2:
                    parameter[1:] = parameter[:1]
        assert bool(layer.eval()(torch.randn(1, 4, 5, 4, dtype=torch.float64)).isfinite().all())
        assert_bound_holds(layer, name, (5, 4))


def test_the_bound_of_the_plain_convolution_is_its_norm():
    layer = randomise(build("standard", 3, 2, 3, "circular"))
    assert layer.lipschitz_bound((7, 6)) == pytest.approx(largest(impulse_jacobian(layer, 3, (7, 6))), rel=1e-9)


@pytest.mark.parametrize("mode", CPLConv2d.padding_modes)
def test_cpl_as_published_says_that_it_may_expand(mode):
    layer = randomise(build("cpl", mode=mode, eval_iterations=1)).eval()
    layer.u.copy_(torch.randn_like(layer.u))
    bound = layer.lipschitz_bound((6, 5))
    activate_every_relu(layer)
    true = largest(impulse_jacobian(layer, 4, (6, 5)))
    assert 1.001 < true <= bound
    if mode == "circular":
        assert bound == pytest.approx(true, rel=1e-9)


@pytest.mark.parametrize("mode", SOCConv2d.padding_modes)
def test_soc_with_few_terms_says_that_it_expands(mode):
    layer = build("soc", mode=mode, eval_terms=2).eval()
    true = largest(impulse_jacobian(layer, 4, (6, 5)))
    bound = layer.lipschitz_bound((6, 5))
    assert 1.001 < true <= bound
    if mode == "circular":
        assert bound == pytest.approx(true, rel=1e-9)


@pytest.mark.parametrize("weights", ["initial", "trained", 1.0])
@pytest.mark.parametrize(
    ("name", "in_channels", "out_channels", "k", "size"),
    [(name, *shape) for name in ("bcop", "cayley") for shape in SHAPES]
    + [("soc", *shape) for shape in SHAPES if shape[0] == shape[1] and shape[2] <= 3],
)
def test_orthogonal_methods_keep_every_length(name, in_channels, out_channels, k, size, weights):
    """Cayley and BCOP on the torus (isometry, or adjoint of one, for unequal channels); SOC up to its cut series."""
    for mode in ("circular", "zeros") if name == "soc" else ("circular",):
        layer = build(name, in_channels, out_channels, k, mode)
        if weights == "trained":
            train_briefly(layer, size)
        elif weights == 1.0:
            randomise(layer)
        values = torch.linalg.svdvals(impulse_jacobian(layer.eval(), in_channels, size))
        assert float((values - 1).abs().max()) <= (5e-6 if name == "soc" else 1e-6)


# --- training -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "in_channels", "out_channels", "k", "size", "mode"), cases(*SHAPES, methods=SAME_IN_TRAINING)
)
def test_training_and_evaluation_are_the_same_function(name, in_channels, out_channels, k, size, mode):
    layer = randomise(build(name, in_channels, out_channels, k, mode))
    x = torch.randn(2, in_channels, *size, dtype=torch.float64)
    with torch.no_grad():
        assert distance(layer.train()(x), layer.eval()(x)) <= 1e-8


@pytest.mark.parametrize("size", [(14, 14), (4, 4), (2, 9), (1, 1)])
@pytest.mark.parametrize("mode", CPLConv2d.padding_modes)
def test_cpl_in_training_tends_to_evaluation_from_above(mode, size):
    """Its estimate of the norm never exceeds the bound, and comes close at frozen weights."""
    layer = randomise(build("cpl", mode=mode))
    layer.u.copy_(torch.randn_like(layer.u))
    x = torch.randn(1, 4, *size, dtype=torch.float64)
    with torch.no_grad():
        change = (layer.eval()(x) - x).flatten()
        layer.train()
        ratios = []
        for _ in range(300):
            change_in_training = (layer(x) - x).flatten()
            ratios.append(float(change_in_training @ change / (change @ change)))  # (B + eps) / (sigma^2 + eps)
            assert distance(change_in_training, ratios[-1] * change) <= 1e-12
    assert min(ratios) >= 1 - 1e-12
    assert ratios[-1] <= 1 + 5e-2
    assert ratios[-1] < ratios[0]


@pytest.mark.parametrize("mode", SOCConv2d.padding_modes)
def test_soc_in_training_tends_to_evaluation(mode):
    layer = randomise(build("soc", mode=mode))
    for vector in (layer.u1, layer.v1, layer.u2, layer.v2):
        vector.copy_(torch.randn_like(vector))
    x = torch.randn(2, 4, 6, 5, dtype=torch.float64)
    with torch.no_grad():
        expected = layer.eval()(x)
        layer.train()
        for _ in range(300):
            y = layer(x)
        assert float((y - expected).norm() / expected.norm()) <= 1e-2
        # With as many terms as in evaluation nothing is left of the gap, and sigma approaches from below.
        layer.train_terms = 12
        assert distance(layer(x), expected) <= 1e-6
        assert (
            float(layer.prepare((6, 5))["weight"].norm() / layer.eval().prepare((6, 5))["weight"].norm()) >= 1 - 1e-12
        )


@pytest.mark.parametrize(
    ("name", "in_channels", "out_channels", "k", "mode"),
    cases((2, 2, 3)) + [case for case in cases((2, 3, 3), (3, 2, 3), (3, 3, 1)) if case[-1] == "circular"],
)
def test_gradients_are_right(name, in_channels, out_channels, k, mode):
    layer = randomise(build(name, in_channels, out_channels, k, mode)).train()
    layer(torch.ones(1, in_channels, 2, 2, dtype=torch.float64))  # brings the power vectors close to these weights
    layer.track_power_vectors = False
    names = [parameter_name for parameter_name, _ in layer.named_parameters()]

    def forward(x, *parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

    x = torch.randn(1, in_channels, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(forward, (x, *layer.parameters()))


@pytest.mark.parametrize(
    ("name", "in_channels", "out_channels", "k", "mode"), cases((4, 4, 3), (3, 5, 3), (5, 3, 3), (4, 4, 1))
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_reach_every_parameter_in_training_and_none_in_evaluation(
    name, in_channels, out_channels, k, mode, dtype
):
    layer = build(name, in_channels, out_channels, k, mode, dtype=dtype)
    x = torch.randn(3, in_channels, 5, 6, dtype=dtype, requires_grad=True)
    y = layer.train()(x)
    assert y.shape == (3, out_channels, 5, 6)
    assert y.dtype == dtype
    y.square().sum().add(y.sum()).backward()
    assert bool(x.grad.isfinite().all())
    for parameter_name, parameter in layer.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert bool(parameter.grad.isfinite().all()), parameter_name
        assert float((parameter.grad != 0).double().mean()) > 0.5, parameter_name

    layer.zero_grad(set_to_none=True)
    x.grad = None
    y = layer.eval()(x)
    assert y.shape == (3, out_channels, 5, 6)
    assert y.dtype == dtype
    assert bool(y.isfinite().all())
    y.square().sum().backward()
    assert bool(x.grad.isfinite().all())
    assert float(x.grad.abs().sum()) > 0
    assert all(parameter.grad is None for parameter in layer.parameters())
