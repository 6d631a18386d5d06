"""Certified robust accuracy over minutes of training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from lipref.errors import LiprefError
from lipref.plots.style import DARK, context, layer_styles, legend, line_format, line_handles, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = ("layer", "minutes", "train_minutes", "status", "cra_36")


@context()
def race(table: pd.DataFrame, goals: Mapping[float, float]) -> Figure:
    """CRA(36/255) against minutes of training: the mean over seeds, a band from lowest to highest; goals as bars.

    Args:
        table: A row per run: ``layer``, ``minutes`` (the budget), ``train_minutes``, ``status``, ``cra_36`` in [0, 1].
        goals: CRA in percent by minutes.

    Raises:
        LiprefError: a column is missing, or no run is done.
    """
    missing = [name for name in COLUMNS if name not in table.columns]
    done = table if missing else table[table.status == "done"]
    if missing or done.empty:
        what = f"the table has no column {missing[0]!r}" if missing else "no run is done"
        raise LiprefError(f"{what}: a picture needs {', '.join(COLUMNS)} of at least one run that is done")
    styles = layer_styles(done.layer)
    figure = new_figure(3.2)
    axis = figure.subplots()
    for layer, style in styles.items():
        groups = done[done.layer == layer].groupby("minutes")
        at = groups.train_minutes.mean()
        low, mean, high = (100 * getattr(groups.cra_36, name)() for name in ("min", "mean", "max"))
        axis.plot(at, mean, **line_format(style))
        axis.fill_between(at, low, high, color=style.color, alpha=0.2, linewidth=0)
    axis.set_xscale("log")
    ticks = sorted(set(done.minutes) | set(goals))
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    shown = {at: wanted for at, wanted in goals.items() if at <= 3 * done.minutes.max()}
    axis.plot(list(shown), list(shown.values()), "_", color=DARK, markersize=16, markeredgewidth=1.5)
    first, last = min(done.train_minutes.min(), done.minutes.min()), max([done.minutes.max(), *shown])
    axis.set_xlim(0.8 * first, 1.25 * last)
    axis.set_xlabel("minutes of training steps")
    axis.set_ylabel("CRA(36/255) (%)")
    legend(figure, line_handles(styles), notes=["bars: goals"] if shown else [])
    return figure
