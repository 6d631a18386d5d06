"""The files of `lipref bench`: made from the records alone, so the same records give the same bytes."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from lipref.bench import tables
from lipref.bench.failures import Failures
from lipref.bench.records import parts_of, read
from lipref.bench.requests import BenchPlan
from lipref.bench.slices import complete
from lipref.bench.timing import PARTS, SEED
from lipref.runs import overview
from lipref.runs.provenance import write_json
from lipref.tensor_files import replace_file

FORMAT = 1


def write(plan: BenchPlan, table: pd.DataFrame, folder: Path) -> list[Path]:
    """Write all files of a plan into ``folder``; returns their paths.

    * ``bench.csv``: the tidy table (`lipref.bench.tables.table`).
    * ``bench.md``: the table that people read, with its notes.
    * ``bench.json``: what was asked for, where others' code comes from, every timed call of it, what failed, on which
      machines with which versions.
    * ``costs.csv``, ``costs.json``: our own measurements that are whole, as `lipref measure` writes them, from which
      the figures of time and memory are drawn (``records`` of their notebooks; committed below ``data/results/NAME``).
    """
    paths = [folder / "bench.csv", folder / "bench.md", folder / "bench.json"]
    text = "\n".join(f"- {line}" for line in tables.notes(plan))
    shown = overview.to_markdown(tables.people(table))
    parts = ["# What the layers cost", tables.setting(plan), shown, tables.NOTE, text]
    replace_file(paths[0], table.to_csv(index=False).encode())
    replace_file(paths[1], ("\n\n".join(part for part in parts if part) + "\n").encode())
    records = complete(plan)
    write_json(paths[2], _whole(plan, records))
    return paths + (overview.write_costs(records, folder) if records else [])


def _whole(plan: BenchPlan, ours: list[dict]) -> dict:
    environments: list[dict] = []

    def which(environment: dict) -> int:
        """Place among the environments: many measurements share one."""
        if environment not in environments:
            environments.append(environment)
        return environments.index(environment)

    theirs = []
    for network in plan.networks():
        for against in plan.against:
            found = [] if against.why_not(network) else _parts(plan, network, against)
            timed = []
            for record in found:
                told = dict(record["environment"])
                line = {"round": record["round"], "part": record["part"], "time": told.pop("time", None)}
                line |= {"result": record["result"], "ours": record["ours"], "environment": which(told)}
                timed.append(line)
            if found:
                first = {"digest": found[0]["digest"], "config": found[0]["config"], "origin": found[0]["origin"]}
                theirs.append(first | {"parts": timed})
    settings = {
        "layers": [network.label for network in _once(plan)], "sizes": list(plan.sizes),
        "image_sizes": list(plan.image_sizes), "quantities": list(plan.quantities), "batch_size": plan.batch_size,
        "repeats": plan.repeats, "rounds": plan.rounds, "device": plan.device, "seed": SEED,
    }  # fmt: skip
    return {
        "format": FORMAT, "kind": "bench", "settings": settings,
        "against": [dict(against.origin) for against in plan.against], "notes": tables.notes(plan),
        "failures": list(Failures(plan.out).kept.values()), "ours": [record["digest"] for record in ours],
        "theirs": theirs, "environments": environments,
    }  # fmt: skip


def _once(plan: BenchPlan) -> list:
    first = plan.networks()[0]
    return [n for n in plan.networks() if (n.size, n.image_size) == (first.size, first.image_size)]


def _parts(plan: BenchPlan, network, against) -> list[dict]:
    config = plan.theirs(network, against)
    there = (
        read(plan.out, config, number, part) for number in range(config.rounds) for part in parts_of(number, PARTS)
    )
    return [record for record in there if record is not None]
