"""Certified robust accuracy over minutes of training: what a race found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from lipref.errors import LiprefError
from lipref.paper import artifacts, published
from lipref.paper.style import DARK, context, display_name, layer_styles, legend, line_format, line_handles, new_figure
from lipref.runs.provenance import write_json
from lipref.runs.race import GOALS, LAYER_MINUTES
from lipref.runs.records import row

if TYPE_CHECKING:
    from matplotlib.figure import Figure


NAME = "race"
PICTURES = ("cifar10", "cifar10-jpeg")  # that the goals are of
TESTED, HELD_OUT = "test", "validation"
NOT_MEASURED = "not measured"
SEEDS = 3  # that a goal is met with


def rows(records: Sequence[dict]) -> pd.DataFrame:
    """A row per run: `lipref.runs.records.row` with minutes of budget, compile seconds, options, device, commit."""
    lines = []
    for record in records:
        environment, settings = record["environment"], record["config"]["settings"]
        device = environment["device"]
        lines.append(
            {"minutes": record["notes"]["minutes"]}
            | row(record)
            | {
                "hyperparameters": "recipe",
                "images": HELD_OUT if record["config"]["validation"] else TESTED,
                "train_minutes": record["train_seconds"] / 60,
                "compile_seconds": record.get("compile_seconds", 0.0),
                "options": " ".join(f"{name}={value}" for name, value in settings.get("speed", {}).items()),
                "machine": device.get("name") or environment["cpu"],
                "commit": environment["commit"],
                "dirty": environment["dirty"],
                "torch": environment["torch"],
            }
        )
    return pd.DataFrame(lines)


def people(table: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over seeds, a line per budget, layer, size and peak learning rate.

    The best CRA of a budget comes first.
    """
    lines = []
    keys = ["images", "minutes", "layer", "size", "learning_rate", "machine"]
    for (images, minutes, layer, size, rate, machine), group in table.groupby(keys, sort=False):
        done = group[group.status == "done"]
        lines.append(
            {
                "minutes": minutes, "_cra": done.cra_36.mean() if len(done) else -1.0,
                "layer": display_name(layer), "size": size, "peak lr": f"{rate:.3g}",
                "epochs": int(group.epochs.iloc[0]),
                "n": len(done) if len(done) == len(group) else f"{len(done)}/{len(group)}",
                "CRA 36/255": _spread(done, "cra_36"), "accuracy": _spread(done, "accuracy"),
                "trained, min": f"{group.train_minutes.mean():.2f}",
                "compiling, s": f"{group.compile_seconds.mean():.0f}", "images": images, "machine": machine,
            }
        )  # fmt: skip
    shown = pd.DataFrame(lines).sort_values(["minutes", "_cra"], ascending=[True, False], kind="stable")
    return shown.drop(columns="_cra").assign(minutes=shown.minutes.map("{:g}".format)).reset_index(drop=True)


def best_recipes(table: pd.DataFrame) -> pd.DataFrame:
    """Of `rows` that are done those by the size and peak learning rate with the best mean CRA, per layer and budget."""
    table = table[table.status == "done"]
    if table.empty:
        return table
    means = table.assign(mean=table.groupby(["layer", "minutes", "size", "learning_rate"]).cra_36.transform("mean"))
    return table[means["mean"] == means.groupby(["layer", "minutes"])["mean"].transform("max")]


def _spread(done: pd.DataFrame, name: str) -> str:
    if done.empty:
        return "diverged"
    values = 100 * done[name]
    return f"{values.mean():.1f}" + (f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else "")


