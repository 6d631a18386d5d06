"""The contract of a layer's state: what is saved is whole, and what is kept is never stale."""

import copy

import pytest
import torch
from contract import METHODS, build, cases, distance, randomise, train_briefly, twin_of
from torch import nn

from lipref.layers import LAYERS, LipschitzConv2d

SHAPES = [(4, 4, 3, (5, 6)), (2, 2, 5, (2, 3)), (4, 4, 1, (1, 1)), (2, 5, 3, (4, 4)), (5, 2, 3, (3, 7))]
PARAMETERS = [  # of every method, bias included
    (name, parameter) for name in METHODS for parameter, _ in build(name).named_parameters()
]


@pytest.mark.parametrize(("name", "in_channels", "out_channels", "k", "size", "mode"), cases(*SHAPES))
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_evaluated_folded_reloaded_and_copied_are_one_function(
    name, in_channels, out_channels, k, size, mode, dtype, tolerance
):
    for bias in (True, False):
        layer = build(name, in_channels, out_channels, k, mode, bias=bias, dtype=dtype)
        randomise(layer)
        train_briefly(layer, size, steps=2)
        x = torch.randn(2, in_channels, *size, dtype=dtype)
        with torch.no_grad():
            folded_in_training = layer.fold(size)
            expected = layer.eval()(x)
            folded = layer.fold(size)
            assert distance(folded_in_training(x), expected) <= tolerance
            assert distance(folded(x), expected) <= tolerance
            assert distance(copy.deepcopy(folded)(x), expected) <= tolerance
            assert distance(twin_of(layer, name)(x), expected) <= tolerance
            assert distance(copy.deepcopy(layer)(x), expected) <= tolerance
            # The certified function is the same up to one rounding of the operator, and of the arithmetic.
            assert distance(copy.deepcopy(layer).double()(x.double()), expected) <= tolerance
            assert layer.lipschitz_bound(size) == twin_of(layer, name).lipschitz_bound(size)


@pytest.mark.parametrize("name", METHODS)
def test_a_folded_layer_is_its_own(name):
    layer = randomise(build(name)).eval()
    folded = layer.fold((5, 6))
    assert not any(isinstance(module, LipschitzConv2d) for module in folded.modules())
    assert repr(folded)
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64, requires_grad=True)
    before = folded(x).detach().clone()
    (gradient,) = torch.autograd.grad(layer(x).square().sum(), x)
    assert distance(torch.autograd.grad(folded(x).square().sum(), x)[0], gradient) <= 1e-12
    randomise(layer, seed=2)
    assert torch.equal(folded(x), before)
    assert distance(layer(x), before) > 1e-3


# --- never stale --------------------------------------------------------------------------------------------------


def made_of(layer):
    """What the operator is made of: all parameters but the bias, so that only a new operator can show the edit."""
    return [parameter for name, parameter in layer.named_parameters() if name != "bias"]


def optimizer_step(make, **options):
    def edit(layer):
        optimizer = make(made_of(layer), **options)
        for _ in range(3):
            for parameter in made_of(layer):
                parameter.grad = torch.randn_like(parameter)
            optimizer.step()
        optimizer.zero_grad()

    return edit


def edit_in_place(layer):
    with torch.no_grad():
        for parameter in made_of(layer):
            parameter.add_(torch.randn_like(parameter))


def edit_one_entry(layer):
    with torch.no_grad():
        for parameter in made_of(layer)[:1]:
            parameter.view(-1)[-1] += 3


def edit_through_data(layer):
    for parameter in made_of(layer):
        parameter.data.add_(torch.randn_like(parameter))


def edit_through_numpy(layer):
    for parameter in made_of(layer):
        parameter.detach().numpy()[...] += torch.randn_like(parameter).numpy()


def replace_data(layer):
    for parameter in made_of(layer):
        parameter.data = torch.randn_like(parameter)


def replace_parameters(layer):
    for name, parameter in list(layer.named_parameters()):
        if name != "bias":
            setattr(layer, name, nn.Parameter(torch.randn_like(parameter)))


def load(layer, **options):
    layer.load_state_dict(
        {key: torch.randn_like(v) if v.is_floating_point() else v for key, v in layer.state_dict().items()}, **options
    )


def train_and_return(layer):
    train_briefly(layer, (5, 6), steps=3)
    layer.eval()


