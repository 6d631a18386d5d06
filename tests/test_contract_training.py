"""What training asks of every layer: it waits for no device, and layers of equal shape are prepared in one call."""

import copy

import pytest
import torch
from contract import METHODS as OURS
from contract import build
from torch._subclasses.fake_tensor import FakeTensorMode

from lipref.layers.base import given_operators
from lipref.layers.batched import prepare_batched, prepare_together
from lipref.layers.excluded import EXCLUDED

METHODS = OURS | EXCLUDED
SIZE = (6, 6)  # of which ECO's kernel divides both
CASES = [(name, shape) for name in METHODS for shape in ((4, 4, 3), (4, 4, 1), (5, 3, 3), (3, 5, 1))]
CASES = [
    (name, shape) for name, shape in CASES
    if not (METHODS[name].square_only and shape[0] != shape[1]) and not (name == "bnb" and shape[2] != 1)
]  # fmt: skip


def ready(name, shape, **options):
    layer = build(name, *shape, dtype=torch.float64, **options).train()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return layer


def total(operators):
    """A number that depends on every entry of the operators."""
    values = [value for operator in operators for value in operator.values() if value.requires_grad]
    values = [torch.view_as_real(value) if value.is_complex() else value for value in values]
    return sum((value * torch.linspace(-1, 2, value.numel()).to(value).view(value.shape)).sum() for value in values)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("name", "shape"), CASES)
def test_prepare_and_its_backward_pass_ask_no_tensor_for_its_value(name, shape, dtype):
    layer = ready(name, shape).to(dtype)
    layer.begin_pass()
    layer.prepare(SIZE)  # constants are made once
    fake = copy.deepcopy(layer)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        for kind in (fake._parameters, fake._buffers):
            for key, value in kind.items():
                if value is not None:
                    kind[key] = mode.from_tensor(value)
        fake.begin_pass()
        total([fake.prepare(SIZE)]).backward()
    assert all(parameter.grad is not None for parameter in fake.parameters() if parameter.numel())


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_prepare_runs_on_fake_cuda_tensors(name, shape):
    with FakeTensorMode():
        layer = METHODS[name](*shape, device="cuda").train()
        layer.begin_pass()
        operator = layer.prepare(SIZE)
    assert {value.device.type for value in operator.values()} == {"cuda"}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("name", "shape"), CASES)
def test_layers_of_equal_shape_prepared_in_one_call_are_what_each_is_alone(name, shape, bias):
    layers = [ready(name, shape, bias=bias, seed=seed) for seed in range(3)]
    twins = copy.deepcopy(layers)
    for _ in range(2):  # a second time from the vectors that the first has updated
        for layer in (*layers, *twins):
            layer.begin_pass()
        operators, expected = prepare_batched(layers, SIZE), [twin.prepare(SIZE) for twin in twins]
        for one, other in zip(operators, expected, strict=True):
            assert one.keys() == other.keys()
            for key, value in other.items():
                torch.testing.assert_close(one[key], value, rtol=1e-9, atol=1e-9)
        found, wanted = (
            torch.autograd.grad(total(some), [p for each in group for p in each.parameters() if p.requires_grad])
            for some, group in ((operators, layers), (expected, twins))
        )
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-7)
        for layer, twin in zip(layers, twins, strict=True):
            for key, value in twin.state_dict().items():
                torch.testing.assert_close(layer.state_dict()[key], value, rtol=1e-9, atol=1e-9)


def test_layers_that_differ_are_not_prepared_in_one_call():
    class Own(METHODS["aol"]):
        pass

    groups = [
        [METHODS["aol"](4, 4, 3), METHODS["aol"](4, 4, 3)],
        [METHODS["aol"](4, 4, 1)],
        [METHODS["aol"](4, 4, 3, bias=False)],
        [METHODS["aol"](4, 4, 3, padding_mode="zeros")],
        [METHODS["bcop"](4, 4, 3)],
        [METHODS["bcop"](4, 4, 3, iterations=5)],
        [Own(4, 4, 3)],
        [Own(4, 4, 3)],  # may decide by values, which a batched call cannot
    ]
    layers = [layer for group in groups for layer in group]
    sizes = dict.fromkeys(layers, SIZE) | {METHODS["aol"](4, 4, 3): (8, 8)}
    operators = prepare_together(sizes)
    assert operators.keys() == sizes.keys()
    bases = [operators[layer]["weight"]._base for layer in layers]
    assert bases[0] is bases[1]  # views of one tensor
    assert all(base is not bases[0] for base in bases[2:])


def test_given_operators_are_applied_and_no_trace_is_left():
    layer = METHODS["soc"](4, 4, 3).train()
    x, operator = torch.rand(1, 4, 6, 6), layer.prepare(SIZE)
    before = copy.deepcopy(layer.state_dict())
    with given_operators({layer: operator}):
        assert torch.equal(layer(x), layer.transform(x, operator))
    assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())
    layer(x)
    assert layer.updates == 1
