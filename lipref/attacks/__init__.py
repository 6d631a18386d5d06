"""Attacks: what the other side of a certificate finds. A certified radius is an upper bound of their success."""

from lipref.attacks.edge import edge_search
from lipref.attacks.judging import Attacked
from lipref.attacks.minimum import MinimumNorm, minimum_norm
from lipref.attacks.pgd import METHODS, attack

__all__ = ["METHODS", "Attacked", "MinimumNorm", "attack", "edge_search", "minimum_norm"]
