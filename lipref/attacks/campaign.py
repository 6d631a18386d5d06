"""Attacks of a trained run on its test images, resumable, with a record."""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from lipref import tensor_files
from lipref.attacks.minimum_norm import edge_search, minimum_norm
from lipref.attacks.perturbation import Attacked, Box, check_counts
from lipref.attacks.pgd import attack
from lipref.certification.bounds import network_bound
from lipref.certification.certify import RADII, EvaluationError, certify, radius_name
from lipref.certification.classifier import load as load_classifier
from lipref.certification.float_error import evaluation_error
from lipref.data import ImageData, load_dataset, pixels, validation_split
from lipref.errors import LiprefError
from lipref.nets import ConvNet
from lipref.runs.provenance import environment, write_json
from lipref.training.record import make_folder, read_record

FORMAT = 2
INSIDE = (0.95, 0.99, 0.999)  # of the certified radius
LEAST_SHARE = 0.9  # of the certified radius: a shorter end point is judged, but not counted
BEYOND = (1.5, 2.0, 4.0)
# Of l2: below it the rounding of a float64 logit, not the network, could decide a prediction.
LEAST_RADIUS = 1e-6
LEAST_STEPS = 20  # of an end point that counts


@dataclass(frozen=True, kw_only=True)
class Effort:
    """What decides a campaign's numbers: ``chunk`` images at a time, ``boxed`` whether pixels stay in [0, 1]."""

    images: int
    restarts: int = 5
    steps: int = 40
    seed: int = 0
    targeted: bool = False
    boxed: bool = False
    chunk: int = 50

    def __post_init__(self) -> None:
        check_counts(images=self.images, restarts=self.restarts, chunk=self.chunk)
        if self.steps < LEAST_STEPS:
            raise LiprefError(f"steps={self.steps}: an end point counts after {LEAST_STEPS} steps or more")


def run_campaign(
    target: Target, effort: Effort, out: Path, on_progress: Callable[[int, int, str], None] = lambda *_: None
) -> dict:
    """Do the campaign, or what of it is missing in ``out``, and write ``attack.json``; returns that record.

    Every chunk of images leaves a file when it is done, so a killed campaign goes on there. A success inside a
    certified radius is kept in ``violations/``: the input and the perturbation, in float64.

    Args:
        on_progress: called with chunks done, chunks in all, and what is under way.

    Raises:
        LiprefError: ``out`` holds another campaign, cannot be written, or a network that gives no finite logits.
    """
    started, make = time.perf_counter(), make_folder(out)
    weights = tensor_files.fingerprint(target.model.state_dict())
    key = {"format": FORMAT, "weights_sha256": weights, "effort": asdict(effort)}
    del key["effort"]["images"]  # more images later: the chunks that are done stay
    key["device"] = target.images.device.type
    audit = network_bound(target.model)
    key["lipschitz_bound"] = audit.bound
    error = evaluation_error(target.model, audit)
    error = error if error.slope is not None else None
    starts = range(0, effort.images, effort.chunk)
    chunks = []
    for done, start in enumerate(starts):
        at = slice(start, min(start + effort.chunk, effort.images))
        on_progress(done, len(starts), f"images {at.start} to {at.stop - 1}")
        path = make / "chunks" / f"{start:06}.json"
        label = key | {"span": [at.start, at.stop]}
        chunk = _read(path, label)
        if chunk is None:
            chunk = label | _attack_chunk(target, effort, audit.bound, error, at, make / "violations")
            write_json(path, chunk)
        chunks.append(chunk)
    on_progress(len(starts), len(starts), "")
    record = key | {name: target.record[name] for name in ("digest", "config")} | _totals(chunks)
    record |= {"seconds": sum(chunk["seconds"] for chunk in chunks), "last_seconds": time.perf_counter() - started}
    write_json(make / "attack.json", record | {"environment": environment(target.images.device)})
    return record


def _read(path: Path, key: dict) -> dict | None:
    if not path.exists():
        return None
    try:
        chunk = json.loads(path.read_text())
        same = {name: chunk[name] for name in key} == key
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LiprefError(f"{path} is damaged ({type(error).__name__}): delete that file to do it again") from None
    if not same:
        raise LiprefError(f"{path} is of another campaign: choose another folder with --out")
    return chunk


def _attack_chunk(
    target: Target, effort: Effort, bound: float | None, error: EvaluationError | None, at: slice, violations: Path
) -> dict:
    started = time.perf_counter()
    x, y, names = target.images[at], target.labels[at], target.names[at]
    radii = certify(target.model, [(x, y)], bound, error).radii.to(x.device)
    if bound is None:
        proved = torch.zeros(0, dtype=torch.int64, device=x.device)
    else:
        proved = (radii >= LEAST_RADIUS).nonzero().squeeze(1)
    common = {"steps": effort.steps, "seed": effort.seed * 1_000_003 + at.start}
    free = common | {"restarts": effort.restarts, "targeted": effort.targeted}
    inside: list[dict] = []

    def count(what: str, found: Attacked, level: Tensor) -> None:
        wrong = (found.end_margins <= 0).nonzero().tolist()
        long = found.end_norms >= LEAST_SHARE * own
        left = float((found.end_margins / level).min())
        inside.append({"what": what, "end_points": int(long.sum()), "shorter": int((~long).sum()),
                       "successes": len(wrong), "least_margin_left": left})  # fmt: skip
        for restart, place in wrong:
            name = names[int(proved[place])]
            tensors = {"image": x[proved[place]], "perturbation": found.ends[restart, place]}
            meta = {"image": name, "label": int(y[proved[place]]), "radius": float(radii[proved[place]]),
                    "norm": float(found.end_norms[restart, place]),
                    "margin": float(found.end_margins[restart, place])}  # fmt: skip
            tensor_files.save(violations / f"image{name:05}-{what}-{restart}.safetensors", tensors, meta)
            refuted.add(name)

    refuted: set[int] = set()
    beyond: dict[str, list[int]] = {}
    if len(proved):
        sure, labels, own = x[proved], y[proved], radii[proved]
        margin = own * 2**0.5 * bound
        for share in INSIDE:
            found = attack(target.model, sure, labels, share * own, **free)
            count(f"pgd-{share}", found, margin)
        count("edge", edge_search(target.model, sure, labels, own, found.ends, **common), margin)
        for factor in BEYOND:
            found = attack(target.model, sure, labels, factor * own, restarts=1, **common)
            beyond[str(factor)] = [int(found.success.sum()), len(proved)]
    box = target.box if effort.boxed else None
    least = minimum_norm(target.model, x, y, 0.0 if bound is None else radii, box=box, **common)
    refuted |= {names[place] for place in least.violations.nonzero().flatten().tolist()}
    return {
        "images": len(x),
        "accurate": int((least.norms > 0).sum()),
        "attacked_inside": len(proved),
        "inside": inside,
        "refuted": sorted(refuted),
        "beyond": beyond,
        "radii": None if bound is None else radii.tolist(),
        "least_norms": [norm if math.isfinite(norm) else None for norm in least.norms.tolist()],
        "seconds": time.perf_counter() - started,
    }


