"""Layers under one time budget: each is trained for the epochs that its own speed allows, then certified."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import pandas as pd

from lipref import data
from lipref.bench import measurements
from lipref.errors import LiprefError
from lipref.layers import resolve
from lipref.paper import published, tables
from lipref.paper.style import display_name
from lipref.paths import RESULTS, RUNS
from lipref.runs import overview, plans, records, sweeps
from lipref.runs.budgets import epochs_in
from lipref.runs.records import make_folder, row
from lipref.runs.study import Study, read
from lipref.training.speed import usual

FOLDER = RESULTS / "time-budget"  # committed runs and the measurements that gave them their epochs
EPOCHS, TRAINED = "epochs", "training time"
_SETTING = "{} s of training steps per network"


class Timed:
    """Layers of one size, compared under a budget of seconds.

    The measured seconds of a training step decide the epochs (`lipref.runs.budgets.epochs_in`). They are those of the
    folder ``costs``; without one those committed beside the runs in `FOLDER`, or else what a `Study` finds or measures.
    Runs with just these epochs are taken from committed records; others are trained below ``data/runs``, at the
    learning rate of a committed run of that data set, size and layer where there is one, else by the usual recipe.

    Args:
        layers: Names separated by commas.
        dataset: One of ``lipref.data.DATASETS``.
        size: One size.
        seconds: The budget of each network, in training steps on the machine and threads of the measurement.
        seed, batch_size, device: As in `Study`.
        costs: A folder with ``costs.json``.
        out: The folder for files; empty writes none.
        folder: Where runs are trained; None: in ``data/runs``, named after the data set.
        say: Called with a line of text as things are computed.

    Raises:
        LiprefError: what a `Study` refuses, or a budget below one epoch.
    """

    def __init__(
        self, layers: str = "cpl,soc", *, dataset: str = "digits", size: str = "XS", seconds: float = 20.0,
        seed: int = 0, batch_size: int = 0, device: str = "cpu", costs: str = "", out: str = "",
        folder: Path | None = None, say: Callable[[str], None] = print,
    ) -> None:  # fmt: skip
        self.seconds, self.size, self.seed, self.say, self._folder = float(seconds), size, seed, say, folder
        self._given = {"dataset": dataset, "sizes": size, "seeds": str(seed), "device": device, "say": say}
        self._given |= {"batch_size": batch_size}
        self._costs = costs
        self.study = Study(layers=layers, out=out, **self._given)
        if len(self.study.sizes) != 1:
            raise LiprefError(f"size={size!r}: a budget is compared at one size, such as XS")
        self.images = data.shape(dataset).train_images

    @cached_property
    def costs(self) -> list[dict]:
        """The measurements that decide the epochs, one per layer."""
        if self._costs:
            found = self._fitting(Path(self._costs) / "costs.json")
            if not found:
                raise LiprefError(f"costs={self._costs!r} lacks a measurement that fits: lipref measure makes them")
            return found
        committed = FOLDER / "costs.json"
        return (self._fitting(committed) if committed.exists() else []) or self.study.cost_records

    def _fitting(self, path: Path) -> list[dict]:
        """The measurements in a file that fit what is asked for, made under one set of circumstances; none or all."""
        found = {}
        for record in read(path):
            config = record["config"]
            wrong = measurements.misfit(
                record, data.shape(self.study.dataset), self.study.batch_size, self.study.device
            )
            # A step with other options than the runs will have says nothing of their epochs.
            wrong = wrong or (config.get("speed") or {}) != usual(self.study.device).as_dict()
            if not wrong and config["size"] == self.size and config["layer"] in self.study.labels:
                found[config["layer"]] = record
        same = {str(measurements.circumstances(record)) for record in found.values()}
        return [found[label] for label in self.study.labels] if len(found) == len(self.study.labels) and len(
            same) == 1 else []  # fmt: skip

    @cached_property
    def epochs(self) -> dict[str, int]:
        """Label -> how many epochs fit into the budget."""
        steps = {record["config"]["layer"]: record["train_seconds"] for record in self.costs}
        for label in self.study.labels:
            if not steps.get(label):
                raise LiprefError(f"{label} {self.size} has no measured training step: it may not fit into memory")
        return {
            label: epochs_in(self.seconds, steps[label]["median"], self.images, self.study.batch_size)
            for label in self.study.labels
        }

    @cached_property
    def records(self) -> list[dict]:
        """The records of the runs, in the order of the layers."""
        found = []
        for label, name in self.study.labels.items():
            budget = f"{self.epochs[label]} epochs"
            one = Study(layers=name, budget=budget, **self._given)
            found += (one.committed_runs(label) if resolve(name).builtin else []) or self._train(label, name, budget)
        return found

    @property
    def runs(self) -> pd.DataFrame:
        """The table of runs (`lipref.runs.records.row`)."""
        return pd.DataFrame([row(record) for record in self.records])

    @property
    def curves(self) -> pd.DataFrame:
        """CRA against the radius (`lipref.runs.records.against_radius`)."""
        return records.against_radius(self.records)

    @property
    def table(self) -> pd.DataFrame:
        """Tidy: epochs, seconds of training, accuracy and CRA; ours, and the paper's under its budget of 24 hours."""
        return table(self.runs, self.study.dataset, self.size, self.seconds)

    def write(self, folder: Path) -> list[Path]:
        """Write the runs and the measurements behind them into ``folder``, in the form of ``data/results``."""
        title = f"{self.study.name}: layers under {_SETTING.format(f'{self.seconds:g}')}"
        records = self.records
        make_folder(folder)
        return [*overview.write(records, folder, title), *overview.write_costs(self.costs, folder)]

    def _train(self, label: str, name: str, budget: str) -> list[dict]:
        recipe = self._recipe(label)
        self.say(f"not in data/results: {display_name(label)} {self.size} with {budget}; training it in data/runs")
        plan = plans.make_plan(
            dataset=self.study.dataset, sizes=(self.size,), layers=(name,), seeds=(self.seed,), budget=budget,
            batch_size=self.study.batch_size, device=self.study.device, speed=usual(self.study.device), jobs=1,
            **recipe, out=self._folder or RUNS / plans.short_name(self.study.dataset),
        )  # fmt: skip
        make_folder(plan.out)
        ((_, result),) = sweeps.run(plan, lambda step: None)
        if isinstance(result, LiprefError):
            raise result
        return result

    def _recipe(self, label: str) -> dict[str, float]:
        """Learning rate and weight decay of a committed run of this data set, size and layer; empty: the usual way."""
        for path in sorted(RESULTS.glob("*/records.json")):
            for record in read(path):
                config = record["config"]
                there = (config["dataset"], config["size"], config["layer"], config["layer_sha256"])
                if there == (self.study.dataset, self.size, label, None) and record["status"] == "done":
                    return {name: config["settings"][name] for name in ("learning_rate", "weight_decay")}
        return {}


