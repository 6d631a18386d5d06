"""Layers that a GPU prepares in one batched call, against each prepared by itself: 1e-5 in value, 1e-4 in gradient."""

import copy

import pytest
import torch
from torch import nn

from lipref.layers import AOLConv2d, CPLConv2d, SLLConv2d, SOCConv2d
from lipref.linalg.gram import input_gram
from lipref.linalg.padding import adjoint_kernel, conv2d_same
from lipref.linalg.self_correlation import absolute_grams
from lipref.linalg.torus import torus_shifts

SIZE = (8, 8)
cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


def relative(one, other):
    one, other = one.detach().double(), other.detach().double()
    return float((one - other).norm() / other.norm().clamp_min(1e-30))


def projected(operators):
    """A number that depends on every entry of the operators."""
    values = [value for operator in operators for value in operator.values() if value.requires_grad]
    return sum((value * torch.linspace(-1, 2, value.numel(), device=value.device).view(value.shape)).sum()
               for value in values)  # fmt: skip


def alone(layer):
    """What `prepare` makes, as it is where layers are prepared in one call: on a CPU some leave products for later."""
    operator = layer.prepare(SIZE)
    if "scale" in operator:
        return operator | {"weight": operator["weight"] * operator.pop("scale")[:, None, None]}
    if "step" in operator:
        step = operator.pop("step").view(-1, 1, 1, 1)
        return operator | {"adjoint": adjoint_kernel(operator["weight"] * step)}
    return operator


def compare(cls, layers, twins):
    operators, expected = cls.prepare_alike(layers, SIZE), [alone(layer) for layer in twins]
    for one, other in zip(operators, expected, strict=True):
        assert one.keys() == other.keys()
        assert all(relative(one[name], other[name]) < 1e-5 for name in one)
    found = torch.autograd.grad(projected(operators), [p for layer in layers for p in layer.parameters()])
    wanted = torch.autograd.grad(projected(expected), [p for layer in twins for p in layer.parameters()])
    assert all(relative(one, other) < 1e-4 for one, other in zip(found, wanted, strict=True))
    for layer, twin in zip(layers, twins, strict=True):
        for one, other in zip(layer.buffers(), twin.buffers(), strict=True):
            assert relative(one, other) < 1e-5


def alike(cls, channels, k, device="cpu"):
    torch.manual_seed(0)
    layers = [cls(channels, channels, k).train() for _ in range(3)]
    with torch.no_grad():
        for parameter in nn.ModuleList(layers).parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return [layer.to(device) for layer in layers], [copy.deepcopy(layer).to(device) for layer in layers]


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("cls", [AOLConv2d, SLLConv2d, CPLConv2d, SOCConv2d])
def test_prepared_in_one_call_they_are_what_each_is_alone(cls, k):
    layers, twins = alike(cls, 6, k)
    for _ in range(2):  # a second time from vectors that the first has moved
        compare(cls, layers, twins)


@cuda
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("cls", [AOLConv2d, SLLConv2d, CPLConv2d, SOCConv2d])
def test_on_cuda_they_are_what_the_cpu_makes(cls, k):
    layers, twins = alike(cls, 64, k)
    on_cuda = [copy.deepcopy(layer).cuda() for layer in layers]
    keys = {layer.likeness(SIZE) for layer in on_cuda}
    assert len(keys) == 1
    assert None not in keys
    assert all(layer.likeness(SIZE) is None for layer in layers)
    for _ in range(2):
        operators, expected = cls.prepare_alike(on_cuda, SIZE), [alone(layer) for layer in twins]
        for one, other in zip(operators, expected, strict=True):
            assert all(relative(one[name].cpu(), other[name]) < 1e-5 for name in one)
        found = torch.autograd.grad(projected(operators), [p for layer in on_cuda for p in layer.parameters()])
        wanted = torch.autograd.grad(projected(expected), [p for layer in twins for p in layer.parameters()])
        assert all(relative(one.cpu(), other) < 1e-4 for one, other in zip(found, wanted, strict=True))


@pytest.mark.parametrize("shape", [(6, 6, 3), (5, 7, 3), (7, 5, 3), (4, 5, 1)])
def test_grams_of_several_kernels_are_the_sums_over_taps(shape):
    torch.manual_seed(0)
    outputs, inputs, k = shape
    weights = torch.randn(3, outputs, inputs, k, k, dtype=torch.float64, requires_grad=True)
    slow = torch.stack([input_gram(weight).abs().sum((2, 3)) for weight in weights])
    quick = absolute_grams(weights)
    assert torch.allclose(quick, slow, rtol=1e-12)
    some = torch.randn_like(slow)
    assert torch.allclose(*(torch.autograd.grad(each, weights, some)[0] for each in (quick, slow)), rtol=1e-10)


@pytest.mark.parametrize("near", [0, 1e-7, 1e-3])
def test_zeros_have_no_sign(near):
    """At the identity, where training starts, the gradient is made of the signs of what is nearly 0."""
    torch.manual_seed(0)
    weight = nn.init.dirac_(torch.empty(64, 64, 3, 3))
    weight = (weight + near * torch.randn_like(weight)).requires_grad_()
    precise = weight.detach().double().requires_grad_()
    some = torch.randn(64, 64)
    found = torch.autograd.grad(absolute_grams(weight[None])[0], weight, some)[0]
    wanted = torch.autograd.grad(input_gram(precise).abs().sum((2, 3)), precise, some.double())[0]
    assert relative(found, wanted) < 1e-4


@pytest.mark.parametrize(("size", "k"), [((8, 8), 3), ((5, 7), 3), ((7, 2), 3), ((4, 3), 1)])
def test_shifts_of_a_torus_are_those_of_the_convolution(size, k):
    torch.manual_seed(0)
    x, weight = torch.randn(1, 3, *size), torch.randn(3, 3, k, k)
    for sign, kernel in ((1, weight), (-1, adjoint_kernel(weight))):
        columns = x.flatten(2)[:, :, torus_shifts(size, k, sign, "cpu")].flatten(1, 2)
        matrix = weight.flatten(1) if sign == 1 else weight.transpose(0, 1).flatten(1)
        found = (matrix @ columns).view(1, 3, *size)
        assert torch.allclose(found, conv2d_same(x, kernel, None, "circular"), atol=1e-5)
