import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset
from toy_training import SETTINGS, Synthetic, bits, build, undisturbed

from lipref.bench import workloads
from lipref.errors import LiprefError
from lipref.losses import OFFSET, offset_cross_entropy
from lipref.nets import convnet
from lipref.training import TrainingConfig, learning_rate_at, momentum_at, train


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=["onecycle", "paper", "constant"])
def settings(request):
    return dataclasses.replace(SETTINGS, schedule=request.param)


# --- the loop against the plainest one -------------------------------------------------------------------------------


def test_the_weights_and_the_history_are_those_of_a_plain_loop(settings):
    model, outcome = undisturbed(settings)
    plain, batches = build().train(), Synthetic()
    optimizer = torch.optim.SGD(plain.parameters(), lr=1.0, momentum=0.9, weight_decay=1e-3)
    steps = settings.epochs * len(batches)
    scheduler = None
    if settings.schedule == "onecycle":
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=steps, cycle_momentum=False)
    elif settings.schedule == "paper":
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=settings.epochs)
    else:
        optimizer.param_groups[0]["lr"] = 0.01
    last_step = 0
    for epoch in range(settings.epochs):
        losses = correct = certified = images_seen = 0
        for images, labels in batches.epoch(epoch):
            optimizer.zero_grad()
            logits = plain(images)
            loss = offset_cross_entropy(logits, labels)
            loss.backward()
            used = optimizer.param_groups[0]["lr"]
            optimizer.step()
            last_step += 1
            if settings.schedule == "onecycle" and last_step < steps:
                scheduler.step()
            losses += loss.item() * len(labels)
            images_seen += len(labels)
            for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
                margin = row[label] - max(value for index, value in enumerate(row) if index != label)
                correct += margin > 0
                certified += margin > math.sqrt(2) * 36 / 255
        if settings.schedule == "paper" and epoch + 1 < settings.epochs:
            scheduler.step()
        row = outcome.history[epoch]
        assert row["epoch"] == epoch
        assert row["loss"] == pytest.approx(losses / images_seen, rel=1e-9)
        assert row["accuracy"] == correct / images_seen
        assert row["cra_36"] == certified / images_seen
        assert row["learning_rate"] == pytest.approx(used, rel=1e-12)
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor, rtol=1e-6, atol=1e-7)
    assert outcome.status == "done"
    assert outcome.diverged is None
    assert outcome.steps == steps
    assert outcome.train_seconds == pytest.approx(sum(row["seconds"] for row in outcome.history))
    assert not any(module.training for module in model.modules())
    if settings.schedule == "constant":  # the other two are near zero at the end
        assert outcome.history[-1]["loss"] < outcome.history[0]["loss"]


def test_training_does_not_touch_or_use_the_global_random_state():
    first, _ = undisturbed()
    second = build()
    torch.manual_seed(99)
    state = torch.get_rng_state()
    train(second, Synthetic(), SETTINGS, on_progress=lambda progress: None)
    assert torch.equal(torch.get_rng_state(), state)
    assert bits(first) == bits(second)


