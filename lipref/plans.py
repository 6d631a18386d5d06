"""What a command or a notebook is asked for, checked and completed before anything is computed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from lipref import published, recipes
from lipref.audit import network_bound
from lipref.data import ImageData, load, validation_split
from lipref.errors import LiprefError
from lipref.layers import LAYERS, resolve
from lipref.nets import SIZES, convnet
from lipref.paths import ROOT, RUNS
from lipref.provenance import cores
from lipref.settings import Settings

# Long ones first, so that no process is left with one at the end; a user's own, of unknown cost, before them.
COSTLY_FIRST = ("lot", "bcop", "soc", "cayley", "sll", "cpl", "aol", "standard")
# What a profile stands for; everything that is given goes before it.
PROFILES = {
    "smoke": {
        "dataset": "digits", "sizes": "XS", "budget": "20 epochs", "batch_size": 64, "search_epochs": 3,
        "cost_sizes": "XS,S",
    }
}  # fmt: skip
USUAL_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A comparison: every layer at every size, with every seed.

    ``settings`` holds what all runs share; its learning rate and weight decay apply only where ``given`` is true,
    otherwise each layer's recipe does (`lipref.recipes`), and its epochs only where ``budget`` is None, otherwise the
    paper's number of epochs for that time does.
    """

    dataset: str
    sizes: tuple[str, ...]
    layers: tuple[str, ...]
    seeds: tuple[int, ...]
    settings: Settings
    given: bool
    search: recipes.Search
    out: Path
    budget: str | None = None
    device: str = "cpu"
    data_root: Path | None = None
    limit_train: int | None = None
    limit_test: int | None = None
    checkpoint_seconds: float = 120.0
    jobs: int = 1

    def load(self) -> ImageData:
        return load(self.dataset, self.data_root, limit_train=self.limit_train, limit_test=self.limit_test)

    def tasks(self) -> list[tuple[str, str]]:
        """Pairs of size and layer, in the order in which they are started."""
        rank = {name: place for place, name in enumerate(COSTLY_FIRST)}
        pairs = [(size, layer) for size in reversed(self.sizes) for layer in self.layers]
        return sorted(pairs, key=lambda pair: rank.get(pair[1], -1))

    def settings_of(self, dataset: str, size: str, label: str) -> Settings:
        """The settings of one layer's runs, but for the recipe and the seed."""
        if self.budget is None:
            return self.settings
        return replace(self.settings, epochs=published.epochs(dataset, size, label, self.budget))


