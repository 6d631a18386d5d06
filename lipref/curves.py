"""What records of runs hold beyond their row in a table: curves, and the bound of every layer."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import pandas as pd


def against_radius(records: Sequence[dict]) -> pd.DataFrame:
    """CRA against the radius: ``layer, size, seed, radius`` (l2, pixels in [0, 1]) and ``share``.

    A record without the fine curve gives the points of its table; one that diverged gives none.
    """
    lines = []
    for record in records:
        if record["status"] != "done":
            continue
        certificate = record["certificate"]
        if "curve" in certificate:
            step, total = float(Fraction(certificate["curve"]["step"])), certificate["accuracy"]["total"]
            points = [(step * k, count / total) for k, count in enumerate(certificate["curve"]["counts"])]
        else:
            points = [(0.0, certificate["accuracy"]["value"])]
            points += [(float(Fraction(name)), share["value"]) for name, share in certificate["cra"].items()]
        lines += [_place(record) | {"radius": radius, "share": share} for radius, share in points]
    return pd.DataFrame(lines, columns=["layer", "size", "seed", "radius", "share"])


def learning(records: Sequence[dict]) -> pd.DataFrame:
    """The learning curve: ``layer, size, seed, epoch`` (from 1), ``loss, accuracy, cra_36``.

    Shares of the training images as the epoch met them, each before its step; ``cra_36`` as if the
    network's bound were 1, which nothing has proved yet at that time.
    """
    lines = [
        _place(record) | {"epoch": each["epoch"] + 1} | {name: each[name] for name in ("loss", "accuracy", "cra_36")}
        for record in records
        for each in record["history"]
    ]
    return pd.DataFrame(lines, columns=["layer", "size", "seed", "epoch", "loss", "accuracy", "cra_36"])


def layer_bounds(records: Sequence[dict]) -> pd.DataFrame:
    """The proved bound of every layer of the networks: ``layer, size, seed, number`` (from 1), ``name, bound``."""
    lines = [
        _place(record) | {"number": number, "name": name, "bound": bound}
        for record in records
        if record["status"] == "done"
        for number, (name, _, _, bound) in enumerate(record["layer_bounds"], 1)
    ]
    return pd.DataFrame(lines, columns=["layer", "size", "seed", "number", "name", "bound"])


def _place(record: dict) -> dict:
    config = record["config"]
    return {"layer": config["layer"], "size": config["size"], "seed": config["settings"]["seed"]}
