"""Every layer learns: after four epochs on the digits it is above a floor that a broken one does not reach."""

import pytest
import torch

from lipref.certification.bounds import network_bound
from lipref.certification.certify import RADII, certify
from lipref.data import Batches, load_dataset, pixels
from lipref.layers import LAYERS
from lipref.nets import convnet
from lipref.training import TrainingConfig, train

# Learning rate, and the floors of accuracy and CRA(36/255), some points below what it reaches.
FLOORS = {
    "standard": (0.01, 0.85, 0.0),
    "aol": (0.1, 0.76, 0.46),
    "bcop": (0.01, 0.86, 0.78),
    "cayley": (0.01, 0.86, 0.76),
    "cpl": (0.3, 0.72, 0.3),
    "lot": (0.1, 0.86, 0.74),
    "sll": (0.3, 0.64, 0.18),
    "soc": (0.1, 0.76, 0.44),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_floor(name):
    learning_rate, accuracy, cra = FLOORS[name]
    data = load_dataset("digits")
    torch.manual_seed(0)
    model = convnet("XS", name, data.num_classes, data.channels, data.image_size)
    batches = Batches(data.train, data, batch_size=64, seed=0, device="cpu")
    outcome = train(model, batches, TrainingConfig(epochs=4, batch_size=64, learning_rate=learning_rate))
    assert outcome.status == "done"
    found = certify(model, pixels(data.test, data, "cpu", torch.float64, 180), network_bound(model).bound)
    assert found.accuracy.value >= accuracy
    assert found.cra[RADII[0]].value >= cra
