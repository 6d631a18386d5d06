"""The published rankings and scores: Figures 1, 5 and 9, and the poster."""

from __future__ import annotations

import pandas as pd

from lipref.paper.published.accuracies import accuracy
from lipref.paper.published.names import layer_name
from lipref.paths import PAPER

RANKED = ("CIFAR-10", "CIFAR-100", "TinyImageNet")  # the data sets of Figures 5 and 9


def ranking(dataset: str, first: int | None = None) -> pd.DataFrame:
    """Figure 5, in the poster's order: ``layer, size, cra_36`` as shares, best first.

    ``dataset`` is the paper's name of one data set, ``first`` how many networks to give (default all).

    Values are those that the paper prints in its tables, so that one network has one number everywhere; where it prints
    none, the poster's, which has one digit more.
    """
    table = pd.read_csv(PAPER / "cra36_24h_figure_values.csv")
    table = table[table.dataset == dataset].sort_values("rank")
    table = table if first is None else table.head(first)
    shown = table.paper_table_value_pct.fillna(table.cra36_pct)
    return pd.DataFrame(
        {"layer": table.method.map(layer_name), "size": table["size"], "cra_36": shown / 100}
    ).reset_index(drop=True)


def ranked_accuracy(dataset: str, first: int | None = None) -> pd.DataFrame:
    """Figure 9: the accuracy after 24 h of the networks of `ranking`, best first: ``layer, size, accuracy`` as shares.

    The networks are those that Figure 5 shows, chosen by their CRA; their accuracies are those of the paper's tables.
    """
    chosen = ranking(dataset, first)[["layer", "size"]]
    found = chosen.merge(accuracy(dataset)[["layer", "size", "accuracy"]], on=["layer", "size"], how="left")
    return found.sort_values("accuracy", ascending=False, kind="stable").reset_index(drop=True)


def poster_ranking() -> pd.DataFrame:
    """All bars of the poster: ``dataset`` (the paper's name), ``layer, size, cra_36`` as shares, best first.

    Two decimals of a percent, on four data sets; Imagenette is on the poster alone.
    """
    table = pd.read_csv(PAPER / "cra36_24h_figure_values.csv")
    return pd.DataFrame(
        {
            "dataset": table.dataset,
            "layer": table.method.map(layer_name),
            "size": table["size"],
            "cra_36": table.cra36_pct / 100,
        }
    )


def explained(dataset: str, factor: str) -> float:
    """How much of the variance of CRA(36/255) in Figure 5 the layer, or the size, explains alone.

    The share is eta squared: the sum of squares between the groups of ``factor`` over the total sum of squares.

    Args:
        dataset: The paper's name.
        factor: ``"layer"`` or ``"size"``.

    Returns:
        From 0 to 1.
    """
    table = ranking(dataset)
    mean = table.cra_36.mean()
    between = ((table.groupby(factor).cra_36.transform("mean") - mean) ** 2).sum()
    return float(between / ((table.cra_36 - mean) ** 2).sum())


def radar() -> pd.DataFrame:
    """Figure 1: ``layer, measure, score``, scores from 1 (worst) to 5 (best)."""
    table = pd.read_csv(PAPER / "radar_scores.csv").melt(id_vars="method", var_name="measure", value_name="score")
    return pd.DataFrame(
        {"layer": table.method.map(layer_name), "measure": table.measure.str.replace("_", " "), "score": table.score}
    )
