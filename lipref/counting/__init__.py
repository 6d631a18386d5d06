"""What the layers' code really costs: multiply-accumulates, and the numbers that autograd keeps, counted."""

from lipref.counting.grid import AXES, BASE, WAYS, Way
from lipref.counting.layer import INPUT, PARAMETER, WHOLE, Count, count_layer
from lipref.counting.records import counts_of, read_counts, write_counts

__all__ = [
    "AXES",
    "BASE",
    "INPUT",
    "PARAMETER",
    "WAYS",
    "WHOLE",
    "Count",
    "Way",
    "count_layer",
    "counts_of",
    "read_counts",
    "write_counts",
]
