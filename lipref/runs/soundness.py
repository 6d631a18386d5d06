"""Constants and price of runs, as files that grow run by run: ``constants.csv``, ``price.csv``, ``provenance.json``."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import torch

from lipref import tensor_files
from lipref.attacks.campaign import Target, load_target
from lipref.attacks.refuted import refuted
from lipref.certification.bounds import Audit, network_bound
from lipref.certification.certify import radius_name
from lipref.certification.float_error import evaluation_error
from lipref.certification.published_constants import PUBLISHED_ITERATIONS, as_published, constants, price
from lipref.errors import LiprefError
from lipref.layers import resolve
from lipref.nets import ConvNet, convnet
from lipref.runs.provenance import environment, write_json
from lipref.runs.records import make_folder, read_record
from lipref.tensor_files import replace_file

FORMAT = 1
MOMENTS = ("initial", "trained")
DIGITS = 10  # of a run's digest, as in the name of its folder, and of the weights'
PRODUCT = "product"  # in place of a module's name
CONSTANTS, PRICE, REFUTED, PROVENANCE = "constants.csv", "price.csv", "refuted.csv", "provenance.json"
_PLACE = ["dataset", "size", "layer", "seed", "moment"]
COLUMNS = {
    CONSTANTS: [*_PLACE, "module", "kind", "height", "width", "visited", "published", "proved", "as_published", "exact",
                "iterations", "digest"],
    PRICE: [*_PLACE, "radius", "way", "count", "images", "digest", "weights"],
}  # fmt: skip
_FLOATS = ("published", "proved", "as_published", "exact", "claimed")
_INTEGERS = ("seed", "height", "width", "iterations", "count", "images", "certified_claimed", "refuted_claimed",
             "certified_proved", "refuted_proved")  # fmt: skip
_REMEDY = "lipref soundness RUN... --out FOLDER writes it"
_BATCH = 50


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked of every run.

    ``iterations`` of the power method; ``exact`` norms of small layers too; ``images``, the first so many test images
    (None: all); ``dataset``, ``data_root`` and ``layer`` as for `lipref.attacks.campaign.load_target`.
    """

    iterations: int = PUBLISHED_ITERATIONS
    exact: bool = False
    images: int | None = None
    dataset: str | None = None
    data_root: Path | None = None
    layer: str | None = None


def measure(folder: Path, moment: str, question: Question, out: Path) -> bool:
    """Add one run to the files in ``out``, unless it is there: False then.

    Args:
        folder: of a finished run.
        moment: ``trained``, or ``initial`` for the same network before training, from the run's seed.

    Raises:
        LiprefError: no finished run, other data than the run had, or files in ``out`` that are damaged.
    """
    if moment not in MOMENTS:
        raise LiprefError(f"moment={moment!r}: give one of {', '.join(MOMENTS)}")
    record = _finished(folder)
    images = _images(record, question)
    key = {"format": FORMAT, "digest": record["digest"][:DIGITS], "moment": moment, "iterations": question.iterations,
           "exact": question.exact, "images": images}  # fmt: skip
    entries = read_provenance(out)
    known = next((entry for entry in entries if all(entry.get(name) == value for name, value in key.items())), None)
    if known is not None and _there(out, key):
        return False
    make_folder(Path(out))
    started = time.perf_counter()
    cpu = torch.device("cpu")
    target = load_target(
        folder, images, cpu, dataset=question.dataset, data_root=question.data_root, layer=question.layer
    )
    model = target.model if moment == "trained" else untrained(target, question.layer)
    config = record["config"]
    place = {name: config[name] for name in ("dataset", "size", "layer")}
    place |= {"seed": config["settings"]["seed"], "moment": moment}
    audited = network_bound(model)
    lines = _constant_rows(model, audited, question)
    published = next(line["published"] for line in lines if line["module"] == PRODUCT)
    batches = zip(target.images.split(_BATCH), target.labels.split(_BATCH), strict=True)
    error = evaluation_error(model, audited)
    prices = price(model, batches, published, audited.bound, None if error.slope is None else error)
    end = {"digest": key["digest"]}
    _replace(out / CONSTANTS, key, [place | line | {"iterations": question.iterations} | end for line in lines])
    end |= {"weights": tensor_files.fingerprint(model.state_dict())[:DIGITS]}
    _replace(out / PRICE, key, [place | asdict(row) | {"radius": radius_name(row.radius)} | end for row in prices])
    others = [entry for entry in entries if (entry.get("digest"), entry.get("moment")) != (key["digest"], moment)]
    seconds = time.perf_counter() - started
    write_json(out / PROVENANCE, [*others, key | {"seconds": seconds, "environment": environment(cpu)}])
    return True