def test_progress_after_every_step():
    seen = []
    model = build()
    outcome = train(model, Synthetic(), SETTINGS, on_progress=seen.append)
    assert [(p.epoch, p.step, p.total_steps) for p in seen] == [(i // 4, i + 1, 12) for i in range(12)]
    assert [p.learning_rate for p in seen] == [learning_rate_at(SETTINGS, i, 4) for i in range(12)]
    for row, last in zip(outcome.history, seen[3::4], strict=True):
        assert (row["loss"], row["accuracy"], row["cra_36"]) == (last.loss, last.accuracy, last.cra)


def test_the_callback_may_evaluate_the_model():
    reference, _ = undisturbed()
    model = build()

    def evaluate(progress):
        model.eval()
        with torch.no_grad():
            model(torch.ones(1, 3, 8, 8))

    train(model, Synthetic(), SETTINGS, on_progress=evaluate)
    assert bits(model) == bits(reference)


# --- schedules -------------------------------------------------------------------------------------------------------


def torch_one_cycle(total_steps, **keywords):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.07, total_steps=total_steps, **keywords)
    for step in range(total_steps):
        group = optimizer.param_groups[0]
        yield group["lr"], group["momentum"]
        optimizer.step()
        if step + 1 < total_steps:
            scheduler.step()


@pytest.mark.parametrize("epochs", [1, 2, 3, 4, 5, 7, 10, 33, 100])
@pytest.mark.parametrize("steps_per_epoch", [1, 2, 5])
def test_schedules_are_those_of_pytorch(epochs, steps_per_epoch):
    steps = range(epochs * steps_per_epoch)
    paper = TrainingConfig(epochs=epochs, learning_rate=0.07, schedule="paper")
    expected = [pair for pair in torch_one_cycle(epochs) for _ in range(steps_per_epoch)]
    got = [(learning_rate_at(paper, s, steps_per_epoch), momentum_at(paper, s, steps_per_epoch)) for s in steps]
    torch.testing.assert_close(torch.tensor(got).double(), torch.tensor(expected).double(), rtol=1e-10, atol=0)

    smooth = TrainingConfig(epochs=epochs, learning_rate=0.07, schedule="onecycle", momentum=0.8)
    expected = [rate for rate, _ in torch_one_cycle(len(steps), cycle_momentum=False)]
    got = [learning_rate_at(smooth, step, steps_per_epoch) for step in steps]
    torch.testing.assert_close(torch.tensor(got).double(), torch.tensor(expected).double(), rtol=1e-10, atol=0)
    assert {momentum_at(smooth, step, steps_per_epoch) for step in steps} == {0.8}


def test_landmarks_of_the_cycle():
    paper = TrainingConfig(epochs=10, learning_rate=0.5, schedule="paper")
    rates = [learning_rate_at(paper, step, 1) for step in range(10)]
    assert rates[0] == pytest.approx(0.5 / 25)
    assert rates[2] == pytest.approx(0.5)
    assert rates[9] == pytest.approx(0.5 / 25e4)
    assert [momentum_at(paper, step, 1) for step in (0, 2, 9)] == pytest.approx([0.95, 0.85, 0.95])
    constant = TrainingConfig(epochs=10, learning_rate=0.5, schedule="constant")
    assert {learning_rate_at(constant, step, 1) for step in range(10)} == {0.5}


@pytest.mark.parametrize("epochs", [1, 2])
def test_short_runs(settings, epochs):
    _, outcome = undisturbed(dataclasses.replace(settings, epochs=epochs))
    assert outcome.status == "done"
    assert len(outcome.history) == epochs


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("epochs", -1),
        ("epochs", 1.0),
        ("epochs", True),
        ("batch_size", 0),
        ("seed", -1),
        ("learning_rate", 0.0),
        ("learning_rate", -0.1),
        ("learning_rate", math.inf),
        ("learning_rate", math.nan),
        ("learning_rate", "1e-3"),
        ("weight_decay", -1e-9),
        ("weight_decay", math.nan),
        ("momentum", 1.0),
        ("momentum", -0.1),
        ("offset", math.nan),
        ("temperature", 0.0),
        ("temperature", math.inf),
        ("schedule", "cosine"),
    ],
)
def test_settings_out_of_range(name, value):
    with pytest.raises(LiprefError) as caught:
        dataclasses.replace(SETTINGS, **{name: value})
    assert f"{name}={value!r}" in str(caught.value)
    assert "\n" not in str(caught.value)
    if name == "schedule":
        assert "onecycle, paper, constant" in str(caught.value)


def test_any_whole_number_is_recorded_as_one():
    settings = TrainingConfig(epochs=np.int64(2), learning_rate=0.1, batch_size=np.uint8(9), seed=np.int32(0))
    plain = TrainingConfig(epochs=2, learning_rate=0.1, batch_size=9)
    assert json.dumps(settings.as_dict()) == json.dumps(plain.as_dict())


def test_defaults_are_the_paper_s():
    settings = TrainingConfig(epochs=1, learning_rate=0.1)
    assert (settings.batch_size, settings.offset, settings.temperature) == (256, OFFSET, 0.25)
    assert pytest.approx(2 * math.sqrt(2) * 36 / 255) == OFFSET


@pytest.mark.parametrize(
    ("model", "batches", "named"),
    [
        (build(), Synthetic(images=0), "no training batches"),
        (build(), Synthetic(batch_size=4), "batch_size=4"),
        (build(), Synthetic(seed=6), "seed=6"),
        (build().requires_grad_(False), Synthetic(), "Sequential has no trainable parameters"),
    ],
)
def test_nothing_to_train(model, batches, named):
    with pytest.raises(LiprefError, match=named):
        train(model, batches, SETTINGS)


def test_gradients_are_gone_before_the_next_forward_pass():
    """With what that keeps they would be the most that a step holds."""
    model, seen = convnet("XS", "standard", image_size=4), []
    model.first.register_forward_pre_hook(lambda *_: seen.extend(p.grad for p in model.parameters()))
    step = workloads.training(model.train(), torch.rand(2, 3, 4, 4), torch.arange(2))
    for _ in range(3):
        step()
    assert len(seen) == 3 * len(list(model.parameters()))
    assert all(gradient is None for gradient in seen)
    assert any(parameter.grad is not None for parameter in model.parameters())


def test_a_data_loader_is_refused_in_one_line():
    loader = DataLoader(TensorDataset(torch.rand(8, 3, 8, 8), torch.arange(8)), batch_size=SETTINGS.batch_size)
    with pytest.raises(LiprefError, match=r"DataLoader.*lipref\.data\.Batches\(.*epoch\(epoch, start\)"):
        train(build(), loader, SETTINGS)


def test_a_batch_without_images_is_named():
    class Holes(Synthetic):
        def epoch(self, epoch, start=0):
            for step, (images, labels) in enumerate(super().epoch(epoch, start), start):
                yield (images[:0], labels[:0]) if step == 2 else (images, labels)

    with pytest.raises(LiprefError, match="step 2 of epoch 0 has no images"):
        train(build(), Holes(), SETTINGS)
