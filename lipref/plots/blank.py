"""The place of a picture for which nothing has been run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pandas as pd

from lipref.errors import LiprefError
from lipref.plots.style import FONT, WIDTH, context, new_figure, wrap

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@context()
def blank(text: str) -> Figure:
    """An empty frame with ``text``: what is missing, and what would fill it.

    Raises:
        LiprefError: there is no text.
    """
    if not text:
        raise LiprefError("an empty picture needs a text that says what is missing")
    lines = wrap(text, WIDTH - 1.2)
    figure = new_figure(0.8 + (lines.count("\n") + 1) * 1.55 * FONT / 72)
    axis = figure.add_subplot()
    axis.set(xticks=[], yticks=[])
    axis.grid(visible=False)
    axis.text(0.5, 0.5, lines, ha="center", va="center", transform=axis.transAxes)
    return figure


def or_blank(draw: Callable[[pd.DataFrame], Figure], table: pd.DataFrame, missing: str) -> Figure:
    """``draw(table)``, or `blank` where no row of ``table`` has a value."""
    return blank(missing) if table.empty or table.value.isna().all() else draw(table)
