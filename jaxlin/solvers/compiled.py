"""A certified fit as one pure function: for `jax.jit` and `jax.vmap`, on whatever device runs it.

`jaxlin.solvers.minimize` drives compiled passes from the host, which is what large data want. Here
the whole fit is one XLA program, which is what many small problems want: a bank of few-shot draws,
folds, strengths, or labelings is one call, and a warm call costs no more than its arithmetic.
"""

__all__ = ["minimize_compiled", "prove"]

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike, DTypeLike

from jaxlin._checks import check_labels
from jaxlin.core import LinearParams, Solution
from jaxlin.precision import float64, jit
from jaxlin.solvers.certificate import losing_bias
from jaxlin.solvers.covariance import same_value
from jaxlin.solvers.dual_gap import dual_gap
from jaxlin.solvers.dual_losses import FORMS, DualForm, form_of
from jaxlin.solvers.implicit import (
    Setting,
    less_mean,
    moved,
    normalized,
    objective,
    occurring,
    uncorrelated,
)
from jaxlin.solvers.status import Status
from jaxlin.solvers.truncated_newton import Data, Point, evaluate, newton

ROUNDS = 4
"""Times that a gap is proved and, if it is too large, narrowed further."""
NEEDS_STATIC = "`{}` must be known while tracing: bind it with functools.partial, got {}."


def minimize_compiled(
    inputs: ArrayLike,
    labels: ArrayLike,
    *,
    strength: ArrayLike,
    classes: int,
    loss: str | Callable = "softmax",
    tolerance: ArrayLike = 1e-4,
    sample_weight: ArrayLike | None = None,
    fit_intercept: bool = True,
    init: LinearParams | None = None,
    max_iterations: ArrayLike = 100,
    margin: ArrayLike = 1.0,
    offsets: ArrayLike | None = None,
) -> Solution:
    """The linear classifier of least objective, as a function that JAX can compile and batch.

        objective = weighted mean of loss + strength * |W|^2

    It may be called as it is, or inside `jax.jit` and `jax.vmap`: arrays, `strength`,
    `tolerance`, `init`, `max_iterations` and `margin` can be traced and batched. A batch of fits
    takes as many steps as its slowest. Rows of weight 0 do not count, so folds are weights, and
    problems of unequal size share a program after padding.

    In float64, where the device has it, the gap is that of `minimize`: a dual feasible point's
    value, with the worst rounding error of its evaluation taken off. In float32 it is an estimate:
    it adds the statistical size of the rounding errors, and was never seen below the true gap, but
    that is not proved. `prove`, called outside of the trace, proves it in float64 from the inputs
    as they are. float32 ends near a relative gap of 1e-5, sooner if the strength is weak; the
    status says so.

    Traced values cannot be checked. Labels outside [0, K), weights that are negative or all zero,
    NaN or infinity in the inputs, and a negative strength give a meaningless result whose status
    is never `CONVERGED` where the objective is not finite. `minimize` checks all of these.

    Forward and backward it has the derivatives of `params`, `objective` and `lower_bound` in
    `inputs`, `sample_weight`, `strength`, `margin` and `offsets`: those of the optimum, by the
    implicit function theorem (`jaxlin.solvers.implicit`), for at most the price of another fit.
    They are off by about as much, relatively, as the parameters are from the optimum, at most
    sqrt(gap / strength): ask for a small `tolerance`, and look at `status`. They are NaN where
    `strength` is 0, and 0 in `tolerance` and `init`, which do not move the optimum.

    Args:
      inputs: (N, D) floating or integer; float64 is solved in float64 where JAX has it enabled,
        everything else in float32.
      labels: (N,) integer, in [0, K).
      strength: scalar, positive. With 0 there is no bound, and the status says so.
      classes: K. Static. A class without weight gets weights 0 and a bias at which it costs
        nothing and wins none of the rows, as in `minimize`.
      loss: "softmax", "squared-hinge", "squared-one-vs-rest", or their function of
        `jaxlin.losses`. Static.
      tolerance: scalar, relative gap at which to stop.
      sample_weight: (N,) nonnegative; k times a row and weight k are the same.
      fit_intercept: `False` keeps the bias at 0. Static.
      init: parameters to start from, (K, D) and (K,).
      max_iterations: Newton steps after which to stop.
      margin: of the hinges.
      offsets: (N, K), what is added to the scores of each row and is not learned: log exposures,
        log priors, the scores of another model. Whoever predicts adds those of the new rows.

    Returns:
      `Solution`, a pytree of arrays: `status` is an integer array, to compare with `Status`.
      `iterations` are Newton steps.

    Raises:
      ValueError, TypeError: a shape, a dtype or a static argument cannot be used.

    Source: truncated Newton (Steihaug, 1983) in the Gram preconditioner; see
      `jaxlin.solvers.truncated_newton` and `jaxlin.solvers.dual_gap`.

    >>> inputs, labels = jnp.array([[0.0], [1.0], [2.0], [3.0]]), jnp.array([0, 0, 1, 1])
    >>> fit = jax.jit(partial(minimize_compiled, classes=2))
    >>> solution = fit(inputs, labels, strength=0.01)
    >>> bool(solution.gap <= 1e-4 * solution.objective), int(solution.status)
    (True, 0)
    >>> path = jax.vmap(lambda s: fit(inputs, labels, strength=s))(jnp.array([0.1, 0.01]))
    >>> path.params.weights.shape, path.status.tolist()
    ((2, 2, 1), [0, 0])
    >>> slope = jax.grad(lambda s: fit(inputs, labels, strength=s).objective)(0.01)
    >>> bool(jnp.isclose(slope, jnp.sum(solution.params.weights**2), rtol=1e-2))
    True
    """
    form = _smooth_form(loss)
    for name, value in (("classes", classes), ("fit_intercept", fit_intercept)):
        if isinstance(value, jax.core.Tracer):
            raise TypeError(NEEDS_STATIC.format(name, type(value).__name__))
    inputs, labels, counts, init = _checked(inputs, labels, sample_weight, init, classes)
    scalars = {"strength": strength, "tolerance": tolerance, "margin": margin}
    scalars = {name: _scalar(name, value, inputs.dtype) for name, value in scalars.items()}
    limit = jnp.asarray(max_iterations, jnp.int32)
    static = form.name, bool(fit_intercept)
    offsets = _offsets(offsets, inputs, len(init.bias))
    return _solve(static, inputs, labels, counts, init, limit, *scalars.values(), offsets)


