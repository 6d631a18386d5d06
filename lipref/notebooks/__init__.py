"""The notebooks of the paper's items: their map, their execution, grids of parameters, and the report.

papermill executes them; what it lets pass in silence (unknown parameters, a missing tag, text for numbers, a killed
kernel, an interrupt) is an error here.
"""

from lipref.notebooks.batch import Point, parse_grid, run_grid
from lipref.notebooks.drawing import draw, draw_all
from lipref.notebooks.execution import execute, take_over
from lipref.notebooks.folder import gather_committed, gather_data
from lipref.notebooks.html import write_report
from lipref.notebooks.map import Item, execute_all, read_map
from lipref.notebooks.parameters import Parameter, check, parameters_of

__all__ = [
    "Item",
    "Parameter",
    "Point",
    "check",
    "draw",
    "draw_all",
    "execute",
    "execute_all",
    "gather_committed",
    "gather_data",
    "parameters_of",
    "parse_grid",
    "read_map",
    "run_grid",
    "take_over",
    "write_report",
]
