"""What proofs are for: certificates refuted, constants published and proved, certified and attacked accuracy."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pandas as pd

from lipref.errors import LiprefError
from lipref.paper.style import FONT, GREY, context, display_name, layer_styles, legend, new_figure, wrap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SMALLEST = 1e-16  # of a gap: rounding
_HOLLOW = {"markerfacecolor": "none", "markeredgewidth": 1.4}
_FALSE, _KEPT = "#D55E00", "#dddddd"


@context()
def refuted(table: pd.DataFrame) -> Figure:
    """Bars of certified images per specimen, by the claimed constant and by the proved one; refuted ones filled.

    Args:
        table: Columns ``specimen, images, certified_claimed, refuted_claimed, certified_proved, refuted_proved``.

    Raises:
        LiprefError: no rows, or counts that do not fit each other.
    """
    from matplotlib.patches import Patch

    _needs(table, ("specimen", "images", "certified_claimed", "refuted_claimed", "certified_proved", "refuted_proved"))
    for row in table.itertuples():
        for end in ("claimed", "proved"):
            counts = getattr(row, f"refuted_{end}"), getattr(row, f"certified_{end}"), row.images
            if not 0 <= counts[0] <= counts[1] <= counts[2]:
                raise LiprefError(f"{row.specimen}: {counts} is not refuted <= certified <= images: correct the table")
    figure = new_figure(0.9 + 0.36 * len(table))
    left, right = figure.subplots(1, 2, sharey=True, sharex=True)
    for axis, end, title in ((left, "claimed", "certified by the claimed constant"),
                             (right, "proved", "certified by the proved bound")):  # fmt: skip
        places, certified, wrong = range(len(table)), list(table[f"certified_{end}"]), list(table[f"refuted_{end}"])
        axis.barh(places, certified, height=0.62, color=_KEPT, edgecolor=GREY, linewidth=0.6)
        axis.barh(places, wrong, height=0.62, color=_FALSE, edgecolor="white", hatch="////", linewidth=0)
        for place, all_, false in zip(places, certified, wrong, strict=True):
            axis.annotate(f"{false} of {all_} refuted", (all_, place), xytext=(3, 0), textcoords="offset points",
                          va="center", fontsize=FONT - 1)  # fmt: skip
        axis.set_title(title)
        axis.set_xlabel("test images")
        most = max(1, int(table.images.max()))
        axis.set_xlim(0, 1.42 * most)  # room for the words
        axis.set_xticks([0, most // 2, most] if most > 1 else [0, 1])
        axis.grid(visible=False, axis="y")
    left.set_yticks(range(len(table)), [wrap(name, 1.5) for name in table.specimen])
    left.set_ylim(len(table) - 0.45, -0.55)
    legend(figure, [
        Patch(facecolor=_KEPT, edgecolor=GREY, label="certified, no attack found"),
        Patch(facecolor=_FALSE, edgecolor="white", hatch="////", label="certified and refuted by an attack"),
    ])  # fmt: skip
    return figure


@context()
def gaps(table: pd.DataFrame) -> Figure:
    """How far published constants lie below the proved ones, layer by layer and as a product; a panel per moment.

    A dot per module, a large mark per product; what lies below `SMALLEST` is drawn on the lowest line.

    Args:
        table: Columns ``layer, moment, module, visited, gap``; gap ``1 - published / proved``, from 0 to 1.

    Raises:
        LiprefError: no rows, or a gap out of range.
    """
    from matplotlib.lines import Line2D

    _needs(table, ("layer", "moment", "module", "visited", "gap"))
    wrong = table[~table.gap.between(0, 1)]
    if not wrong.empty:
        row = wrong.iloc[0]
        raise LiprefError(f"gap {row.gap} of {row.module} in {row.layer} is not from 0 to 1: correct the table")
    styles = layer_styles(table.layer)
    moments = list(dict.fromkeys(table.moment))
    figure = new_figure(3.1)
    for axis, moment in zip(figure.subplots(1, len(moments), sharey=True, squeeze=False)[0], moments, strict=True):
        _gap_panel(axis, table[table.moment == moment], styles)
        axis.set_title({"initial": "before training", "trained": "after training"}.get(moment, moment))
    axes = figure.axes
    axes[0].set_ylabel("1 − published / proved")
    dot = {"linestyle": "none", "color": GREY, "marker": "o"}
    legend(figure, [
        Line2D([], [], markersize=3, label="one module", **dot),
        Line2D([], [], markersize=9, label="product over the network", **dot, **_HOLLOW),
    ])  # fmt: skip
    return figure


def _gap_panel(axis: Axes, rows: pd.DataFrame, styles: dict) -> None:
    names = []
    for place, (label, style) in enumerate(styles.items()):
        group = rows[rows.layer == label]
        parts, product = group[group.module != "product"], group[group.module == "product"]
        spread = [place + 0.5 * ((k + 0.5) / max(1, len(parts)) - 0.5) for k in range(len(parts))]
        axis.plot(spread, list(parts.gap.clip(lower=SMALLEST)), linestyle="none", marker=style.marker, markersize=3,
                  color=style.color, clip_on=False)  # fmt: skip
        # Hollow, so that it hides no module.
        axis.plot([place] * len(product), list(product.gap.clip(lower=SMALLEST)), linestyle="none", zorder=4,
                  marker=style.marker, markersize=9, color=style.color, clip_on=False, **_HOLLOW)  # fmt: skip
        looked = bool(parts.visited.astype(bool).all())
        names.append(display_name(label) + ("" if looked else "\n(not visited)"))
    axis.set_yscale("log")
    axis.set_ylim(SMALLEST, 1)
    ticks = [10.0**power for power in range(-16, 1, 4)]
    axis.set_yticks(
        ticks, ["0", *(f"$10^{{{round(math.log10(tick))}}}$" for tick in ticks[1:-1]), "1"], parse_math=True
    )
    axis.minorticks_off()
    axis.set_xlim(-0.6, len(styles) - 0.4)
    axis.set_xticks(range(len(names)), names, rotation=90, fontsize=FONT - 1)
    axis.grid(visible=False, axis="x")


@context()
def certified_and_attacked(table: pd.DataFrame) -> Figure:
    """Certified accuracy from below and attacked accuracy from above over the radius, a panel per layer.

    The truth lies between the two lines.

    Args:
        table: Columns ``layer, way, radius, share``: way ``certified`` or ``attacked``, radius l2 over pixels in
            [0, 1], share from 0 to 1. Several rows of one place are averaged, as over seeds.

    Raises:
        LiprefError: no rows, or a share or way out of range.
    """
    from matplotlib.lines import Line2D

    _needs(table, ("layer", "way", "radius", "share"))
    wrong = table[~table.share.between(0, 1) | ~table.way.isin(("certified", "attacked")) | ~(table.radius >= 0)]
    if not wrong.empty:
        row = wrong.iloc[0]
        raise LiprefError(
            f"{row.way} share {row.share} of {row.layer} at radius {row.radius} is out of range: give 0 to 1"
        )
    means = table.groupby(["layer", "way", "radius"], sort=False).share.mean().reset_index()
    styles = layer_styles(means.layer)
    rows = math.ceil(len(styles) / 4)
    figure = new_figure(0.5 + 1.45 * rows)
    grid = figure.subplots(rows, 4, sharex=True, sharey=True, squeeze=False)
    for axis in grid.flat[len(styles) :]:
        axis.set_visible(False)
    for number, (axis, (label, style)) in enumerate(zip(grid.flat, styles.items(), strict=False)):
        lines = {}
        for way in ("certified", "attacked"):
            part = means[(means.layer == label) & (means.way == way)].sort_values("radius")
            lines[way] = (255 * part.radius.to_numpy(), 100 * part.share.to_numpy())
        every = max(1, len(lines["certified"][0]) // 7)  # a marker at 0, 36, 72, ... of a curve in steps of 4
        look = {"color": style.color, "marker": style.marker, "markersize": 4, "clip_on": False, "markevery": every}
        # Steps: between two radii the certified share is at least that of the larger one, the attacked at most that of
        # the smaller one.
        axis.plot(*lines["certified"], drawstyle="steps-pre", linewidth=1.2, **look)  # fmt: skip
        if len(lines["attacked"][0]):
            axis.plot(*lines["attacked"], drawstyle="steps-post", linewidth=1.0, linestyle=(0, (3, 2)),
                      markerfacecolor="white", **look)  # fmt: skip
        axis.set_title(display_name(label))
        axis.set_xlim(0, 255 * float(means.radius.max()) or 1)
        axis.set_ylim(0, 100)
        axis.set_xticks([tick for tick in (0, 36, 72, 108, 255) if tick <= 255 * means.radius.max() + 1])
        axis.tick_params(labelsize=FONT - 1)
        if number % 4 == 0:
            axis.set_ylabel("accuracy (%)")
        if number + 4 >= len(styles):
            axis.set_xlabel("ℓ₂ radius (1/255)")
            axis.tick_params(labelbottom=True)
    ways = [Line2D([], [], color=GREY, marker="o", markersize=4, label="certified (no attack can go below)")]
    if (means.way == "attacked").any():
        ways.append(Line2D([], [], color=GREY, marker="o", markersize=4, markerfacecolor="white", linestyle=(0, (3, 2)),
                           label="right under attack (no certificate can go above)"))  # fmt: skip
    legend(figure, ways)
    return figure


def _needs(table: pd.DataFrame, columns: tuple[str, ...]) -> None:
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise LiprefError(f"the table has no column {missing[0]!r}; this picture needs {', '.join(columns)}")
    if table.empty:
        raise LiprefError("the table has no rows: give at least one to draw")
