"""Where layers are counted: a base point, and one of its symbols varied at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from lipref.counting.layer import count_layer
from lipref.layers import LayerSpec

# b batch, s image side, c channels, k kernel side: a layer in the middle of a network, and the paper's batch.
BASE = {"b": 256, "s": 32, "c": 64, "k": 3}
# The base values and larger ones: what formulas say to leading order shows at large values.
AXES = {
    "b": (256, 512, 1024), "s": (32, 64, 128), "c": (64, 128, 256, 512), "k": (3, 5, 7),
    "t": (10, 20, 40, 80), "t1": (5, 10, 20, 40), "t2": (1, 2, 4, 8, 16),
}  # fmt: skip
SYMBOLS = tuple(AXES)


def _nothing(point: Mapping[str, int]) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Way:
    """One of the ways in which a layer's code runs.

    Attributes:
        layer: The registered name.
        name: Of the way; empty where the layer has one way only.
        iterations: The numbers of inner iterations of the layer's row (t, or t1 and t2), as published.
        options, attributes: How these become arguments of the constructor, and attributes of the layer.
        varied: Whether the way has such a setting.
        device: ``cpu``, or ``meta`` for what the layer does on other devices.
    """

    layer: str
    name: str = ""
    iterations: Mapping[str, int] = field(default_factory=dict)
    options: Callable[[Mapping[str, int]], dict[str, Any]] = _nothing
    attributes: Callable[[Mapping[str, int]], dict[str, Any]] = _nothing
    varied: bool = True
    device: str = "cpu"

    def points(self) -> Iterator[dict[str, int]]:
        """The base point first, then every other point of the grid."""
        own = dict(self.iterations) if self.varied else {}
        base = BASE | own
        yield base
        for symbol in [*BASE, *own]:
            yield from (base | {symbol: value} for value in AXES[symbol] if value != base[symbol])

    def build(self, cls: type[nn.Module], point: Mapping[str, int]) -> nn.Module:
        """The layer at a point of the grid."""
        options = self.options(point) if self.varied else {}
        if self.device != "cpu":
            options |= {"device": self.device}
        layer = cls(point["c"], point["c"], point["k"], **options)
        for name, value in self.attributes(point).items():
            setattr(layer, name, value)
        return layer


def _gaussian(point: Mapping[str, int]) -> dict[str, Any]:
    return {"weight": nn.Parameter(torch.randn(point["c"], point["c"], point["k"], point["k"]))}


WAYS = (
    # Not the identity that training starts from, whose zeros are summed anew.
    Way("aol", attributes=_gaussian),
    Way("bcop", "t steps", {"t": 20}, lambda point: {"iterations": point["t"]}),
    # The default; how many steps that takes depends on the weights: here, those it starts from.
    Way("bcop", "converged", {"t": 20}, varied=False),
    Way("lot", "on a CPU", {"t": 10}, lambda point: {"terms": point["t"]}),
    Way("lot", "on other devices", {"t": 10}, lambda point: {"terms": point["t"]}, device="meta"),
    Way(
        "soc", "", {"t1": 5, "t2": 1}, lambda point: {"train_terms": point["t1"]},
        lambda point: {"LONG": point["t2"], "SHORT": point["t2"]},
    ),
)  # fmt: skip


def ways_of(spec: LayerSpec) -> list[Way]:
    """The ways of a layer of the library; one for any other."""
    return [way for way in WAYS if spec.builtin and way.layer == spec.label] or [Way(spec.label)]


def count_way(way: Way, spec: LayerSpec) -> Iterator[dict[str, Any]]:
    """Count one way at all its points: rows of `lipref.counting.records.COLUMNS`."""
    for point in way.points():
        counts = count_layer(
            lambda point=point: way.build(spec.cls, point),
            batch=point["b"], channels=point["c"], side=point["s"], device=way.device,
        )  # fmt: skip
        for part, count in counts.items():
            place = {"layer": spec.label, "way": way.name, "part": part}
            numbers = {"macs": count.macs, "stored": count.stored, "given": count.given}
            yield place | {name: point.get(name) for name in SYMBOLS} | numbers | {"unknown": " ".join(count.unknown)}
