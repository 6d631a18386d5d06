"""Pictures of the comparison, after the figures of the paper (Prach et al. 2024, arXiv 2311.16833).

Every function takes a tidy table and returns a `matplotlib.figure.Figure`, which needs no display and which notebooks
show; `save` writes it as PNG and PDF. matplotlib and seaborn are optional (``pip install 'lipref[notebooks]'``) and are
imported when the first picture is made.
"""

from lipref.plots.accuracies import accuracy
from lipref.plots.blank import blank, or_blank
from lipref.plots.budgets import budget_dots, budget_lines
from lipref.plots.certificates import certified_and_attacked, gaps, refuted
from lipref.plots.costs import beside, epochs, inference_throughput, memory, parameters, training_time
from lipref.plots.curves import robustness_curve
from lipref.plots.excluded import eco
from lipref.plots.exponents import exponents
from lipref.plots.first import first_network
from lipref.plots.growth import growth
from lipref.plots.learning import learning_curves
from lipref.plots.race import race
from lipref.plots.radars import radar
from lipref.plots.radii import radii_dots
from lipref.plots.rankings import ranking
from lipref.plots.saving import save
from lipref.plots.style import LayerStyle, display_name, layer_styles
from lipref.plots.tradeoffs import tradeoff
from lipref.plots.verdicts import verdicts
from lipref.plots.widths import memory_width

__all__ = [
    "LayerStyle",
    "accuracy",
    "beside",
    "blank",
    "budget_dots",
    "budget_lines",
    "certified_and_attacked",
    "display_name",
    "eco",
    "epochs",
    "exponents",
    "first_network",
    "gaps",
    "growth",
    "inference_throughput",
    "layer_styles",
    "learning_curves",
    "memory",
    "memory_width",
    "or_blank",
    "parameters",
    "race",
    "radar",
    "radii_dots",
    "ranking",
    "refuted",
    "robustness_curve",
    "save",
    "tradeoff",
    "training_time",
    "verdicts",
]
