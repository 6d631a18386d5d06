"""One recipe per layer, all settings of it in one place; and the goals.

These are starting points: the paper's learning rates and weight decays, at the size and with the options of training
that should suit the layer. To tune one, change its line and run with ``--validation``, which certifies a held-out tenth
of the training images in place of the test images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lipref.errors import LiprefError
from lipref.names import short_name
from lipref.recipes import paper_recipe
from lipref.training.config import TrainingConfig
from lipref.training.speed import Speed, usual

# CRA(36/255) in percent that at least one of the seven layers should reach, by minutes of training.
GOALS = {1.0: 55.0, 5.0: 62.0, 10.0: 65.0, 30.0: 66.3}
LAYER_MINUTES = 10.0  # within which every layer should pass what the paper's run of 2 h reached at the same size

_PRECISE = usual("cuda")  # for layers with complex numbers, which stay in float32 anyway
_HALF = replace(_PRECISE, precision="bf16")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """How one layer is trained. Learning rate and weight decay None: the paper's, for this data set, size and layer.

    ``speed`` is for CUDA; on a CPU its options do not pay, and none is taken.
    """

    layer: str
    size: str
    batch_size: int = 256
    learning_rate: float | None = None
    weight_decay: float | None = None
    schedule: str = "onecycle"
    ema: float | None = None
    speed: Speed = _PRECISE

    def settings(self, dataset: str, device: str, epochs: int, seed: int) -> TrainingConfig:
        """The hyperparameters of one run.

        Raises:
            LiprefError: a learning rate that neither the recipe nor the paper has.
        """
        found = paper_recipe(dataset, self.size, self.layer)
        rate = self.learning_rate if self.learning_rate is not None else found and found.learning_rate
        decay = self.weight_decay if self.weight_decay is not None else found and found.weight_decay
        if rate is None or decay is None:
            raise LiprefError(
                f"{self.layer} {self.size}: the paper has no learning rate for {dataset}; give --learning-rate"
            )
        return TrainingConfig(
            epochs=epochs, learning_rate=rate, weight_decay=decay, batch_size=self.batch_size, schedule=self.schedule,
            seed=seed, ema=self.ema, speed=self.speed if device.startswith("cuda") else Speed(),
        )  # fmt: skip


ENTRIES = (
    Entry(layer="aol", size="S", speed=_HALF),
    # 31.4 % of held-out pictures after 5 epochs of 2.2 s; nothing else was tried.
    Entry(layer="bcop", size="S", batch_size=512, learning_rate=0.015, speed=_HALF),
    Entry(layer="cayley", size="S", speed=_PRECISE),
    # For 55 epochs; the paper's 0.07 is for hundreds (docs/time-to-cra.md).
    Entry(layer="cpl", size="S", batch_size=512, learning_rate=0.4, weight_decay=1e-4, speed=_HALF),
    Entry(layer="lot", size="XS", speed=_PRECISE),
    Entry(layer="sll", size="S", speed=_HALF),
    Entry(layer="soc", size="XS", speed=_HALF),
)


def entries(
    layers: Sequence[str], sizes: Sequence[str] = (), rates: Sequence[float] = (), **changes: object
) -> list[Entry]:
    """The recipes of ``layers``, with the settings of ``changes`` that are not None in place of their own.

    With ``sizes`` and peak learning ``rates`` each at every one of them.

    Raises:
        LiprefError: a layer without a recipe.
    """
    known = {entry.layer: entry for entry in ENTRIES}
    unknown = [name for name in layers if name not in known]
    if unknown:
        names = ", ".join(known)
        raise LiprefError(f"{short_name(unknown[0])!r} has no recipe in lipref/race/recipes.py; known: {names}")
    given = {name: value for name, value in changes.items() if value is not None}
    return [
        replace(known[name], size=size or known[name].size, learning_rate=rate or known[name].learning_rate, **given)
        for name in layers
        for size in sizes or (None,)
        for rate in rates or (None,)
    ]
