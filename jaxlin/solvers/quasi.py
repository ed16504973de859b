"""Quasi-Newton steps for a smoothed loss: a pass over the data each, however many rows bend.

While most rows bend, every product of a Newton system costs as much as a pass, and the system
describes little more than where the iterate is: rows begin and cease to bend on the way. L-BFGS
in the metric that would precondition the system then gets further with each pass.
"""

__all__ = ["QuasiNewtonStep"]

import numpy as np

from jaxlin.solvers.history import History, empty_history, forgotten, pushed, scaled_step
from jaxlin.solvers.metrics import flat
from jaxlin.solvers.newton import NOTHING, NewtonStep
from jaxlin.solvers.problem import Problem

FRESH = 10
"""Steps that a metric serves at least."""
KEPT = 5
"""Pairs that outlive the metric they corrected."""
SHARE = 2.0
"""Times what a metric cost that the steps in it must have cost before the next is built."""


class QuasiNewtonStep:
    """Directions of one run. Pairs outlive a round: the next one is smoothed much alike."""

    def __init__(self, problem: Problem, newton: NewtonStep):
        size = problem.classes * (problem.features + 1)
        self.newton = newton
        self._history = empty_history(size, 20)
        self._built, self._since, self._last = NOTHING, 0, None
        builder = newton.builder
        self._serves = max(FRESH, SHARE * builder.build_cost() / builder.evaluation_cost())

    def __call__(self, bent, weights, bias, gradient, sums, scores, smoothing, anchor):
        """A direction of descent (K, D) and (K,); what is given is as for `NewtonStep`."""
        if self._built is NOTHING or self._since >= self._serves:
            self._built = self.newton.preconditioner(bent, scores, smoothing, anchor)
            self._since, self._history = 0, forgotten(self._history, KEPT)
        self._since += 1
        metric = flat(self._built.metric, gradient.shape)
        vector = np.concatenate([gradient.ravel(), sums])
        step, self._history = scaled_step(self._history, metric, vector)
        if not step @ vector < 0:
            step, self._history = scaled_step(forgotten(self._history, 0), metric, vector)
        self._last = np.concatenate([weights.ravel(), bias]), vector
        step, bias_step = np.split(step, [gradient.size])
        return step.reshape(gradient.shape), bias_step

    def state(self) -> tuple:
        """What it takes to go on: history, last step, rows and columns of the metric, numbers."""
        last = np.zeros((0, 0)) if self._last is None else np.stack(self._last)
        numbers = np.array([self._built.smoothing, self._since], np.float64)
        return self._history, last, self._built.rows, self._built.columns, numbers

    def go_on(self, history: History, last, rows, columns, numbers) -> None:
        """From the `state` of another run's steps for the same problem; `newton` has gone on."""
        self._history = history
        self._last = tuple(last) if last.size else None
        self._built = self.newton.rebuilt(rows, columns, float(numbers[0]))
        self._since = int(numbers[1])

    def learn(self, weights, bias, gradient, sums) -> None:
        """The gradient where the last step led, of the same function."""
        if self._last is None:
            return
        point = np.concatenate([weights.ravel(), bias])
        vector = np.concatenate([gradient.ravel(), sums])
        self._history = pushed(self._history, point - self._last[0], vector - self._last[1])
        self._last = None

    def turn(self) -> None:
        """The function changes: what was seen before the step says nothing about it."""
        self._last = None
