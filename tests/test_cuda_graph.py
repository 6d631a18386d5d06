"""A captured training pass is the usual one: on the CPU with a stand-in that records by running again, and on CUDA."""

import dataclasses
import gc
import weakref

import pytest
import torch
from torch import nn
from toy_training import SETTINGS, Interrupted, Synthetic, bits, interrupt_at, timeless

from lipref import nets
from lipref.activations import MaxMin
from lipref.layers import (
    AOLConv2d,
    BCOPConv2d,
    CayleyConv2d,
    CPLConv2d,
    LipschitzConv2d,
    LOTConv2d,
    SLLConv2d,
    SOCConv2d,
    StandardConv2d,
)
from lipref.training import cuda_graph, train
from lipref.training.speed import Speed

LAYERS = (
    StandardConv2d, AOLConv2d, BCOPConv2d, CayleyConv2d, CPLConv2d, LOTConv2d, SLLConv2d, SOCConv2d,
)  # fmt: skip
cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


class Again:
    """In place of a CUDA graph: replays by running the same function on the same tensors."""

    recorded = 0

    def __init__(self, body):
        for _ in range(cuda_graph.WARM_UP + 1):
            body()
        self.replay = body
        type(self).recorded += 1


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setattr(cuda_graph, "CudaGraph", Again)
    monkeypatch.setattr(Speed, "check_device", lambda self, device: None)
    monkeypatch.setattr(Again, "recorded", 0)


def network(*classes):
    torch.manual_seed(5)
    layers = [module for cls in classes for module in (cls(4, 4, 3), MaxMin(), cls(4, 4, 3))]
    return nn.Sequential(nets.PadChannels(4), *layers, nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(256, 3))


def with_(**speed):
    return dataclasses.replace(SETTINGS, speed=Speed(**speed))


class Batches(Synthetic):
    """On a device."""

    def __init__(self, device="cpu", **given):
        super().__init__(**given)
        self.device = device

    def epoch(self, epoch, start=0):
        return ((images.to(self.device), labels.to(self.device)) for images, labels in super().epoch(epoch, start))


