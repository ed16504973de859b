"""Why a solver stopped, as a number that is true to compare, and in words."""

__all__ = ["Fit", "Status", "describe", "improving", "later", "relative_gap", "silent"]

import enum
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Status(enum.IntEnum):
    """0 only where the tolerance was met.

    >>> Status(0).name, Status.NO_PROOF > 0
    ('CONVERGED', True)
    """

    CONVERGED = 0
    MAX_ITERATIONS = 1
    PRECISION = 2
    SEPARABLE = 3
    NO_PROOF = 4


_WORDS = {
    Status.CONVERGED: "converged: the certified relative gap is within `tolerance`",
    Status.MAX_ITERATIONS: (
        "stopped at `max_iterations` before the gap was within `tolerance`: raise "
        "`max_iterations`, raise `tolerance` (`tol`) if the gap will do, or raise `strength` "
        "(lower `C`): with next to none rounding hides any proof"
    ),
    Status.PRECISION: (
        "stopped at the limit of the arithmetic before the gap was within `tolerance`: raise "
        "`tolerance` (`tol`) above the gap, raise `strength` (lower `C`), or give float64 as "
        "`dtype` if it is float32"
    ),
    Status.SEPARABLE: (
        "the classes, or parts of them, are separable and nothing is regularized: larger weights "
        "always do as well or better, so there is no optimum to prefer; set `strength` above 0 (a "
        "finite `C`)"
    ),
    Status.NO_PROOF: (
        "stopped without a proof: without regularizer no gap can be certified; set `strength` "
        "above 0 for one"
    ),
}


def describe(status: int) -> str:
    """What a `Solution.status` means, and the setting that would change it.

    >>> describe(0)
    'converged: the certified relative gap is within `tolerance`'
    """
    return _WORDS[Status(int(status))]


def relative_gap(solution: Any) -> float:
    """The certified gap of a `Solution` as a share of its objective; 0 where both are 0.

    >>> from types import SimpleNamespace
    >>> relative_gap(SimpleNamespace(gap=0.01, objective=0.5))
    0.02
    """
    return float(solution.gap / max(solution.objective, np.finfo(float).tiny))


class Fit(NamedTuple):
    """What a solver hands back before the objective is evaluated for the rounded parameters."""

    weights: np.ndarray
    bias: np.ndarray
    lower_bound: float
    gradient_norm: float
    iterations: int
    evaluations: float
    status: Status
    proof: Any = None
    """The `Certificate` of just these parameters, rounded as they will be, if there is one."""

    def after(self, first: "Fit") -> "Fit":
        """This fit with what another method took before it, and the better of both bounds."""
        return self._replace(
            iterations=first.iterations + self.iterations,
            evaluations=first.evaluations + self.evaluations,
            lower_bound=max(first.lower_bound, self.lower_bound),
        )


def silent(*seen: Any) -> None:
    """The callback of a fit that nobody watches."""


def improving(report: Callable[..., Any]) -> Callable[..., None]:
    """Hands on only what is better than all before: the second method starts afresh."""
    least, highest = np.inf, 0.0

    def told(evaluations: float, objective: float, lower_bound: float) -> None:
        nonlocal least, highest
        highest = max(highest, lower_bound)
        if objective <= least:
            least = objective
            report(evaluations, objective, highest)

    return told


def later(report: Callable[..., Any], first: Fit) -> Callable[..., None]:
    """For the second method that goes on from `first`: its evaluations come on top."""
    if report is silent:
        return silent

    def told(evaluations: float, *bounds: Any) -> None:
        report(first.evaluations + evaluations, *bounds)

    return told
