"""Attacks: what the other side of a certificate finds. A certified radius is an upper bound of their success."""

from lipref.attacks.minimum_norm import MinimumNorm, edge_search, minimum_norm
from lipref.attacks.perturbation import Attacked
from lipref.attacks.pgd import METHODS, attack

__all__ = ["METHODS", "Attacked", "MinimumNorm", "attack", "edge_search", "minimum_norm"]
