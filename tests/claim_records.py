"""Records with made-up numbers in the form of real ones, equal to the paper's or altered."""

import copy
import json

from lipref.certification.certify import Proportion
from lipref.paper import published
from lipref.paper.claims.evidence import DATASETS
from lipref.paper.claims.networks import of_kernel, theirs
from lipref.paths import RESULTS

COMMITTED = RESULTS / "digits-xs"
RUN, COST = (json.loads((COMMITTED / name).read_text())[0] for name in ("records.json", "costs.json"))


def share(percent, images=10_000):
    return Proportion(round(percent / 100 * images), images).as_dict()


def run(dataset, layer, size, accuracy, cra, *, budget="24h", seed=0, parameters=None, **config):
    """A run of the paper's budget; ``dataset`` is the paper's name, values are in percent."""
    name, train, test = DATASETS[dataset]
    record = copy.deepcopy(RUN)
    settings = record["config"]["settings"] | {
        "epochs": published.epochs(name, size, layer, budget), "batch_size": 256, "seed": seed, "schedule": "paper",
    }  # fmt: skip
    record["config"] |= {
        "dataset": name, "train_images": train, "test_images": test, "layer": layer, "size": size, "device": "cuda",
    }  # fmt: skip
    record["config"] |= config | {"settings": settings}
    record["notes"] |= {"budget": budget}
    certificate = record["certificate"]
    certificate["accuracy"] = share(accuracy)
    certificate["cra"] = {radius: share(cra if radius == "36/255" else 0) for radius in certificate["cra"]}
    record["parameters"] = parameters or count(layer, size, 64 if dataset == "TinyImageNet" else 32, dataset)
    return record


def count(layer, size, side, dataset):
    from lipref.paper.claims.structure import built

    return built(layer, size, side, 3, {"CIFAR-10": 10, "CIFAR-100": 100, "TinyImageNet": 200}[dataset])[0]


def full(dataset="CIFAR-10", budget="24h", kernels=("3x3",)):
    """All networks of one table, equal to the paper's values."""
    accuracy, cra = theirs(dataset, "accuracy", budget), theirs(dataset, "cra", budget)
    places = [place for kernel in kernels for place in of_kernel(cra, kernel == "1x1") if place[0] != "bnb"]
    return [run(dataset, *place, accuracy[place], cra[place], budget=budget) for place in places]


def alter(record, measure, points):
    """The same record with another count, value and interval of accuracy or CRA(36/255)."""
    certificate = record["certificate"]
    place = certificate if measure == "accuracy" else certificate["cra"]
    key = "accuracy" if measure == "accuracy" else "36/255"
    place[key] = share(100 * place[key]["value"] + points, record["config"]["test_images"])


def find(records, layer, size):
    (found,) = (r for r in records if (r["config"]["layer"], r["config"]["size"]) == (layer, size))
    return found


def keep(folder, records=(), costs=()):
    """Write them as `lipref reproduce` does."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("records.json", records), ("costs.json", costs)):
        if content:
            (folder / name).write_text(json.dumps(list(content)))
    return folder


def measured(layer, size, *, seconds=1.0, peak=1e9, spread=0.01, alike=False, **config):
    """A measurement at 32x32, batch 256, on an A100; ``alike``: what is folded costs the same for all layers."""
    record = copy.deepcopy(COST)
    record["config"] |= {
        "layer": layer, "size": size, "image_size": 32, "channels": 3, "batch_size": 256, "device": "cuda",
        "machine": "NVIDIA A100",
    }  # fmt: skip
    record["config"] |= config
    timed = {"median": seconds, "low": seconds * (1 - spread), "high": seconds * (1 + spread)}
    for name in ("train_seconds", "infer_seconds", "folded_seconds", "prepare_seconds"):
        record[name] = record[name] | timed
    for name in ("train_peak_bytes", "infer_peak_bytes", "folded_peak_bytes"):
        record[name] = peak
    record["parameters"] = count(layer, size, 32, "CIFAR-10")
    if not alike:
        return record
    record["folded_seconds"] |= {"median": 1.0, "low": 0.99, "high": 1.01}
    record["folded_peak_bytes"] = 1e9
    return record


def published_costs():
    """The poster's measurements as if they were ours."""
    table = published.training_cost()
    rows = zip(table.layer, table["size"], table.seconds_per_epoch, table.peak_bytes, strict=True)
    return [measured(layer, size, seconds=seconds / 196, peak=peak, alike=True) for layer, size, seconds, peak in rows]
