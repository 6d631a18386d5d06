"""A training run of a second: stateless batches, and a network with everything that a checkpoint must carry."""

import torch
from torch import nn

from lipref.training import TrainingConfig, train

SETTINGS = TrainingConfig(epochs=3, learning_rate=0.01, batch_size=8, weight_decay=1e-3, seed=5)


class Synthetic:
    """Stateless batches: four steps per epoch, the last one partial; the label decides the brightness."""

    def __init__(self, batch_size=8, images=28, seed=5):
        self.batch_size, self.images, self.seed = batch_size, images, seed

    def __len__(self):
        return -(-self.images // self.batch_size)

    def epoch(self, epoch, start=0):
        for step in range(start, len(self)):
            count = min(self.batch_size, self.images - step * self.batch_size)
            generator = torch.Generator().manual_seed(10_000 * self.seed + 100 * epoch + step)
            labels = torch.randint(3, (count,), generator=generator)
            noise = torch.rand(count, 3, 8, 8, generator=generator)
            yield noise + labels[:, None, None, None] / 3, labels


class PowerNormalised(nn.Conv2d):
    """A convolution with what a checkpoint must carry: a buffer that moves in training, an integer, another layout."""

    def __init__(self, *arguments, **keywords):
        super().__init__(*arguments, **keywords)
        self.register_buffer("vector", torch.ones(self.weight[0].numel()))
        self.register_buffer("calls", torch.tensor(0))
        self.weight.data = self.weight.data.contiguous(memory_format=torch.channels_last)

    def forward(self, x):
        matrix = self.weight.reshape(len(self.weight), -1)
        if self.training:
            self.calls += 1
            with torch.no_grad():
                self.vector.copy_(nn.functional.normalize(matrix.T @ (matrix @ self.vector), dim=0))
        return nn.functional.conv2d(x, self.weight / (matrix @ self.vector).norm(), self.bias, padding=1)


class Unused(nn.Module):
    """A parameter without gradients, so without a momentum buffer."""

    def __init__(self):
        super().__init__()
        self.spare = nn.Parameter(torch.ones(2))

    def forward(self, x):
        return x


def build():
    torch.manual_seed(5)
    return nn.Sequential(
        PowerNormalised(3, 6, 3), nn.ReLU(), PowerNormalised(6, 6, 3), Unused(), nn.Flatten(), nn.Linear(6 * 64, 3)
    )


def bits(model):
    return {
        name: tensor.detach().contiguous().reshape(-1).view(torch.uint8).tolist()
        for name, tensor in model.state_dict().items()
    }


def timeless(history):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


def undisturbed(settings=SETTINGS):
    model = build()
    return model, train(model, Synthetic(), settings)


class Interrupted(Exception):
    pass


def interrupt_at(*steps):
    """A callback that raises after these steps, once each."""
    left = list(steps)

    def callback(progress):
        if left and progress.step == left[0]:
            left.pop(0)
            raise Interrupted

    return callback
