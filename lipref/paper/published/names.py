"""The paper's data sets, budgets and layers, by its names and by ours."""

from __future__ import annotations

import pandas as pd

from lipref.layers import LAYERS

DATASETS = {
    "cifar10": "CIFAR-10",
    "cifar10-jpeg": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "tiny-imagenet-200": "TinyImageNet",
}
BUDGETS = ("2h", "10h", "24h")
RADII = ("36", "72", "108", "255")  # of CRA, in units of 1/255
_TITLES = {"TinyImageNet": "Tiny ImageNet"}


def dataset_of(dataset: str) -> str:
    """The paper's data set to show beside ``dataset``: the same one where the paper has it, else CIFAR-10."""
    return DATASETS.get(dataset, "CIFAR-10")


def dataset_title(name: str) -> str:
    """``Tiny ImageNet`` for the CSV files' ``TinyImageNet``."""
    return _TITLES.get(name, name)


def layer_name(method: str) -> str:
    """The name of ``LAYERS`` for the paper's method: ``Cayley`` -> ``cayley``."""
    return method.lower()


def known_layer(method: str) -> str:
    """The library's name of a method, or for one that it lacks (``ECO``) the paper's own."""
    return layer_name(method) if layer_name(method) in LAYERS else method


def sizes_of(table: pd.DataFrame) -> pd.Series:
    """The library's size of every row: ``XS``, or ``XS_1x1`` for 1x1 kernels."""
    return table["size"] + table.kernel_size.map({3: "", 1: "_1x1"})
