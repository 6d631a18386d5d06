"""Checked by `basedpyright`, not executed: the library as its users' type checkers see it.

A line marked ``pyright: ignore`` must be an error; if it is none, the mark itself is reported.
"""

from typing import assert_type

import torch
from torch import nn

import lipref
from lipref import (
    AOLConv2d,
    Batches,
    LipschitzConv2d,
    MaxMin,
    TrainingConfig,
    audit,
    certify,
    convnet,
    fold,
    lipschitz_bound,
    load,
    load_dataset,
    margins,
    register,
    train,
)


@register("halved")
class Halved(AOLConv2d):
    def effective_kernel(self) -> torch.Tensor:
        return super().effective_kernel() / 2


def right() -> None:
    assert_type(Halved(8, 8, 3), Halved)  # `register` keeps the class
    layer: LipschitzConv2d = lipref.SOCConv2d(8, 16, 3, padding="same", train_terms=4, dtype=torch.float64)
    chain = nn.Sequential(AOLConv2d(3, 8, (3, 3), bias=False), MaxMin(), layer)
    data = load_dataset("digits", limit_train=100)
    model = convnet("XS", Halved, data.num_classes, data.channels, data.image_size)
    batches = Batches(data.train, data, batch_size=64, seed=0, device="cpu")
    assert_type(train(model, batches, TrainingConfig(epochs=1, learning_rate=0.1, batch_size=64)).status, str)
    bound = lipschitz_bound(model, (1, 8, 8))
    assert_type(bound, float)
    assert_type(audit(chain, (3, 8, 8)).bound, float | None)
    assert_type(certify(model, batches.epoch(0), bound).radii, torch.Tensor)
    assert_type(margins(torch.rand(2, 10), torch.tensor([0, 1])), torch.Tensor)
    assert_type(fold(model, 8), nn.Module)
    assert_type(load("data/runs/run").bound, float | None)


def wrong() -> None:
    AOLConv2d(8, 8, 3, strid=1)  # pyright: ignore[reportCallIssue]
    AOLConv2d("8", 8, 3)  # pyright: ignore[reportArgumentType]
    AOLConv2d(8, 8)  # pyright: ignore[reportCallIssue]
    lipref.SOCConv2d(8, 8, 3, train_terms="5")  # pyright: ignore[reportArgumentType]
    lipref.AOLConv3d(8, 8, 3)  # pyright: ignore[reportAttributeAccessIssue]
    Halved(8, 8, 3, scale=2)  # pyright: ignore[reportCallIssue]
    convnet("XS", AOLConv2d(8, 8, 3))  # pyright: ignore[reportArgumentType]
    TrainingConfig(epochs=1)  # pyright: ignore[reportCallIssue]
    TrainingConfig(epochs=1, learning_rate="0.1")  # pyright: ignore[reportArgumentType]
    lipschitz_bound(MaxMin(), 8)  # pyright: ignore[reportArgumentType]
    fold(AOLConv2d(8, 8, 3), "8x8")  # pyright: ignore[reportArgumentType]