def table(runs: pd.DataFrame, dataset: str, size: str, seconds: float) -> pd.DataFrame:
    """Tidy (`lipref.paper.tables`): `EPOCHS`, `TRAINED` (seconds, as the run took them), accuracy and CRA(36/255).

    The paper's rows, of the same layers and size, are under its budget of 24 hours on an A100.
    """
    numbers = tables.accuracy(runs, dataset)
    numbers = numbers[(numbers["size"] == size) & numbers.layer.isin(runs.layer)]
    theirs = published.dataset_of(dataset)
    name = next(ours for ours, paper in published.DATASETS.items() if paper == theirs)
    settings, lines = {"ours": _SETTING.format(f"{seconds:g}")}, []
    for (source, setting, layer), rows in numbers.groupby(["source", "setting", "layer"], sort=False):
        setting = f"{settings[source]}; {setting}" if source in settings else setting
        own = runs[runs.layer == layer].iloc[0]
        epochs = own.epochs if source == "ours" else published.epochs(name, size, layer, "24h")
        head = {"source": source, "setting": setting, "layer": layer, "size": size, "n": 1, "of": 1, "note": ""}
        lines.append(head | {"measure": EPOCHS, "value": float(epochs), "unit": "epochs"})
        if source == "ours":
            lines.append(head | {"measure": TRAINED, "value": own.train_seconds, "unit": "s"})
        lines += [line | {"setting": setting} for line in rows.to_dict("records")]
    return pd.DataFrame(lines, columns=list(tables.COLUMNS))


def people(table: pd.DataFrame) -> pd.DataFrame:
    """The tidy table as people read it: a row per source and layer."""
    forms = {"epochs": "{:,.0f}", "s": "{:.0f}", "%": "{:.1f}"}
    titles = {"epochs": "", "s": " (s)", "%": " (%)"}
    lines = []
    for (source, layer), rows in table.groupby(["source", "layer"], sort=False):
        line = {"source": source, "layer": display_name(layer)}
        for each in rows.itertuples():
            form = forms[each.unit]
            ends = "" if pd.isna(each.low) else f" [{form.format(each.low)}, {form.format(each.high)}]"
            line[each.measure + titles[each.unit]] = each.note or form.format(each.value) + ends
        lines.append(line)
    return pd.DataFrame(lines).fillna("")


def sentence(table: pd.DataFrame, seconds: float) -> str:
    """What the comparison of ours says: the epochs, and who is ahead in CRA(36/255), if anyone."""
    ours = table[table.source == "ours"]
    epochs = ours[ours.measure == EPOCHS]
    each = ", ".join(f"{display_name(row.layer)} {row.value:.0f}" for row in epochs.itertuples())
    text = f"Epochs that {seconds:g} s allow: {each}."
    cra = ours[ours.measure == "CRA(36/255)"]
    lost = [display_name(row.layer) for row in cra.itertuples() if pd.isna(row.value)]
    text += f" Diverged: {', '.join(lost)}." if lost else ""
    cra = cra[cra.value.notna()].sort_values("value", ascending=False, kind="stable")
    if len(cra) < 2:
        return f"{text} There are no two values of CRA(36/255) to compare."
    first, rest = cra.iloc[0], cra.iloc[1:]
    named = ", ".join(f"{display_name(row.layer)} {row.value:.1f} %" for row in cra.itertuples())
    near = [display_name(row.layer) for row in rest.itertuples() if row.high >= first.low]
    verdict = (
        f"the 95 % interval of {display_name(first.layer)} overlaps with that of {' and '.join(near)}: this run alone "
        "does not tell them apart"
        if near
        else f"{display_name(first.layer)} is ahead, and no interval overlaps with its own"
    )
    return f"{text} CRA(36/255): {named}; {verdict}."