def prove(
    solution: Solution,
    inputs: ArrayLike,
    labels: ArrayLike,
    *,
    strength: ArrayLike,
    loss: str | Callable = "softmax",
    tolerance: ArrayLike = 1e-4,
    sample_weight: ArrayLike | None = None,
    fit_intercept: bool = True,
    margin: float = 1.0,
    offsets: ArrayLike | None = None,
) -> Solution:
    """The same solution with its objective and its lower bound evaluated in float64: a proof.

    Not for use inside a trace. The bound is that of `jaxlin.solvers.minimize`.

    Args:
      solution: of `minimize_compiled`; of a batch, with a leading axis of length B.
      inputs, labels, strength, sample_weight, offsets: as given to it; each may have the leading
        axis of the batch or be shared by it.
      loss, tolerance, fit_intercept, margin: as given to it, shared.

    Returns:
      The solution with NumPy arrays. `status` is `CONVERGED` exactly where the proved relative
      gap is within the tolerance, and else says what stopped it.

    Raises:
      ValueError: shapes that do not fit together.

    >>> inputs, labels = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([0, 0, 1, 1])
    >>> solution = minimize_compiled(inputs, labels, classes=2, strength=0.01)
    >>> proved = prove(solution, inputs, labels, strength=0.01)
    >>> bool(proved.gap <= 1e-4 * proved.objective), proved.objective.dtype
    (True, dtype('float64'))
    """
    form = _smooth_form(loss)
    solution = jax.tree.map(np.asarray, solution)
    batched = solution.params.bias.ndim == 2
    arrays = [
        (np.asarray(inputs, np.float64), 2),
        (np.asarray(labels), 1),
        (None if sample_weight is None else np.asarray(sample_weight, np.float64), 1),
        (np.asarray(strength, np.float64), 0),
        (None if offsets is None else np.asarray(offsets, np.float64), 2),
    ]
    axes: list[int | None] = []
    for array, dimensions in arrays:
        if array is None:
            axes.append(None)
            continue
        own = array.ndim - dimensions
        if own not in (0, int(batched)):
            raise ValueError(
                f"The arguments must have the shapes of one fit, or a leading axis of a batch's, "
                f"got {array.shape} for a {'batch' if batched else 'single fit'}."
            )
        axes.append(0 if own else None)
    params = jax.tree.map(lambda a: a.astype(np.float64), solution.params)
    static = form.name, bool(fit_intercept), tuple(axes) if batched else None
    with float64():
        found = _proofs(static, params, *(array for array, _ in arrays), np.float64(margin))
    objective, gap = (np.asarray(part) for part in found)
    met = gap <= tolerance * objective
    status = np.where(solution.status == Status.CONVERGED, Status.PRECISION, solution.status)
    proved: dict[str, Any] = {  # arrays, where the fits of the host have numbers
        "objective": objective,
        "lower_bound": objective - gap,
        "gap": gap,
        "status": np.where(met, Status.CONVERGED, status).astype(np.int32),
    }
    return solution._replace(**proved)


