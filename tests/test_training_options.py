"""Training options: each trains, goes on bit for bit where it was stopped, is recorded, and leaves no trace."""

import copy
import dataclasses
import json
import math

import pytest
import torch
from tiny_runs import CPU, tiny
from torch import nn
from toy_training import SETTINGS, Interrupted, Synthetic, bits, interrupt_at, timeless

from lipref import nets, tensor_files
from lipref.activations import MaxMin
from lipref.certification import certify
from lipref.certification.bounds import network_bound
from lipref.certification.float_error import evaluation_error
from lipref.cli import display
from lipref.data import pixels
from lipref.errors import LiprefError
from lipref.layers import AOLConv2d, BCOPConv2d, CayleyConv2d, CPLConv2d, LOTConv2d, SOCConv2d
from lipref.losses import offset_cross_entropy
from lipref.runs import experiment, plans, records
from lipref.training import forward, optimizer, train
from lipref.training import trainer as training
from lipref.training.config import TrainingConfig, learning_rate_at
from lipref.training.speed import Speed, beyond_rounding, options_of

OPTIONS = {
    "channels last": {"speed": Speed(channels_last=True)},
    "bf16": {"speed": Speed(precision="bf16")},
    "foreach": {"speed": Speed(fused=True)},
    "ema": {"ema": 0.7},
    "all": {"speed": Speed(channels_last=True, precision="bf16", fused=True), "ema": 0.7},
}


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=OPTIONS)
def settings(request):
    return dataclasses.replace(SETTINGS, **OPTIONS[request.param])


def network(*more):
    """Layers with kernels of several layouts and moving vectors, and one of the user's own that has no operator."""
    torch.manual_seed(5)
    return nn.Sequential(
        nets.PadChannels(4), AOLConv2d(4, 4, 3), MaxMin(), nn.Sequential(SOCConv2d(4, 4, 3), MaxMin()),
        BCOPConv2d(4, 4, 3), CPLConv2d(4, 4, 3), nn.Conv2d(4, 4, 1), *(cls(4, 4, 3) for cls in more), nn.Flatten(),
        nn.Linear(256, 3),
    )  # fmt: skip


def trained(settings, model=None, **options):
    model = network() if model is None else model
    return model, train(model, Synthetic(), settings, **options)


def with_(**speed):
    return dataclasses.replace(SETTINGS, speed=Speed(**speed))


# --- without options -------------------------------------------------------------------------------------------------


