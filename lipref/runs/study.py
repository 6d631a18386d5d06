"""What a notebook asks the library for: the records that it draws from, computed where they are missing."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from lipref import data
from lipref.bench import cost, measurements
from lipref.errors import LiprefError
from lipref.layers import resolve
from lipref.paper import artifacts
from lipref.paths import RESULTS, ROOT, RUNS
from lipref.runs import budgeting, overview, plans, records, selection, sweeps
from lipref.runs.records import make_folder, place, row
from lipref.training.speed import options_of, usual


class Study:
    """A comparison as the parameters of a notebook name it.

    The records come from the folder ``records``, if one is given. Exactly the sizes, layers (``all``: every one that it
    has, also a user's own) and seeds that are asked for are shown; what is left out and what is missing is said. Data
    set, budget, batch size and device at their defaults are taken from the records; others have to be theirs.

    Otherwise the records are the committed ones in ``data/results`` that fit; what those lack is computed below
    ``data/runs`` (training, certification, measurement), which the next call finds there. Times and memory are compared
    within one machine only: where a committed measurement is missing, all are made here.

    Args:
        dataset: one of ``lipref.data.DATASETS``.
        sizes, layers, seeds: names or numbers separated by commas; ``all`` layers are the registered ones.
        budget: ``"20 epochs"``, the paper's ``"2h"``, ``"10h"``, ``"24h"``, or a time here, ``"5min measured"``.
        batch_size: 0 for the usual one, 64 on digits and 256 elsewhere.
        device: ``"cpu"`` or ``"cuda"``; training steps are those of `lipref.training.speed.usual`, as in commands.
        records: a folder with ``records.json`` and ``costs.json`` as ``lipref reproduce`` writes it, or with the latter
            alone as ``lipref measure`` does; relative to here or to the repository.
        out: the folder for files of tables and figures; empty writes none.
        say: called with a line of text as things are computed.

    Raises:
        LiprefError: a value of the wrong type, an unknown name, a folder without records, or with none that fit.
    """

    def __init__(
        self, *, dataset: str = "digits", sizes: str = "XS", layers: str = "all", budget: str = "20 epochs",
        seeds: str = "0", batch_size: int = 0, device: str = "cpu", records: str = "", out: str = "",
        say: Callable[[str], None] = print,
    ) -> None:  # fmt: skip
        given = {"dataset": dataset, "sizes": sizes, "layers": layers, "device": device, "records": records, "out": out}
        for name, value in given.items():
            if not isinstance(value, str):
                raise LiprefError(f"{name}={value!r}: give text, not {type(value).__name__}")
        self.dataset, self.device, self.out, self.say = dataset, device, out, say
        self.sizes = plans.check_sizes(plans.split_names(sizes, "sizes"))
        self.layers = plans.check_layers(plans.layer_names(layers))
        self.labels = {resolve(name).label: name for name in self.layers}
        self.budget = str(budget)
        self.epochs, _ = plans.parse_budget(self.budget)
        self.seeds = plans.whole_numbers(str(seeds), "seeds")
        batch = plans.whole_numbers(str(batch_size), "batch_size")
        if len(batch) != 1 or batch[0] < 0:
            raise LiprefError(f"batch_size={batch_size!r}: give one whole number, 0 for the usual one")
        self.batch_size = batch[0] or plans.usual_batch(dataset)
        plans.known_device(device)  # to draw records of another machine it need not be here
        self.records = _folder(records) if records else None
        specs = {label: resolve(name) for label, name in self.labels.items()}
        self._asked = selection.Asked(
            dataset=dataset, sizes=self.sizes, layers=None if layers.strip() == "all" else specs, seeds=self.seeds,
            budget=self.budget, batch_size=batch[0], device=device,
        )  # fmt: skip

    @cached_property
    def runs(self) -> pd.DataFrame:
        """The table of runs (`lipref.runs.records.row`)."""
        return _ordered(pd.DataFrame([row(record) for record in self.run_records]))

    @cached_property
    def run_records(self) -> list[dict]:
        """The records of the runs themselves."""
        if self.records is not None:
            path = self.records / "records.json"
            return selection.runs(read(path), self._asked, path, self.say)
        kept, missing = [], []
        for label, name in self.labels.items():
            found = self.committed_runs(label) if resolve(name).builtin else []
            kept += found
            if not found:
                missing.append(name)
        return [*kept, *self._train(missing)]

    @cached_property
    def curves(self) -> pd.DataFrame:
        """CRA against the radius: ``layer, size, seed, radius`` (l2, pixels in [0, 1]) and ``share``.

        A record without the fine curve gives the points of its table.
        """
        return _ordered(records.against_radius(self.run_records))

    @cached_property
    def costs(self) -> pd.DataFrame:
        """The table of measurements (`lipref.bench.cost.row`)."""
        if self.records is not None:
            path = self.records / "costs.json"
            kept = selection.costs(read(path), self._asked, self._measured_shape(path), path, self.say)
            return _ordered(pd.DataFrame([cost.row(record) for record in kept]))
        return _ordered(pd.DataFrame([cost.row(record) for record in self.cost_records]))

    @cached_property
    def cost_records(self) -> list[dict]:
        """Measurements without ``records``: the committed ones, or else made here."""
        return self._committed_costs() or self._measure()

    @cached_property
    def name(self) -> str:
        """The data set's short name, for titles."""
        return str(self._folder_run["config"]["dataset"]) if self._folder_run else plans.short_name(self.dataset)

    @cached_property
    def train_images(self) -> int:
        """Training images in one epoch: those of the runs in ``records``, otherwise the data set's."""
        if self._folder_run:
            return int(self._folder_run["config"]["train_images"])
        return data.shape(self.dataset).train_images

    @cached_property
    def _folder_run(self) -> dict | None:
        """A run in the folder ``records``, of the data set that is asked for; None where it has none."""
        if self.records is None or not (self.records / "records.json").exists():
            return None
        path = self.records / "records.json"
        found = read(path)
        selection.check_dataset(found, self._asked, path, self.say)
        return found[0] if found else None

    def _measured_shape(self, path: Path) -> data.Shape | None:
        """The shape that the measurements in ``records`` must have; None: not known without reading an image folder."""
        name = self._folder_run["config"]["dataset"] if self._folder_run else self.dataset
        if self._folder_run and name not in data.DATASETS:
            return None
        shape = data.shape(name)
        if self._folder_run:
            return shape
        # `lipref measure --image-size` measures other sides; the pictures' own are in no file of its folder.
        sides = {record["config"]["image_size"] for record in read(path)}
        if len(sides) == 1 and sides != {shape.image_size}:
            (side,) = sides
            self.say(f"{path} was measured with pictures of side {side}, those of {name} have {shape.image_size}")
            return replace(shape, image_size=side)
        return shape

    def save(
        self, name: str, *, table: pd.DataFrame | None = None, people: pd.DataFrame | None = None, notes: str = "",
        figure=None,
    ) -> None:  # fmt: skip
        """Write the files of a table or figure into ``out`` (`lipref.paper.artifacts.save`)."""
        artifacts.save(self.out, name, table=table, people=people, notes=notes, figure=figure)

    def committed_runs(self, label: str) -> list[dict]:
        """The committed runs of ``label`` at all sizes and with all seeds, or none unless all are there."""
        wanted = {(size, seed) for size in self.sizes for seed in self.seeds}
        for folder in sorted(RESULTS.glob("*/records.json")):
            found = [record for record in read(folder) if self._fits(record, label)]
            if wanted <= {(r["config"]["size"], r["config"]["settings"]["seed"]) for r in found}:
                return found
        return []

    def _fits(self, record: dict, label: str) -> bool:
        config, settings = record["config"], record["config"]["settings"]
        return (
            config["dataset"] == self.dataset  # never an image folder: its pictures are not known by its name
            and (config["layer"], config["layer_sha256"], config["validation"]) == (label, None, 0)
            and config["train_images"] == data.shape(self.dataset).train_images
            and config["size"] in self.sizes
            and config["device"] == self.device.split(":")[0]
            and settings["seed"] in self.seeds
            and (settings["epochs"], settings["batch_size"]) == (self.epochs, self.batch_size)
            and settings["schedule"] == "onecycle"
            and options_of(settings) == options_of({"speed": usual(self.device).as_dict()})  # those of `_train`
        )

    def _train(self, names: list[str]) -> list[dict]:
        if not names:
            return []
        self.say(f"not in data/results: {', '.join(names)}; training what is missing in data/runs")
        smoke = plans.PROFILES["smoke"]
        same = self.dataset == smoke["dataset"] and self.epochs == plans.parse_budget(smoke["budget"])[0]
        plan = plans.make_plan(
            dataset=self.dataset, sizes=self.sizes, layers=names, seeds=self.seeds, budget=self.budget,
            batch_size=self.batch_size, device=self.device, speed=usual(self.device),
            search_epochs=smoke["search_epochs"] if same else None,
        )  # fmt: skip
        plan = budgeting.settle(plan, data.shape(self.dataset), say=self.say)
        make_folder(plan.out)
        records, failures = [], []
        # Plain text, seldom: a notebook keeps whatever is printed.
        form = "{desc}: {percentage:3.0f} %, {elapsed}, {remaining} left"
        with tqdm(total=len(plan.tasks()), desc="training", bar_format=form, mininterval=10, file=sys.stdout) as bar:
            shares: dict[tuple[str, str], float] = {}

            def listen(step: sweeps.Step) -> None:
                shares[step.task] = step.share
                bar.update(sum(shares.values()) - bar.n)

            for (size, layer), result in sweeps.run(plan, listen):
                if isinstance(result, LiprefError):
                    failures.append(f"{layer} {size}: {result}")
                else:
                    records += result
        if failures:
            raise LiprefError("; ".join(failures))
        return records

    def _committed_costs(self) -> list[dict]:
        """Committed measurements of all layers and sizes, made under one set of circumstances; none unless all are.

        Those of one file, where one has all.
        """
        shape = data.shape(self.dataset)
        wanted = {(size, label) for size in self.sizes for label in self.labels}
        if not all(resolve(name).builtin for name in self.layers):
            return []
        files = [read(path) for path in sorted(RESULTS.glob("*/costs.json"))]
        for one in (*files, list(itertools.chain(*files))):
            fitting = [record for record in one if self._cost_fits(record["config"], shape)]
            while fitting:
                same = measurements.circumstances(fitting[0])
                group = [record for record in fitting if measurements.circumstances(record) == same]
                if wanted <= {place(record) for record in group}:
                    return measurements.latest([], group)
                fitting = [record for record in fitting if measurements.circumstances(record) != same]
        return []

    def _cost_fits(self, config: dict, shape: data.Shape) -> bool:
        return (
            (config["image_size"], config["channels"], config["num_classes"])
            == (shape.image_size, shape.channels, shape.num_classes)
            and config["batch_size"] == self.batch_size
            and config["device"] == self.device.split(":")[0]
            and config["size"] in self.sizes
            and (config["layer"] in self.labels and config["layer_sha256"] is None)
            and (config.get("speed") or {}) == usual(self.device).as_dict()  # as `_measure`, and as runs are trained
        )

    def _measure(self) -> list[dict]:
        plans.check_device(self.device)
        plan = measurements.CostPlan(
            sizes=self.sizes, layers=self.layers, shape=data.shape(self.dataset), batch_size=self.batch_size,
            out=make_folder(RUNS / plans.short_name(self.dataset)), device=self.device,
        )  # fmt: skip
        self.say("not in data/results: measuring what is missing in data/runs")
        records, failures = measurements.run(plan, lambda *task: self.say("{0} of {1}: {3} {2}".format(*task)))
        if failures:
            raise LiprefError("; ".join(failures))
        return records


def read(path: Path) -> list[dict]:
    """The records in a file that `lipref.runs.overview` wrote.

    Raises:
        LiprefError: it is missing or damaged.
    """
    remedy = "lipref reproduce --out FOLDER writes it"
    try:
        records = json.loads(Path(path).read_text())
    except OSError as error:
        raise LiprefError(f"{path} cannot be read ({error.strerror}); {remedy}") from None
    except ValueError as error:
        raise LiprefError(f"{path} is damaged ({error}); delete it: {remedy}") from None
    if not isinstance(records, list) or not all(isinstance(record, dict) and "config" in record for record in records):
        raise LiprefError(f"{path} is no list of records; {remedy}")
    return records


def _folder(text: str) -> Path:
    for folder in (Path(text), ROOT / text):
        if folder.is_dir():
            return folder
    raise LiprefError(f"records={text!r}: no such folder here or in the repository; lipref reproduce --out makes one")


def _ordered(table: pd.DataFrame) -> pd.DataFrame:
    return table.sort_values(["size", "layer"], key=overview.order, kind="stable").reset_index(drop=True)
