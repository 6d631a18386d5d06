"""A captured training pass is the usual one: on the CPU with a stand-in that records by running again, and on CUDA."""

import dataclasses
import gc
import weakref

import pytest
import torch
from torch import nn
from toy_training import SETTINGS, Interrupted, Synthetic, bits, interrupt_at, timeless

from lipref import capture, nets, stepping
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
    lot,
)
from lipref.linalg import asking, newton
from lipref.linalg.asking import allows
from lipref.speed import Speed
from lipref.training import train

CAPTURABLE = (StandardConv2d, AOLConv2d, SLLConv2d, CPLConv2d, SOCConv2d)
OTHERS = (BCOPConv2d, CayleyConv2d, LOTConv2d)
cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


class Again:
    """In place of a CUDA graph: replays by running the same function on the same tensors."""

    recorded = 0

    def __init__(self, warm_up, body):
        for _ in range(capture.WARM_UP):
            warm_up()
        body()
        self.replay = body
        type(self).recorded += 1


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setattr(capture, "CudaGraph", Again)
    monkeypatch.setattr(Speed, "check_device", lambda self, device: None)
    monkeypatch.setattr(Again, "recorded", 0)


def network(*classes):
    torch.manual_seed(5)
    layers = [module for cls in classes for module in (cls(4, 4, 3), MaxMin(), cls(4, 4, 3))]
    return nn.Sequential(nets.PadChannels(4), *layers, nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(256, 3))


@pytest.fixture
def device_ways(monkeypatch):
    """LOT prepares its operators as on a GPU, with the questions that it asks there."""
    monkeypatch.setattr(lot, "whitened", lambda v, terms: newton._WhitenedByProducts.apply(v, terms, 1e-4))


def with_(**speed):
    return dataclasses.replace(SETTINGS, speed=Speed(**speed))


class Batches(Synthetic):
    """On a device."""

    def __init__(self, device="cpu", **given):
        super().__init__(**given)
        self.device = device

    def epoch(self, epoch, start=0):
        return ((images.to(self.device), labels.to(self.device)) for images, labels in super().epoch(epoch, start))


@pytest.mark.parametrize("cls", [*CAPTURABLE, *OTHERS])
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
    assert not any({"forward", "_prepared", "_recorded"} & module.__dict__.keys() for module in model.modules())


@pytest.mark.parametrize("rate", [0.01, 0.03])
@pytest.mark.parametrize("cls", [BCOPConv2d, LOTConv2d])
def test_layers_that_ask_stay_in_the_graph(stand_in, device_ways, cls, rate):
    """Their weights move, and with them the answers: captured anew, with more room, they still train as usual."""
    settings = dataclasses.replace(SETTINGS, learning_rate=rate, epochs=5)
    model, plain = network(cls), network(cls)
    outcome = train(model, Synthetic(), dataclasses.replace(settings, speed=Speed(cuda_graphs=True)))
    expected = train(plain, Synthetic(), settings)
    assert outcome.notices == []
    assert 1 <= Again.recorded <= 6  # of 15 whole batches
    for line, other in zip(outcome.history, expected.history, strict=True):
        assert line["loss"] == pytest.approx(other["loss"], rel=1e-4)


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
    if any(cls.asks for cls in classes):  # what the graph was recorded with is of the moment, and so is its rounding
        tolerance = 1e-2 if speed else 1e-4
        for one, other in zip(model.state_dict().values(), whole.state_dict().values(), strict=True):
            assert (one - other).norm() <= tolerance * other.norm()
    else:
        assert bits(model) == bits(whole)
        assert timeless(outcome.history) == timeless(expected.history)


def test_long_power_iterations_come_at_their_pass(stand_in, monkeypatch):
    """The host counts the passes; an evaluation in between and a batch that is not captured do not confuse it."""
    monkeypatch.setattr(SOCConv2d, "PERIOD", 5)
    seen = []
    moved = SOCConv2d._move_vectors

    def move(self, unfoldings, iterations):
        seen.append((int(self.updates), iterations))
        moved(self, unfoldings, iterations)

    monkeypatch.setattr(SOCConv2d, "_move_vectors", move)
    model = nn.Sequential(nets.PadChannels(4), SOCConv2d(4, 4, 3), nn.Flatten(), nn.Linear(256, 3))
    seen.clear()
    train(model, Synthetic(), with_(cuda_graphs=True))
    assert [updates for updates, count in seen if count == SOCConv2d.LONG - SOCConv2d.SHORT] == [0, 5, 10]
    assert model[1].updates == 12