@partial(jit, static_argnums=0)
def _proofs(
    static: tuple[str, bool, tuple[int | None, ...] | None],
    params: LinearParams,
    inputs: Array,
    labels: Array,
    sample_weight: Array | None,
    strength: Array,
    offsets: Array | None,
    margin: Array,
) -> tuple[Array, Array]:
    name, free, axes = static

    def one(
        params: LinearParams,
        inputs: Array,
        labels: Array,
        sample_weight: Array | None,
        strength: Array,
        offsets: Array | None,
    ) -> tuple[Array, Array]:
        counts = normalized(_weights(sample_weight, inputs))
        present = occurring(labels, counts, len(params.bias), free=free)
        rows, mean = less_mean(inputs, counts, free=free)
        weights, bias = map(jnp.asarray, params)
        return dual_gap(
            FORMS[name], rows, labels, counts, present, weights, bias + weights @ mean, strength,
            margin, _by_class(offsets, inputs.dtype), free=free,
        )  # fmt: skip

    arguments = params, inputs, labels, sample_weight, strength, offsets
    if axes is None:
        return one(*arguments)
    # one after another: float64 scores of a whole batch at once might not fit
    pairs = list(zip(axes, arguments[1:], strict=True))
    split = [None if axis is None else part for axis, part in pairs]

    def each(of_one: tuple[Any, ...]) -> tuple[Array, Array]:
        parts = zip(of_one[1:], pairs, strict=True)
        own: list[Any] = [shared if axis is None else part for part, (axis, shared) in parts]
        return one(of_one[0], *own)

    return lax.map(each, (params, *split))


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _solved(
    static: tuple[str, bool],
    inputs: Array,
    labels: Array,
    sample_weight: Array | None,
    init: LinearParams,
    limit: Array,
    strength: Array,
    tolerance: Array,
    margin: Array,
    offsets: Array | None,
) -> Solution:
    name, free = static
    form, classes = FORMS[name], len(init.bias)
    counts = normalized(_weights(sample_weight, inputs))
    present = occurring(labels, counts, classes, free=free)
    centred, mean = less_mean(inputs, counts, free=free)
    centred = jnp.where(_varying(inputs, counts)[None, :], centred, 0) if free else centred
    rotated, variances, basis = uncorrelated(centred, counts)
    fixed = _by_class(offsets, inputs.dtype)
    data = Data(rotated, labels, counts, present, variances, strength, margin, fixed)
    weights, bias = map(jnp.asarray, init)
    bias = bias + weights @ mean if free else jnp.zeros_like(bias)
    start = evaluate(form, data, weights @ basis, bias, free=free)

    def going(state: tuple[Any, ...]) -> Array:
        _, (steps, _), _, (objective, gap), ended, count = state
        more = (count < ROUNDS) & ~(gap <= tolerance * objective) & ~ended & (steps < limit)
        return more | (count == 0)  # the start itself is measured where no step may be taken

    def narrow(state: tuple[Any, ...]) -> tuple[Any, ...]:
        point, taken, target, _, _, count = state
        point, (steps, evaluations), ended = newton(
            form, data, point, target, limit, taken, free=free
        )
        found = dual_gap(
            form, centred, labels, counts, present,
            point.weights @ basis.T, point.bias, strength, margin, fixed, free=free,
        )  # fmt: skip
        return point, (steps, evaluations + 1), 0.1 * target, found, ended, count + 1

    nothing = jnp.zeros((), inputs.dtype)
    taken = (jnp.zeros((), jnp.int32), nothing + 1)
    begin = (start, taken, 0.7 * tolerance, (nothing, nothing + jnp.inf), nothing > 0, 0)
    state = lax.while_loop(going, narrow, begin)
    point, (steps, evaluations), _, (objective, gap), _, _ = state
    weights = point.weights @ basis.T
    bias = point.bias - weights @ mean if free else point.bias
    if free:
        reach = jnp.sqrt((centred**2).sum(1).max())
        losing = losing_bias(jnp, weights, point.bias, present, reach, margin)
        least = jnp.minimum(_costless(form, data, point, margin), losing)
        bias = jnp.where(present, bias, least - 2 * jnp.abs(fixed).max())
    status = jnp.where(steps >= limit, int(Status.MAX_ITERATIONS), int(Status.PRECISION))
    status = jnp.where(strength > 0, status, int(Status.NO_PROOF))
    status = jnp.where(gap <= tolerance * objective, int(Status.CONVERGED), status)
    norm = jnp.linalg.norm(point.slope)
    numbers: tuple[Any, ...] = (objective, objective - gap, gap, norm, steps, evaluations)
    numbers = (*numbers, status.astype(jnp.int32))  # arrays, where the host has numbers
    return Solution(LinearParams(weights, bias), *numbers)


