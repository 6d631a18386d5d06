"""The methods that the paper excludes keep the contract of every layer, on the images for which they are defined."""

import math

import numpy as np
import oracle
import pytest
import test_contract as contract_tests
import test_contract_state as state_tests
import torch
from contract import build, distance, randomise, train_briefly, twin_of
from hypothesis import given, settings
from hypothesis import strategies as st
from jacobian import impulse_jacobian, jacobian_at

from lipref.errors import LiprefError
from lipref.layers import LAYERS, resolve
from lipref.layers.excluded import EXCLUDED, BnBConv2d, ECOConv2d, SandwichConv2d
from lipref.layers.excluded import sandwich as sandwich_module
from lipref.layers.registry import excluded
from lipref.linalg.spectrum import apply_symbol_densely

SHAPES = [  # in_channels, out_channels, kernel size, image
    ("eco", 1, 1, 1, (1, 1)), ("eco", 3, 3, 1, (8, 5)), ("eco", 3, 3, 3, (3, 6)), ("eco", 8, 8, 3, (9, 9)),
    ("eco", 2, 5, 3, (6, 6)), ("eco", 5, 2, 5, (5, 10)), ("eco", 1, 1, 3, (3, 3)),
    ("sandwich", 1, 1, 1, (1, 1)), ("sandwich", 1, 1, 3, (3, 5)), ("sandwich", 2, 2, 5, (2, 2)),
    ("sandwich", 8, 8, 3, (5, 3)), ("sandwich", 2, 5, 3, (7, 6)), ("sandwich", 5, 2, 1, (3, 5)),
    ("bnb", 1, 1, 1, (1, 1)), ("bnb", 6, 6, 1, (4, 5)), ("bnb", 2, 5, 1, (3, 3)), ("bnb", 5, 2, 1, (2, 6)),
]  # fmt: skip
USUAL = {"eco": (3, (6, 9)), "sandwich": (3, (5, 6)), "bnb": (1, (5, 6))}  # kernel size, image


def usual(name, **options):
    k, size = USUAL[name]
    return build(name, k=k, **options), size


def norm(jacobian):
    return float(torch.linalg.matrix_norm(jacobian, 2))


def switch_on(layer):
    """Sandwich with every ReLU active: sqrt(2) bounds what a unit impulse brings before it."""
    with torch.no_grad():
        layer.psi.zero_()
        layer.bias.fill_(4)


def assert_bound_holds(layer, size):
    layer.eval()
    bound, channels = layer.lipschitz_bound(size), layer.in_channels
    points = torch.randn(2, channels, *size, dtype=torch.float64)
    norms = [norm(jacobian_at(layer, scale * point)) for scale, point in zip((1, 1e3), points, strict=True)]
    assert layer.lipschitz_bound(size) == bound
    if isinstance(layer, SandwichConv2d) and layer.bias is not None:
        switch_on(layer)
        assert layer.lipschitz_bound(size) == bound  # neither the bias nor psi has a say
    if not isinstance(layer, SandwichConv2d) or layer.bias is not None:
        norms.append(norm(impulse_jacobian(layer, channels, size)))
    assert max(norms) <= bound * (1 + 1e-9)
    if layer.proved:
        assert bound <= 1 + 1e-6
    return bound


@pytest.mark.parametrize("weights", ["initial", "trained", 1e-3, 1e3])
@pytest.mark.parametrize(("name", "in_channels", "out_channels", "k", "size"), SHAPES)
def test_the_bound_holds(name, in_channels, out_channels, k, size, weights):
    layer = build(name, in_channels, out_channels, k)
    if weights == "trained":
        train_briefly(layer, size)
    elif weights != "initial":
        randomise(layer, weights)
    bound = assert_bound_holds(layer, size)
    if name == "eco" and in_channels == out_channels:
        values = torch.linalg.svdvals(impulse_jacobian(layer, in_channels, size))
        assert float((values - 1).abs().max()) <= 1e-6  # orthogonal
    assert bound >= 1 - 1e-9


