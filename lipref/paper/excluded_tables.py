"""Figure 6 and Table 3 of the paper: why ECO and Sandwich are left out of the comparison, as tables.

From what ``lipref excluded`` wrote (`lipref.paper.excluded`), beside what the paper prints.
"""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pandas as pd

from lipref.errors import LiprefError
from lipref.paper import comparison, tables
from lipref.paper.excluded import GRADIENTS, LAYERS, SIDES
from lipref.paths import PAPER, ROOT

ECO_COLUMNS = ("source", "setting", "layer", "moment", "measure", "place", "module", "value", "unit")
VARIANCE, PRODUCT, NORM = "variance", "product of norms so far", "norm at a side"
AUTHORS = "the authors' layer, measured"
NOTHING_PUBLISHED = "Figure 6 is published as a picture only: the paper has no numbers to draw. Choose variant 'ours'."
NOTHING_OF_OURS = "Not computed: lipref excluded does it."
# The paper's rows of Table 3, and the modules of ours that have these features as their output.
ROWS = {
    "First Conv (1x1)": "first",
    "Activation": "first_act",
    **{f"Downsize Block({3 if block < 5 else 1}) #{block}": f"block{block - 1}_down" for block in range(1, 6)},
    "Flatten": "block4_down",  # ours flattens after the head: the same numbers
    "Linear": "head",
    "First Channels": "logits",
}
REASON = (
    "other pictures, and another draw of the weights, about which the paper says nothing: the order of magnitude and "
    "its growth from layer to layer are what can be compared"
)
NOTE = (
    "Gradient of the mean loss over one batch, its Frobenius norm over the whole batch. Ours: the library's network "
    f"and loss, untrained, seed 0. Compared as orders of magnitude: {REASON}."
)


def eco(records: str | Path) -> pd.DataFrame:
    """Figure 6, with `ECO_COLUMNS`: variances and products per layer, and norms of one layer against the image's side.

    ``place`` is the number of Lipschitz layers so far, or for `NORM` the side. All rows are ours: the paper has none.
    Those of the setting `AUTHORS` were measured with the authors' layer, with 16 channels on 16x16 pixels.

    Args:
        records: a folder that ``lipref excluded`` wrote, relative to here or to the repository.

    Raises:
        LiprefError: it is missing or damaged.
    """
    layers = _read(records, LAYERS, ("layer", "moment", "place", "module", "variance", "log2_product"))
    sides = _read(records, SIDES, ("side", "channels", "kernel_size", "norm"))
    lines = []
    for row in layers.itertuples():
        place = ("ours", "the network", row.layer, row.moment)
        lines.append((*place, VARIANCE, row.place, row.module, row.variance, "squared norm"))
        lines.append((*place, PRODUCT, row.place, row.module, 2.0**row.log2_product, "factor"))
    for row in sides.itertuples():
        setting = f"one layer, {row.channels} channels, {row.kernel_size}x{row.kernel_size} kernel"
        lines.append(("ours", setting, "eco", "initial", NORM, row.side, "", row.norm, "factor"))
    measured = pd.read_csv(PAPER / "lipschitz_measured_layers.csv")
    for row in measured[(measured.method == "ECO") & (measured["mode"] == "eval")].itertuples():
        lines.append(("ours", AUTHORS, "eco", row.state, NORM, 16, "", row.sigma_max, "factor"))
    return pd.DataFrame(lines, columns=list(ECO_COLUMNS))


def eco_people(table: pd.DataFrame) -> pd.DataFrame:
    """`eco` as people read it: a row per layer and moment."""
    lines = []
    for (layer, moment), group in table[table.measure == PRODUCT].groupby(["layer", "moment"], sort=False):
        products = list(group.sort_values("place").value)
        steps = [after / before for before, after in pairwise(products)]
        spread = table[(table.measure == VARIANCE) & (table.layer == layer) & (table.moment == moment)]
        spread = list(spread.sort_values("place").value)
        grows = sum(after > before * (1 + 1e-6) for before, after in pairwise(spread))
        lines.append(
            {"layer": layer, "moment": moment, "layers": len(steps), "largest norm of a layer": f"{max(steps):.3f}",
             "product": _power(products[-1]), "variance of the input": f"{spread[0]:.3g}",
             "variance at the end": f"{spread[-1]:.3g}", "layers after which it grew": grows}
        )  # fmt: skip
    return pd.DataFrame(lines)


def eco_sides_people(table: pd.DataFrame) -> pd.DataFrame:
    """The norms at each side, as people read them."""
    rows = table[table.measure == NORM]
    return pd.DataFrame(
        {"layer": "ours" if row.setting != AUTHORS else AUTHORS, "moment": row.moment, "side": row.place,
         "norm": f"{row.value:.4f}"}
        for row in rows.itertuples()
    )  # fmt: skip


