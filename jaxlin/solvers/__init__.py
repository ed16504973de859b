"""Full-batch solvers that prove how far from the optimum they stopped."""

__all__ = [
    "Certificate",
    "Solution",
    "Status",
    "certify",
    "describe",
    "influence",
    "minimize",
    "minimize_compiled",
    "minimize_path",
    "prove",
    "relative_gap",
]

from jaxlin.core import Solution
from jaxlin.solvers.certificate import Certificate, certify
from jaxlin.solvers.compiled import minimize_compiled, prove
from jaxlin.solvers.implicit import influence
from jaxlin.solvers.path import minimize_path
from jaxlin.solvers.solve import minimize
from jaxlin.solvers.status import Status, describe, relative_gap
