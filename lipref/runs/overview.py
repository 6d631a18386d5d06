"""The comparison as people read it: one line per size and layer."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from lipref.bench import cost
from lipref.certification.certify import RADII, radius_name
from lipref.layers import LAYERS
from lipref.nets import SIZES
from lipref.runs.provenance import write_json
from lipref.runs.recipes import at_edge
from lipref.runs.records import row
from lipref.tensor_files import replace_file

SHARES = {"accuracy": "accuracy"} | {f"cra_{radius * 255}": f"CRA {radius_name(radius)}" for radius in RADII}
NOTE = (
    "n: the number of runs; a/b where only a of b did not diverge (a run that diverges at a searched learning rate is "
    "repeated at a third of it). Percent of the test images; for one run with the exact 95 % interval, for several the "
    "mean and the standard deviation over seeds. CRA: certified robust accuracy at an l2 radius over pixels in [0, 1]. "
    "L: rigorous upper bound of the network's Lipschitz constant, by which radii are divided; where a layer brings no "
    "bound, L is 'not proved' and the CRA is what it would be if L were 1."
)

EDGE = (
    "(edge): the best learning rate of the search's grid was its smallest or its largest; a better one may lie beyond."
)


def order(names: pd.Series) -> pd.Series:
    """Places of layers or sizes in tables: the built-in layers in their usual order, then others by name."""
    places = {name: (place, "") for place, name in enumerate((*LAYERS, *SIZES))}
    ranks = sorted({places.get(name, (len(places), name)) for name in names})
    return names.map(lambda name: ranks.index(places.get(name, (len(places), name))))


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """The table of runs, aggregated over seeds, as strings for people.

    The built-in layers come in their usual order, then others.
    """
    lines = []
    table = table.sort_values(["size", "layer"], key=order, kind="stable")
    for (size, layer), group in table.groupby(["size", "layer"], sort=False):
        done = group[group.status == "done"]
        line = {
            "layer": layer,
            "size": size,
            "n": len(done),
            "parameters": f"{int(group.parameters.iloc[0]):,}",
            "lr": _rates(group if done.empty else done),
            "lr from": " ".join(sorted({str(source) for source in group.hyperparameters})),
            "epochs": int(group.epochs.iloc[0]),
        }
        for name, title in SHARES.items():
            line[title] = _share(done, name)
        line["L"] = _bound(done)
        line["train s"] = f"{group.train_seconds.mean():.0f}"
        if len(done) < len(group):
            line["n"] = f"{len(done)}/{len(group)}"
        lines.append(line)
    return pd.DataFrame(lines)


def brief(records: list[dict]) -> pd.DataFrame:
    """`summary` for a terminal of 80 columns: values without intervals, and the columns that matter most."""
    frame = summary(pd.DataFrame([row(record) for record in records])).drop(columns=["parameters", "lr from", "epochs"])
    if frame["size"].nunique() == 1:
        frame = frame.drop(columns="size")
    frame["lr"] = frame["lr"].str.replace(" (edge)", "", regex=False)
    for title in SHARES.values():
        frame[title] = frame[title].str.split(" [", regex=False).str[0]
    for title in list(SHARES.values())[1:]:
        frame[title] = frame[title].where(frame[title] != "diverged", "")
    return frame.rename(columns=lambda name: name.removesuffix("/255") if name.startswith("CRA") else name)


def _rates(group: pd.DataFrame) -> str:
    pairs = sorted(set(zip(group.learning_rate, group.hyperparameters, strict=True)))
    return " ".join(dict.fromkeys(f"{rate:.3g}{' (edge)' if at_edge(rate, source) else ''}" for rate, source in pairs))


def _share(done: pd.DataFrame, name: str) -> str:
    if done.empty:
        return "diverged"
    values = 100 * done[name]
    if len(done) == 1:
        return (
            f"{values.iloc[0]:.1f} [{100 * done[name + '_low'].iloc[0]:.1f}, {100 * done[name + '_high'].iloc[0]:.1f}]"
        )
    return f"{values.mean():.1f} ± {values.std():.1f}"


def _bound(done: pd.DataFrame) -> str:
    if done.empty:
        return ""
    if not done.proved.astype(bool).all():
        return "not proved"
    largest = done.lipschitz_bound.max()
    digits = 4 if largest < 10 else 1
    return f"{math.ceil(largest * 10**digits - 1e-3) / 10**digits:.{digits}f}"  # 1 + 1e-9 is shown as 1


def epochs(table: pd.DataFrame) -> str:
    """``1 epoch``, ``20 epochs``, or ``40 to 70 epochs``."""
    least, most = table.epochs.min(), table.epochs.max()
    return f"{least} to {most} epochs" if least < most else f"{least} epoch{'' if least == 1 else 's'}"


def write(records: list[dict], folder: Path, title: str) -> list[Path]:
    """Write the comparison into ``folder``; returns the paths.

    ``table.md``: a row per size and layer, for people. ``table.csv``: a row per run, all numbers. ``records.json``: the
    records themselves, each with its configuration, learning curve, certified result and provenance.
    """
    table = pd.DataFrame([row(record) for record in records])
    paths = [folder / name for name in ("table.md", "table.csv", "records.json")]
    first = table.iloc[0]
    setting = (
        f"{first.train_images:,} training and {first.test_images:,} test images, {epochs(table)}, batches of "
        f"{first.batch_size}, on {first.device}."
    )
    people = summary(table)
    notes = f"{NOTE} {EDGE}" if people["lr"].str.contains("(edge)", regex=False).any() else NOTE
    replace_file(paths[0], f"# {title}\n\n{setting}\n\n{to_markdown(people)}\n\n{notes}\n".encode())
    replace_file(paths[1], table.to_csv(index=False).encode())
    write_json(paths[2], records)
    return paths


def provenance(records: list[dict]) -> str:
    """What records were made with, in one line: commit, dates, device and threads, torch, and the number of images.

    Args:
        records: Of runs or of measurements; several values of one kind are all named.
    """

    def several(values: Iterable[object]) -> str:
        return ", ".join(dict.fromkeys(str(value) for value in values if value is not None)) or "unknown"

    environments = [record["environment"] for record in records]
    days = sorted({environment["time"][:10] for environment in environments})
    commits = [
        f"{each['commit'][:10]}{' with changes' if each['dirty'] else ''}" if each["commit"] else None
        for each in environments
    ]
    machines = [
        each["device"].get("name") or f"{each['cpu']} ({each['threads']} thread{'s' if each['threads'] > 1 else ''})"
        for each in environments
    ]
    parts = [
        f"commit {several(commits)}", " to ".join(dict.fromkeys([days[0], days[-1]])), several(machines),
        f"torch {several(each['torch'] for each in environments)}",
    ]  # fmt: skip
    images = [
        f"{record['config']['train_images']:,} training and {record['config']['test_images']:,} test images"
        for record in records if "train_images" in record["config"]
    ]  # fmt: skip
    return "; ".join([*parts, several(images)] if images else parts)


def cost_summary(records: list[dict]) -> pd.DataFrame:
    """Measurements as strings for people: medians, in milliseconds and 10^6 bytes."""
    table = pd.DataFrame([cost.row(record) for record in records])
    table = table.sort_values(["size", "layer"], key=order, kind="stable")
    frame = table[["layer", "size"]].copy()
    for title, name, scale in (
        ("train ms", "train_seconds", 1e3),
        ("infer ms", "infer_seconds", 1e3),
        ("folded ms", "folded_seconds", 1e3),
        ("prepare ms", "prepare_seconds", 1e3),
        ("train MB", "train_peak_bytes", 1e-6),
        ("infer MB", "infer_peak_bytes", 1e-6),
    ):
        frame[title] = ["" if pd.isna(value) else f"{scale * value:.3g}" for value in table[name]]
    return frame


def write_costs(records: list[dict], folder: Path) -> list[Path]:
    """Write measurements into ``folder``: ``costs.csv``, a row each, and ``costs.json``, the records."""
    table = pd.DataFrame([cost.row(record) for record in records])
    table = table.sort_values(["size", "layer"], key=order, kind="stable")
    paths = [folder / "costs.csv", folder / "costs.json"]
    replace_file(paths[0], table.to_csv(index=False).encode())
    write_json(paths[1], records)
    return paths


def to_markdown(frame: pd.DataFrame) -> str:
    """A Markdown table of strings."""
    head = [str(name) for name in frame.columns]
    rows = [[str(value).replace("|", "\\|") for value in line] for line in frame.itertuples(index=False)]
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