EDITS = {
    "SGD": optimizer_step(torch.optim.SGD, lr=0.5),
    "fused SGD": optimizer_step(torch.optim.SGD, lr=0.5, momentum=0.9, fused=True),
    "fused Adam": optimizer_step(torch.optim.Adam, lr=0.5, fused=True),
    "in place": edit_in_place,
    "one entry": edit_one_entry,
    "through .data": edit_through_data,
    "through NumPy": edit_through_numpy,
    "replaced .data": replace_data,
    "replaced parameter": replace_parameters,
    "load_state_dict": load,
    "load_state_dict(assign=True)": lambda layer: load(layer, assign=True),
    "training": train_and_return,
}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("name", METHODS)
def test_evaluation_sees_every_edit(name, edit):
    layer = randomise(build(name)).eval()
    torch.manual_seed(5)
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    with torch.no_grad():
        before = layer(x)
        assert torch.equal(layer(x), before)
    EDITS[edit](layer)
    assert not layer.training
    fresh = twin_of(layer, name)
    with torch.no_grad():
        assert distance(layer(x), fresh(x)) <= 1e-12
        assert distance(fresh(x), before) > 1e-3  # the edit is one that shows
        assert distance(layer.fold((5, 6))(x), fresh(x)) <= 1e-12
    assert layer.lipschitz_bound((5, 6)) == fresh.lipschitz_bound((5, 6))


@pytest.mark.parametrize(("name", "parameter"), PARAMETERS)
def test_evaluation_sees_an_edit_of_any_one_parameter(name, parameter):
    layer = randomise(build(name)).eval()
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    with torch.no_grad():
        before = layer(x)
        getattr(layer, parameter).data.add_(torch.randn_like(getattr(layer, parameter)))
        assert distance(layer(x), twin_of(layer, name)(x)) <= 1e-12
        assert distance(layer(x), before) > 1e-4


@pytest.mark.parametrize(
    ("name", "options"),
    [*((name, {}) for name in METHODS if list(build(name).buffers())), ("cpl", {"eval_iterations": 2})],
)
def test_evaluation_sees_an_edited_buffer(name, options):
    layer = randomise(build(name, **options)).eval()
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    with torch.no_grad():
        before = layer(x)
        for buffer in layer.buffers():
            if buffer.is_floating_point():
                buffer.copy_(torch.randn_like(buffer))
        assert distance(layer(x), twin_of(layer, name, **options)(x)) <= 1e-12
        # As published, CPL evaluates from its vector; otherwise no evaluation depends on the vectors.
        assert (distance(layer(x), before) > 1e-4) == bool(options)


@pytest.mark.parametrize("name", METHODS)
def test_evaluation_sees_a_bias_come_and_go(name):
    layer = randomise(build(name, bias=False)).eval()
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    with torch.no_grad():
        without = layer(x)
        layer.bias = nn.Parameter(torch.ones(4, dtype=torch.float64))
        assert distance(layer(x), twin_of(layer, name)(x)) <= 1e-12
        assert distance(layer(x), without) > 1e-4
        layer.bias = None
        assert distance(layer(x), without) <= 1e-12


@pytest.mark.parametrize(
    ("name", "setting", "value"), [("soc", "eval_terms", 2), ("cpl", "eval_iterations", 1), ("lot", "terms", 1)]
)
def test_evaluation_sees_a_changed_setting(name, setting, value):
    layer = randomise(build(name)).eval()
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    with torch.no_grad():
        before = layer(x)
        setattr(layer, setting, value)
        assert distance(layer(x), twin_of(layer, name, **{setting: value})(x)) <= 1e-12
        assert distance(layer(x), before) > 1e-4


@pytest.mark.parametrize("name", METHODS)
def test_evaluation_follows_the_dtype(name):
    layer = randomise(build(name, dtype=torch.float32)).eval()
    x = torch.randn(2, 4, 5, 6)
    single = layer(x)
    prepared = layer.operator((5, 6))
    layer.to(torch.float64)
    double = layer(x.double())
    # Prepared in float64 and rounded once: the same numbers.
    assert all(torch.equal(prepared[key], v.to(prepared[key].dtype)) for key, v in layer.operator((5, 6)).items())
    assert double.dtype == torch.float64
    assert distance(double, twin_of(layer, name)(x.double())) <= 1e-12
    assert distance(single, double) <= 1e-5
    layer.float()
    assert torch.equal(layer(x), single)


