"""Sweeps: many heads over one pass of the data, selected on validation, tested once."""

__all__ = ["Descent", "Fitted", "Head", "Subset", "descend", "grid", "parse_subset"]

from jaxlin.sweep.bank import Descent
from jaxlin.sweep.descend import descend
from jaxlin.sweep.heads import Fitted, Head, Subset, grid, parse_subset
