"""What the tables and figures of the certificates show, from the files of a folder (`lipref.runs.soundness`)."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path

import pandas as pd

from lipref.attacks.refuted import COLUMNS as REFUTED_COLUMNS
from lipref.certification.certify import CURVE_STEP, RADII
from lipref.errors import LiprefError
from lipref.paper import published
from lipref.paths import RESULTS, ROOT
from lipref.runs import overview, plans
from lipref.runs.soundness import COLUMNS, CONSTANTS, DIGITS, PRICE, PRODUCT, REFUTED, read_table

_PLACE = ["dataset", "size", "layer", "seed", "moment"]


def place_of(folder: str | Path) -> Path:
    """``folder``, relative to here or, where there is none, to the repository.

    In a folder of runs, its part ``soundness``.
    """
    place = Path(folder) if Path(folder).is_dir() else ROOT / folder
    return place / "soundness" if (place / "soundness" / CONSTANTS).exists() else place


def read_constants(folder: str | Path) -> pd.DataFrame:
    """``constants.csv``: a row per module and one per product."""
    return _ordered(read_table(place_of(folder) / CONSTANTS, COLUMNS[CONSTANTS]))


def read_price(folder: str | Path) -> pd.DataFrame:
    """``price.csv``: certified counts per run, moment, radius and way."""
    return _ordered(read_table(place_of(folder) / PRICE, COLUMNS[PRICE]))


def read_refuted(folder: str | Path) -> pd.DataFrame:
    """``refuted.csv``: a row per specimen (`lipref.attacks.refuted`).

    The specimens are no runs: where ``folder`` has no such file, the committed one is read.
    """
    path = place_of(folder) / REFUTED
    return read_table(path if path.exists() else RESULTS / "certificates" / REFUTED, REFUTED_COLUMNS)


def refuted_table(table: pd.DataFrame) -> pd.DataFrame:
    """The specimens as people read them."""
    return pd.DataFrame({
        "network": table.specimen,
        "claimed L": table.claimed.map("{:.3g}".format),
        "certified by it": table.certified_claimed,
        "of these refuted": table.refuted_claimed,
        "proved L": table.proved.map("{:.3g}".format),
        "certified by proof": table.certified_proved,
        "of these refuted ": table.refuted_proved,
    })  # fmt: skip


def products(folder: str | Path) -> pd.DataFrame:
    """Products over a network's parts, a row per run and moment, as text for people.

    ``not visited`` parts count as 1 in ``published``; ``as published, proved`` is the audit of the network evaluated as
    the published one is.
    """
    return product_table(read_constants(folder))


def product_table(constants: pd.DataFrame) -> pd.DataFrame:
    """`products` of a table that was read already."""
    rows = []
    for place, group in constants.groupby(_PLACE, sort=False):
        product = group[group.module == PRODUCT].iloc[0]
        parts = group[group.module != PRODUCT]
        rows.append(dict(zip(_PLACE, place, strict=True)) | {
            "not visited": f"{int((~parts.visited.astype(bool)).sum())} of {len(parts)}",
            "published": constant_text(product.published),
            "as published, proved": constant_text(product.as_published),
            "ours, proved": constant_text(product.proved),
        })  # fmt: skip
    return pd.DataFrame(rows)


def constant_text(value: float) -> str:
    """A Lipschitz constant by its distance from 1, where it is near: ``1 + 4e-11``; ``300.5``; ``not proved``."""
    if value is None or math.isnan(value):
        return "not proved"
    away = value - 1
    if abs(away) >= 0.1:
        return f"{value:.4g}"
    return "1" if abs(away) < 1e-15 else f"1 {'+' if away > 0 else '−'} {abs(away):.1e}"


def logged() -> pd.DataFrame:
    """Constants that the authors' CIFAR-10 runs logged: least and largest per layer, as text for people."""
    table = published.logged_constants()
    rows = []
    for layer, group in table.groupby("layer", sort=False):
        values = group.constant
        nothing = (values == 1).all()
        shown = "1, nothing measured" if nothing else f"{values.min():.6f} to {values.max():.6f}"
        rows.append({"layer": layer, "runs": len(group), "logged constant": shown})
    return pd.DataFrame(rows).sort_values("layer", key=overview.order).reset_index(drop=True)


