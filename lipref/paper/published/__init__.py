"""The paper's published numbers (`data/paper`), as tables in the library's own names."""

from lipref.paper.published.accuracies import (
    accuracy,
    best_runs,
    by_budget,
    hyperparameters,
    literature,
    logged_constants,
    without_result,
)
from lipref.paper.published.costs import (
    budget_group,
    complexity,
    epoch_budgets,
    epochs,
    logged_throughput,
    parameter_counts,
    tiny_imagenet_epochs,
    training_cost,
)
from lipref.paper.published.names import BUDGETS, DATASETS, RADII, dataset_of, dataset_title, known_layer, layer_name
from lipref.paper.published.rankings import RANKED, explained, poster_ranking, radar, ranked_accuracy, ranking

__all__ = [
    "BUDGETS",
    "DATASETS",
    "RADII",
    "RANKED",
    "accuracy",
    "best_runs",
    "budget_group",
    "by_budget",
    "complexity",
    "dataset_of",
    "dataset_title",
    "epoch_budgets",
    "epochs",
    "explained",
    "hyperparameters",
    "known_layer",
    "layer_name",
    "literature",
    "logged_constants",
    "logged_throughput",
    "parameter_counts",
    "poster_ranking",
    "radar",
    "ranked_accuracy",
    "ranking",
    "tiny_imagenet_epochs",
    "training_cost",
    "without_result",
]
