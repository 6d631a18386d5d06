"""What `lipref bench` is asked for: the networks, the quantities, and whose code they are compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

import lipref
from lipref import data
from lipref.bench import cost, measurements
from lipref.bench.foreign import Foreign
from lipref.bench.records import parts_of, read
from lipref.bench.rounds import QUANTITIES
from lipref.bench.timing import PARTS, ForeignConfig
from lipref.errors import LiprefError
from lipref.layers import LayerSpec, resolve
from lipref.nets import convnet
from lipref.runs.provenance import COST, fingerprint
from lipref.training.speed import Speed

MAX_SECONDS = 20.0  # per timed quantity in all rounds together, as of ours (`lipref.bench.cost.execute`)
PLAIN = "standard"
CODE = (*COST, "bench/foreign", "bench/timing")  # what decides a measurement of other people's network


@dataclass(frozen=True)
class Network:
    """One network of ours: ``layer`` as it is given, ``label`` in tables."""

    layer: str
    size: str
    image_size: int

    @property
    def spec(self) -> LayerSpec:
        return resolve(self.layer)

    @property
    def label(self) -> str:
        return self.spec.label


@dataclass(frozen=True)
class Against:
    """Other people's code as it is here.

    ``sha256`` of its source, the layers that it lacks, each with a reason, and its `lipref.bench.foreign.origin`.
    """

    code: Foreign
    path: Path | None = None
    sha256: str = ""
    lacks: Mapping[str, str] = field(default_factory=dict)
    origin: Mapping[str, object] = field(default_factory=dict)

    def why_not(self, network: Network) -> str:
        """Why it cannot be compared there, or an empty string where it can."""
        if not network.spec.builtin:
            return "it does not know your layer"
        why = self.code.why_not(network.label, network.size, network.image_size)
        return why or self.lacks.get(network.label, "")


@dataclass(frozen=True, kw_only=True)
class BenchPlan:
    """Every layer at every size and image side; the plain network is always one of them.

    ``speed``: options of our training step; None: the usual ones of the device. Others' code trains without any.
    ``nothing_else``: of ours too only ``quantities`` are measured, which saves time; else everything is, once for all.
    Records of ours go to ``out / "cost"``, as those of ``lipref measure``; those of others to ``out / "against"``.
    """

    layers: tuple[str, ...]
    sizes: tuple[str, ...]
    image_sizes: tuple[int, ...]
    quantities: tuple[str, ...]
    batch_size: int
    device: str
    repeats: int
    rounds: int
    out: Path
    against: tuple[Against, ...] = ()
    speed: Speed | None = None
    nothing_else: bool = False
    _configs: dict[Network, cost.CostConfig] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        wrong = [name for name in self.quantities if name not in QUANTITIES]
        if wrong:
            raise LiprefError(f"--quantities {wrong[0]}: unknown; known: {', '.join(QUANTITIES)}")
        if self.repeats < self.rounds:
            raise LiprefError(f"--repeats {self.repeats} is below --rounds {self.rounds}: every round needs one")
        if PLAIN not in self.layers:
            object.__setattr__(self, "layers", (PLAIN, *self.layers))

    @property
    def parts(self) -> tuple[str, ...]:
        """The quantities that others have too."""
        return tuple(name for name in PARTS if name in self.quantities)

    def costs(self, image_size: int) -> measurements.CostPlan:
        """The plan of ours for pictures of one side."""
        return measurements.CostPlan(
            sizes=self.sizes, layers=self.layers, shape=shape_of(image_size), batch_size=self.batch_size, out=self.out,
            device=self.device, repeats=self.repeats, rounds=self.rounds, speed=self.speed,
            quantities=self.quantities if self.nothing_else else None,
        )  # fmt: skip

    def networks(self) -> list[Network]:
        """Small pictures first, of them small networks, of them the quick layers."""
        return [
            Network(layer, size, side) for side in self.image_sizes for size, layer in self.costs(side).tasks()
        ]  # fmt: skip

    def ours(self, network: Network) -> cost.CostConfig:
        """The configuration of our measurement of ``network``, made here."""
        if network not in self._configs:
            plan = self.costs(network.image_size)
            self._configs[network] = measurements.configure(plan, network.spec, network.size)
        return self._configs[network]

    def theirs(self, network: Network, against: Against) -> ForeignConfig:
        """The configuration of others' measurement of ``network``: the same circumstances."""
        same = self.ours(network)
        names = (
            "layer", "layer_sha256", "size", "device", "image_size", "channels", "num_classes", "batch_size", "machine",
            "cores", "threads", "repeats", "rounds", "torch",
        )  # fmt: skip
        return ForeignConfig(
            **{name: getattr(same, name) for name in names}, version=lipref.__version__, code=fingerprint(CODE),
            against=against.code.name, source_sha256=against.sha256, max_seconds=MAX_SECONDS / same.rounds,
        )  # fmt: skip

    def missing(self, network: Network, against: Against, number: int) -> list[str]:
        """The parts of a round of others' network that are not measured yet."""
        if against.why_not(network):
            return []
        config = self.theirs(network, against)
        asked = parts_of(number, self.parts if against.code.folds else tuple(p for p in self.parts if p != "folded"))
        return [part for part in asked if read(self.out, config, number, part) is None]

    def check(self) -> None:
        """Refuse, before anything is measured, what cannot be built; of the built-in layers every size can."""
        for network in self.networks():
            shape = shape_of(network.image_size)
            self.ours(network)
            if not network.spec.builtin:
                with torch.random.fork_rng(devices=[]):
                    convnet(network.size, network.spec, shape.num_classes, shape.channels, network.image_size)


def shape_of(image_size: int) -> data.Shape:
    """Pictures of one side: those of the data set that has it, else with 3 channels and 10 classes."""
    known = {data.shape(name).image_size: data.shape(name) for name in ("digits", "cifar10", "tiny-imagenet-200")}
    return known.get(image_size) or replace(known[32], image_size=image_size)