@pytest.mark.parametrize("name", EXCLUDED)
@settings(max_examples=20)
@given(data=st.data())
def test_the_bound_holds_for_any_weights_and_any_side(name, data):
    channels = st.sampled_from([1, 2, 3, 4])
    k = 1 if name == "bnb" else data.draw(st.sampled_from([1, 3, 5]))
    size = data.draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    options = {"allow_any_side": True} if name == "eco" else {}
    layer = build(name, data.draw(channels), data.draw(channels), k, bias=data.draw(st.booleans()), **options)
    with torch.no_grad():
        for parameter in layer.parameters():  # each at a scale of its own
            parameter.copy_(10 ** data.draw(st.floats(-3, 3)) * torch.randn_like(parameter))
    assert_bound_holds(layer, size)


@pytest.mark.parametrize("name", EXCLUDED)
@pytest.mark.parametrize("edit", ["zero", "equal"])
def test_the_bound_holds_for_degenerate_weights(name, edit):
    layer, size = usual(name)
    with torch.no_grad():
        layer.weight.zero_() if edit == "zero" else layer.weight.fill_(0.7)
    assert bool(layer.eval()(torch.randn(1, 4, *size, dtype=torch.float64)).isfinite().all())
    assert_bound_holds(layer, size)


def test_eco_refuses_sides_that_its_kernel_does_not_divide():
    layer = build("eco", 8, 8)
    for call in (lambda: layer(torch.zeros(1, 8, 8, 8, dtype=torch.float64)), lambda: layer.lipschitz_bound((9, 8))):
        with pytest.raises(LiprefError, match="allow_any_side=True") as caught:
            call()
        assert "does not divide" in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("side", [8, 10, 11])
def test_eco_on_other_sides_expands_and_says_so(side):
    layer = build("eco", 8, 8, allow_any_side=True).eval()
    true, bound = norm(impulse_jacobian(layer, 8, (side, side))), layer.lipschitz_bound((side, side))
    assert 1.3 < true <= bound <= true * (1 + 1e-8)
    assert not layer.proved
    assert assert_bound_holds(layer, (9, 9)) == pytest.approx(1, abs=1e-7)


def test_sandwich_reaches_its_bound():
    """The constant is 1, not merely bounded by it."""
    layer = build("sandwich", 3, 3, 3).eval()
    switch_on(layer)
    assert norm(impulse_jacobian(layer, 3, (8, 8))) > 0.999


def test_bnb_is_orthogonal_and_has_one_tap():
    for inputs, outputs in ((4, 4), (2, 5), (5, 2)):
        layer = randomise(build("bnb", inputs, outputs, 1)).eval()
        values = torch.linalg.svdvals(impulse_jacobian(layer, inputs, (2, 2)))
        assert float((values - 1).abs().max()) <= 1e-9
    with pytest.raises(LiprefError, match="only kernel_size=1"):
        BnBConv2d(4, 4, 3)


# --- formulas, written a second time


def state(layer):
    return {name: value.detach().numpy() for name, value in layer.state_dict().items()}


