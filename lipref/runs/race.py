"""Time to CRA: one recipe per layer, all its settings in one place, the goals, and the runs in slices that end cleanly.

The recipes are starting points: the paper's learning rates and weight decays, at the size and with the options of
training that should suit the layer. To tune one, change its line and run with ``--validation``, which certifies a
held-out tenth of the training images in place of the test images.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from lipref.data import Batches, ImageData, validation_split
from lipref.errors import LiprefError
from lipref.layers import resolve
from lipref.nets import convnet
from lipref.runs import budgets
from lipref.runs.experiment import configure, execute
from lipref.runs.names import short_name
from lipref.runs.provenance import environment, write_json
from lipref.runs.recipes import VALIDATION, paper_recipe
from lipref.runs.records import NotDone
from lipref.training import Progress, train
from lipref.training.config import TrainingConfig
from lipref.training.speed import Speed, usual

FILE = "paces.json"  # seconds of a training step, measured once and then fixed: they decide the epochs
WARM_UP, TIMED, LONGEST = 3, 30, 20.0  # steps before the clock, steps on it at most, and seconds of them at most
WARM_UP_ON_CUDA = 15  # in the first ones graphs are recorded, by layers that ask the device several times
SHARE = 0.97  # of a budget that epochs are planned for: what ends a moment late would not count
CHECKPOINT_SECONDS = 15.0  # what a slice's end or a kill may cost


class SliceEnded(KeyboardInterrupt):
    """The time of this call is over; the next one goes on from the checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Race:
    """Every recipe under every budget, with every seed.

    Attributes:
        minutes: The budgets: minutes of training steps, without compilation, certification and loading.
        validation: Certify a held-out tenth of the training images in place of the test images.
        weights: Keep those of a run once it is certified; without them its record, some 100 kB, is all that it leaves.
    """

    entries: tuple[Entry, ...]
    minutes: tuple[float, ...]
    seeds: tuple[int, ...]
    data: ImageData
    device: str
    out: Path
    validation: bool = False
    weights: bool = True

    def runs(self) -> list[tuple[int, float, Entry]]:
        """Seed, minutes and recipe: the first seed of everything first, of it the short runs."""
        return [(seed, minutes, entry) for seed in self.seeds for minutes in self.minutes for entry in self.entries]

    def records(
        self, deadline: float | None = None, on_progress: Callable[[str, Progress | None], None] | None = None,
        read_only: bool = False,
    ) -> Iterator[dict | LiprefError]:  # fmt: skip
        """Do the runs, or read those that are done, one after the other.

        Args:
            deadline: Of `time.monotonic`: a run that is under way then stops at its next step.
            on_progress: Called with the name of a run at its start, and with its progress after each step.
            read_only: Only what is there.

        Yields:
            The record of each run, with ``notes`` of its budget; or what went wrong with it.

        Raises:
            SliceEnded: the deadline has passed.
        """
        for seed, minutes, entry in self.runs():
            rate = "" if entry.learning_rate is None else f", lr {entry.learning_rate:g}"
            name = f"{entry.layer} {entry.size}, {minutes:g} min{rate}, seed {seed}"

            def listen(progress: Progress | None, name: str = name) -> None:
                if on_progress:
                    on_progress(name, progress)
                if deadline is not None and time.monotonic() > deadline:
                    raise SliceEnded

            try:
                if not read_only:
                    listen(None)
                yield self._record(seed, minutes, entry, listen, read_only)
            except NotDone:
                continue
            except LiprefError as error:
                yield LiprefError(f"{name}: {error}")
            except Exception as error:  # such as CUDA's: it ends this run, not the others
                yield LiprefError(f"{name}: {' '.join(f'{type(error).__name__}: {error}'.split())}")

    def _record(self, seed: int, minutes: float, entry: Entry, listen: Callable, read_only: bool) -> dict:
        step = self.step_seconds(entry, read_only)
        images = len((validation_split(self.data, VALIDATION) if self.validation else self.data).train.labels)
        epochs = budgets.epochs_in(60 * minutes * SHARE, step, images, entry.batch_size)
        settings = entry.settings(self.data.name, self.device, epochs, seed)
        device = torch.device(self.device)
        spec = resolve(entry.layer)
        config = configure(
            self.data, spec, entry.size, settings, device, validation=VALIDATION if self.validation else 0.0
        )
        root = self.out / f"{minutes:g}min"
        record = execute(
            config, self.data, spec, root, device=device, checkpoint_seconds=CHECKPOINT_SECONDS, on_progress=listen,
            read_only=read_only, notes={"minutes": minutes, "step_seconds": step},
        )  # fmt: skip
        if not self.weights and not read_only:
            (root / config.folder / "weights.safetensors").unlink(missing_ok=True)
        return record

    def step_seconds(self, entry: Entry, read_only: bool = False) -> float:
        """Mean seconds of a training step with everything that belongs to it: reading images, augmenting, the step.

        Measured at the first call, then read from the folder: the epochs stay as they are on whatever machine the
        next slice runs.

        Raises:
            NotDone: not measured yet, and ``read_only``.
            LiprefError: the loss is not finite, or the file is damaged.
        """
        question = self.question(entry)
        path = self.out / FILE
        try:
            known = json.loads(path.read_text()) if path.exists() else []
            found = [float(line["step_seconds"]) for line in known if line["question"] == question]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LiprefError(f"{path} is damaged ({error}); delete it to time the steps again") from error
        if found:
            return found[0]
        if read_only:
            raise NotDone(str(path))
        seconds = self._time(entry)
        line = {"question": question, "step_seconds": seconds, "environment": environment(self.device)}
        write_json(path, [*known, line])
        return seconds

    def question(self, entry: Entry) -> dict:
        """What the seconds of a step depend on, but for the machine; not on the learning rate."""
        settings = entry.settings(self.data.name, self.device, 1, 0).as_dict()
        return {
            "layer": entry.layer, "size": entry.size, "dataset": self.data.name, "device": self.device.split(":")[0],
            "settings": {name: value for name, value in settings.items() if name != "learning_rate"},
        }  # fmt: skip

    def _time(self, entry: Entry) -> float:
        device = torch.device(self.device)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(0)
            spec = resolve(entry.layer)
            model = convnet(entry.size, spec, self.data.num_classes, self.data.channels, self.data.image_size)
            warm_up = WARM_UP_ON_CUDA if device.type == "cuda" else WARM_UP
            clock = _Clock(warm_up)
            try:
                outcome = train(
                    model.to(device), Batches(self.data.train, self.data, entry.batch_size, 0, device),
                    entry.settings(self.data.name, self.device, warm_up + TIMED + 1, 0), on_progress=clock,
                )  # fmt: skip
            except _Timed:
                return clock.seconds
        raise LiprefError(f"{outcome.diverged['what']} while its step was timed; lower its learning rate")


class _Timed(Exception):
    """Enough steps have been timed."""


class _Clock:
    """Mean seconds of a step, from the calls after each."""

    def __init__(self, warm_up: int) -> None:
        self.warm_up, self.done, self.started, self.seconds = warm_up, 0, 0.0, 0.0

    def __call__(self, progress: Progress) -> None:
        now = time.perf_counter()
        self.done += 1
        timed = self.done - self.warm_up
        if timed == 0:
            self.started = now
        elif timed > 0 and (timed == TIMED or now - self.started > LONGEST):
            self.seconds = (now - self.started) / timed
            raise _Timed


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
        raise LiprefError(f"{short_name(unknown[0])!r} has no recipe in lipref/runs/race.py; known: {names}")
    given = {name: value for name, value in changes.items() if value is not None}
    return [
        replace(known[name], size=size or known[name].size, learning_rate=rate or known[name].learning_rate, **given)
        for name in layers
        for size in sizes or (None,)
        for rate in rates or (None,)
    ]