def measure_refuted(out: Path, *, images: int = 100, seed: int = 0) -> bool:
    """Write ``refuted.csv`` (`lipref.attacks.refuted`) into ``out``, unless it is there: False then.

    Raises:
        LiprefError: it cannot be written, or fewer than one image.
    """
    key = {"format": FORMAT, "refuted": {"images": images, "seed": seed}}
    entries = read_provenance(out)
    known = any(all(entry.get(name) == value for name, value in key.items()) for entry in entries)
    if known and (Path(out) / REFUTED).exists():
        return False
    make_folder(Path(out))
    started = time.perf_counter()
    table = refuted(images=images, seed=seed)
    replace_file(Path(out) / REFUTED, table.to_csv(index=False, lineterminator="\n").encode())
    others = [entry for entry in entries if "refuted" not in entry]
    entry = key | {"seconds": time.perf_counter() - started, "environment": environment("cpu")}
    write_json(Path(out) / PROVENANCE, [*others, entry])
    return True


def untrained(target: Target, layer: str | None = None) -> ConvNet:
    """The network of a run before its first step, in evaluation: built anew from the run's seed."""
    config, model = target.record["config"], target.model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config["settings"]["seed"])
        spec = resolve(layer or config["layer"])
        return convnet(config["size"], spec, model.num_classes, model.in_channels, model.image_size).eval()


def read_provenance(out: Path) -> list[dict]:
    """The entries of ``provenance.json`` in ``out``; none where there is no such file.

    Raises:
        LiprefError: it is damaged.
    """
    path = Path(out) / PROVENANCE
    if not path.exists():
        return []
    try:
        entries = json.loads(path.read_text())
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise ValueError("no list of entries")
    except (OSError, ValueError) as error:
        raise LiprefError(f"{path} is damaged ({error}): delete that file to measure again") from None
    return entries


def read_table(path: Path, columns: list[str]) -> pd.DataFrame:
    """A table of ``columns`` that was written here; numbers come back to the bit.

    Raises:
        LiprefError: missing, damaged, or of other columns.
    """
    table = _read_text(path, columns)
    try:
        for name in table.columns.intersection(_FLOATS):
            # Not pandas' own parser: it may be off in the last place.
            table[name] = [float(text) if text else math.nan for text in table[name]]
        for name in table.columns.intersection(_INTEGERS):
            table[name] = [int(text) for text in table[name]]
    except ValueError as error:
        raise LiprefError(f"{path} is damaged ({error}): delete it, {_REMEDY}") from None
    if "visited" in table.columns:
        table["visited"] = table.visited == "True"
    return table


def _read_text(path: Path, columns: list[str]) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except OSError as error:
        raise LiprefError(f"{path} cannot be read ({error.strerror}): {_REMEDY}") from None
    except ValueError as error:
        raise LiprefError(f"{path} is damaged ({error}): delete it, {_REMEDY}") from None
    if list(table.columns) != columns:
        raise LiprefError(f"{path} has columns of its own: delete it, {_REMEDY}")
    return table


def _finished(folder: Path) -> dict:
    record = read_record(folder)
    if record is None:
        raise LiprefError(f"{folder} holds no record.json: give the folder of a finished run")
    if record["status"] != "done":
        raise LiprefError(f"the run in {folder} diverged: give one that is done")
    return record


def _images(record: dict, question: Question) -> int:
    if question.images is not None:
        return question.images
    if record["config"]["validation"]:
        raise LiprefError("images=None: the run was certified on part of the training images: give a number, --images")
    return record["config"]["test_images"]


def _constant_rows(model: ConvNet, audited: Audit, question: Question) -> list[dict]:
    found = constants(
        model, audited.shape, iterations=question.iterations, exact=question.exact
    )  # fmt: skip
    theirs = network_bound(as_published(model))
    bounds = {name: bound for name, _, _, bound in theirs.layers}
    rows = [
        {"module": layer.name, "kind": layer.kind, "height": layer.size[0], "width": layer.size[1],
         "visited": layer.visited, "published": layer.published, "proved": layer.proved,
         "as_published": bounds[layer.name], "exact": layer.exact}
        for layer in found.layers
    ]  # fmt: skip
    visited = all(layer.visited for layer in found.layers)
    rows.append({"module": PRODUCT, "kind": type(model).__name__, "height": audited.shape[1], "width": audited.shape[2],
                 "visited": visited, "published": found.published, "proved": found.proved,
                 "as_published": theirs.bound, "exact": None})  # fmt: skip
    return rows


def _there(out: Path, key: dict) -> bool:
    """Whether both tables have rows of this run and moment."""
    for name, columns in COLUMNS.items():
        if not (Path(out) / name).exists():
            return False
        table = read_table(Path(out) / name, columns)
        if not _of(table, key).any():
            return False
    return True


def _of(table: pd.DataFrame, key: dict) -> pd.Series:
    return (table.digest == key["digest"]) & (table.moment == key["moment"])


def _replace(path: Path, key: dict, rows: list[dict]) -> None:
    """Put the rows of one run and moment in the place of its earlier ones."""
    columns = COLUMNS[path.name]
    table = pd.DataFrame(rows, columns=columns)
    if path.exists():
        before = _read_text(path, columns)  # as text, so that what is kept stays as it is
        table = pd.concat([before[~_of(before, key)], table.astype(object)], ignore_index=True)
    replace_file(path, table.to_csv(index=False, lineterminator="\n").encode())
