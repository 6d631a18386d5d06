"""A captured evaluation is the usual one, and never of weights that were: with a stand-in on the CPU, and on CUDA."""

import gc
import weakref

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from lipref import capture, nets, workloads
from lipref.errors import LiprefError
from lipref.evaluation import Evaluation
from lipref.layers import LAYERS, AOLConv2d, LipschitzConv2d, SOCConv2d
from lipref.speed import Speed

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
GRAPHS = Speed(cuda_graphs=True)
WAITS = {torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero, torch.ops.aten.equal, torch.ops.aten.is_nonzero}


class NoWait(TorchDispatchMode):
    """Refuses what would wait for the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func._overloadpacket not in WAITS, f"{func} in a graph"
        return func(*args, **(kwargs or {}))


class Recorded:
    """In place of a CUDA graph: runs the function again, into the tensors of the first time."""

    recorded = replayed = 0

    def __init__(self, warm_up, body):
        warm_up()
        with NoWait():
            self._outputs = body()
        self._body = body
        type(self).recorded += 1

    def replay(self):
        type(self).replayed += 1
        for kept, new in zip(self._outputs, self._body(), strict=True):
            if kept is not None:
                kept.copy_(new)
        return self._outputs


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setattr(capture, "CudaGraph", Recorded)
    monkeypatch.setattr(Speed, "check_device", lambda self, device: None)
    monkeypatch.setattr(Recorded, "recorded", 0)
    monkeypatch.setattr(Recorded, "replayed", 0)


def network(layer="aol", device=None):
    torch.manual_seed(3)
    return nets.convnet("XS", layer, image_size=8, device=device).eval()


def pictures(seed=0, count=3, device=None):
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed)).sub_(0.5).to(device)


@torch.no_grad()
def expected(model, images):
    """By the operators that are prepared anew."""
    return model.train().eval()(images)


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("layer", LAYERS)
def test_replays_are_what_the_model_gives(stand_in, layer, folded):
    model = network(layer)
    model = (workloads.folded(model) or model) if folded else model
    evaluate = Evaluation(model, GRAPHS)
    settled, found = [], []
    for seed in range(4):
        found.append(evaluate(pictures(seed)))
        settled.append(evaluate.settled)
    assert evaluate.notices == []
    assert settled == [False, False, True, True]
    assert (Recorded.recorded, Recorded.replayed) == (1, 2)
    for seed, logits in enumerate(found):  # each in memory of its own
        assert torch.equal(logits, expected(model, pictures(seed)))
        assert not logits.requires_grad
    assert not any("_checked" in module.__dict__ for module in model.modules())


def in_place(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.data.mul_(0.9)  # without a trace in the version counter, as a fused optimizer


def elsewhere(model):
    for parameter in model.parameters():
        parameter.data = parameter.data * 0.9


def retrained(model):
    model.train()
    model(pictures(9, 4))  # moves power vectors
    model.eval()


def other_setting(model):
    model.first.eval_terms = 1


def another_layer(model):
    model.block0_conv1 = model.block0_conv1.fold((8, 8))


@pytest.mark.parametrize("change", [in_place, elsewhere, retrained, other_setting, another_layer])
def test_a_change_of_the_model_is_never_missed(stand_in, change):
    model = network("soc")
    evaluate = Evaluation(model, GRAPHS)
    before = [evaluate(pictures()) for _ in range(3)][-1]
    change(model)
    after = [evaluate(pictures()) for _ in range(4)]
    assert Recorded.recorded == 2
    wanted = expected(model, pictures())
    assert all(torch.equal(logits, wanted) for logits in after)
    assert change in (another_layer, retrained) or not torch.equal(before, wanted)


def test_weights_that_change_at_every_batch_are_not_captured_again_and_again(stand_in):
    model = network()
    evaluate = Evaluation(model, GRAPHS)
    for _ in range(4):
        in_place(model)
        assert torch.equal(evaluate(pictures()), expected(model, pictures()))
    assert Recorded.recorded == 0


def test_a_last_batch_is_done_as_usual_and_the_graph_stays(stand_in):
    model = network()
    evaluate = Evaluation(model, GRAPHS)
    for seed, count in enumerate((3, 3, 3, 2, 3, 3)):
        assert torch.equal(evaluate(pictures(seed, count)), expected_of(model, seed, count))
    assert (Recorded.recorded, Recorded.replayed) == (1, 3)


@torch.no_grad()
def expected_of(model, seed, count):
    return model(pictures(seed, count))


def test_inference_mode_and_other_modes_take_turns(stand_in):
    model = network()
    evaluate = Evaluation(model, GRAPHS)
    with torch.inference_mode():
        for _ in range(3):
            logits = evaluate(pictures())
    assert torch.equal(evaluate(pictures()), logits)
    assert Recorded.replayed == 2


class Twice(nn.Module):
    """One layer, at two sizes."""

    def __init__(self):
        super().__init__()
        self.layer = AOLConv2d(3, 3, 3)

    def forward(self, x):
        return self.layer(self.layer(x)[..., :4, :4]).flatten(1)


def test_what_cannot_be_captured_is_done_as_usual_and_says_why(stand_in, monkeypatch):
    torch.manual_seed(0)
    model = Twice().eval()
    evaluate = Evaluation(model, GRAPHS)
    found = [evaluate(pictures()) for _ in range(4)]
    assert all(torch.equal(logits, expected(model, pictures())) for logits in found)
    assert Recorded.replayed == 0

    def refuse(warm_up, body):
        body()
        raise RuntimeError("no capture here\nand a second line")

    monkeypatch.setattr(capture, "CudaGraph", refuse)
    model = network()
    evaluate = Evaluation(model, GRAPHS)
    found = [evaluate(pictures()) for _ in range(3)]
    assert evaluate.notices == ["not captured: RuntimeError: no capture here"]
    assert all(torch.equal(logits, expected(model, pictures())) for logits in found)


def test_operators_that_were_only_recorded_are_not_left_behind(stand_in, monkeypatch):
    """A capture computes nothing: an operator that is prepared within one must not be kept."""

    def prepares(warm_up, body):
        model.first.__dict__["_kept"] = ((8, 8), {}, {})

    monkeypatch.setattr(capture, "CudaGraph", prepares)
    model = network()
    evaluate = Evaluation(model, GRAPHS)
    found = [evaluate(pictures()) for _ in range(3)]
    assert all(torch.equal(logits, expected(model, pictures())) for logits in found)
    assert evaluate.notices == ["not captured: AOLConv2d is used for images of several sizes in one pass"]


class Counts(nn.Module):
    """As code of a user's own may."""

    def __init__(self):
        super().__init__()
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x):
        self.passes += 1
        return x