def eco(x, p, terms):
    """One matrix per frequency of the 3 x 3 torus, the inverse DFT written out, taps a third of the side apart."""
    matrices = []
    for weight in p["weight"]:
        skew = (weight - weight.T) / 2
        skew = skew / np.linalg.norm(skew, 2)
        matrices.append(
            sum(np.linalg.matrix_power(skew, j) / math.factorial(j) for j in range(terms + 1))
        )  # fmt: skip
    of = [[0, 1, 1], [2, 3, 4], [2, 4, 3]]
    y, spread = np.zeros_like(x), [-(-side // 3) for side in x.shape[2:]]
    for a in range(3):
        for b in range(3):
            tap = sum(
                matrices[of[f][g]] * np.exp(2j * np.pi * (a * f + b * g) / 3) / 9 for f in range(3) for g in range(3)
            )
            assert np.abs(tap.imag).max() < 1e-12
            moved = np.roll(x, (-(a - 1) * spread[0], -(b - 1) * spread[1]), (2, 3))
            y += np.einsum("oi,nihw->nohw", tap.real, moved)
    return oracle.with_bias(y, p)


def sandwich(x, p):
    kernel = p["weight"] * p["scale"] / np.sqrt((p["weight"] ** 2).sum())
    channels, psi = len(p["bias"]), np.exp(p["psi"]).reshape(1, -1, 1, 1)
    rows = oracle.per_frequency(oracle.symbol(kernel, x.shape[2:]), oracle.cayley_transform)
    leave, enter = rows[..., :channels].conj().swapaxes(-1, -2), rows[..., channels:]
    hidden = oracle.relu(oracle.with_bias(np.sqrt(2) / psi * oracle.apply_symbol(x, enter), p))
    return np.sqrt(2) * oracle.apply_symbol(psi * hidden, leave)


@pytest.mark.parametrize("size", [(6, 9), (8, 7), (2, 4)])
def test_eco_is_its_formula(size):
    layer = randomise(build("eco", 4, 4, allow_any_side=True), seed=3)
    x = torch.randn(2, 4, *size, dtype=torch.float64)
    with torch.no_grad():
        for training, terms in ((True, 5), (False, 10)):
            expected = torch.from_numpy(eco(x.numpy(), state(layer), terms))
            assert distance(layer.train(training)(x), expected) <= 1e-10


@pytest.mark.parametrize(("inputs", "outputs", "k"), [(3, 3, 3), (2, 4, 1), (4, 2, 5)])
def test_sandwich_is_its_formula(inputs, outputs, k):
    layer = randomise(build("sandwich", inputs, outputs, k), seed=3)
    x = torch.randn(2, inputs, 4, 5, dtype=torch.float64)
    with torch.no_grad():
        assert distance(layer(x), torch.from_numpy(sandwich(x.numpy(), state(layer)))) <= 1e-10


def test_bnb_is_its_formula():
    layer = randomise(build("bnb", 4, 4, 1), seed=3)
    x = torch.randn(2, 4, 3, 2, dtype=torch.float64)
    p = state(layer)
    kernel = oracle.polar_factor(p["weight"][:, :, 0, 0])[:, :, None, None]
    with torch.no_grad():
        assert (
            distance(layer(x), torch.from_numpy(oracle.standard(x.numpy(), p | {"weight": kernel}, "zeros"))) <= 1e-10
        )


# --- the contract's own tests


@pytest.mark.parametrize(("name", "in_channels", "out_channels", "k", "size"), SHAPES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_evaluated_folded_reloaded_and_copied_are_one_function(
    name, in_channels, out_channels, k, size, dtype, tolerance
):
    state_tests.test_evaluated_folded_reloaded_and_copied_are_one_function(
        name, in_channels, out_channels, k, size, None, dtype, tolerance
    )


@pytest.mark.parametrize(("name", "in_channels", "out_channels", "k", "size"), SHAPES)
def test_the_gap_between_training_and_evaluation(name, in_channels, out_channels, k, size):
    if name != "eco":
        contract_tests.test_training_and_evaluation_are_the_same_function(
            name, in_channels, out_channels, k, size, None
        )
        return
    layer = randomise(build(name, in_channels, out_channels, k))
    x = torch.randn(2, in_channels, *size, dtype=torch.float64)
    with torch.no_grad():
        assert distance(layer.train()(x), layer.eval()(x)) <= 2e-2  # five terms in place of ten
        layer.train_terms = 10
        assert distance(layer.train()(x), layer.eval()(x)) <= 1e-12


@pytest.mark.parametrize("name", EXCLUDED)
def test_gradients_are_right(name):
    for inputs, outputs in ((2, 2), (2, 3), (3, 2)):
        k = USUAL[name][0]
        layer = randomise(build(name, inputs, outputs, k)).train()
        names = [parameter for parameter, _ in layer.named_parameters()]

        def forward(x, *parameters, layer=layer, names=names):
            return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

        x = torch.randn(1, inputs, 3, 3, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(forward, (x, *layer.parameters()))


@pytest.mark.parametrize("name", EXCLUDED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_reach_every_parameter_in_training_and_none_in_evaluation(name, dtype):
    layer, size = usual(name, dtype=dtype)
    x = torch.randn(3, 4, *size, dtype=dtype, requires_grad=True)
    layer.train()(x).square().sum().backward()
    for parameter_name, parameter in layer.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert bool(parameter.grad.isfinite().all()), parameter_name
    layer.zero_grad()
    layer.eval()(x).sum().backward()
    assert all(parameter.grad is None for parameter in layer.parameters())


@pytest.mark.parametrize("edit", state_tests.EDITS)
@pytest.mark.parametrize("name", EXCLUDED)
def test_evaluation_sees_every_edit(name, edit):
    options = {"allow_any_side": True} if name == "eco" else {}  # one of the edits trains on 5 x 6 pixels
    layer, size = usual(name, **options)
    randomise(layer).eval()
    torch.manual_seed(5)
    x = torch.randn(2, 4, *size, dtype=torch.float64)
    with torch.no_grad():
        before = layer(x)
        assert torch.equal(layer(x), before)
    if (name, edit) == ("eco", "one entry"):
        layer.weight.data[0, 0, 1] += 3  # the last entry is on the diagonal, which the skew part has not
    else:
        state_tests.EDITS[edit](layer)
    fresh = twin_of(layer, name, **options)
    with torch.no_grad():
        assert distance(layer(x), fresh(x)) <= 1e-12
        assert distance(fresh(x), before) > 1e-3
    assert layer.lipschitz_bound(size) == fresh.lipschitz_bound(size)


def test_sandwich_sees_an_edit_of_psi():
    layer, size = usual("sandwich")
    randomise(layer).eval()
    x = torch.randn(2, 4, *size, dtype=torch.float64)
    before = layer(x)
    layer.psi.data.add_(1)
    assert distance(layer(x), before) > 1e-3


@pytest.mark.parametrize("name", EXCLUDED)
@pytest.mark.parametrize(
    ("arguments", "text"),
    [({"stride": 2}, "stride=2"), ({"kernel_size": 2}, "kernel_size=2"), ({"padding_mode": "reflect"}, "reflect"),
     ({"groups": 2}, "groups=2"), ({"in_channels": 0}, "in_channels=0"), ({"dtype": torch.float16}, "float16")],
)  # fmt: skip
def test_unsupported_arguments_are_refused(name, arguments, text):
    with pytest.raises(LiprefError, match=text):
        EXCLUDED[name](**({"in_channels": 4, "out_channels": 4, "kernel_size": 1} | arguments))


def test_other_settings_are_checked():
    for make in (lambda: ECOConv2d(2, 2, 3, eval_terms=0), lambda: BnBConv2d(2, 2, 1, iterations=0)):
        with pytest.raises(LiprefError, match="at least 1"):
            make()
    for layer in EXCLUDED.values():
        with pytest.raises(NotImplementedError):
            layer.complexity()  # the paper's table has no row


# --- names


def test_they_are_found_by_name_and_no_part_of_all():
    assert excluded() is EXCLUDED
    assert not set(EXCLUDED) & set(LAYERS)
    for name, cls in EXCLUDED.items():
        spec = resolve(name)
        assert (spec.cls, spec.label, spec.builtin) == (cls, name, True)
    with pytest.raises(LiprefError, match=r"known: standard.*excluded by the paper: eco, sandwich, bnb"):
        resolve("onion")


# --- rounding


@pytest.mark.parametrize("name", EXCLUDED)
def test_float32_is_within_its_bound_of_float64(name, monkeypatch):
    """As for all layers: float64 stands in for the real numbers, with dense Fourier transforms."""
    monkeypatch.setattr(sandwich_module, "apply_symbol", apply_symbol_densely)
    torch.manual_seed(0)
    unit, closest = 2.0**-24, 0.0
    for channels, k, side in ((1, 3, 3), (3, 1, 4), (4, 5, 5), (8, 3, 9)):
        layer = build(name, channels, channels, 1 if name == "bnb" else k).eval()
        for parameter in layer.parameters():
            parameter.data.add_(0.3 * torch.randn_like(parameter))
        size = (side, side)
        operator = {
            key: value.to(torch.complex64 if value.is_complex() else torch.float32)
            for key, value in layer.operator(size).items()
        }
        exact = {key: value.to(layer.operator(size)[key].dtype) for key, value in operator.items()}
        bound = layer.rounding_error(exact, size, unit)
        x = torch.randn(4, channels, *size) * torch.logspace(-3, 3, 4)[:, None, None, None]
        with torch.no_grad():
            error = layer.transform(x, operator).double() - layer.transform(x.double(), exact)
            at_zero = layer.transform(torch.zeros_like(x[:1], dtype=torch.float64), exact)
        allowed = bound.slope * x.double().flatten(1).norm(dim=1) + bound.constant
        error = error.flatten(1).norm(dim=1)
        assert bool((error <= allowed).all())
        assert float(at_zero.norm()) <= bound.at_zero * (1 + 1e-9)
        closest = max(closest, float((error / allowed).max()))
    assert closest > 1e-3  # a bound of no use would pass anything