def make_plan(
    *, dataset: str, sizes: Sequence[str], layers: Sequence[str], seeds: Sequence[int] = (0,),
    budget: str = "20 epochs", batch_size: int | None = None, learning_rate: float | None = None,
    weight_decay: float | None = None, schedule: str = "onecycle", search_epochs: int | None = None,
    device: str = "cpu", jobs: int = 0,
    out: Path | None = None, data_root: Path | None = None, limit_train: int | None = None,
    limit_test: int | None = None, checkpoint_seconds: float = 120.0,
) -> Plan:  # fmt: skip
    """Check everything, and that data and networks fit together, before anything is written.

    Args:
        budget: a number of epochs (``"20 epochs"`` or ``"20"``), or the paper's ``"2h"``, ``"10h"``, ``"24h"``.
        batch_size: None: 64 on digits, 256 elsewhere.
        learning_rate, weight_decay: None: the recipe's.
        search_epochs: per candidate of the learning-rate search; None: a fifth of the epochs.
        jobs: processes; 0: one per core on the CPU, one elsewhere.
        out: the folder of the runs; None: one in ``data/runs``, named after the data set.

    Raises:
        LiprefError: naming the value that does not fit.
    """
    if weight_decay is not None and learning_rate is None:
        raise LiprefError(f"--weight-decay {weight_decay} goes with --learning-rate; give both")
    epochs, hours = parse_budget(budget)
    settings = Settings(
        epochs=epochs or 1, batch_size=usual_batch(dataset) if batch_size is None else batch_size, schedule=schedule,
        learning_rate=0.1 if learning_rate is None else learning_rate,
        weight_decay=10**-4.5 if weight_decay is None else weight_decay,
    )  # fmt: skip
    sizes, names = check_sizes(sizes), check_layers(layers)
    labels = [resolve(name).label for name in names]
    for seed in seeds:
        replace(settings, seed=seed)
    if search_epochs is None:
        search_epochs = max(1, (epochs or 50) // 5)
    search = recipes.Search(epochs=replace(settings, epochs=search_epochs).epochs)
    check_device(device)
    if jobs < 0:
        raise LiprefError(f"--jobs {jobs} must be 0 (automatic) or more")
    tasks = len(sizes) * len(names)
    if jobs == 0:
        jobs = min(cores(), tasks) if device == "cpu" else 1
    if not checkpoint_seconds >= 0:
        raise LiprefError(f"--checkpoint-seconds {checkpoint_seconds} must be 0 or more")
    plan = Plan(
        dataset=dataset, sizes=sizes, layers=names, seeds=tuple(seeds), settings=settings, budget=hours,
        given=learning_rate is not None, search=search, out=out or RUNS / short_name(dataset), device=device,
        data_root=data_root, limit_train=limit_train, limit_test=limit_test, checkpoint_seconds=checkpoint_seconds,
        jobs=min(jobs, tasks),
    )  # fmt: skip
    if hours is not None and not dataset.startswith("imagefolder:"):  # before anything is downloaded
        for size in sizes:
            for label in labels:
                plan.settings_of(dataset, size, label)
    data = plan.load()
    if learning_rate is None and any(
        recipes.paper_recipe(data.name, size, label) is None for size in sizes for label in labels
    ):
        try:
            validation_split(data, recipes.VALIDATION)
        except LiprefError as error:
            few = f"{len(data.train.labels)} training images are too few for the learning-rate search"
            raise LiprefError(f"{few} ({error}); raise --limit-train, or give --learning-rate") from None
    for size in sizes:
        for name, label in zip(names, labels, strict=True):
            plan.settings_of(data.name, size, label)
            check_network(data, name, size)
    return plan


def parse_budget(text: str) -> tuple[int | None, str | None]:
    """``"20 epochs"`` or ``"20"`` -> (20, None); ``"2h"`` -> (None, "2h")."""
    cleaned = str(text).strip().lower().replace(" ", "")
    found = re.fullmatch(r"(\d+)(epochs?)?", cleaned)
    if found:
        return int(found[1]), None
    if cleaned in published.BUDGETS:
        return None, cleaned
    known = ", ".join(published.BUDGETS)
    raise LiprefError(f"budget {text!r}: give a number of epochs, such as '20 epochs', or the paper's {known}")


def usual_batch(dataset: str) -> int:
    """Images per step where nothing else is asked for."""
    smoke = PROFILES["smoke"]
    return smoke["batch_size"] if dataset == smoke["dataset"] else USUAL_BATCH


def short_name(dataset: str) -> str:
    """``digits``, or for an image folder the name of the folder."""
    return Path(dataset.removeprefix("imagefolder:")).resolve().name


def split_names(text: str, option: str) -> tuple[str, ...]:
    """``"aol, soc"`` -> ``("aol", "soc")``; empty and repeated names are refused."""
    parts = tuple(part.strip() for part in text.split(","))
    if not all(parts):
        raise LiprefError(f"{option} {text!r} has an empty part; separate names by single commas")
    twice = {part for part in parts if parts.count(part) > 1}
    if twice:
        raise LiprefError(f"{option} {text!r} names {', '.join(sorted(twice))} twice; every name may stand once")
    return parts


def whole_numbers(text: str, option: str) -> tuple[int, ...]:
    """``"0,1,2"`` -> ``(0, 1, 2)``."""
    return tuple(_whole(part, option) for part in split_names(text, option))


def _whole(text: str, option: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise LiprefError(f"{option} {text!r} is no whole number") from None


def layer_names(text: str) -> tuple[str, ...]:
    """Names separated by commas; ``all`` stands for every registered layer.

    The relative path of a file that does not exist here is looked for in the repository.
    """
    names = []
    for part in split_names(text, "--layers"):
        names += LAYERS if part == "all" else [_found(part)]
    return split_names(",".join(names), "--layers")


def _found(name: str) -> str:
    place, separator, cls = name.rpartition(":")
    if separator and place.endswith(".py") and not Path(place).is_file() and (ROOT / place).is_file():
        return f"{ROOT / place}:{cls}"
    return name


def check_layers(names: Sequence[str]) -> tuple[str, ...]:
    """``names``, resolved once: unknown ones and two of one label are refused."""
    labels = [resolve(name).label for name in names]
    if len(set(labels)) < len(labels):
        raise LiprefError(f"--layers {','.join(names)} names a layer twice; every name may stand once")
    return tuple(names)


def check_sizes(sizes: Sequence[str]) -> tuple[str, ...]:
    """``sizes``, all of them known."""
    for size in sizes:
        if size not in SIZES:
            raise LiprefError(f"unknown size {size!r}; known: {', '.join(SIZES)}")
    return tuple(sizes)


def check_device(device: str) -> torch.device:
    """``cpu``, or a CUDA device that is there."""
    kind = device.split(":")[0]
    available = {"cpu": True, "cuda": torch.cuda.is_available()}
    usable = ", ".join(name for name, present in available.items() if present)
    try:
        parsed = torch.device(device)
    except RuntimeError:
        parsed = None
    if parsed is None or kind not in available:
        raise LiprefError(f"unknown device {device!r}; here: {usable}")
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if not available[kind] or (parsed.index or 0) >= count:
        raise LiprefError(f"device {device!r} is not available on this machine; here: {usable}")
    return parsed


def check_network(data: ImageData, layer: str, size: str) -> None:
    """Build the network once, so that what does not fit is refused before anything runs.

    A user's layer is also converted to float64 and asked for its bound, which is what certification will do in the end.
    """
    spec = resolve(layer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = convnet(size, spec, data.num_classes, data.channels, data.image_size)
    if not spec.builtin:
        try:
            network_bound(model)
        except LiprefError:
            raise
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            raise LiprefError(f"{layer} fails in float64 evaluation, which certification needs: {what}") from error