def test_buffers_that_evaluation_moves_are_moved_once_a_batch(stand_in):
    model = nn.Sequential(Counts(), *network()).eval()
    evaluate = Evaluation(model, GRAPHS)
    for _ in range(4):
        evaluate(pictures())
    assert model[0].passes == 4
    in_place(model)
    evaluate(pictures())  # a replay that does not count, and then as usual
    assert (Recorded.replayed, model[0].passes) == (3, 5)


def test_elsewhere_than_where_it_was_made_and_under_autocast_nothing_is_captured(stand_in):
    for moved in (True, False):
        evaluate = Evaluation(nn.Sequential(nn.Flatten(), nn.Linear(192, 3)).eval(), GRAPHS)
        evaluate._device = "cuda" if moved else "cpu"
        with torch.autocast("cpu", enabled=not moved):
            for _ in range(3):
                evaluate(pictures())
        assert (Recorded.recorded, evaluate.settled) == (0, True)


def test_what_was_captured_is_given_back(stand_in):
    model = network()
    evaluate = Evaluation(model, GRAPHS)
    for _ in range(3):
        evaluate(pictures().requires_grad_())
    kept = weakref.ref(model.first._kept[1]["weight"])
    model.train()
    assert kept() is not None
    evaluate.release()
    gc.collect()
    assert kept() is None


def test_without_graphs_it_is_the_model():
    model = network("cayley")
    for speed in (None, Speed(channels_last=True)):
        evaluate = Evaluation(model, speed)
        assert all(torch.equal(evaluate(pictures()), expected(model, pictures())) for _ in range(3))
        assert evaluate.notices == []


def test_what_does_not_fit_is_refused():
    with pytest.raises(LiprefError, match="CUDA graphs need a CUDA device"):
        Evaluation(network(), GRAPHS)
    model = network()
    model.first.train()
    with pytest.raises(LiprefError, match=r"AOLConv2d is in training mode: call the network's eval\(\)"):
        Evaluation(model)(pictures())


@cuda
@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("layer", LAYERS)
def test_on_cuda_replays_are_what_the_model_gives(layer, folded):
    model = network(layer, "cuda")
    model = (workloads.folded(model) or model) if folded else model
    evaluate = Evaluation(model)
    found = [evaluate(pictures(seed, device="cuda")) for seed in range(4)]
    assert evaluate.notices == []
    assert evaluate._captured is not None
    for seed, logits in enumerate(found):
        torch.testing.assert_close(logits, expected(model, pictures(seed, device="cuda")), rtol=1e-5, atol=1e-6)


@cuda
@pytest.mark.parametrize("layer", ["soc", "bcop", "lot"])
def test_on_cuda_weights_that_a_fused_optimizer_moves_are_noticed(layer):
    model = network(layer, "cuda")
    evaluate = Evaluation(model)
    images = pictures(device="cuda")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
    for _ in range(3):
        for _ in range(3):
            found = evaluate(images)
        torch.testing.assert_close(found, expected(model, images), rtol=1e-5, atol=1e-6)
        model.train()
        model(images).square().sum().backward()
        model.eval()
        for _ in range(3):
            evaluate(images)
        optimizer.step()
        torch.testing.assert_close(evaluate(images), expected(model, images), rtol=1e-5, atol=1e-6)
    assert isinstance(model.first, LipschitzConv2d | SOCConv2d)