def test_without_options_the_numbers_are_those_of_a_plain_loop_bit_for_bit():
    model, outcome = trained(SETTINGS)
    plain, batches = network().train(), Synthetic()
    optimizer = torch.optim.SGD(plain.parameters(), lr=1.0, momentum=SETTINGS.momentum, weight_decay=1e-3)
    losses = []
    for step in range(12):
        images, labels = list(batches.epoch(step // 4))[step % 4]
        optimizer.param_groups[0]["lr"] = learning_rate_at(SETTINGS, step, 4)
        optimizer.zero_grad()
        loss = offset_cross_entropy(plain(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item() * len(labels))
    assert bits(model) == bits(plain)
    assert [line["loss"] for line in outcome.history] == [sum(losses[i : i + 4]) / 28 for i in (0, 4, 8)]
    assert (outcome.compile_seconds, outcome.notices) == (0.0, [])


def test_without_options_a_configuration_is_what_it_was():
    settings = TrainingConfig(epochs=3, learning_rate=0.1).as_dict()
    assert list(settings) == [
        "epochs", "learning_rate", "batch_size", "weight_decay", "momentum", "schedule", "offset", "temperature",
        "seed",
    ]  # fmt: skip
    assert TrainingConfig(**settings) == TrainingConfig(epochs=3, learning_rate=0.1)
    assert options_of(settings) == beyond_rounding(settings) == ""


def test_options_are_part_of_the_configuration(settings):
    plain = tiny()[0]
    config = dataclasses.replace(plain, settings=settings)
    stored = json.loads(json.dumps(config.as_dict()))
    assert config.digest != dataclasses.replace(plain, settings=SETTINGS).digest
    assert records.RunConfig(**(stored | {"settings": TrainingConfig(**stored["settings"])})) == config
    assert options_of(stored["settings"])
    changed = settings.speed.precision != "float32" or settings.ema is not None
    assert bool(beyond_rounding(stored["settings"])) == changed


# --- what they do ----------------------------------------------------------------------------------------------------


def test_the_training_is_the_same_but_for_rounding(settings):
    _, plain = trained(SETTINGS)
    model, outcome = trained(settings)
    assert outcome.status == "done"
    tolerance = 0.05 if settings.speed.precision == "bf16" else 1e-4
    for line, expected in zip(outcome.history, plain.history, strict=True):
        assert line["loss"] == pytest.approx(expected["loss"], rel=tolerance)
        if settings.speed.precision == "bf16":
            assert line["loss"] != expected["loss"]
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    strides = {name: tensor.stride() for name, tensor in network().state_dict().items()}
    assert {name: tensor.stride() for name, tensor in model.state_dict().items()} == strides
    assert not any(module.__dict__.get("_given") for module in model.modules())


def test_a_run_stopped_at_every_step_goes_on_bit_for_bit(settings, tmp_path):
    whole, expected = trained(settings)
    path, callback, model = tmp_path / "checkpoint", interrupt_at(*range(1, 13)), None
    for _ in range(12):
        with pytest.raises(Interrupted):
            trained(settings, checkpoint_path=path, checkpoint_seconds=0, on_progress=callback)
        torch.manual_seed(99)
    model, outcome = trained(settings, checkpoint_path=path)
    assert bits(model) == bits(whole)
    assert timeless(outcome.history) == timeless(expected.history)


@pytest.mark.parametrize(("given", "named"), [("ema", "ema=None instead of 0.7"), ("bf16", "speed=None instead of {")])
def test_a_run_with_other_options_is_refused(tmp_path, given, named):
    path = tmp_path / "checkpoint"
    trained(SETTINGS, checkpoint_path=path)
    with pytest.raises(LiprefError) as caught:
        trained(dataclasses.replace(SETTINGS, **OPTIONS[given]), checkpoint_path=path)
    assert named in str(caught.value)


def test_foreach_gives_the_usual_numbers():
    model, outcome = trained(with_(fused=True))
    assert bits(model) == bits(trained(SETTINGS)[0])
    assert outcome.notices == ["fused SGD is for CUDA: the foreach form is taken, with the usual numbers"]


@pytest.fixture
def seen(monkeypatch):
    """Of every input transformation: the layer; the dtypes of input, output and operator; who is channels last."""
    calls = []
    for cls in (AOLConv2d, SOCConv2d, BCOPConv2d, CPLConv2d, CayleyConv2d):

        def transform(self, x, operator, plain=cls.transform):
            y = plain(self, x, operator)
            layouts = {tensor.is_contiguous(memory_format=torch.channels_last) for tensor in (x, y)}
            calls.append((type(self), [tensor.dtype for tensor in (x, y, *operator.values())], layouts))
            return y

        monkeypatch.setattr(cls, "transform", transform)
    return calls


def test_channels_last_reaches_images_and_activations(seen):
    trained(with_(channels_last=True))
    assert len(seen) == 4 * 13  # the first pass finds the images' sizes
    assert all(layouts == {True} for *_, layouts in seen[4:])


class Views(nn.Module):
    """Code of the user's own that counts on rows."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Conv2d(4, 4, 3, padding=1)
        self.weight = nn.Parameter(torch.eye(4)[:, :, None, None].contiguous())

    def forward(self, x):
        x = self.inner(x).view(len(x), 4, -1)
        return (self.weight.view(4, 4) @ x).view(len(x), 4, 8, 8)


class OwnLayer(AOLConv2d):
    def transform(self, x, operator):
        return super().transform(x.view(len(x), -1).view(x.shape), {"weight": operator["weight"].view(4, 4, 3, 3)})


@pytest.mark.parametrize("speed", [{"channels_last": True}, {"channels_last": True, "precision": "bf16"}])
def test_code_of_ones_own_keeps_the_usual_layout(speed):
    torch.manual_seed(5)
    model = nn.Sequential(nets.PadChannels(4), AOLConv2d(4, 4, 3), MaxMin(), Views(), AOLConv2d(4, 4, 3), MaxMin(),
                          OwnLayer(4, 4, 3), nn.Flatten(), nn.Linear(256, 3))  # fmt: skip
    outcome = trained(with_(**speed), model)[1]
    assert outcome.status == "done"
    assert outcome.notices == ["not with channels last: Views may count on the usual layout"]


def test_bfloat16_is_of_the_input_transformations_alone(seen, monkeypatch):
    prepared = []

    def look(self, size, prepare=SOCConv2d.prepare):
        prepared.append(torch.is_autocast_enabled("cpu"))
        return prepare(self, size)

    monkeypatch.setattr(SOCConv2d, "prepare", look)
    trained(with_(precision="bf16"), network(CayleyConv2d))
    assert prepared == [False] * 12
    for cls, (x, y, *operator), _ in seen:
        assert torch.bfloat16 not in operator
        if cls is AOLConv2d:
            assert (x, y) == (torch.float32, torch.bfloat16)  # the first layer
        elif cls in (BCOPConv2d, CayleyConv2d):
            assert y == (torch.float32 if cls is CayleyConv2d else torch.bfloat16)  # Fourier transforms have no other


def test_soc_that_recomputes_is_the_same_in_bfloat16():
    model = network()
    model[3][0].recompute = True
    assert bits(trained(with_(precision="bf16"), model)[0]) == bits(trained(with_(precision="bf16"))[0])


def test_a_callback_sees_the_network_without_any_trace(settings):
    def evaluate(progress):
        twin = copy.deepcopy(model).eval()
        model.eval()
        with torch.no_grad():
            assert torch.equal(model(images), twin(images))
            assert model(images).dtype == torch.float32

    images, model = torch.rand(2, 3, 8, 8), network()
    trained(settings, model, on_progress=evaluate)
    assert bits(model) == bits(trained(settings)[0])


def test_after_a_fused_step_evaluation_uses_the_new_weights(monkeypatch):
    monkeypatch.setattr(optimizer, "FUSED", ("cpu",))
    settings = dataclasses.replace(with_(fused=True), learning_rate=0.05, schedule="constant")
    model, images = network(), torch.rand(2, 3, 8, 8)
    assert optimizer.sgd(dict(model.named_parameters()), settings).defaults["fused"]
    before = model.eval()(images)
    outputs = []

    def evaluate(progress):
        model.eval()
        outputs.append(model(images).detach())
        assert torch.equal(outputs[-1], copy.deepcopy(model).eval()(images))

    trained(settings, model, on_progress=evaluate)
    assert all(not torch.equal(x, y) for x, y in zip([before, *outputs], outputs, strict=False))
    # The layers' kept operators see it also where nobody calls train() or eval() in between.
    layer = AOLConv2d(4, 4, 3).eval()
    step = torch.optim.SGD(layer.parameters(), 0.1, fused=True).step
    kept = layer.operator((8, 8))["weight"].clone()
    layer.weight.grad = torch.ones_like(layer.weight) + layer.weight.detach().roll(1)
    step()
    assert not torch.equal(layer.operator((8, 8))["weight"], kept)
    assert torch.equal(layer.operator((8, 8))["weight"], copy.deepcopy(layer).eval().operator((8, 8))["weight"])


def test_the_average_is_of_all_steps_and_takes_the_weights_place(tmp_path):
    weights = []
    model = network()
    settings = dataclasses.replace(SETTINGS, ema=0.7)
    path = tmp_path / "checkpoint"

    def note(progress):
        weights.append({name: parameter.detach().double().clone() for name, parameter in model.named_parameters()})

    _, outcome = trained(settings, model, on_progress=note, checkpoint_path=path)
    last, plain = trained(SETTINGS)
    assert timeless(outcome.history) == timeless(plain.history)
    for name, parameter in model.named_parameters():
        average = weights[0][name]
        for step in weights[1:]:
            average = 0.7 * average + 0.3 * step[name]
        torch.testing.assert_close(parameter.detach().double(), average, rtol=1e-5, atol=1e-7)
    assert any(not torch.equal(a, b) for a, b in zip(model.parameters(), last.parameters(), strict=True))
    for name, buffer in last.named_buffers():
        assert torch.equal(dict(model.named_buffers())[name], buffer)
    kept, _ = tensor_files.load(path)
    for name, parameter in last.named_parameters():
        assert torch.equal(kept[f"model/{name}"], parameter)  # a run goes on from the last weights


# --- compiled --------------------------------------------------------------------------------------------------------


@pytest.fixture
def backend(monkeypatch):
    """Traced and differentiated as for any compiler, but not translated: quick."""

    def use(name="aot_eager"):
        monkeypatch.setattr(forward, "BACKEND", name)

    use()
    yield use
    torch.compiler.reset()


def small():
    torch.manual_seed(5)
    return nn.Sequential(nets.PadChannels(4), SOCConv2d(4, 4, 3), MaxMin(), CPLConv2d(4, 4, 3), nn.Flatten(),
                         nn.Linear(256, 3))  # fmt: skip


@pytest.mark.parametrize("speed", [{}, {"channels_last": True, "precision": "bf16"}])
def test_compiled_training_is_the_same_but_for_rounding_and_goes_on(tmp_path, monkeypatch, backend, speed):
    settings, path = with_(compile=True, **speed), tmp_path / "checkpoint"
    plain, expected = trained(with_(**speed), small())
    torch._dynamo.utils.counters.clear()
    model, outcome = trained(settings, small())
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1  # the last, smaller batch asks for no other
    assert not torch._dynamo.utils.counters["graph_break"]
    assert outcome.notices == []
    assert outcome.compile_seconds > 0
    assert outcome.train_seconds == pytest.approx(sum(line["seconds"] for line in outcome.history))
    for line, other in zip(outcome.history, expected.history, strict=True):
        assert line["loss"] == pytest.approx(other["loss"], rel=0.05 if speed else 1e-5)
    assert model[1].updates == plain[1].updates == 12  # compilation moved no vectors
    if speed:
        return
    callback = interrupt_at(3, 6)
    for _ in range(2):
        with pytest.raises(Interrupted):
            trained(settings, small(), checkpoint_path=path, checkpoint_seconds=0, on_progress=callback)
    again, resumed = trained(settings, small(), checkpoint_path=path)
    assert bits(again) == bits(model)
    assert timeless(resumed.history) == timeless(outcome.history)
    assert resumed.compile_seconds > 0


def test_compilation_is_no_training_time(monkeypatch):
    def ready(self, images, finish):
        self.compile_seconds += 1000.0

    monkeypatch.setattr(forward.Forward, "ready", ready)
    outcome = trained(SETTINGS)[1]
    assert outcome.compile_seconds == 12 * 1000.0
    assert outcome.train_seconds == pytest.approx(sum(line["seconds"] for line in outcome.history), rel=1e-12)
    assert outcome.train_seconds < -11_000.0  # what the clock says, less what compilation is said to have taken


def has_compiler():
    from torch._inductor import cpp_builder, exc

    try:
        return bool(cpp_builder.get_cpp_compiler())
    except exc.InvalidCxxCompiler:
        return False


@pytest.mark.skipif(not has_compiler(), reason="torch.compile needs a C++ compiler on the CPU")
def test_with_the_compiler_itself(backend):
    backend("inductor")
    torch.manual_seed(5)
    model = nn.Sequential(nets.PadChannels(4), AOLConv2d(4, 4, 3), MaxMin(), nn.Flatten(), nn.Linear(256, 3))
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    _, outcome = trained(with_(compile=True), model)
    model.load_state_dict(start)
    _, expected = trained(SETTINGS, model)
    assert outcome.notices == []
    for line, other in zip(outcome.history, expected.history, strict=True):
        assert line["loss"] == pytest.approx(other["loss"], rel=1e-5)


def test_what_cannot_be_compiled_trains_as_without_and_says_why(backend):
    def fails(graph, inputs):
        raise RuntimeError("no compiler here\nand a second line")

    backend(fails)
    model, outcome = trained(with_(compile=True), small())
    (notice,) = outcome.notices
    assert notice == "not compiled: RuntimeError: no compiler here"
    assert bits(model) == bits(trained(SETTINGS, small())[0])


@pytest.mark.parametrize("cls", [CayleyConv2d, LOTConv2d])
def test_layers_of_complex_numbers_are_compiled_too(backend, cls):
    outcome = trained(with_(compile=True), network(cls))[1]
    assert outcome.notices == []
    for line, other in zip(outcome.history, trained(SETTINGS, network(cls))[1].history, strict=True):
        assert line["loss"] == pytest.approx(other["loss"], rel=1e-4)


def test_a_layer_that_is_used_twice_prepares_its_operator_each_time(backend):
    layer = AOLConv2d(3, 3, 3)
    model = nn.Sequential(layer, MaxMin(), layer, nn.Flatten(), nn.Linear(192, 3))
    assert trained(with_(compile=True), model)[1].notices == []


# --- records and certificates ----------------------------------------------------------------------------------------


def test_the_record_says_it_and_the_certificate_is_made_as_ever(tmp_path):
    speed = Speed(channels_last=True, precision="bf16", fused=True)
    config, data, spec = tiny(epochs=2, ema=0.9, speed=speed)
    record = experiment.execute(config, data, spec, tmp_path, device=CPU)
    assert record["config"]["settings"]["speed"] == {"channels_last": True, "precision": "bf16", "fused": True}
    assert record["config"]["settings"]["ema"] == 0.9
    assert record["compile_seconds"] == 0
    assert [notice.split(":")[0] for notice in record["notices"]] == ["fused SGD is for CUDA"]
    # A network that was never trained, with the saved weights, certified without a word of the options.
    tensors, meta = tensor_files.load(tmp_path / config.folder / "weights.safetensors")
    assert meta["config"] == record["config"]
    model = nets.convnet("XS", spec, data.num_classes, data.channels, data.image_size)
    model.load_state_dict(tensors)
    audit = network_bound(model.eval())
    images = pixels(data.test, data, CPU, torch.float64, experiment.CERTIFY_BATCH)
    found = certify.certify(model, images, audit.bound, evaluation_error(model, audit))
    assert found.as_dict() == record["certificate"]
    assert all(tensor.dtype in (torch.float32, torch.int64) for tensor in tensors.values())


def test_compilation_is_recorded_and_shown(tmp_path, monkeypatch):
    def refuse(*args, **options):
        raise LiprefError("because")

    monkeypatch.setattr(torch, "compile", refuse)
    config, data, spec = tiny(speed=Speed(compile=True))
    record = experiment.execute(config, data, spec, tmp_path, device=CPU)
    assert record["compile_seconds"] > 0
    assert record["notices"] == ["not compiled: because"]
    assert " s compiling" in display.outcome(record | {"compile_seconds": 3.0})
    assert " s compiling" not in display.outcome(record | {"compile_seconds": 0.0})
    lines = []
    with display.Display(display.console(), []) as shown:
        shown.note = lines.append
        shown.finished(record)
    assert lines[1].endswith("XS  not compiled: because")


# --- bad values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"ema": 1.0}, "ema=1.0"),
        ({"ema": 0.0}, "ema=0.0"),
        ({"ema": math.nan}, "ema=nan"),
        ({"ema": "0.9"}, "ema='0.9'"),
        ({"speed": {"precision": "half"}}, "precision='half'"),
        ({"speed": {"compile": 1}}, "compile=1"),
        ({"speed": {"warp": True}}, "speed={'warp': True}"),
        ({"speed": "fast"}, "speed='fast'"),
    ],
)
def test_values_that_do_not_fit(given, named):
    with pytest.raises(LiprefError) as caught:
        dataclasses.replace(SETTINGS, **given)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_a_device_or_weights_cannot_do_is_refused():
    with pytest.raises(LiprefError, match="cuda_graphs=True on cpu"):
        trained(with_(cuda_graphs=True))
    with pytest.raises(LiprefError, match=r"bf16.*torch\.float64"):
        trained(with_(precision="bf16"), network().double())
    given = {"dataset": "digits", "sizes": ["XS"], "layers": ["aol"]}
    with pytest.raises(LiprefError, match="cuda_graphs=True on cpu"):
        plans.draft(**given, speed=Speed(cuda_graphs=True))
    with pytest.raises(LiprefError, match=r"ema=0.9 with the budget 5min measured"):
        plans.draft(**given, budget="5min measured", ema=0.9)
    plan = plans.draft(**given, speed=Speed(fused=True), ema=0.9)
    assert plan.settings_of("digits", "XS", "aol").speed == Speed(fused=True)


def test_every_step_is_done_by_the_options(monkeypatch):
    """`RepeatedStep`, which is measured, does what a run does."""
    calls = []
    plain = forward.Forward.__call__
    monkeypatch.setattr(forward.Forward, "__call__", lambda self, images: calls.append(1) or plain(self, images))
    (images, labels), *_ = Synthetic().epoch(0)
    settings = dataclasses.replace(with_(precision="bf16"), epochs=1)
    step = training.RepeatedStep(network(), images, labels, settings)
    assert step() is None
    assert calls == [1]
