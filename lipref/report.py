"""The comparison as people read it: one line per size and layer."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from lipref.certify import RADII
from lipref.checkpoint import replace_file
from lipref.layers import LAYERS

SHARES = {"accuracy": "accuracy"} | {f"cra_{radius * 255}": f"CRA {radius * 255}/255" for radius in RADII}
NOTE = (
    "n: runs that did not diverge. Percent of the test images; for one seed with the exact 95 % interval, for several "
    "the mean and the standard deviation over seeds. CRA: certified robust accuracy at an l2 radius over pixels in "
    "[0, 1]. L: rigorous upper bound of the network's Lipschitz constant, by which radii are divided; where a layer "
    "brings no bound, L is 'not proved' and the CRA is what it would be if L were 1."
)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """The table of runs, aggregated over seeds, as strings for people.

    The built-in layers come in their usual order, then others.
    """
    order = {name: place for place, name in enumerate(LAYERS)}
    lines = []
    for (size, layer), group in table.groupby(["size", "layer"], sort=False):
        done = group[group.status == "done"]
        line = {
            "layer": layer,
            "size": size,
            "n": len(done),
            "parameters": f"{int(group.parameters.iloc[0]):,}",
            "lr": " ".join(f"{value:.3g}" for value in sorted(set(group.learning_rate))),
            "lr from": _source(group),
            "epochs": int(group.epochs.iloc[0]),
        }
        for name, title in SHARES.items():
            line[title] = _share(done, name)
        line["L"] = _bound(done)
        line["train s"] = f"{group.train_seconds.mean():.0f}"
        if len(done) < len(group):
            line["n"] = f"{len(done)}/{len(group)}"
        lines.append((order.get(layer, len(order)), line))
    lines.sort(key=lambda pair: pair[0])
    return pd.DataFrame([line for _, line in lines])


def brief(table: pd.DataFrame) -> pd.DataFrame:
    """`summary` for a terminal of 80 columns: values without intervals, and the columns that matter most."""
    frame = summary(table).drop(columns=["parameters", "lr from", "epochs"])
    if frame["size"].nunique() == 1:
        frame = frame.drop(columns="size")
    for title in SHARES.values():
        frame[title] = frame[title].str.split(" [", regex=False).str[0]
    for title in list(SHARES.values())[1:]:
        frame[title] = frame[title].where(frame[title] != "diverged", "")
    return frame.rename(columns=lambda name: name.removesuffix("/255") if name.startswith("CRA") else name)


def _share(done: pd.DataFrame, name: str) -> str:
    if done.empty:
        return "diverged"
    values = 100 * done[name]
    if len(done) == 1:
        return (
            f"{values.iloc[0]:.1f} [{100 * done[name + '_low'].iloc[0]:.1f}, {100 * done[name + '_high'].iloc[0]:.1f}]"
        )
    return f"{values.mean():.1f} ± {values.std():.1f}"


def _source(group: pd.DataFrame) -> str:
    """Where the learning rate comes from, and at which ones the run had diverged before."""
    sources = " ".join(sorted({str(source) for source in group.hyperparameters}))
    diverged = " ".join(sorted({str(rates) for rates in group.diverged_at if rates}))
    return f"{sources}, diverged at {diverged}" if diverged else sources


def _bound(done: pd.DataFrame) -> str:
    if done.empty:
        return ""
    if not done.proved.astype(bool).all():
        return "not proved"
    largest = done.lipschitz_bound.max()
    return f"{largest:.4f}" if largest < 10 else f"{largest:.3g}"


def write(table: pd.DataFrame, folder: Path, title: str) -> tuple[Path, Path]:
    """Write ``table.csv`` (a row per run, all numbers) and ``table.md`` (a row per layer, for people) to ``folder``."""
    csv, markdown = folder / "table.csv", folder / "table.md"
    replace_file(csv, table.to_csv(index=False).encode())
    replace_file(markdown, f"# {title}\n\n{to_markdown(summary(table))}\n\n{NOTE}\n".encode())
    return csv, markdown


def to_markdown(frame: pd.DataFrame) -> str:
    """A Markdown table of strings."""
    head = [str(name) for name in frame.columns]
    rows = [[str(value).replace("|", "\\|") for value in line] for line in frame.itertuples(index=False)]
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