@_solved.defjvp
def _solved_along(
    static: tuple[str, bool], primals: tuple[Any, ...], tangents: tuple[Any, ...]
) -> tuple[Solution, Solution]:
    """The fit, and how it moves along tangents of what it was asked; where from, is forgotten."""
    found = _solved(static, *primals)
    form, free = FORMS[static[0]], static[1]
    inputs, labels, sample_weight, *_, strength, _, margin, offsets = primals
    change = tangents[0], tangents[2], tangents[5], tangents[7], tangents[8]
    setting = Setting(inputs, _weights(sample_weight, inputs), strength, margin, offsets)
    if sample_weight is None:
        change = change[0], jnp.zeros_like(setting.sample_weight), *change[2:]
    if offsets is None:
        setting, change = setting._replace(offsets=0.0), (*change[:4], 0.0)
    change = Setting(*change)
    params = found.params
    present = occurring(labels, setting.sample_weight, len(params.bias), free=free)
    along = moved(form, params, labels, present, setting, change, free=free)
    _, slope = jax.jvp(
        lambda params, setting: objective(form, params, labels, present, setting),
        (params, setting),
        (along, change),
    )
    still = jax.tree.map(_no_tangent, found)
    return found, still._replace(params=along, objective=slope, lower_bound=slope)


def _no_tangent(value: Array) -> Array | np.ndarray:
    if jnp.issubdtype(value.dtype, jnp.floating):
        return jnp.zeros_like(value)
    return np.zeros(value.shape, jax.dtypes.float0)


_solve = jit(_solved, static_argnums=0)


def _varying(inputs: Array, counts: Array) -> Array:
    """(D,): the features that are not constant but for rounding; see `covariance.same_value`."""
    counted = (counts > 0)[:, None]
    least = jnp.where(counted, inputs, jnp.inf).min(0)
    most = jnp.where(counted, inputs, -jnp.inf).max(0)
    return ~same_value(jnp, least, most)


