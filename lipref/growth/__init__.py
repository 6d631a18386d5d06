"""How the seconds of single layers grow with width, side and batch: measured in rounds, part by part."""

from lipref.growth.grid import GRIDS, REPEATS, ROUNDS, Grid, GrowthConfig, Plan
from lipref.growth.parts import AXES, KERNEL, count_running, parts_of, workload
from lipref.growth.records import points, read, write
from lipref.growth.rounds import State, run

__all__ = [
    "AXES",
    "GRIDS",
    "KERNEL",
    "REPEATS",
    "ROUNDS",
    "Grid",
    "GrowthConfig",
    "Plan",
    "State",
    "count_running",
    "parts_of",
    "points",
    "read",
    "run",
    "workload",
    "write",
]
