"""A kept operator goes with any change of the weights: also where all layers are looked at together."""

import math

import pytest
import torch

from lipref import nets
from lipref.layers import AOLConv2d, fresh_copy
from lipref.layers.kept import checked, distance, same_values

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


def pairs(change=lambda tensors: None):
    torch.manual_seed(0)
    tensors = [torch.randn(3, 4), torch.randn(()), torch.tensor([3, 4]), *(torch.randn(2) for _ in range(20))]
    before = [tensor.clone() for tensor in tensors]
    change(tensors)
    return list(zip(tensors, before, strict=True))


def test_equal_tensors_have_no_distance():
    assert distance(pairs()) == 0


@pytest.mark.parametrize("place", [0, 1, 2, 22])
@pytest.mark.parametrize("value", [1, math.nan, -5e-324])
def test_any_change_is_seen(place, value):
    def change(tensors):
        if tensors[place].is_floating_point():
            tensors[place] = tensors[place].double()
            tensors[place].flatten()[-1:].mul_(0).add_(value)
        else:
            tensors[place][-1] += 1

    found = pairs(change)
    found = [(a, b.double().mul(0) if a.dtype == torch.float64 else b) for a, b in found]
    assert bool(distance(found) != 0)


def test_imaginary_parts_and_large_integers_count():
    for one, other in ((1 + 2j, 1 + 5j), (2**53, 2**53 + 1), (True, False)):
        assert distance([(torch.tensor(one), torch.tensor(one))]) == 0
        assert distance([(torch.tensor(one), torch.tensor(other))]) != 0


def test_names_shapes_and_dtypes_count():
    one = {"weight": torch.ones(2)}
    assert same_values([(one, {"weight": torch.ones(2)})])
    for other in ({}, {"weight": torch.ones(1)}, {"weight": torch.ones(2).double()}, {"weight": torch.full((2,), 2.0)}):
        assert not same_values([(one, other)])


def test_within_the_context_layers_do_not_look(monkeypatch):
    layer, images = AOLConv2d(4, 4, 3).eval(), torch.rand(1, 4, 8, 8)
    with torch.no_grad():
        kept = layer(images)
        with checked([layer]):
            monkeypatch.setattr("lipref.layers.base.same_values", None)
            assert torch.equal(layer(images), kept)
        monkeypatch.undo()
        layer.weight.mul_(1.5).add_(0.1)
        with checked([layer]):  # changed before: it looks for itself
            assert not torch.equal(layer(images), kept)
    assert "_checked" not in layer.__dict__


@cuda
@pytest.mark.parametrize("name", ["aol", "bcop", "cayley", "cpl", "lot", "sll", "soc"])
@pytest.mark.parametrize("road", ["in place", "data", "fused", "load_state_dict"])
def test_on_cuda_a_network_sees_every_change(name, road):
    torch.manual_seed(0)
    model = nets.convnet("XS", name).cuda().eval()
    images = torch.rand(4, 3, 32, 32, device="cuda")
    with torch.no_grad():
        before = model(images)
        assert torch.equal(model(images), before)
    weight = next(parameter for parameter in model.parameters() if parameter.dim() > 1)
    change = torch.randn_like(weight)
    if road == "in place":
        with torch.no_grad():
            weight += change
    elif road == "data":
        weight.data += change
    elif road == "fused":
        weight.grad = change
        torch.optim.SGD([weight], 1.0, fused=True).step()
    else:
        state = {key: value.clone() for key, value in model.state_dict().items()}
        state[next(key for key, value in model.named_parameters() if value is weight)] += change
        model.load_state_dict(state)
    with torch.no_grad():
        after = model(images)
        assert not torch.equal(after, before)
        assert torch.equal(after, fresh_copy(model)(images))
