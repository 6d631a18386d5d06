"""Scores from 1 to 5 of the layers that are compared, for the radar."""

from __future__ import annotations

import numpy as np
import pandas as pd

WORST, BEST = 1, 5
MIDDLE = (WORST + BEST) / 2
SCORES = (
    f"Our scores: {BEST} for the best of the layers drawn, {WORST} for the worst, between them in proportion, and "
    f"{MIDDLE:g} for all where all are equal; linear in accuracy and CRA, logarithmic in seconds and bytes, means over "
    "the sizes that all layers have. They are relative to the layers drawn: two layers get "
    f"{WORST} and {BEST}, however small their difference, and another choice of layers gives other scores. The paper's "
    "are whole numbers by a rule of its own, over three data sets and four sizes."
)


def scores(table: pd.DataFrame, column: str, logarithmic: bool) -> dict[str, float]:
    """A score per layer by the rule that `SCORES` tells.

    Args:
        table: Columns ``layer``, ``size`` and ``column``; a row without a value takes no part.
        column: What is scored.
        logarithmic: Scored in proportion to the logarithm, and low numbers are good; else high ones are.

    Returns:
        Layer -> score, empty for an empty table.
    """
    if table.empty or column not in table.columns:
        return {}
    table = table[table[column].notna()]
    sizes = table.groupby("size").layer.nunique()
    common = sizes[sizes == table.layer.nunique()].index
    table = table[table["size"].isin(common)] if len(common) else table
    values = np.log(table[column].astype(float)) if logarithmic else table[column].astype(float)
    means = values.groupby(table.layer).mean()
    spread = means.max() - means.min()
    if not spread > 0:
        return dict.fromkeys(means.index, MIDDLE)
    place = (means.max() - means if logarithmic else means - means.min()) / spread
    return (WORST + (BEST - WORST) * place).to_dict()
