"""The contract of a layer's arguments: what is refused, what is taken, and how a user's own layer gets its name."""

import inspect

import numpy as np
import pytest
import torch
from contract import METHODS, build

from lipref.errors import LiprefError
from lipref.layers import LAYERS, register, resolve
from lipref.layers.excluded import EXCLUDED


def assert_refused(text: str, call) -> None:
    with pytest.raises(LiprefError, match=text) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"stride": 2}, "stride=2"),
        ({"dilation": 2}, "dilation=2"),
        ({"groups": 2}, "groups=2"),
        ({"kernel_size": 2}, "kernel_size=2"),
        ({"kernel_size": (3, 5)}, "kernel_size="),
        ({"kernel_size": 0}, "kernel_size=0"),
        ({"in_channels": 0, "out_channels": 0}, "in_channels=0"),
        ({"padding": 0}, "padding=0"),
        ({"padding_mode": "reflect"}, "reflect"),
        ({"padding_mode": "replicate"}, "replicate"),
        ({"dtype": torch.float16}, "float16"),
    ],
)
def test_unsupported_arguments_are_refused(name, arguments, text):
    arguments = {"in_channels": 4, "out_channels": 4, "kernel_size": 3} | arguments
    assert_refused(text, lambda: METHODS[name](**arguments))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("kind", [np.int64, np.uint8, torch.tensor])
def test_any_whole_number_will_do(name, kind):
    layer = METHODS[name](kind(4), kind(4), kind(3), padding=kind(1))
    assert all(type(value) is int for value in (layer.in_channels, layer.out_channels, layer.kernel_size))
    assert layer(torch.zeros(1, 4, 5, 6)).shape == (1, 4, 5, 6)
    for wrong in (True, 4.0, "4", None, np.float64(4)):
        assert_refused("channels=", lambda wrong=wrong: METHODS[name](wrong, wrong, 3))
        assert_refused("kernel_size=", lambda wrong=wrong: METHODS[name](4, 4, wrong))


@pytest.mark.parametrize("name", [name for name in METHODS if METHODS[name].square_only])
def test_residual_layers_refuse_unequal_channels(name):
    assert_refused("must be equal", lambda: build(name, 2, 3))


@pytest.mark.parametrize("name", METHODS)
def test_wrong_inputs_are_refused(name):
    layer = build(name, dtype=torch.float32)
    for training in (True, False):
        layer.train(training)
        assert_refused(r"\(1, 3, 8, 8\)", lambda: layer(torch.zeros(1, 3, 8, 8)))
        assert_refused(r"\(4, 8, 8\)", lambda: layer(torch.zeros(4, 8, 8)))
        assert_refused(r"\(1, 4, 8, 8, 1\)", lambda: layer(torch.zeros(1, 4, 8, 8, 1)))
        assert_refused(r"\(1, 4, 0, 8\)", lambda: layer(torch.zeros(1, 4, 0, 8)))
        assert_refused("int64", lambda: layer(torch.zeros(1, 4, 8, 8, dtype=torch.int64)))
        assert_refused("float64", lambda: layer(torch.zeros(1, 4, 8, 8, dtype=torch.float64)))


@pytest.mark.parametrize("name", METHODS)
def test_padding_may_be_written_as_a_number(name):
    x = torch.randn(1, 4, 5, 6)
    for padding in (1, (1, 1)):
        torch.manual_seed(0)
        assert METHODS[name](4, 4, 3, 1, padding)(x).shape == x.shape
    assert METHODS[name](4, 4, (3, 3), stride=(1, 1), padding="same", dilation=1, groups=1)(x).shape == x.shape


def test_an_empty_batch_is_an_empty_batch():
    for name in METHODS:
        for training in (True, False):
            assert build(name).train(training)(torch.zeros(0, 4, 5, 6, dtype=torch.float64)).shape == (0, 4, 5, 6)


def test_a_registered_layer_is_found_by_name(monkeypatch):
    monkeypatch.setattr("lipref.layers.registry.LAYERS", dict(LAYERS))
    own = METHODS["own"]
    assert register("own")(own) is own
    assert resolve("own").cls is own
    assert not resolve("own").builtin
    assert_refused("taken", lambda: register("aol")(own))
    assert_refused("unknown layer", lambda: resolve("another"))


def test_numbers_of_steps_are_checked():
    for name, option in (("cpl", "eval_iterations"), ("lot", "terms"), ("bcop", "iterations"), ("soc", "eval_terms")):
        with pytest.raises(LiprefError, match=option):
            LAYERS[name](2, 2, 3, **{option: 0})
        assert type(getattr(LAYERS[name](2, 2, 3, **{option: np.int64(7)}), option)) is int


SIGNATURE = [
    "in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "bias", "padding_mode",
]  # fmt: skip


@pytest.mark.parametrize("cls", [*LAYERS.values(), *EXCLUDED.values()])
def test_constructors_say_what_they_take(cls):
    parameters = inspect.signature(cls).parameters
    kinds = {name: parameter.kind for name, parameter in parameters.items()}
    assert [name for name, kind in kinds.items() if kind is inspect.Parameter.POSITIONAL_OR_KEYWORD] == SIGNATURE
    keywords = [name for name, kind in kinds.items() if kind is inspect.Parameter.KEYWORD_ONLY]
    assert keywords[-2:] == ["device", "dtype"]
    assert len(kinds) == len(SIGNATURE) + len(keywords)  # no *args, no **kwargs
    assert all(parameter.annotation is not parameter.empty for parameter in parameters.values())
    with pytest.raises(TypeError, match="strid"):
        cls(4, 4, 1, strid=1)
    with pytest.raises(TypeError):
        cls(4, 4)


@pytest.mark.parametrize("cls", [*LAYERS.values(), *EXCLUDED.values()])
def test_torch_can_skip_the_initialisation(cls):
    state = torch.random.get_rng_state()
    layer = torch.nn.utils.skip_init(cls, 4, 4, 1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert layer.load_state_dict(cls(4, 4, 1).state_dict())
    assert layer(torch.zeros(1, 4, 3, 3)).isfinite().all()


def test_repr_shows_the_options_that_are_set():
    soc = "SOCConv2d(4, 4, kernel_size=3, padding_mode='zeros', train_terms=5"
    assert repr(LAYERS["soc"](4, 4, 3)) == soc + ")"
    assert repr(LAYERS["soc"](4, 4, 3, eval_terms=12, recompute=True)) == soc + ", eval_terms=12, recompute=True)"
    assert repr(LAYERS["bcop"](4, 2, 1, bias=False, iterations=20)).endswith("bias=False, iterations=20)")
    assert "own" not in repr(build("own"))
