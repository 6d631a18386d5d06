"""Figure 8: time and memory on Tiny ImageNet, as a tidy table (`lipref.paper.tables`)."""

from __future__ import annotations

import pandas as pd

from lipref import data
from lipref.paper import published, tables

DATASET = "tiny-imagenet-200"
MEASURES = ("training time per epoch", "training memory", "inference throughput", "inference memory")
PICTURE_ONLY = "published as a picture only: no numbers"
NOT_MEASURED = "not measured"
IMPLIED = "implied by Table 8: 2 h over its epochs, one A100"


def table(costs: pd.DataFrame) -> pd.DataFrame:
    """Seconds per epoch, images per second and peaks of memory on 64x64 pictures, ours beside theirs.

    Of the paper's four panels only the training time follows from published numbers (`published.tiny_imagenet_epochs`);
    the others have no rows.

    Args:
        costs: The table of measurements (`lipref.bench.cost.row`) on pictures of that shape.
    """
    paper = [
        ("paper", IMPLIED, line.layer, line.size, MEASURES[0], line.seconds_per_epoch, float("nan"), float("nan"), 1,
         "s", 1, "")
        for line in published.tiny_imagenet_epochs().itertuples()
    ]  # fmt: skip
    parts = [
        tables.training_time(costs, "Tiny ImageNet", data.shape(DATASET).train_images), tables.memory(costs),
        tables.inference_throughput(costs),
    ]  # fmt: skip
    ours = pd.concat(parts, ignore_index=True)
    ours = ours[ours.source == "ours"]
    theirs = pd.DataFrame(paper, columns=list(tables.COLUMNS))
    return theirs if ours.empty else pd.concat([theirs, ours], ignore_index=True)


def blanks(variant: str) -> dict[tuple[str, str], str]:
    """What an empty panel says, for every measure and every source that a variant shows."""
    texts = {"paper": PICTURE_ONLY, "ours": NOT_MEASURED}
    shown = {"both": ("paper", "ours"), "published": ("paper",), "ours": ("ours",)}[variant]
    return {(measure, source): texts[source] for measure in MEASURES for source in shown}
