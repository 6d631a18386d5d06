"""Layers that a GPU prepares in one batched call, against each prepared by itself: 1e-5 in value, 1e-4 in gradient."""

import copy

import pytest
import torch
from torch import nn

from lipref.layers import AOLConv2d, SLLConv2d, SOCConv2d

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


def compare(cls, layers, twins):
    operators, expected = cls.prepare_alike(layers, SIZE), [layer.prepare(SIZE) for layer in twins]
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
@pytest.mark.parametrize("cls", [AOLConv2d, SLLConv2d, SOCConv2d])
def test_prepared_in_one_call_they_are_what_each_is_alone(cls, k):
    layers, twins = alike(cls, 6, k)
    for _ in range(2):  # a second time from vectors that the first has moved
        compare(cls, layers, twins)


@cuda
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("cls", [AOLConv2d, SLLConv2d, SOCConv2d])
def test_on_cuda_they_are_what_the_cpu_makes(cls, k):
    layers, twins = alike(cls, 64, k)
    on_cuda = [copy.deepcopy(layer).cuda() for layer in layers]
    keys = {layer.likeness(SIZE) for layer in on_cuda}
    assert len(keys) == 1
    assert None not in keys
    assert all(layer.likeness(SIZE) is None for layer in layers)
    for _ in range(2):
        operators, expected = cls.prepare_alike(on_cuda, SIZE), [layer.prepare(SIZE) for layer in twins]
        for one, other in zip(operators, expected, strict=True):
            assert all(relative(one[name].cpu(), other[name]) < 1e-5 for name in one)
        found = torch.autograd.grad(projected(operators), [p for layer in on_cuda for p in layer.parameters()])
        wanted = torch.autograd.grad(projected(expected), [p for layer in twins for p in layer.parameters()])
        assert all(relative(one.cpu(), other) < 1e-4 for one, other in zip(found, wanted, strict=True))
