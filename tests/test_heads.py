"""Constants of the differences of two logits, against Jacobians of the whole network."""

import math

import pytest
import torch
from torch import nn

from lipref.activations import MaxMin
from lipref.certification.bounds import network_bound
from lipref.certification.certify import certify
from lipref.certification.float_error import evaluation_error
from lipref.certification.pair_bounds import pair_bounds
from lipref.errors import LiprefError
from lipref.layers import LAYERS
from lipref.nets import FirstChannels, convnet

LINEAR = sorted(set(LAYERS) - {"cpl", "sll"})
K = 4


def network(layer, dtype=torch.float32):
    torch.manual_seed(0)
    model = convnet("XS", layer, K, 3, 4).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model.eval()


@pytest.mark.parametrize("layer", LINEAR)
def test_no_jacobian_exceeds_the_pairs(layer):
    model = network(layer)
    audit = network_bound(model)
    pairs = pair_bounds(model, audit)
    assert pairs.shape == (K, K)
    assert torch.equal(pairs, pairs.T)
    assert (pairs <= math.sqrt(2) * audit.bound * (1 + 1e-12)).all()
    twin = model.double()
    for seed in range(3):
        x = torch.randn(3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        jacobian = torch.autograd.functional.jacobian(lambda z: twin(z[None])[0], x).flatten(1)
        slopes = (jacobian[:, None] - jacobian[None]).norm(dim=-1)
        assert (slopes <= pairs + 1e-12).all()


@pytest.mark.parametrize("layer", LINEAR)
def test_the_pairs_of_a_head_alone_are_its_rows(layer):
    """With a network that is nothing but its head: no bound could be smaller."""
    model = network(layer)
    audit = network_bound(model)
    before = math.prod(bound for _, _, _, bound in audit.layers[:-1])
    x = torch.zeros(model.head.in_channels, 1, 1, dtype=torch.float64)
    head = model.double().head
    rows = torch.autograd.functional.jacobian(lambda z: head(z[None])[0, :K, 0, 0], x).flatten(1)
    exact = (rows[:, None] - rows[None]).norm(dim=-1)
    off = ~torch.eye(K, dtype=torch.bool)
    assert torch.allclose(pair_bounds(model, audit)[off], exact[off] * before, rtol=1e-9)


@pytest.mark.parametrize("layer", ["cpl", "sll"])
def test_a_residual_head_has_none(layer):
    model = network(layer)
    assert pair_bounds(model, network_bound(model)) is None


def test_certified_radii_grow_where_rows_are_close():
    model = network("standard")
    with torch.no_grad():
        model.head.weight[1] = model.head.weight[0] * 0.5  # logits 0 and 1 move together
        model.head.bias[:2] = torch.tensor([8.0, 4.0])
        model.head.bias[2:] = -100.0
    audit = network_bound(model)
    error, pairs = evaluation_error(model, audit), pair_bounds(model, audit)
    x, y = torch.rand(20, 3, 4, 4) - 0.5, torch.zeros(20, dtype=torch.int64)
    plain, tight = (certify(model, [(x, y)], audit.bound, error, pairs=p).radii for p in (None, pairs))
    right = plain > 0
    assert right.any()
    assert (tight[right] > 1.2 * plain[right]).all()
    assert torch.equal(tight[~right], plain[~right])
    with pytest.raises(LiprefError, match=r"give \(4, 4\)"):
        certify(model, [(x, y)], audit.bound, error, pairs=pairs[:2])


def after(network, name, module):
    network.add_module(name, module)
    return network


@pytest.mark.parametrize(
    "edit",
    [
        lambda network: after(network, "more", MaxMin()),
        lambda network: after(network, "logits", nn.Sequential(MaxMin(), FirstChannels(4))),
        lambda network: after(network, "flatten", nn.Flatten(2)),
        lambda network: after(network, "block1_down", nn.Sequential(nn.PixelUnshuffle(2), nn.ZeroPad2d(1))),
    ],
    ids=["MaxMin after the logits", "MaxMin before the logits", "another Flatten", "a head on nine pixels"],
)
def test_what_follows_the_head_is_looked_at(edit):
    """The constants are those of the head's rows: they say nothing of what comes after it, nor of several pixels."""
    model = network("standard")
    assert pair_bounds(model, network_bound(model)) is not None
    edit(model)
    assert pair_bounds(model, network_bound(model)) is None
