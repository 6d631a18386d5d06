"""Numbers that need no training: parameters, Table 1, epoch budgets."""

from __future__ import annotations

import math
from functools import cache

import pandas as pd
from torch import nn

from lipref.data import DATASETS as KNOWN
from lipref.data import shape
from lipref.layers import LAYERS, BCOPConv2d, CayleyConv2d, resolve
from lipref.nets import convnet, count_parameters
from lipref.paper import published, table1
from lipref.paper.claims.claim import NOT_PUBLISHED, Claim, Line
from lipref.paper.claims.estimate import Estimate, exact, near
from lipref.paper.claims.evidence import DATASETS, Evidence
from lipref.paper.claims.networks import name
from lipref.paper.comparison import AGREES, DIFFERS
from lipref.paths import PAPER

MULTIPLES = {"10h": 5, "24h": 12}  # of the 2 h budget


@cache
def built(layer: str, size: str, image_size: int, channels: int = 3, classes: int = 10) -> tuple[int, int, str]:
    """Our trainable parameters, how many the authors' network has more, and why.

    The network is built without memory and without initial values. The difference is counted on its modules.
    """
    bare = type(layer, (LAYERS[layer],), {"__module__": __name__, "reset_parameters": lambda self: None})
    model = convnet(size, bare, classes, channels, image_size, device="meta")
    return count_parameters(model), *_known_difference(model)


def _known_difference(model: nn.Module) -> tuple[int, str]:
    bcop = [module for module in model.modules() if isinstance(module, BCOPConv2d)]
    if bcop:
        halves = sum(module.frames.numel() for module in bcop if module.frames is not None)
        return halves, "only the half of each frame that matters is stored"
    cayley = [module for module in model.modules() if isinstance(module, CayleyConv2d)]
    if cayley:
        return 1 - len(cayley), "every layer has its scale from the start, theirs the head alone"
    return 0, ""


def check_parameters(evidence: Evidence) -> list[Line]:
    """A line per layer and network of the paper, then one per layer and network of our records."""
    lines = []
    for line in pd.read_csv(PAPER / "model_parameter_counts.csv").itertuples():
        layer = published.layer_name(line.method)
        if layer not in published.complexity().index:
            continue
        ours, more, why = built(layer, line.size, line.input_side)
        note = f"{why}: {-more:+,}" if why else ""
        lines.append(Line(
            what=f"{name((layer, line.size))}, {line.input_side}x{line.input_side}", unit="parameters",
            published=line.trainable_parameters, supported=_class_of(line), ours=exact(ours),
            verdict=near(line.trainable_parameters - more, exact(ours), 0), note=note, files=("lipref/nets.py",),
        ))  # fmt: skip
    return [*lines, *_recorded(evidence)]


def _class_of(line) -> str:
    """Whether a count is in the paper's class of its size: 1 to 2, 4 to 8, 16 to 32, 64 to 128 million."""
    least = 4 ** ("XS", "S", "M", "L").index(line.size)
    return AGREES if least <= line.trainable_parameters / 1e6 <= 2 * least else DIFFERS


def _recorded(evidence: Evidence) -> list[Line]:
    """Counts in records against the network built again."""
    found: dict[tuple, tuple[int, str]] = {}
    for record, path in (*evidence.runs, *evidence.costs):
        config = record["config"]
        if config["layer"] not in LAYERS or config["layer_sha256"] is not None:
            continue
        pictures = _pictures(config)
        if pictures is not None:
            found[config["layer"], config["size"], *pictures, record["parameters"], path] = (record["parameters"], path)
    lines = []
    for (layer, size, side, channels, classes, *_), (count, path) in found.items():
        right, _, _ = built(layer, size, side, channels, classes)
        lines.append(Line(
            what=f"{name((layer, size))}, {side}x{side}x{channels}, as recorded", unit="parameters",
            ours=exact(count), verdict=near(right, exact(count), 0),
            note=f"built again: {right:,}", files=(path,),
        ))  # fmt: skip
    return lines


def _pictures(config: dict) -> tuple[int, int, int] | None:
    """Side, channels and classes; None where only the pictures themselves would tell."""
    if "image_size" in config:
        return config["image_size"], config["channels"], config["num_classes"]
    if config["dataset"] not in KNOWN:
        return None
    pictures = shape(config["dataset"])
    return pictures.image_size, pictures.channels, pictures.num_classes


def check_table1(evidence: Evidence) -> list[Line]:
    """A line per layer: 1 where all formulas of ours equal the printed ones."""
    table = table1.table([resolve(layer) for layer in published.complexity().index])
    return [
        Line(
            what=f"{line.layer}: formulas equal", unit="of 1", published=1, supported=NOT_PUBLISHED,
            ours=exact(equal := float(line.equal == "yes")), verdict=near(1, exact(equal), 0),
            files=("lipref/layers",),
        )
        for line in table.rename(columns={"as printed": "equal"}).itertuples()
    ]  # fmt: skip


def check_budgets(evidence: Evidence) -> list[Line]:
    """How many rows of Table 8 keep the multiples; then a line per budget of our runs, their epochs per 2 h."""
    table = pd.read_csv(PAPER / "epoch_budgets.csv").dropna(subset=["epochs_2h", "epochs_10h", "epochs_24h"])
    lines = []
    for budget, times in MULTIPLES.items():
        kept = (table[f"epochs_{budget}"] == times * table.epochs_2h).mean()
        lines.append(_our_budget(evidence, budget, times, AGREES if kept == 1 else DIFFERS))
    return lines


def _our_budget(evidence: Evidence, budget: str, times: int, supported: str) -> Line:
    ours = {dataset for dataset, _, _ in DATASETS.values()}
    ratios, files = [], []
    for record, path in evidence.runs:
        config = record["config"]
        if config["dataset"] in ours and record["notes"].get("budget") == budget:
            short = published.epochs(config["dataset"], config["size"], config["layer"], "2h")
            ratios.append(config["settings"]["epochs"] / short)
            files.append(path)
    value = Estimate(sum(ratios) / len(ratios), min(ratios), max(ratios)) if ratios else Estimate()
    worst = max((value.low, value.high), key=lambda end: abs(end - times)) if ratios else math.nan
    return Line(
        what=f"epochs of {budget[:-1]} h over those of 2 h", unit="times", published=times, supported=supported,
        ours=value, verdict=near(times, exact(worst), 0), note=f"{len(ratios)} runs" if ratios else "",
        files=tuple(dict.fromkeys(files)),
    )  # fmt: skip


CLAIMS = (
    Claim(
        id="parameters", place="Tables 7 and 8, authors' code",
        statement="The number of trainable parameters of every network.",
        needs="no records; those there are must have the number of their network",
        tolerance="none, after the difference that the note names", published=("model_parameter_counts.csv",),
        check=check_parameters,
    ),
    Claim(
        id="table1", place="Table 1", statement="The leading cost of every layer, as formulas.",
        needs="no records", tolerance="none", published=("complexity_table1.csv",), check=check_table1,
    ),
    Claim(
        id="budgets", place="Table 8, Appendix E",
        statement="The epochs of 10 h are 5 times, those of 24 h 12 times those of 2 h.",
        needs="runs with a budget of 10h or 24h", tolerance="none", published=("epoch_budgets.csv",),
        check=check_budgets,
    ),
)  # fmt: skip
