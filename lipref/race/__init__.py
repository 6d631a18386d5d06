"""Time to CRA: the certified robust accuracy that each layer reaches within so many minutes of training."""

from lipref.race.recipes import GOALS, Entry, entries
from lipref.race.runs import Race, SliceEnded
from lipref.race.tables import best_recipes, goals, people, rows, write

__all__ = ["GOALS", "Entry", "Race", "SliceEnded", "best_recipes", "entries", "goals", "people", "rows", "write"]
