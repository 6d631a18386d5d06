import math

import pytest
import torch
from torch import nn

from lipref.errors import LiprefError
from lipref.losses import OFFSET, offset_cross_entropy


def by_hand(logits, labels, offset, temperature):
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        shifted = [(value - offset * (index == label)) / temperature for index, value in enumerate(row)]
        total += math.log(sum(math.exp(value) for value in shifted)) - shifted[label]
    return temperature * total / len(labels)


def test_zero_logits_of_ten_classes():
    loss = offset_cross_entropy(torch.zeros(4, 10, dtype=torch.float64), torch.tensor([0, 3, 9, 3]))
    # t (m/t + log(9 + exp(-m/t))) with m = 0.39931, t = 1/4: 0.39931 + 0.25 log(9.20245)
    assert loss.item() == pytest.approx(0.39931 + 0.25 * math.log(9.20245), abs=1e-5)
    assert loss.item() == pytest.approx(0.954, abs=5e-4)


def test_two_classes_by_hand():
    # logits (1, 0), label 0, m = 1/2, t = 1/2: 1/2 log(1 + exp(-(1 - 1/2) / (1/2))) = 1/2 log(1 + 1/e)
    loss = offset_cross_entropy(torch.tensor([[1.0, 0.0]], dtype=torch.float64), torch.tensor([0]), 0.5, 0.5)
    assert loss.item() == pytest.approx(0.5 * math.log(1 + math.exp(-1)), rel=1e-12)


@pytest.mark.parametrize(("offset", "temperature"), [(OFFSET, 0.25), (0.0, 1.0), (1.5, 0.125)])
def test_mean_over_the_batch(offset, temperature):
    logits = [[0.3, -1.0, 0.7], [2.0, 0.1, -0.4], [0.0, 0.0, 0.0]]
    labels = [2, 1, 0]
    loss = offset_cross_entropy(torch.tensor(logits, dtype=torch.float64), torch.tensor(labels), offset, temperature)
    assert loss.item() == pytest.approx(by_hand(logits, labels, offset, temperature), rel=1e-12)


def test_without_offset_and_at_temperature_one_it_is_the_cross_entropy():
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(7, 5, generator=generator), torch.randint(5, (7,), generator=generator)
    torch.testing.assert_close(
        offset_cross_entropy(logits, labels, 0.0, 1.0), nn.functional.cross_entropy(logits, labels)
    )


def test_gradient():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 3, 1])
    assert torch.autograd.gradcheck(lambda x: offset_cross_entropy(x, labels), (logits,))


@pytest.mark.parametrize(
    ("logits", "labels", "temperature", "named"),
    [
        (torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64), 0.25, "(2, 3)"),
        (torch.zeros(3), torch.zeros(3, dtype=torch.int64), 0.25, "(3,)"),
        (torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64), 0.0, "temperature=0.0"),
        (torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64), math.nan, "temperature=nan"),
    ],
)
def test_refusals_are_one_line(logits, labels, temperature, named):
    with pytest.raises(LiprefError) as caught:
        offset_cross_entropy(logits, labels, temperature=temperature)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)
