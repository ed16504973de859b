"""Sweeps: many heads over one pass of the data, selected on validation, tested once."""

__all__ = [
    "Descent",
    "FittedHead",
    "Head",
    "Subset",
    "descend",
    "grid",
    "measure",
    "parse_subset",
    "solve",
]

from jaxlin.sweep.bank import Descent, measure
from jaxlin.sweep.full_batch import solve
from jaxlin.sweep.heads import FittedHead, Head, Subset, grid, parse_subset
from jaxlin.sweep.minibatch import descend
