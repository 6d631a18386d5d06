"""Made-up records of runs with the paper's budgets, in the form of ``records.json``."""

import copy
import json

from lipref.data import shape
from lipref.paper import published
from lipref.paths import RESULTS

BASE = json.loads((RESULTS / "digits-xs" / "records.json").read_text())[0]
TEST_IMAGES = 10_000


def share(percent, width=0.0):
    value = percent / 100
    return {"count": round(TEST_IMAGES * value), "total": TEST_IMAGES, "value": value,
            "low": value - width / 100, "high": value + width / 100}  # fmt: skip


def record(dataset="cifar10", layer="aol", size="XS", budget="2h", accuracy=70.0, cra_36=56.0, *, width=0.0, seed=0,
           day=1, diverged=False, settings=None, **config):  # fmt: skip
    """A run whose accuracy and CRA, in percent, have intervals of half-width ``width``."""
    made = copy.deepcopy(BASE)
    epochs = published.epochs(dataset, size, layer, budget)
    made["config"] |= {
        "dataset": dataset, "layer": layer, "size": size, "layer_sha256": None, "validation": 0.0,
        "train_images": shape(dataset).train_images, "test_images": TEST_IMAGES,
    } | config  # fmt: skip
    made["config"]["settings"] |= {"epochs": epochs, "batch_size": 256, "seed": seed} | (settings or {})
    made["notes"] = {"hyperparameters": "paper"}
    made["environment"]["time"] = f"2026-01-{day:02}T00:00:00+00:00"
    if diverged:
        made |= {"status": "diverged", "diverged": {"step": 7, "layer": "head"}}
        return {name: value for name, value in made.items() if name != "certificate"}
    cra = {f"{radius}/255": share(cra_36 - place, width) for place, radius in enumerate((36, 72, 108, 255))}
    made["certificate"] |= {"accuracy": share(accuracy, width), "cra": cra}
    made["certificate"].pop("curve", None)
    return made


def write(folder, *records):
    """The records in ``folder``, as a text that the parameter ``records`` takes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "records.json").write_text(json.dumps(records))
    return str(folder)
