import math

import pytest
import torch
from torch import nn
from toy_training import SETTINGS, Synthetic, build

from lipref import tensor_files
from lipref.training import TrainingConfig, train


class Poison(nn.Module):
    """The identity, until a step at which its output or its gradient turns into NaN."""

    def __init__(self, step, where="output", value=math.nan):
        super().__init__()
        self.step, self.where, self.value, self.calls = step, where, value, 0

    def forward(self, x):
        if self.training:
            self.calls += 1
        if self.calls <= self.step:
            return x
        if self.where == "output":
            return x * self.value
        if self.where == "gradient":
            x = x.clone()
            x.register_hook(lambda gradient: gradient * self.value)
            return x
        raise torch.linalg.LinAlgError("linalg.cholesky: not positive-definite")


def poisoned(step, where="output", value=math.nan):
    torch.manual_seed(5)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), Poison(step, where, value), nn.Conv2d(4, 4, 1)),
        nn.Flatten(),
        nn.Linear(256, 3),
    )


def assert_finite(path):
    tensors, meta = tensor_files.load(path)
    assert tensors
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())
    return meta["position"]


@pytest.mark.parametrize(
    ("where", "value", "layer", "seen_at"),
    [
        ("output", math.nan, "1.1", 5),
        ("output", math.inf, "1.1", 5),
        ("failure", math.nan, "1.1", 5),
        # Seen by the next loss, checkpoint or not; the gradient spoils the layer before and all before that.
        ("gradient", math.nan, "1.0", 6),
    ],
)
def test_the_first_layer_with_a_nan_is_named_and_the_checkpoint_stays(tmp_path, where, value, layer, seen_at):
    path = tmp_path / "checkpoint"
    model = poisoned(5, where, value)
    outcome = train(model, Synthetic(), SETTINGS, checkpoint_path=path, checkpoint_seconds=0)
    assert outcome.status == "diverged"
    assert outcome.diverged["layer"] == layer
    assert (outcome.diverged["step"], outcome.diverged["epoch"]) == (seen_at, 1)
    assert "\n" not in outcome.diverged["what"]
    assert len(outcome.history) == 1
    assert not model.training
    position = assert_finite(path)
    assert (position["epoch"], position["step"]) == (1, 1)


def test_a_spoilt_gradient_between_checkpoints_is_seen_at_the_next_loss(tmp_path):
    path = tmp_path / "checkpoint"
    outcome = train(poisoned(5, "gradient"), Synthetic(), SETTINGS, checkpoint_path=path, checkpoint_seconds=3600)
    assert (outcome.status, outcome.diverged["layer"], outcome.diverged["step"]) == ("diverged", "1.0", 6)
    assert "1.0.weight is not finite" in outcome.diverged["what"]
    assert not path.exists()


@pytest.mark.parametrize("keep", [True, False])
def test_weights_spoilt_by_the_very_last_step_are_no_result(tmp_path, keep):
    path = tmp_path / "checkpoint" if keep else None
    outcome = train(poisoned(11, "gradient"), Synthetic(), SETTINGS, checkpoint_path=path, checkpoint_seconds=3600)
    assert (outcome.status, outcome.diverged["step"], outcome.diverged["epoch"]) == ("diverged", 11, 2)
    assert outcome.diverged["layer"] == "1.0"
    assert list(tmp_path.iterdir()) == []


def test_a_learning_rate_far_too_large(tmp_path):
    path = tmp_path / "checkpoint"
    settings = TrainingConfig(epochs=30, learning_rate=1e18, batch_size=8, schedule="constant", seed=5)
    outcome = train(poisoned(10**9), Synthetic(), settings, checkpoint_path=path, checkpoint_seconds=0)
    assert outcome.status == "diverged"
    assert outcome.diverged["layer"] in {"0", "1.0", "1.2", "3"}
    assert outcome.steps < 120
    assert_finite(path)


def test_a_diverged_run_started_again_diverges_again(tmp_path):
    path = tmp_path / "checkpoint"
    settings = TrainingConfig(epochs=30, learning_rate=1e18, batch_size=8, schedule="constant", seed=5)
    first, second = (
        train(poisoned(10**9), Synthetic(), settings, checkpoint_path=path, checkpoint_seconds=0) for _ in range(2)
    )
    assert first.diverged == second.diverged
    assert second.status == "diverged"


def test_images_that_are_not_finite_are_not_blamed_on_a_layer():
    class Spoilt(Synthetic):
        def epoch(self, epoch, start=0):
            for images, labels in super().epoch(epoch, start):
                yield images * math.nan, labels

    outcome = train(build(), Spoilt(), SETTINGS)
    assert outcome.diverged["layer"] is None
    assert "images" in outcome.diverged["what"]


def test_hooks_do_not_stay():
    model = poisoned(2)
    train(model, Synthetic(), SETTINGS)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
