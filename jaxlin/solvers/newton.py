"""Newton's direction for a smoothed loss: only the rows that bend enter the Hessian."""

__all__ = ["NewtonStep"]

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from jaxlin.sharding import fetch
from jaxlin.solvers.builder import MetricBuilder
from jaxlin.solvers.duals import Bend, own_of
from jaxlin.solvers.metrics import DENSE_SIDE, bends_of, two_level_metric
from jaxlin.solvers.problem import Problem

BENDING_ROWS = 4000
"""Rows that enter the Hessian at first; twice as many after a step that fell short."""
SHORT = 0.4
"""Length of a step below which its Hessian had missed curvature."""
CG_STEPS = 150
WORTH = 15
"""Conjugate gradient steps, beyond those it took when new, that a new preconditioner is worth."""


class NewtonStep:
    """Newton directions of one run; keeps its preconditioner while it serves."""

    def __init__(self, problem: Problem, builder: MetricBuilder):
        self.problem, self.builder = problem, builder
        self.exact = (problem.features + 1) * problem.classes <= DENSE_SIDE
        self._metric, self._fresh, self._count = None, None, 0
        self._draws, self._rows = 0, BENDING_ROWS

    def __call__(self, bent, gradient, bias_gradient, scores, smoothing, anchor, accuracy):
        """Minus the (approximately) solved Newton system; and the passes over the data it took.

        Args:
          bent: (N,) the weighted trace of each row's second derivative.
          scores, anchor: (K, N).
        """
        problem, builder = self.problem, self.builder
        self._draws += 1
        bent = fetch(bent).astype(np.float64)
        most = len(bent) if problem.on_host else self._rows
        if not (bent > 0).any():
            bent = problem.counts
        sparse = scipy.sparse.issparse(problem.rows.inputs)
        mean = builder.sample.mean
        sample = builder.draw(bent, most, seed=self._draws, mean=mean, dense=not sparse)
        passes = len(sample.indices) / problem.rows.size
        if self.exact or self._metric is None or self._outworn():
            if builder.curvature is None:
                builder.curvature = max(float(bent.sum()) / problem.classes, 1e-8)
            few = sample
            if sparse or len(sample.indices) > builder.drawn:
                few = builder.draw(bent, builder.drawn, seed=self._draws, mean=mean)
            bends = bends_of(problem, few, _columns(scores, few), smoothing, _columns(anchor, few))
            self._metric = two_level_metric(problem, builder.spectrum(), few, bends)
            self._fresh = None
        if self.exact:
            step, bias_step = self._metric(-gradient, -bias_gradient)
            return step, bias_step, passes
        bend = _weighted_bend(
            problem, sample, _columns(scores, sample), smoothing, _columns(anchor, sample)
        )
        product = _hessian_product(problem, sample, bend)
        step, bias_step, count = _conjugate_gradients(
            product, self._metric, gradient, bias_gradient, accuracy
        )
        self._count, self._fresh = count, self._fresh or count
        return step, bias_step, passes * count

    def learn(self, length: float) -> None:
        """From how far along the step was best: a Hessian of too few rows overshoots."""
        if length < SHORT:
            self._rows = min(2 * self._rows, self.problem.rows.size)

    def _outworn(self) -> bool:
        return self._count > self._fresh + WORTH


def _columns(values, sample):
    return fetch(values[:, sample.indices])


def _weighted_bend(problem, sample, scores, smoothing, anchor):
    form = problem.form
    own = own_of(np, problem.host_labels[sample.indices], problem.classes)
    z = form.shortfalls(np, scores, own, problem.margin)
    bend = form.bend(np, form.maximizer(np, z, smoothing, anchor), smoothing)
    weights = sample.weights
    kappa = np.divide(bend.kappa, weights, out=np.zeros(len(weights)), where=weights > 0)
    diagonal = (bend.diagonal * weights[None, :]).astype(problem.dtype)
    return own, Bend(diagonal, kappa.astype(problem.dtype))


def _hessian_product(problem: Problem, sample, weighted):
    """(W, b) -> Hessian times (W, b), from the sampled rows around their mean."""
    own, bend = weighted
    mean, strength, form = sample.mean, problem.strength, problem.form
    if sample.rows is None:
        mean, scale = np.zeros_like(mean), problem.rows.scale
        rows = problem.rows.inputs[sample.indices].astype(np.float64)

        def curved(weights, bias):
            scores = np.ascontiguousarray((rows @ (weights * scale).T).T) + bias[:, None]
            moved = form.curve(np, bend, own, scores)
            return np.asarray((rows.T @ moved.T).T) * scale, moved.sum(1)

    elif problem.on_host:

        def curved(weights, bias):
            return _curved(np, form, sample.rows, own, bend, weights, bias)

    else:
        size = _bucket(len(sample.rows))
        more = size - len(sample.rows)
        rows = jnp.asarray(np.pad(sample.rows, ((0, more), (0, 0))))
        padded = jnp.asarray(np.pad(own, ((0, 0), (0, more))))
        wide = Bend(
            jnp.asarray(np.pad(bend.diagonal, ((0, 0), (0, more)))),
            jnp.asarray(np.pad(bend.kappa, (0, more))),
        )

        def curved(weights, bias):
            return _curved_compiled(form, rows, padded, wide, weights, bias)

    def product(weights, bias):
        dtype = problem.dtype
        found = curved(weights.astype(dtype), (bias + weights @ mean).astype(dtype))
        sums = np.asarray(found[1], np.float64)
        products = np.asarray(found[0], np.float64) + np.outer(sums, mean)
        if not problem.fit_intercept:
            sums = np.zeros_like(sums)
        return products + 2 * strength * weights, sums

    return product


def _bucket(size):
    """Sizes grow by a half, so that few programs are compiled."""
    return int(max(512, 1.5 ** np.ceil(np.log(max(size, 1)) / np.log(1.5))))


def _curved(xp, form, rows, own, bend, weights, bias):
    moved = form.curve(xp, bend, own, weights @ rows.T + bias[:, None])
    return moved @ rows, moved.sum(1)


_curved_compiled = jax.jit(
    lambda form, *arguments: _curved(jnp, form, *arguments), static_argnums=0
)


def _conjugate_gradients(product, metric, gradient, bias_gradient, accuracy):
    """Preconditioned conjugate gradients for H d = -g, to a relative residual of `accuracy`."""
    residual, bias_residual = -gradient, -bias_gradient
    step, bias_step = np.zeros_like(gradient), np.zeros_like(bias_gradient)
    size = np.sqrt((residual**2).sum() + (bias_residual**2).sum())
    ahead, bias_ahead = metric(residual, bias_residual)
    along, bias_along = ahead, bias_ahead
    energy = (residual * ahead).sum() + bias_residual @ bias_ahead
    count = 0
    while count < CG_STEPS:
        count += 1
        moved, bias_moved = product(along, bias_along)
        curvature = (along * moved).sum() + bias_along @ bias_moved
        if not curvature > 0:
            break
        length = energy / curvature
        step, bias_step = step + length * along, bias_step + length * bias_along
        residual = residual - length * moved
        bias_residual = bias_residual - length * bias_moved
        if np.sqrt((residual**2).sum() + (bias_residual**2).sum()) <= accuracy * size:
            break
        ahead, bias_ahead = metric(residual, bias_residual)
        previous, energy = energy, (residual * ahead).sum() + bias_residual @ bias_ahead
        along = ahead + energy / previous * along
        bias_along = bias_ahead + energy / previous * bias_along
    if not step.any() and not bias_step.any():
        step, bias_step = along, bias_along
    return step, bias_step, count
