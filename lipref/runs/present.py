"""The records of a data set that are there already: nothing is trained, measured or downloaded for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from lipref import data
from lipref.bench import cost, measurements
from lipref.errors import LiprefError
from lipref.layers import resolve
from lipref.paths import RESULTS, ROOT
from lipref.runs import overview, plans
from lipref.runs.records import newest, place, row
from lipref.runs.study import read

_SAME_IMAGES = {"cifar10-jpeg": "cifar10"}  # an image folder, which need not be here for its runs to be drawn


def runs(
    dataset: str, sizes: str = "XS,S,M,L", layers: str = "all", records: str = "", say: Callable[[str], None] = print
) -> tuple[pd.DataFrame, list[dict]]:
    """The runs of ``dataset``: their table (`lipref.runs.records.row`), and their records; none is no error, but said.

    Args:
        dataset: One of `lipref.data.DATASETS`, by name, or ``"cifar10-jpeg"``, CIFAR-10 stored as JPEG. All its
            training images have to be used.
        sizes, layers: Which networks, separated by commas; ``all``: every layer there is.
        records: A folder with ``records.json``; empty: the committed folders.
        say: Called with a line where nothing is there.

    Raises:
        LiprefError: an unknown name, no such folder, or a damaged file.
    """
    found = [record for path in _files(records, "records.json") for record in read(path)]
    train_images = data.shape(_SAME_IMAGES.get(dataset, dataset)).train_images
    kept = [
        record for record in found
        if record["config"]["dataset"] == dataset
        and (record["config"]["train_images"], record["config"]["validation"]) == (train_images, 0)
        and _asked(record, sizes, layers)
    ]  # fmt: skip
    kept = newest([], kept, lambda record: (record["config"]["settings"]["epochs"],))
    if not kept:
        say(f"no run on {dataset} in {records or 'data/results'}")
    return _ordered(pd.DataFrame([row(record) for record in kept])), kept


def costs(
    dataset: str, sizes: str = "XS,S,M,L", layers: str = "all", records: str = "", say: Callable[[str], None] = print
) -> pd.DataFrame:
    """The measurements on pictures of the shape of ``dataset`` (`lipref.bench.cost.row`); none is no error, but said.

    Of measurements under several circumstances the ones that most networks share are taken.

    Args:
        dataset, sizes, layers, say: As for `runs`.
        records: A folder with ``costs.json``; empty: the committed folders.

    Raises:
        LiprefError: an unknown name, no such folder, or a damaged file.
    """
    shape = data.shape(dataset)
    found = [record for path in _files(records, "costs.json") for record in read(path)]
    fitting = [r for r in found if not measurements.misfit(r, shape, None, None) and _asked(r, sizes, layers)]
    groups: list[list[dict]] = []
    for record in fitting:
        same = [group for group in groups if measurements.circumstances(group[0]) == measurements.circumstances(record)]
        if same:
            same[0].append(record)
        else:
            groups.append([record])
    if not groups:
        side = f"{shape.image_size}x{shape.image_size}"
        say(f"no measurement with {side} pictures of {dataset} in {records or 'data/results'}")
        return pd.DataFrame()
    most = max(groups, key=lambda group: len({place(record) for record in group}))
    if len(groups) > 1:
        say(f"{len(fitting) - len(most)} measurements of other circumstances are left out")
    return _ordered(pd.DataFrame([cost.row(record) for record in measurements.latest([], most)]))


def _asked(record: dict, sizes: str, layers: str) -> bool:
    config = record["config"]
    if config["size"] not in plans.check_sizes(plans.split_names(sizes, "sizes")):
        return False
    if layers.strip() == "all":
        return True
    specs = {spec.label: spec for spec in map(resolve, plans.check_layers(plans.layer_names(layers)))}
    return config["layer"] in specs and specs[config["layer"]].source_sha256 == config["layer_sha256"]


def _files(records: str, name: str) -> list[Path]:
    if not records:
        return sorted(RESULTS.glob(f"*/{name}"))
    folders = [folder for folder in (Path(records), ROOT / records) if folder.is_dir()]
    if not folders:
        remedy = "lipref reproduce --out or lipref measure --out makes one"
        raise LiprefError(f"records={records!r}: no such folder here or in the repository; {remedy}")
    return [folders[0] / name] if (folders[0] / name).exists() else []


def _ordered(table: pd.DataFrame) -> pd.DataFrame:
    return table if table.empty else table.sort_values(
        ["size", "layer"], key=overview.order, kind="stable", ignore_index=True
    )  # fmt: skip
