"""Layers prepared in one batched call: the same function and gradients as one by one, and no trace afterwards."""

import pytest
import torch

from lipref import forward
from lipref.layers import LAYERS
from lipref.layers.bcop import BCOPConv2d
from lipref.layers.bcop import _projector_products as projector_products
from lipref.layers.together import prepared_together
from lipref.nets import convnet
from lipref.speed import Speed

ALIKE = ["bcop"]  # on a CPU
SIZED = ["cayley", "lot"]  # on a GPU, where the images' size is known


def test_which_layers_can():
    def found(size, device):
        return [name for name, cls in LAYERS.items() if cls(2, 2, 3, device=device).likeness(size) is not None]

    assert found(None, "cpu") == found((8, 8), "cpu") == ALIKE
    assert found(None, "meta") == ALIKE
    assert set(found((8, 8), "meta")) == {*ALIKE, *SIZED}


def test_frequency_layers_of_other_sizes_or_kinds_are_not_alike():
    def likeness(cls, shape, size=None, **kwargs):
        return cls(*shape, device="meta", **kwargs).likeness(size)

    for cls in (LAYERS[name] for name in SIZED):
        keys = [likeness(cls, (2, 2, 3), size) for size in ((8, 8), (8, 4), (4, 8))]
        keys += [likeness(cls, (2, 2, 3), (7, 7), padding_mode=mode) for mode in cls.padding_modes]
        keys += [likeness(cls, shape, (8, 8)) for shape in ((2, 3, 3), (2, 2, 5), (2, 2, 1))]
        keys.append(likeness(cls, (2, 2, 3), (8, 8), dtype=torch.float64))
        assert None not in keys
        assert len(set(keys)) == len(keys)
        assert likeness(cls, (2, 2, 3), (8, 8)) == keys[0]
        assert likeness(cls, (2, 2, 1), (4, 4)) == likeness(cls, (2, 2, 1)) is not None
        assert likeness(type("Own", (cls,), {}), (2, 2, 3), (8, 8)) is None
    lot = LAYERS["lot"]
    assert likeness(lot, (2, 2, 3), (8, 8), terms=5) != likeness(lot, (2, 2, 3), (8, 8))


def relative(a, b):
    return float((a - b).detach().norm() / b.detach().norm().clamp_min(1e-30))


@pytest.mark.parametrize("name", ALIKE + SIZED)
@pytest.mark.parametrize("shape", [(6, 6, 3), (4, 7, 3), (7, 4, 1)])
@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_alike_layers_have_the_operators_of_each(name, shape, spread):
    torch.manual_seed(0)
    layers = [LAYERS[name](*shape, bias=index != 1) for index in range(3)]
    for layer in layers:
        for parameter in layer.parameters():
            parameter.data += spread * parameter.data.square().mean().sqrt() * torch.randn_like(parameter)
    together = type(layers[0]).prepare_alike(layers, (8, 8))
    for layer, operator in zip(layers, together, strict=True):
        alone = layer.prepare((8, 8))
        assert operator.keys() == alone.keys()
        parameters = list(layer.parameters())
        for key, value in alone.items():
            assert relative(operator[key], value) < 1e-5
            values = [torch.view_as_real(v) if v.is_complex() else v for v in (operator[key], value)]
            weights = torch.linspace(-1, 2, values[0].numel()).mul(7).sin().view_as(values[0])
            pulled = [
                torch.autograd.grad(
                    (found * weights).sum(), parameters, retain_graph=True, allow_unused=True, materialize_grads=True
                )
                for found in values
            ]
            for ours, theirs in zip(*pulled, strict=True):
                assert torch.allclose(ours, theirs, rtol=0, atol=1e-4 * float(theirs.norm() + 1e-12))


SPEEDS = {"plain": Speed(), "channels last": Speed(channels_last=True), "compiled": Speed(compile=True)}


@pytest.mark.parametrize("speed", SPEEDS.values(), ids=SPEEDS)
@pytest.mark.parametrize("name", ALIKE)
def test_training_prepares_them_in_one_call(name, speed, monkeypatch):
    monkeypatch.setattr(forward, "BACKEND", "aot_eager")  # traced, not translated: quick
    torch.manual_seed(0)
    model = convnet("XS", name, image_size=8)
    images = torch.rand(4, 3, 8, 8) - 0.5
    calls = []
    original = LAYERS[name].prepare_alike.__func__

    def counted(cls, layers, size):
        calls.append(len(layers))
        return original(cls, layers, size)

    monkeypatch.setattr(LAYERS[name], "prepare_alike", classmethod(counted))
    passes = forward.Forward(model, speed, None)
    passes.ready(images, torch.sum)
    assert passes.notices == []
    calls.clear()
    logits = passes(images)
    assert calls == [5, 5, 5]  # the three blocks; the first layer and the head are alone
    alone = model(images)
    assert calls == [5, 5, 5]
    assert relative(logits, alone) < 1e-4
    weights = torch.linspace(-1, 1, logits.numel()).view_as(logits)
    parameters = list(model.parameters())
    gradients = [
        torch.autograd.grad((value * weights).sum(), parameters, allow_unused=True, materialize_grads=True)
        for value in (logits, alone)
    ]
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-3 * float(theirs.norm() + 1e-12))


@pytest.mark.parametrize("name", SIZED)
def test_layers_whose_likeness_needs_a_size_take_part_where_it_is_given(name, monkeypatch):
    monkeypatch.setattr(LAYERS[name], "likeness", lambda layer, size=None: size)  # on a CPU there is none
    layers = [LAYERS[name](4, 4, 3) for _ in range(4)]
    sizes = dict(zip(layers, [(8, 8), (8, 8), (4, 4), (4, 4)], strict=True))
    with prepared_together(layers):
        assert not any("_prepared" in layer.__dict__ for layer in layers)
    with prepared_together(layers, sizes):
        assert all("_prepared" in layer.__dict__ for layer in layers)
        for layer, size in sizes.items():
            assert layer.trained_operator(size)["symbol"].shape[0] == size[0] + 2 * layer.margin
            assert relative(layer.trained_operator(size)["symbol"], layer.prepare(size)["symbol"]) < 1e-5


def test_what_is_not_alike_or_not_trained_is_left_alone():
    class Own(BCOPConv2d):
        def effective_kernel(self):
            return 0.5 * super().effective_kernel()

    own = [Own(4, 4, 3) for _ in range(2)]
    evaluated = [BCOPConv2d(4, 4, 3).eval() for _ in range(2)]
    several = [
        BCOPConv2d(4, 4, 3),
        BCOPConv2d(4, 4, 1),
        BCOPConv2d(4, 4, 3, iterations=5),
        BCOPConv2d(4, 4, 3).double(),
    ]
    with prepared_together([*own, *evaluated, *several]):
        assert not any("_prepared" in layer.__dict__ for layer in (*own, *evaluated, *several))


def test_nothing_is_left_behind_even_by_an_error():
    layers = [BCOPConv2d(4, 4, 3) for _ in range(2)]

    def fail():
        with prepared_together(layers):
            assert all("_prepared" in layer.__dict__ for layer in layers)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not any("_prepared" in layer.__dict__ for layer in layers)


def test_projector_products_of_several_matrices():
    torch.manual_seed(0)
    matrix, frames = torch.randn(3, 5, 4, dtype=torch.float64), torch.randn(3, 4, 5, 2, dtype=torch.float64)
    together = projector_products(matrix, frames)
    alone = torch.stack([projector_products(one, some) for one, some in zip(matrix, frames, strict=True)])
    assert torch.allclose(together, alone, rtol=1e-12, atol=1e-12)