def _totals(chunks: Iterable[dict]) -> dict:
    """The sums over all chunks."""
    chunks = list(chunks)
    totals = {name: sum(chunk[name] for chunk in chunks) for name in ("images", "accurate", "attacked_inside")}
    lines = [line for chunk in chunks for line in chunk["inside"]]
    stages = {}
    for what in dict.fromkeys(line["what"] for line in lines):
        these = [line for line in lines if line["what"] == what]
        stages[what] = {name: sum(line[name] for line in these) for name in ("end_points", "shorter", "successes")}
        stages[what]["least_margin_left"] = min(line["least_margin_left"] for line in these)
    totals["end_points"] = sum(line["end_points"] for line in lines)
    totals["successes"] = sum(line["successes"] for line in lines)
    totals["inside"] = stages
    totals["refuted"] = [name for chunk in chunks for name in chunk["refuted"]]
    factors = dict.fromkeys(factor for chunk in chunks for factor in chunk["beyond"])
    totals["beyond"] = {
        factor: {
            name: sum(chunk["beyond"][factor][place] for chunk in chunks if chunk["beyond"])
            for place, name in enumerate(("successes", "images"))
        }
        for factor in factors
    }
    for name in ("radii", "least_norms"):
        lists = [chunk[name] for chunk in chunks]
        totals[name] = None if lists[0] is None else list(itertools.chain.from_iterable(lists))
    totals["fixed"] = {
        radius_name(radius): {
            "right": sum(norm is None or norm > radius for norm in totals["least_norms"]),
            "certified": None if totals["radii"] is None else sum(own > radius for own in totals["radii"]),
        }
        for radius in RADII
    }
    return totals


@dataclass(frozen=True)
class Target:
    """What is attacked: a network in evaluation, and inputs ``images`` (N, C, H, W), float64, with their ``labels``.

    ``names`` are the places of the images in the run's test set; ``box`` the lowest and highest input; ``record`` the
    run's.
    """

    model: ConvNet
    images: Tensor
    labels: Tensor
    names: list[int]
    box: Box
    record: dict


def load_target(
    folder: Path, images: int, device: torch.device, *, dataset: str | None = None, data_root: Path | None = None,
    layer: str | None = None,
) -> Target:  # fmt: skip
    """Read the run in ``folder`` with the first ``images`` of the pictures that it was certified on.

    Args:
        dataset: where the record's name is not one that `lipref.load_dataset` knows: ``imagefolder:PATH``.
        layer: where the record's layer is a user's own: ``path/to/file.py:Class``.

    Raises:
        LiprefError: no finished run, other pictures or another layer than the run had, or too many images.
    """
    record = read_record(folder)
    if record is None:
        raise LiprefError(f"{folder} holds no record.json: give the folder of a finished run")
    if record["status"] != "done":
        raise LiprefError(f"the run in {folder} diverged: give one that is done")
    config = record["config"]
    data = _data(config, dataset, data_root)
    other = None if layer == config["layer"] else layer  # a run's own name needs no file
    classifier = load_classifier(folder, data=data, layer=other, device=device)
    if classifier.config.digest != record["digest"]:
        raise LiprefError(f"{folder}: the weights are not those of its record.json: give the folder as the run left it")
    data = validation_split(data, config["validation"]) if config["validation"] else data
    if not 1 <= images <= len(data.test):
        raise LiprefError(f"--images {images}: give a number from 1 to {len(data.test)}, the run's test images")
    x, labels = next(iter(pixels(data.test.take(torch.arange(images)), data, device, torch.float64, images)))
    mean = torch.tensor(data.mean, dtype=torch.float64, device=device)[:, None, None]
    return Target(classifier.model, x, labels, list(range(images)), (-mean, 1 - mean), record)


def _data(config: dict, dataset: str | None, data_root: Path | None) -> ImageData:
    name = dataset or config["dataset"]
    as_name = config["dataset"] if name.startswith("imagefolder:") else None
    try:
        data = load_dataset(
            name, data_root, limit_train=config["train_images"], limit_test=config["test_images"], as_name=as_name
        )
    except LiprefError as error:
        raise LiprefError(f"the run's data: {error} (give them with --dataset imagefolder:PATH)") from None
    if data.fingerprint() != config["data_sha256"]:
        raise LiprefError(f"{name}: these are not the pictures that the run was made with; give them with --dataset")
    return data