@pytest.mark.parametrize("name", METHODS)
def test_evaluation_follows_the_image_size(name):
    layer = randomise(build(name)).eval()
    for size in ((5, 6), (6, 5), (1, 1), (5, 6), (8, 8)):
        x = torch.randn(2, 4, *size, dtype=torch.float64)
        assert distance(layer(x), twin_of(layer, name)(x)) <= 1e-12


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("context", [torch.inference_mode, torch.no_grad])
def test_gradients_to_the_input_after_a_pass_without(name, context):
    layer = randomise(build(name)).eval()
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    with context():
        first = layer(x)
    assert not first.requires_grad
    x.requires_grad_()
    y = layer(x)
    assert torch.equal(y, first)
    (gradient,) = torch.autograd.grad(y.square().sum(), x)
    fresh = twin_of(layer, name)
    assert distance(gradient, torch.autograd.grad(fresh(x).square().sum(), x)[0]) <= 1e-12
    train_briefly(layer, (5, 6), steps=1)  # nor does inference mode leave anything behind in the parameters or buffers


@pytest.mark.parametrize("name", METHODS)
def test_copies_go_their_own_ways(name):
    layer = randomise(build(name)).eval()
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    with torch.no_grad():
        before = layer(x)
        other = copy.deepcopy(layer)
        randomise(other, seed=2)
        assert torch.equal(layer(x), before)
        assert distance(other(x), twin_of(other, name)(x)) <= 1e-12


# --- the state dict -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "in_channels", "out_channels", "k", "size", "mode"), cases(*SHAPES))
def test_the_state_dict_is_whole_from_the_start(name, in_channels, out_channels, k, size, mode):
    def signature():
        return {key: (value.shape, value.dtype) for key, value in layer.state_dict().items()}

    layer = build(name, in_channels, out_channels, k, mode)
    at_construction = signature()
    assert dict(layer.named_parameters()).keys() <= at_construction.keys()
    assert all(bool(value.isfinite().all()) for value in layer.state_dict().values())
    for training in (True, False):
        layer.train(training)
        for image in (size, (6, 4)):
            layer(torch.randn(2, in_channels, *image, dtype=torch.float64))
            assert signature() == at_construction


@pytest.mark.parametrize("name", METHODS)
def test_evaluation_and_bounds_change_nothing(name):
    layer = train_briefly(build(name), (5, 6), steps=2).eval()
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    random_state = torch.get_rng_state()
    with torch.no_grad():
        y = layer(torch.ones(2, 4, 5, 6, dtype=torch.float64))
    bound = layer.lipschitz_bound((5, 6))
    layer.fold((5, 6))
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())
    assert layer.train().lipschitz_bound((5, 6)) == bound  # of the layer as it evaluates, whatever its mode
    assert layer.training
    with torch.no_grad():
        assert torch.equal(layer.eval()(torch.ones(2, 4, 5, 6, dtype=torch.float64)), y)


@pytest.mark.parametrize("name", METHODS)
def test_power_vectors_move_only_in_training_and_while_tracked(name):
    layer = build(name)
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64)

    def moved(training, track):
        randomise(layer.train(training), seed=int(training))
        layer.track_power_vectors = track
        before = {key: value.clone() for key, value in layer.named_buffers()}
        layer(x)
        return {key for key, value in layer.named_buffers() if not torch.equal(value, before[key])}

    assert moved(training=False, track=True) == set()
    assert moved(training=True, track=False) == set()
    assert moved(training=True, track=True) == {key for key, _ in layer.named_buffers()}


@pytest.mark.parametrize("name", METHODS)
def test_a_backward_pass_survives_a_later_forward_pass(name):
    layer = build(name).train()
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    first = layer(x)
    layer(x)  # moves the power vectors
    first.square().sum().backward()
    assert bool(layer.bias.grad.isfinite().all())


class WithInside(LAYERS["aol"]):
    """A layer whose kernel depends on a submodule."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.inside = torch.nn.Linear(1, 1, bias=False)

    def effective_kernel(self):
        return super().effective_kernel() * torch.tanh(self.inside.weight)


def test_submodules_and_parametrizations_count():
    x = torch.rand(1, 2, 4, 4)
    layer = WithInside(2, 2, 3).eval()
    before = layer(x)
    with torch.no_grad():
        layer.inside.weight.add_(0.5)
    after = layer(x)
    assert not torch.equal(before, after)
    assert torch.allclose(after.double(), layer.double()(x.double()), atol=1e-6)

    layer = LAYERS["aol"](2, 2, 3).eval()
    before = layer(x)
    torch.nn.utils.parametrize.register_parametrization(layer, "weight", torch.nn.Tanhshrink())
    assert not torch.equal(before, layer(x))