def _costless(form: DualForm, data: Data, point: Point, margin: Array) -> Array:
    """A bias at which a further class would cost nothing."""
    if form.geometry == "one-vs-rest":
        return -margin
    own = jnp.take_along_axis(point.scores, data.labels[None, :], axis=0)[0]
    least = jnp.where(data.counts > 0, own, jnp.inf).min()
    return least - (80.0 if form.geometry == "softmax" else 2 * margin)


def _smooth_form(loss: str | Callable) -> DualForm:
    form = form_of(loss)
    if not form.smooth:
        smooth = ", ".join(name for name, each in FORMS.items() if each.smooth)
        raise ValueError(
            f"`loss` must be smooth here, one of {smooth}, got {form.name!r}. "
            "jaxlin.solvers.minimize solves the others."
        )
    return form


def _weights(sample_weight: Array | None, inputs: Array) -> Array:
    return jnp.ones(inputs.shape[:1], inputs.dtype) if sample_weight is None else sample_weight


def _offsets(offsets: ArrayLike | None, inputs: Array, classes: int) -> Array | None:
    if offsets is None:
        return None
    offsets = jnp.asarray(offsets, inputs.dtype)
    if offsets.shape != (inputs.shape[0], classes):
        raise ValueError(
            f"`offsets` must have one entry per row and class, {(inputs.shape[0], classes)}, got "
            f"{offsets.shape}."
        )
    return offsets


def _by_class(offsets: Array | None, dtype: DTypeLike) -> Array:
    return jnp.zeros((), dtype) if offsets is None else offsets.T


def _scalar(name: str, value: ArrayLike, dtype: DTypeLike) -> Array:
    if np.ndim(value):
        raise ValueError(
            f"`{name}` must be a scalar, got shape {np.shape(value)}. Batch it with jax.vmap."
        )
    return jnp.asarray(value, dtype)


def _checked(
    inputs: ArrayLike,
    labels: ArrayLike,
    sample_weight: ArrayLike | None,
    init: Sequence[ArrayLike] | None,
    classes: int,
) -> tuple[Array, Array, Array | None, LinearParams]:
    """Arrays of the dtype of the arithmetic, whose shapes fit together."""
    if isinstance(inputs, np.ndarray) and inputs.dtype.kind in "iu":
        inputs = inputs.astype(np.float32)  # JAX would cut 64 bits to 32
    inputs, labels = jnp.asarray(inputs), jnp.asarray(labels)
    if inputs.ndim != 2 or 0 in inputs.shape:
        raise ValueError(
            "`inputs` must be (N, D) with at least one row and one feature, got "
            f"{inputs.shape}. Batch it with jax.vmap; flatten images."
        )
    kinds = (jnp.floating, jnp.integer)
    if not any(jnp.issubdtype(inputs.dtype, kind) for kind in kinds):
        raise TypeError(f"`inputs` must be floating or integer, got {inputs.dtype}.")
    inputs = inputs.astype(jnp.float64 if inputs.dtype == jnp.float64 else jnp.float32)
    rows, features = inputs.shape
    check_labels(labels, rows)
    if isinstance(classes, bool) or int(classes) != classes or classes < 1:
        raise ValueError(f"`classes` must be a positive integer, got {classes!r}.")
    if sample_weight is not None:
        sample_weight = jnp.asarray(sample_weight, inputs.dtype)
        if sample_weight.shape != (rows,):
            raise ValueError(
                f"`sample_weight` must have one entry per row, ({rows},), got "
                f"{sample_weight.shape}."
            )
    shapes = (int(classes), features), (int(classes),)
    if init is None:
        init = [jnp.zeros(shape, inputs.dtype) for shape in shapes]
    init = LinearParams(*(jnp.asarray(part, inputs.dtype) for part in init))
    if (init.weights.shape, init.bias.shape) != shapes:
        raise ValueError(
            f"`init` must hold weights {shapes[0]} and bias {shapes[1]}, got "
            f"{init.weights.shape} and {init.bias.shape}. Leave it out to start from zero."
        )
    return inputs, labels.astype(jnp.int32), sample_weight, init