@pytest.mark.parametrize("cls", LAYERS)
def test_captured_training_is_the_usual_one(stand_in, cls):
    model, plain = network(cls), network(cls)
    outcome = train(model, Synthetic(), with_(cuda_graphs=True))
    expected = train(plain, Synthetic(), SETTINGS)
    assert Again.recorded == 1  # not of the last, smaller batch
    assert outcome.notices == []
    assert outcome.compile_seconds > 0
    for line, other in zip(timeless(outcome.history), timeless(expected.history), strict=True):
        assert line["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert (line["accuracy"], line["cra_36"]) == (other["accuracy"], other["cra_36"])
    for one, other in zip(model.state_dict().values(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert not any(module.__dict__.get("_given") for module in model.modules())


@pytest.mark.parametrize("speed", [{}, {"channels_last": True, "precision": "bf16"}])
@pytest.mark.parametrize("classes", [(AOLConv2d, SOCConv2d, CPLConv2d), (BCOPConv2d,)])
def test_a_captured_run_goes_on_where_it_was_stopped(stand_in, tmp_path, classes, speed):
    settings, path = with_(cuda_graphs=True, **speed), tmp_path / "checkpoint"
    whole = network(*classes)
    expected = train(whole, Synthetic(), settings)
    callback = interrupt_at(3, 4, 6)
    for _ in range(3):
        with pytest.raises(Interrupted):
            train(network(*classes), Synthetic(), settings, checkpoint_path=path, checkpoint_seconds=0,
                  on_progress=callback)  # fmt: skip
    model = network(*classes)
    outcome = train(model, Synthetic(), settings, checkpoint_path=path)
    assert bits(model) == bits(whole)
    assert timeless(outcome.history) == timeless(expected.history)


def test_long_power_iterations_come_at_their_pass(stand_in, monkeypatch):
    """The host counts the passes; an evaluation in between and a batch that is not captured do not confuse it."""
    monkeypatch.setattr(SOCConv2d, "PERIOD", 5)
    seen = []
    iterate = SOCConv2d._iterate

    def note(self, iterations):
        seen.append((self.updates, iterations))
        iterate(self, iterations)

    model = nn.Sequential(nets.PadChannels(4), SOCConv2d(4, 4, 3), nn.Flatten(), nn.Linear(256, 3))
    monkeypatch.setattr(SOCConv2d, "_iterate", note)
    train(model, Synthetic(), with_(cuda_graphs=True))
    # The first is of a pass that finds the images' sizes, and is undone.
    assert seen == [(updates, SOCConv2d.LONG - SOCConv2d.SHORT) for updates in (0, 0, 5, 10)]
    assert model[1].updates == 12


def test_what_cannot_be_captured_trains_as_usual_and_says_why(monkeypatch):
    def refuse(body):
        raise RuntimeError("no capture here\nand a second line")

    monkeypatch.setattr(cuda_graph, "CudaGraph", refuse)
    monkeypatch.setattr(Speed, "check_device", lambda self, device: None)
    model, plain = network(SOCConv2d), network(SOCConv2d)
    outcome = train(model, Synthetic(), with_(cuda_graphs=True))
    assert outcome.notices == ["not captured: RuntimeError: no capture here"]
    train(plain, Synthetic(), SETTINGS)
    assert bits(model) == bits(plain)


class ReadsItsBias(CayleyConv2d):
    """Its input transformation reads a parameter that is in no operator."""

    def transform(self, x, operator):
        operator = {name: value for name, value in operator.items() if name != "bias"}
        return super().transform(x, operator) + self.bias[:, None, None]


class Restless(nn.Module):
    """Counts its passes, and draws."""

    def __init__(self):
        super().__init__()
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x):
        self.passes += self.training
        return x + 0 * torch.rand(())


def test_parameters_that_a_transform_reads_by_itself_are_trained_too(stand_in):
    model, plain = network(ReadsItsBias), network(ReadsItsBias)
    outcome = train(model, Synthetic(), with_(cuda_graphs=True))
    train(plain, Synthetic(), SETTINGS)
    assert outcome.notices == []
    for one, other in zip(model.state_dict().values(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_what_other_modules_do_is_done_once_a_step(stand_in):
    model = nn.Sequential(Restless(), *network(BCOPConv2d))
    train(model, Synthetic(), with_(cuda_graphs=True))
    assert model[0].passes == 12


def test_a_layer_that_is_used_twice_is_not_captured(stand_in):
    layer = AOLConv2d(4, 4, 3)
    model = nn.Sequential(nets.PadChannels(4), layer, layer, nn.Flatten(), nn.Linear(256, 3))
    outcome = train(model, Synthetic(), with_(cuda_graphs=True))
    assert outcome.notices == ["not captured: AOLConv2d is not called once in each pass"]


def test_a_graph_is_made_anew_where_a_callback_changes_the_model(stand_in):
    def freeze(progress):
        model[1].weight.requires_grad_(progress.step < 6)

    model = network(AOLConv2d)
    kept = []
    train(model, Synthetic(), with_(cuda_graphs=True),
          on_progress=lambda progress: (freeze(progress), kept.append(model[1].weight.detach().clone())))  # fmt: skip
    assert Again.recorded == 2
    assert not torch.equal(kept[4], kept[5])


def test_nothing_holds_the_graph_after_training(stand_in, monkeypatch):
    class Holds(Again):
        """As a graph does: it keeps tensors, not the function."""

        def __init__(self, body):
            super().__init__(body)
            again = weakref.WeakMethod(body)
            self.replay = lambda: again()()

    monkeypatch.setattr(cuda_graph, "CudaGraph", Holds)
    found = []
    made = cuda_graph.CapturedPass.__init__

    def note(self, *given):
        found.append(weakref.ref(self))
        made(self, *given)

    gc.collect()
    gc.disable()
    try:
        monkeypatch.setattr(cuda_graph.CapturedPass, "__init__", note)
        model = network(AOLConv2d)
        train(model, Synthetic(), with_(cuda_graphs=True))
        assert [each() for each in found] == [None]
    finally:
        gc.enable()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_loss_that_is_not_finite_ends_a_captured_run(stand_in):
    class Breaks(Synthetic):
        def epoch(self, epoch, start=0):
            for step, (images, labels) in enumerate(super().epoch(epoch, start), start):
                yield (images * float("nan") if (epoch, step) == (1, 1) else images), labels

    outcome = train(network(AOLConv2d), Breaks(), with_(cuda_graphs=True))
    assert outcome.status == "diverged"
    assert (outcome.diverged["epoch"], outcome.diverged["step"]) == (1, 5)


@cuda
@pytest.mark.parametrize("speed", [{}, {"channels_last": True, "fused": True},
                                   {"channels_last": True, "fused": True, "precision": "bf16"}])  # fmt: skip
@pytest.mark.parametrize("cls", LAYERS)
def test_on_cuda_captured_training_is_the_usual_one(cls, speed):
    assert issubclass(cls, LipschitzConv2d)
    model, plain = network(cls).cuda(), network(cls).cuda()
    outcome = train(model, Batches("cuda"), with_(cuda_graphs=True, **speed))
    expected = train(plain, Batches("cuda"), with_(**speed))
    assert outcome.notices == []
    rough = 0.05 if "precision" in speed else 1e-3
    for line, other in zip(outcome.history, expected.history, strict=True):
        assert line["loss"] == pytest.approx(other["loss"], rel=rough)
    if cls is SOCConv2d:
        assert all(model[place].updates == 12 for place in (1, 3))


@cuda
def test_on_cuda_the_device_leaves_the_weights_alone_where_the_loss_is_not_finite():
    class Breaks(Batches):
        def epoch(self, epoch, start=0):
            for step, (images, labels) in enumerate(super().epoch(epoch, start), start):
                yield (images * float("nan") if (epoch, step) == (1, 1) else images), labels

    model = network(AOLConv2d).cuda()
    outcome = train(model, Breaks("cuda"), with_(cuda_graphs=True, channels_last=True, fused=True))
    assert (outcome.status, outcome.diverged["step"]) == ("diverged", 5)
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