def goals(table: pd.DataFrame, layers: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """Each goal, the best that was reached within its time by the mean over seeds, and whether that meets it.

    The goals are of CIFAR-10, as it is or stored as JPEG: runs on other pictures do not count.
    What counts are groups of runs on the test images, equal but for the seed, of which every one is done, proved and
    within its own budget; a goal is met by the mean of at least `SEEDS` of them.

    Args:
        table: `rows`.
        layers: Layer and size of the recipes: each has the goal to pass the paper's run of 2 h on CIFAR-10.
    """
    groups = _groups(table)
    lines = [_goal("the best layer", at, wanted, groups) for at, wanted in GOALS.items()]
    layers = dict.fromkeys(layers)  # tried at several rates one stands there several times
    printed = published.by_budget(published.DATASETS["cifar10-jpeg"]).query("budget == '2h'")
    printed = printed.set_index(["layer", "size"]).cra_36
    for layer, size in layers:
        if (layer, size) in printed.index:
            own = [group for group in groups if group["layer"] == layer]
            what = f"{display_name(layer)} {size}, the paper's 2 h"
            lines.append(_goal(what, LAYER_MINUTES, float(printed[layer, size]), own))
    return pd.DataFrame(lines)


def _groups(table: pd.DataFrame) -> list[dict]:
    """Those that count, with the mean CRA in percent over ``n`` seeds."""
    if table.empty:
        return []
    found = []
    keys = ["machine", "dataset", "layer", "size", "minutes", "epochs", "batch_size", "learning_rate", "options"]
    for names, group in table[(table.images == TESTED) & table.dataset.isin(PICTURES)].groupby(keys, sort=False):
        in_time = (group.status == "done") & (group.train_minutes <= group.minutes)
        if in_time.all() and group.proved.eq(True).all():
            found.append(dict(zip(keys, names, strict=True)) | {"cra": 100 * group.cra_36.mean(), "n": len(group)})
    return found


def _goal(who: str, minutes: float, wanted: float, groups: Sequence[dict]) -> dict:
    line = {"goal": who, "minutes": f"{minutes:g}", "CRA 36/255 wanted": f"{wanted:.1f}"}
    in_time = [group for group in groups if group["minutes"] <= minutes]
    if not in_time:
        return line | {"reached": NOT_MEASURED, "by": "", "met": ""}
    best = max(in_time, key=lambda group: group["cra"])
    by = f"{display_name(best['layer'])} {best['size']}, {best['minutes']:g} min, n = {best['n']}, {best['machine']}"
    enough = "yes" if best["n"] >= SEEDS else "too few seeds"
    return line | {"reached": f"{best['cra']:.1f}", "by": by, "met": enough if best["cra"] >= wanted else "no"}


def write(records: Sequence[dict], layers: Sequence[tuple[str, str]], out: Path) -> list[Path]:
    """race.csv, race.md, race.tex, race.png, race.pdf, goals.csv, goals.md, goals.tex and records.json.

    In the picture every layer has its `best_recipes`.
    """
    table = rows(records)
    reached = goals(table, layers)
    drawn = best_recipes(table)
    figure = None if drawn.empty else race(drawn, GOALS)
    written = artifacts.save(out, NAME, table=table, people=people(table), figure=figure)
    written += artifacts.save(out, "goals", table=reached, people=reached)
    write_json(out / "records.json", list(records))
    return [*written, out / "records.json"]


COLUMNS = ("layer", "minutes", "train_minutes", "status", "cra_36")


@context()
def race(table: pd.DataFrame, goals: Mapping[float, float]) -> Figure:
    """CRA(36/255) against minutes of training: the mean over seeds, a band from lowest to highest; goals as bars.

    Args:
        table: A row per run: ``layer``, ``minutes`` (the budget), ``train_minutes``, ``status``, ``cra_36`` in [0, 1].
        goals: CRA in percent by minutes.

    Raises:
        LiprefError: a column is missing, or no run is done.
    """
    missing = [name for name in COLUMNS if name not in table.columns]
    done = table if missing else table[table.status == "done"]
    if missing or done.empty:
        what = f"the table has no column {missing[0]!r}" if missing else "no run is done"
        raise LiprefError(f"{what}: a picture needs {', '.join(COLUMNS)} of at least one run that is done")
    styles = layer_styles(done.layer)
    figure = new_figure(3.2)
    axis = figure.subplots()
    for layer, style in styles.items():
        groups = done[done.layer == layer].groupby("minutes")
        at = groups.train_minutes.mean()
        low, mean, high = (100 * getattr(groups.cra_36, name)() for name in ("min", "mean", "max"))
        axis.plot(at, mean, **line_format(style))
        axis.fill_between(at, low, high, color=style.color, alpha=0.2, linewidth=0)
    axis.set_xscale("log")
    ticks = sorted(set(done.minutes) | set(goals))
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    shown = {at: wanted for at, wanted in goals.items() if at <= 3 * done.minutes.max()}
    axis.plot(list(shown), list(shown.values()), "_", color=DARK, markersize=16, markeredgewidth=1.5)
    first, last = min(done.train_minutes.min(), done.minutes.min()), max([done.minutes.max(), *shown])
    axis.set_xlim(0.8 * first, 1.25 * last)
    axis.set_xlabel("minutes of training steps")
    axis.set_ylabel("CRA(36/255) (%)")
    legend(figure, line_handles(styles), notes=["bars: goals"] if shown else [])
    return figure
