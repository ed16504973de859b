"""Directions for a smoothed loss with kinks: Newton's, of the rows that bend alone, and L-BFGS's.

Only rows that bend enter the Hessian. While most do, every product of a Newton system costs as much
as a pass, and the system describes little more than where the iterate is: rows begin and cease to
bend on the way. L-BFGS in the preconditioner of that system then gets further with each pass.
"""

__all__ = ["NOTHING", "Built", "NewtonStep", "QuasiNewtonStep"]

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxlin.distributed.sharding import fetch
from jaxlin.precision import jit
from jaxlin.solvers.balance import WIDE
from jaxlin.solvers.covariance import Sample, sample_of
from jaxlin.solvers.curvature import (
    SparseBend,
    bends_of,
    fits_dense,
    sparse_bend,
    sparse_curvature,
    sparse_product,
)
from jaxlin.solvers.dual_losses import Bend, Block, DualForm, maximizers, own_of
from jaxlin.solvers.history import History, empty_history, forgotten, pushed, scaled_step
from jaxlin.solvers.krylov import conjugate_gradients, within
from jaxlin.solvers.preconditioner import (
    class_block_preconditioner,
    flat,
    own_curvature,
    two_level_preconditioner,
)
from jaxlin.solvers.problem import Problem
from jaxlin.solvers.refresh import FEW_CLASSES, PreconditionerBuilder
from jaxlin.solvers.rowwise import columnwise, rowwise

BENDING_ROWS = 5120
"""Rows that enter the Hessian at first, in whole blocks, so that none has to be filled up; twice as
many once it has missed curvature."""
MISSED = 1.5
"""Times the assumed curvature from which on a Hessian takes more rows."""
CG_STEPS = 150
BLOCK = 256
"""Rows of a sample are filled up to a multiple of this."""
USUAL = 8
"""Conjugate gradient steps that a direction is thought to take before any was sought."""
WORTH = 15
"""Conjugate gradient steps, beyond those it took when new, that a new preconditioner is worth."""


class Built(NamedTuple):
    """A preconditioner, and what it was built from, where that is kept to build it again."""

    preconditioner: Any
    rows: np.ndarray = np.zeros((2, 0))
    """(2, m): the rows and their weights."""
    columns: np.ndarray = np.zeros((2, 0, 0))
    """(2, K, m): the scores and the anchor of these rows."""
    smoothing: float = 0.0


NOTHING = Built(None)