def say_eco(table: pd.DataFrame) -> str:
    """What Figure 6 shows, in sentences that are computed from it."""
    ours = table[(table.measure == NORM) & (table.setting != AUTHORS)]
    if ours.empty:
        return NOTHING_PUBLISHED
    threes, others = ours[ours.place % 3 == 0].value, ours[ours.place % 3 != 0].value
    lines = [
        f"On sides that 3 divides one ECO layer has norm {threes.max():.6f} at most; on all others it has "
        f"{others.min():.2f} to {others.max():.2f}."
    ]
    for (layer, moment), group in table[table.measure == PRODUCT].groupby(["layer", "moment"], sort=False):
        product = group.sort_values("place").value.iloc[-1]
        lines.append(f"{layer}, {moment}: the product of all norms is {_power(product)}.")
    return "\n".join(lines)


def sandwich(records: str | Path) -> pd.DataFrame:
    """Table 3: gradient norms per feature map, as a tidy table (`lipref.paper.tables.COLUMNS`); measures are its rows.

    Raises:
        LiprefError: a missing or damaged file, or features of other shapes than the paper's.
    """
    paper = published_gradients()
    ours = _read(records, GRADIENTS, ("module", "shape", "norm")).set_index("module")
    lines = []
    for source, setting in (("paper", "CIFAR-10, batch 32"), ("ours", "the library's loss, seed 0, batch 32")):
        for row in paper.itertuples():
            found = ours.loc[ROWS[row.layer]]
            if found["shape"].removesuffix("x1x1") != row.output_shape.removesuffix("x1x1"):
                raise LiprefError(
                    f"{GRADIENTS}: {ROWS[row.layer]} has the shape {found['shape']}, the paper's {row.layer} "
                    f"{row.output_shape}; compute it on 32x32 pictures of ten classes"
                )
            value = row.gradient_frobenius_norm if source == "paper" else found["norm"]
            cells = (source, setting, "sandwich", "XS", row.layer, value, math.nan, math.nan, 1, "norm", 1, "")
            lines.append(dict(zip(tables.COLUMNS, cells, strict=True)))
    return pd.DataFrame(lines, columns=list(tables.COLUMNS))


def published_gradients() -> pd.DataFrame:
    """Table 3 as printed: ``layer, output_shape, gradient_frobenius_norm``."""
    return pd.read_csv(PAPER / "sandwich_gradient_norms_table3.csv")


def sandwich_people(table: pd.DataFrame) -> pd.DataFrame:
    """`sandwich` as people read it: the paper's row, the shape, both norms and their difference in powers of ten."""
    shapes = published_gradients().set_index("layer").output_shape
    found = {(row.source, row.measure): row.value for row in table.itertuples()}
    lines = []
    for measure in dict.fromkeys(table.measure):
        line = {"gradient at": measure, "shape": shapes[measure]}
        pair = [found.get((source, measure)) for source in ("paper", "ours")]
        line |= {source: f"{value:.2e}" for source, value in zip(("paper", "ours"), pair, strict=True) if value}
        if all(pair):
            line["log10(ours / paper)"] = f"{math.log10(pair[1] / pair[0]):+.2f}"
        lines.append(line)
    return pd.DataFrame(lines)


def sandwich_differences(table: pd.DataFrame) -> pd.DataFrame:
    """Ours against theirs (`lipref.paper.comparison.differences`): not comparable, for `REASON`."""
    return comparison.differences(table, comparison.EXACT, REASON)


def say_differences(table: pd.DataFrame) -> str:
    """How many of the published values were met, and why none can be."""
    return comparison.summary(sandwich_differences(table), REASON)


def say_sandwich(table: pd.DataFrame) -> str:
    """What Table 3 shows, in sentences that are computed from it."""
    lines = []
    for source, group in table.groupby("source", sort=False):
        values = group.set_index("measure").value
        first, last = values[next(iter(ROWS))], values["First Channels"]
        lines.append(
            f"{source}: {last:.2g} at the logits, {first:.2g} after the first layer, {last / first:.1g} times less."
        )
    if table.source.nunique() == 2:
        both = table.pivot(index="measure", columns="source", values="value")
        away = (both.ours / both.paper).map(math.log10).abs().max()
        lines.append(f"Largest difference between the two: 10 to the power of {away:.2f}.")
    return "\n".join(lines)


def _power(value: float) -> str:
    """A product as a power of two where it is large."""
    return f"2^{math.log2(value):.1f}" if value > 1.1 else f"{value:.4f}"


def _read(records: str | Path, name: str, columns: tuple[str, ...]) -> pd.DataFrame:
    remedy = "lipref excluded --out FOLDER writes it"
    place = next((folder / name for folder in (Path(records), ROOT / records) if (folder / name).exists()), None)
    if place is None:
        raise LiprefError(f"{records} has no {name}; {remedy}")
    try:
        table = pd.read_csv(place)
    except ValueError as error:
        raise LiprefError(f"{place} is damaged ({error}): delete it, {remedy}") from None
    missing = [column for column in columns if column not in table.columns]
    if missing or table.empty or table[list(columns)].isna().any(axis=None):
        raise LiprefError(f"{place} is damaged (no {missing[0] if missing else 'values'}): delete it, {remedy}")
    return table