def gaps(constants: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """How far each published constant lies below the proved one of the same layer, evaluated as published.

    Columns: ``layer, size, moment, module, visited`` and ``gap``, ``1 - published / proved``, 0 where the two agree.

    Raises:
        LiprefError: no constants of this data set.
    """
    chosen = _of(constants, dataset)
    chosen = chosen[chosen.as_published.notna()]
    gap = (1 - chosen.published / chosen.as_published).clip(lower=0)
    return chosen[["layer", "size", "moment", "module", "visited"]].assign(gap=gap).reset_index(drop=True)


def price_table(price: pd.DataFrame, dataset: str, moment: str = "trained") -> pd.DataFrame:
    """CRA in percent by the proved bound, and how many images more the other two ways count, for people.

    Of the differences at all radii the largest is shown.

    Raises:
        LiprefError: no prices of this data set.
    """
    chosen = _of(price, dataset)
    chosen = chosen[chosen.moment == moment]
    rows = []
    for (size, layer, seed), group in chosen.groupby(["size", "layer", "seed"], sort=False):
        row = {"layer": layer, "size": size, "seed": seed, "images": int(group.images.iloc[0])}
        proved = group[group.way == "proved"].set_index("radius")["count"]
        for radius in proved.index:
            row[f"CRA({radius}), proved"] = f"{100 * proved[radius] / row['images']:.1f}"
        for way in ("undivided", "published"):
            counts = group[group.way == way].set_index("radius")["count"]
            more = [] if counts.empty or proved.empty else list(counts - proved)
            row[f"{way}, images more"] = f"{int(max(more, key=abs)):+d}" if more else ""
        rows.append(row)
    return pd.DataFrame(rows)


def read_attacks(folder: str | Path) -> list[dict]:
    """The records ``*/attack.json`` and ``*/attack/attack.json`` below ``folder``; none where there is none.

    They are written by `lipref.attacks.campaign`, the latter beside the runs.

    Raises:
        LiprefError: a record that is damaged.
    """
    records = []
    place = Path(folder) if Path(folder).is_dir() else ROOT / folder
    for path in sorted([*place.glob("*/attack.json"), *place.glob("*/attack/attack.json")]):
        try:
            record = json.loads(path.read_text())
            if not {"weights_sha256", "config", "images", "inside", "beyond", "radii", "least_norms"} <= record.keys():
                raise ValueError("not a campaign's record")
        except (OSError, ValueError, AttributeError) as error:
            raise LiprefError(f"{path} is damaged ({error}): lipref attack writes it again") from None
        records.append(record)
    return records


def robustness(price: pd.DataFrame, attacks: list[dict], dataset: str) -> pd.DataFrame:
    """Certified and attacked accuracy over the radius: ``layer, size, seed, way, radius, share, images``.

    ``way`` is ``certified`` or ``attacked``, ``radius`` l2 over pixels in [0, 1], ``share`` from 0 to 1. Where a run
    was attacked, both are of the attacked images, every 4/255, else ``certified`` is of all that were certified, at the
    usual radii. A record is of a run if it has its weights; of two campaigns that with more images counts.

    Raises:
        LiprefError: no prices of this data set.
    """
    rows, best = [], {}
    for record in sorted(attacks, key=lambda record: record["images"]):
        best[record["weights_sha256"][:DIGITS]] = record
    chosen = _of(price, dataset)
    chosen = chosen[(chosen.moment == "trained") & (chosen.way == "proved")]
    for (size, layer, seed), group in chosen.groupby(["size", "layer", "seed"], sort=False):
        place = {"layer": layer, "size": size, "seed": seed}
        record = best.get(group.weights.iloc[0])
        if record is None:
            points = [("certified", Fraction(row.radius), row.count_, row.images)
                      for row in group.rename(columns={"count": "count_"}).itertuples()]  # fmt: skip
        else:
            found = {"attacked": [math.inf if norm is None else norm for norm in record["least_norms"]]}
            if record["radii"] is not None:
                found["certified"] = record["radii"]
            grid = [step * CURVE_STEP for step in range(int(max(RADII) / CURVE_STEP) + 1)]
            points = [(way, radius, sum(reach > radius for reach in reaches), record["images"])
                      for way, reaches in found.items() for radius in grid]  # fmt: skip
        rows += [place | {"way": way, "radius": float(radius), "share": count / images, "images": images}
                 for way, radius, count, images in points]  # fmt: skip
    return pd.DataFrame(rows, columns=["layer", "size", "seed", "way", "radius", "share", "images"])


def attack_table(attacks: list[dict]) -> pd.DataFrame:
    """What campaigns found, as people read it: a row per network, and one for all.

    End points are those with a norm of at least 0.9 of the certified radius; ``margin left`` is the least margin at an
    end point, in percent of the clean one; then the share of images, certified or not above that, that an attack of so
    many times the radius changes.
    """
    lines = []
    for record in attacks:
        config = record["config"]
        least = min((stage["least_margin_left"] for stage in record["inside"].values()), default=math.nan)
        lines.append({
            "dataset": config["dataset"], "size": config["size"], "layer": config["layer"],
            "images": record["attacked_inside"], "end points": record["end_points"],
            "successes": record["successes"], "margin left": f"{100 * least:.2f} %",
        } | {f"beyond, {factor} x": f"{100 * stage['successes'] / stage['images']:.0f} %"
             for factor, stage in record["beyond"].items()})  # fmt: skip
    if not lines:
        return pd.DataFrame()
    table = pd.DataFrame(lines).sort_values(
        ["dataset", "size", "layer"], key=lambda c: overview.order(c) if c.name in ("size", "layer") else c
    )
    counts = ["images", "end points", "successes"]
    whole = pd.DataFrame([{"dataset": "all", **table[counts].sum().to_dict()}])
    table = pd.concat([table, whole], ignore_index=True).fillna("")
    return table.assign(**{name: [f"{count:,}" for count in table[name]] for name in counts})


def say_attacks(table: pd.DataFrame) -> str:
    """In one sentence, what of `robustness` was attacked."""
    attacked = table[table.way == "attacked"]
    if attacked.empty:
        return "No network was attacked: lipref attack RUN does it; only certified accuracy is drawn."
    images = sorted(set(attacked.images))
    span = str(images[0]) if len(images) == 1 else f"{images[0]} to {images[-1]}"
    return f"Attacked on {span} test images each: {', '.join(dict.fromkeys(attacked.layer))}."


def _of(table: pd.DataFrame, dataset: str) -> pd.DataFrame:
    chosen = table[table.dataset == plans.short_name(dataset)]
    if chosen.empty:
        known = ", ".join(dict.fromkeys(table.dataset)) or "none"
        raise LiprefError(f"dataset={dataset!r}: the tables have {known}")
    return chosen


def _ordered(table: pd.DataFrame) -> pd.DataFrame:
    """Data sets and sizes as they come, layers in their usual order, before training and after; else as it was."""
    table = table.assign(_moment=(table.moment == "trained").astype(int))
    table = table.sort_values(["dataset", "size", "layer", "seed", "_moment"], kind="stable",
                              key=lambda c: overview.order(c) if c.name in ("size", "layer") else c)  # fmt: skip
    return table.drop(columns="_moment").reset_index(drop=True)