class NewtonStep:
    """Newton directions of one run; keeps its preconditioner while it serves."""

    def __init__(
        self, problem: Problem, builder: PreconditionerBuilder, *, keep: bool = False
    ) -> None:
        """`keep`: what preconditioners are built from, for `state`."""
        self.problem, self.builder = problem, builder
        self.exact = fits_dense(problem)
        self._built: Built = NOTHING
        self._fresh, self._keep = 0, keep
        self._draws, self._rows = 0, BENDING_ROWS

    def state(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What it takes to go on: the preconditioner's rows and columns, and (5,) numbers."""
        curvature = np.nan if self.builder.curvature is None else self.builder.curvature
        numbers = self._built.smoothing, self._fresh, self._draws, self._rows, curvature
        return self._built.rows, self._built.columns, np.array(numbers, np.float64)

    def go_on(self, rows: Any, columns: np.ndarray, numbers: np.ndarray) -> None:
        """From the `state` of another run's steps for the same problem."""
        smoothing, *counts, curvature = numbers.tolist()
        self._fresh, self._draws, self._rows = map(int, counts)
        self.builder.curvature = None if np.isnan(curvature) else curvature
        self._built = self.rebuilt(rows, columns, smoothing)

    def rebuilt(self, rows: Any, columns: np.ndarray, smoothing: float) -> Built:
        """The preconditioner that was built from these."""
        if not rows.size:
            return NOTHING
        mean = self.builder.sample.mean
        sample = sample_of(self.problem, rows[0].astype(int), rows[1], mean)
        at = np.arange(len(sample.indices))
        return self._build(sample, None, columns[0], smoothing, columns[1], at)

    def __call__(
        self,
        bent: Any,
        gradient: np.ndarray,
        bias_gradient: np.ndarray,
        scores: Any,
        smoothing: float,
        anchor: Any,
        accuracy: float,
    ) -> Any:
        """Minus the (approximately) solved Newton system; and the passes over the data it took.

        Args:
          bent: (N,) the weighted trace of each row's second derivative.
          scores, anchor: (K, N).
        """
        problem, builder = self.problem, self.builder
        bent = self._chances(bent)
        most = len(bent) if problem.on_host else self._rows
        sample = builder.draw(bent, most, seed=self._draws, mean=builder.sample.mean)
        passes = np.count_nonzero(sample.weights) / problem.rows.size
        bend: Any = (
            None if self.exact else _sampled_bend(problem, sample, scores, smoothing, anchor)
        )

        def build() -> Built:
            if len(sample.indices) > builder.drawn:
                return self._built_at(bent, scores, smoothing, anchor)
            return self._built_of(sample, bend, bent, scores, smoothing, anchor)

        if self.exact:
            step, bias_step = build().preconditioner(-gradient, -bias_gradient)
            return step, bias_step, passes
        product = flat(_hessian_product(problem, sample, bend), gradient.shape)
        right = -np.concatenate([gradient.ravel(), bias_gradient])
        state: Any = None
        count, done, enough = 0, False, within(right, accuracy)

        def go_on(most: int) -> Any:
            preconditioner = flat(self._built.preconditioner, gradient.shape)
            return conjugate_gradients(
                np, product, preconditioner, right, enough, most, start=state
            )

        if self._built.preconditioner is not None:
            *state, count, done = go_on(self._fresh + WORTH)
        if not done:
            self._built = build()
            *state, self._fresh, _ = go_on(CG_STEPS)
            count += self._fresh
        step, bias_step = np.split(state[0], [gradient.size])
        return step.reshape(gradient.shape), bias_step, passes * count

    def dear(self, bent: Any) -> float:
        """About how many passes over the data the next direction will take.

        Of very many classes few bend, and products gather only these: never many.
        """
        if self.exact or self.problem.classes > WIDE:
            return 0.0
        bending = np.count_nonzero(fetch(bent) > 0)
        return min(bending, self._rows) / self.problem.rows.size * max(self._fresh, USUAL)

    def built_at(self, bent: Any, scores: Any, smoothing: float, anchor: Any) -> Built:
        """The preconditioner by itself; arguments as for a direction."""
        return self._built_at(self._chances(bent), scores, smoothing, anchor)

    def _chances(self, bent: Any) -> np.ndarray:
        """Of the rows in the next draw: by how much they bend, or by weight where none does."""
        self._draws += 1
        bent = fetch(bent).astype(np.float64)
        return bent if (bent > 0).any() else self.problem.counts

    def _built_at(self, bent: Any, scores: Any, smoothing: float, anchor: Any) -> Built:
        builder = self.builder
        few = builder.draw(bent, builder.drawn, seed=self._draws, mean=builder.sample.mean)
        return self._built_of(few, None, bent, scores, smoothing, anchor)

    def _built_of(
        self, sample: Sample, bend: Any, bent: Any, scores: Any, smoothing: float, anchor: Any
    ) -> Built:
        builder = self.builder
        if builder.curvature is None:
            builder.curvature = max(float(bent.sum()) / self.problem.classes, 1e-8)
        with builder.memory_for("the Hessian of a sample of rows", "the preconditioner it has"):
            return self._build(sample, bend, scores, smoothing, anchor, sample.indices)
        return Built(builder.gram_as_known()) if self._built is NOTHING else self._built

    def _build(
        self, sample: Sample, bend: Any, scores: Any, smoothing: float, anchor: Any, at: Any
    ) -> Built:
        """From the sample's rows.

        Args:
          bend: of the sample, if it is known.
          at: which columns of scores and anchor are the sample's.
        """
        problem, spectrum = self.problem, self.builder.spectrum()
        columns: list[np.ndarray] = []
        together = not self.builder.by_class
        if together or self._keep:
            columns = [fetch(_taken(problem, values, at)) for values in (scores, anchor)]
        if together:
            bends = bends_of(problem, sample, columns[0], smoothing, columns[1])
            preconditioner = two_level_preconditioner(problem, spectrum, sample, bends)
        else:
            if bend is None:
                bend = _sampled_bend(problem, sample, scores, smoothing, anchor, at)
            if isinstance(bend, SparseBend):
                curvature = sparse_curvature(problem.form, bend)
            else:
                of_class = _own_curvature_of(problem.form)
                curvature = columnwise(problem, of_class, bend)[:, : len(at)]
            preconditioner = class_block_preconditioner(problem, spectrum, sample, curvature)
        if not self._keep:
            return Built(preconditioner)
        rows = np.stack([sample.indices, sample.weights])
        return Built(preconditioner, rows, np.stack(columns), smoothing)

    def learn(self, missed: float) -> None:
        """From how many times the curvature that it assumed along a step there was."""
        if missed > MISSED:
            self._rows = min(2 * self._rows, self.problem.rows.size)


class _SampledBend(NamedTuple):
    """Second derivatives of the sampled rows' losses, weighted; rows of weight 0 fill them up."""

    diagonal: Any
    """(K, m)"""
    kappa: Any
    """(m,)"""
    labels: Any
    """(m,)"""


def _sampled_bend(
    problem: Problem, sample: Sample, scores: Any, smoothing: float, anchor: Any, at: Any = None
) -> Any:
    """`_SampledBend`, or `SparseBend` where few of many classes bend.

    `at`: which columns of scores and anchor are the sample's, where not its rows'.
    """
    indices = sample.indices
    weights: Any = sample.weights.astype(problem.dtype)
    at = indices if at is None else at
    if problem.on_host:
        labels = problem.labels[indices]
    else:
        more = (0, -len(indices) % BLOCK)
        weights, at = jnp.asarray(np.pad(weights, more)), np.pad(at, more)
        labels = jnp.asarray(problem.host_labels[np.pad(indices, more)])
    by_row = (_taken(problem, scores, at), labels, weights, _taken(problem, anchor, at))
    weighted = rowwise(_weighted_bend, problem.form)
    found = columnwise(problem, weighted, by_row, problem.margin, smoothing)
    many = problem.classes > FEW_CLASSES["kinks"]
    if many and isinstance(sample.rows, np.ndarray) and _near(found[0]):
        size = len(sample.indices)
        sparse = sparse_bend(*(np.asarray(part)[..., :size] for part in (*found, labels)))
        if sparse is not None:
            return sparse
    diagonal, kappa = found
    return _SampledBend(diagonal, kappa, labels)


def _near(values: Any) -> bool:
    """Whether NumPy reads them at no cost."""
    return isinstance(values, np.ndarray) or next(iter(values.devices())).platform == "cpu"


def _taken(problem: Problem, values: Any, indices: Any) -> Any:
    return values[:, indices] if problem.on_host else _taken_compiled(values, indices)


@jit
def _taken_compiled(values: Any, indices: Any) -> Array:
    return jnp.take(values, indices, axis=1, mode="clip")


def _weighted_bend(xp: Any, form: DualForm, block: Block) -> Any:
    """The bend times the weight of its row."""
    bend, weights = form.bend(xp, maximizers(xp, form, block)[0], block.smoothing), block.counts
    kappa = xp.where(weights > 0, bend.kappa / xp.where(weights > 0, weights, 1), 0)
    return bend.diagonal * weights[None, :], kappa.astype(block.scores.dtype)


@cache
def _own_curvature_of(form: DualForm) -> Callable[..., Any]:
    def of(xp: Any, diagonal: Any, kappa: Any, labels: Any) -> Any:
        own = own_of(xp, labels, diagonal.shape[0])
        return own_curvature(xp, form, Bend(diagonal, kappa), own)

    return of


def _hessian_product(problem: Problem, sample: Sample, bend: _SampledBend) -> Callable:
    """(W, b) -> Hessian times (W, b), from the sampled rows around their mean."""
    mean, strength, form = sample.mean, problem.strength, problem.form
    rows: Any = sample.rows
    curved: Callable[..., Any]
    if isinstance(bend, SparseBend):
        curved = sparse_product(form, rows, bend)
    elif problem.on_host:
        curved = partial(_curved, np, form, rows, bend)
    else:
        size, entries = bend.labels.shape[0], problem.rows.blocks.sampled
        more = size - len(rows)
        rows = jnp.asarray(np.pad(rows, ((0, more), (0, 0))) if more else rows)
        curved = partial(_curved_compiled, form, entries, rows, bend)

    def product(weights: np.ndarray, bias: np.ndarray) -> tuple[Any, Any]:
        dtype = problem.dtype
        found = curved(weights.astype(dtype), (bias + weights @ mean).astype(dtype))
        sums = np.asarray(found[1], np.float64)
        products = np.asarray(found[0], np.float64) + np.outer(sums, mean)
        if not problem.fit_intercept:
            sums = np.zeros_like(sums)
        return products + 2 * strength * weights, sums

    return product


def _curved(
    xp: Any, form: DualForm, rows: Any, bend: Any, weights: np.ndarray, bias: np.ndarray
) -> tuple[Any, Any]:
    own = own_of(xp, bend.labels, weights.shape[0])
    moved = form.curve(xp, Bend(*bend[:2]), own, weights @ rows.T + bias[:, None])
    return moved @ rows, moved.sum(1)


@partial(jit, static_argnums=(0, 1))
def _curved_compiled(
    form: DualForm, entries: int, rows: Any, bend: Any, weights: np.ndarray, bias: np.ndarray
) -> tuple[Array, Array]:
    """`_curved` in blocks of rows of about so many `entries`, with their scores."""
    size, classes = rows.shape[0], weights.shape[0]
    across = max(classes, rows.shape[1])
    chunk = BLOCK * max(1, entries // (BLOCK * across))
    if chunk >= size or size % chunk:
        chunk = BLOCK if size % BLOCK == 0 and across * size > 2 * entries else size
    if chunk == size:
        return _curved(jnp, form, rows, bend, weights, bias)

    def step(sums: Any, i: Any) -> Any:
        def part(values: Any, axis: int) -> Any:
            return lax.dynamic_slice_in_dim(values, i * chunk, chunk, axis)

        block = _SampledBend(part(bend.diagonal, 1), part(bend.kappa, 0), part(bend.labels, 0))
        found = _curved(jnp, form, part(rows, 0), block, weights, bias)
        return jax.tree.map(jnp.add, sums, found), None

    zero = (jnp.zeros_like(weights), jnp.zeros_like(bias))
    return lax.scan(step, zero, jnp.arange(size // chunk))[0]


FRESH = 10
"""Steps that a preconditioner serves at least."""
KEPT = 5
"""Pairs that outlive the preconditioner they corrected."""
SHARE = 2.0
"""Times what a preconditioner cost that the steps in it must have cost before the next is built."""


class QuasiNewtonStep:
    """Directions of one run. Pairs outlive a round: the next one is smoothed much alike."""

    def __init__(self, problem: Problem, newton: NewtonStep) -> None:
        size = problem.classes * (problem.features + 1)
        self.newton = newton
        self._history = empty_history(size, 20)
        self._built, self._since = NOTHING, 0
        self._last: Any = None
        builder = newton.builder
        self._serves = max(FRESH, SHARE * builder.build_cost() / builder.evaluation_cost())

    def __call__(
        self,
        bent: Any,
        weights: np.ndarray,
        bias: np.ndarray,
        gradient: np.ndarray,
        sums: Any,
        scores: Any,
        smoothing: float,
        anchor: Any,
    ) -> Any:
        """A direction of descent (K, D) and (K,); what is given is as for `NewtonStep`."""
        if self._built is NOTHING or self._since >= self._serves:
            self._built = self.newton.built_at(bent, scores, smoothing, anchor)
            self._since, self._history = 0, forgotten(self._history, KEPT)
        self._since += 1
        preconditioner = flat(self._built.preconditioner, gradient.shape)
        vector = np.concatenate([gradient.ravel(), sums])
        step, self._history = scaled_step(self._history, preconditioner, vector)
        if not step @ vector < 0:
            step, self._history = scaled_step(forgotten(self._history, 0), preconditioner, vector)
        self._last = np.concatenate([weights.ravel(), bias]), vector
        step, bias_step = np.split(step, [gradient.size])
        return step.reshape(gradient.shape), bias_step

    def state(self) -> tuple:
        """What it takes to go on: history, last step, rows and columns of the preconditioner,
        numbers."""
        last = np.zeros((0, 0)) if self._last is None else np.stack(self._last)
        numbers = np.array([self._built.smoothing, self._since], np.float64)
        return self._history, last, self._built.rows, self._built.columns, numbers

    def go_on(
        self, history: History, last: Any, rows: Any, columns: np.ndarray, numbers: np.ndarray
    ) -> None:
        """From the `state` of another run's steps for the same problem; `newton` has gone on."""
        self._history = history
        self._last = tuple(last) if last.size else None
        self._built = self.newton.rebuilt(rows, columns, float(numbers[0]))
        self._since = int(numbers[1])

    def learn(self, weights: np.ndarray, bias: np.ndarray, gradient: np.ndarray, sums: Any) -> None:
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