def test_what_cannot_be_captured_trains_as_usual_and_says_why(monkeypatch):
    def refuse(warm_up, body):
        raise RuntimeError("no capture here\nand a second line")

    monkeypatch.setattr(capture, "CudaGraph", refuse)
    monkeypatch.setattr(Speed, "check_device", lambda self, device: None)
    model, plain = network(SOCConv2d), network(SOCConv2d)
    outcome = train(model, Synthetic(), with_(cuda_graphs=True))
    assert outcome.notices == ["not captured: RuntimeError: no capture here"]
    train(plain, Synthetic(), SETTINGS)
    assert bits(model) == bits(plain)


class Asking(AOLConv2d):
    """Halves its kernel where the device says that the weights are small."""

    capturable = asks = True
    limit = 0.0
    seen = ()  # whether it was recorded, and the answer, of every pass

    def effective_kernel(self):
        small = allows(self.weight.detach().norm() < self.limit)
        type(self).seen = (*self.seen, (asking.recording(), small))
        return super().effective_kernel() * (0.5 if small else 1.0)


@pytest.mark.parametrize("most", [8, 0])
def test_a_pass_is_captured_anew_where_answers_change(stand_in, monkeypatch, most):
    """Weights grow in training: what was recorded for small ones is noticed not to hold, and done again."""
    monkeypatch.setattr(stepping, "MOST_SHORT", most)
    monkeypatch.setattr(Asking, "seen", ())
    start = network(Asking)[1].weight.detach().norm()
    monkeypatch.setattr(Asking, "limit", 1.0005 * float(start))
    settings = dataclasses.replace(with_(cuda_graphs=True), learning_rate=1.0, schedule="constant")
    model, plain = network(Asking), network(Asking)
    outcome = train(model, Synthetic(), settings)
    seen = Asking.seen
    expected = train(plain, Synthetic(), dataclasses.replace(settings, speed=Speed()))
    assert model[1].weight.detach().norm() > Asking.limit
    assert Again.recorded > 1
    assert {small for recorded, small in seen if recorded} == ({True, False} if most else {True})
    assert bool(outcome.notices) == (most == 0)
    for line, other in zip(outcome.history, expected.history, strict=True):
        assert line["loss"] == pytest.approx(other["loss"], rel=1e-4)


def test_what_cannot_be_recorded_with_answers_is_prepared_outside(stand_in, monkeypatch):
    class Refuses(Asking):
        capturable = True

        def effective_kernel(self):
            if asking.recording():
                raise RuntimeError("not in a graph")
            return super().effective_kernel()

    model, plain = network(Refuses, SOCConv2d), network(Refuses, SOCConv2d)
    outcome = train(model, Synthetic(), with_(cuda_graphs=True))
    assert outcome.notices == ["some operators are prepared outside of the CUDA graph: RuntimeError: not in a graph"]
    assert Again.recorded == 1
    expected = train(plain, Synthetic(), SETTINGS)
    for line, other in zip(outcome.history, expected.history, strict=True):
        assert line["loss"] == pytest.approx(other["loss"], rel=1e-5)


class ReadsItsBias(CayleyConv2d):
    """Not capturable, and its input transformation reads a parameter that is in no operator."""

    capturable = False

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


def test_parameters_that_a_graph_reads_by_itself_are_trained_too(stand_in):
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


def test_code_of_a_subclass_is_not_taken_for_what_its_parent_said():
    class Own(AOLConv2d):
        def effective_kernel(self):
            return super().effective_kernel()

    class Same(AOLConv2d):
        EPSILON = 1e-5

    assert [cls.is_capturable() for cls in (AOLConv2d, Same, Own, LipschitzConv2d)] == [True, True, False, False]


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

        def __init__(self, warm_up, body):
            super().__init__(warm_up, body)
            again = weakref.WeakMethod(body)
            self.replay = lambda: again()()

    monkeypatch.setattr(capture, "CudaGraph", Holds)
    found = []
    made = capture.CapturedPass.__init__

    def note(self, *given):
        found.append(weakref.ref(self))
        made(self, *given)

    gc.collect()
    gc.disable()
    try:
        monkeypatch.setattr(capture.CapturedPass, "__init__", note)
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
@pytest.mark.parametrize("cls", [*CAPTURABLE, *OTHERS])
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
