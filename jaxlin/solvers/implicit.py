r"""Derivatives of a fit: how its optimum moves with what it was asked.

At the optimum the gradient in the parameters p vanishes, whatever the rest, t, may be (strength,
weights of the examples, inputs, margin, offsets). Differentiating g(p(t), t) = 0 along a change dt,

    H dp = -(dg/dt) dt,      H = dg/dp, the Hessian of the objective at the optimum,

the implicit function theorem (Krantz and Parks, 2013, chapter 1; of fits: Bengio, 2000,
doi:10.1162/089976600300015187). H is symmetric, and where the strength is positive it is positive
definite but for a common shift of all biases, which changes nothing and is left where it is. One
solve by conjugate gradients serves a derivative of all parameters along dt; transposed, one solve
serves the derivatives of one function of the parameters in all of t.

A squared hinge has no second derivative where a margin is met exactly. Everywhere else what is
computed is the derivative; there it is that of one side.
"""

__all__ = [
    "Setting",
    "influence",
    "less_mean",
    "moved",
    "normalized",
    "objective",
    "occurring",
    "uncorrelated",
]

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from jaxlin._checks import check_label_range, check_labels
from jaxlin.core import LinearParams
from jaxlin.precision import jit
from jaxlin.solvers.dual_losses import Bend, Block, DualForm, form_of, maximizers
from jaxlin.solvers.krylov import conjugate_gradients, joined, split
from jaxlin.solvers.truncated_newton import LOW, curvatures

PRODUCTS = 1000
"""Products of the Hessian that a derivative may take; on digits it takes some 60."""
ACCURACY = 64
"""Units of rounding to which the system is solved, in the norm of the preconditioner."""
ENOUGH = 1e-3
"""Relative residual above which what was found is no derivative."""


class Setting(NamedTuple):
    """What the optimum depends on."""

    inputs: Array
    """(N, D)."""
    sample_weight: Array
    """(N,), of any sum."""
    strength: Array
    margin: Array
    offsets: ArrayLike
    """(N, K), or 0."""


class _System(NamedTuple):
    """The Hessian at a point, and what is near its inverse."""

    form: DualForm
    inputs: Array
    """(N, D): centred where the bias is free."""
    own: Array
    counts: Array
    present: Array
    bend: Bend
    strength: Array
    free: bool
    basis: Array
    """(D, r): eigenvectors of the covariance of the inputs."""
    preconditioner: Array
    """(r,): about the curvature along these."""
    level: Array
    """About the curvature along a bias."""


def moved(
    form: DualForm,
    params: LinearParams,
    labels: Array,
    present: Array,
    setting: Setting,
    change: Setting,
    *,
    free: bool,
) -> LinearParams:
    """How the optimum moves along a change of the setting: linear in it, and transposable.

    Args:
      form: smooth.
      params: the optimum.
      labels: (N,).
      present: (K,) bool, the classes that the optimum is about; the parameters of others stay.
      setting: `Setting`, of arrays.
      change: of the `setting`, such as the tangents of `jax.jvp`.
      free: whether the bias was.

    Returns:
      `LinearParams`: the derivative of the parameters along `change`; NaN where the strength is 0.
    """
    gradient = partial(_gradient, form, labels=labels, present=present, free=free)
    _, pull = jax.jvp(lambda setting: gradient(params, setting), (setting,), (change,))
    system, center = _system(form, params, labels, present, setting, free=free)
    determined = jnp.where(setting.strength > 0, -1.0, jnp.nan).astype(center.dtype)
    right = _to_center(tuple(determined * part for part in pull), center)
    found = lax.custom_linear_solve(
        partial(_product, system),
        joined(*right),  # one array: all of it depends on the change, or nothing does
        lambda _, right: _solve(system, right),
        symmetric=True,
    )
    return LinearParams(*_from_center(split(found), center))


def influence(
    params: LinearParams,
    inputs: ArrayLike,
    labels: ArrayLike,
    *,
    gradient: LinearParams,
    strength: Array | float,
    loss: str | Callable = "softmax",
    sample_weight: ArrayLike | None = None,
    fit_intercept: bool = True,
    margin: ArrayLike = 1.0,
    offsets: ArrayLike | None = None,
) -> Array:
    """How a function of the parameters changes with the weight of each training example.

    The derivative through the fit, of all examples at once, for the price of one solve and one pass
    over the rows. Minus an entry times the example's weight is, to first order, what leaving the
    example out adds to the function: its influence (Koh and Liang, 2017, arXiv:1703.04730).

    Args:
      params: of a fit, such as `minimize(...).params`; the closer to the optimum, the better.
      inputs, labels, strength, loss, sample_weight, fit_intercept, margin, offsets: of that fit,
        as given to `minimize_compiled`. The strength is positive, the loss is smooth.
      gradient: of the function at `params`, for example of the loss on other examples.

    Returns:
      (N,): the derivative of the function in every example's weight.

    Raises:
      ValueError: a loss with kinks, or a strength that is not positive: the parameters have no
        derivative; or shapes that do not fit, or a label out of range.

    >>> import numpy as np
    >>> from jaxlin.solvers import minimize
    >>> inputs, labels = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([0, 1, 0, 1])
    >>> params = minimize(inputs, labels, strength=0.1, tolerance=1e-12).params
    >>> slope = LinearParams(np.array([[0.0], [1.0]]), np.zeros(2))  # of the weight of class 1
    >>> effect = influence(params, inputs, labels, gradient=slope, strength=0.1)
    >>> [bool(part > 0) for part in effect]  # rows 1 and 2 are on the other class's side
    [True, False, False, True]
    """
    form = form_of(loss)
    if not form.smooth:
        raise ValueError(
            f"`loss` must be smooth, got {form.name!r}: its optimum moves in jumps. Use "
            '"softmax", "squared-hinge" or "squared-one-vs-rest".'
        )
    if not isinstance(strength, jax.core.Tracer) and not strength > 0:
        raise ValueError(f"`strength` must be positive, got {strength}: else H has no inverse.")
    inputs, labels = jnp.asarray(inputs), jnp.asarray(labels)
    wide = jnp.promote_types(inputs.dtype, jnp.float32)
    inputs = inputs.astype(wide if jnp.issubdtype(inputs.dtype, jnp.floating) else jnp.float32)
    to_dtype = partial(jnp.asarray, dtype=inputs.dtype)
    params, gradient = (LinearParams(*map(to_dtype, each)) for each in (params, gradient))
    rows, classes = inputs.shape[0], len(params.bias)
    weights = jnp.ones(rows) if sample_weight is None else sample_weight
    shaped = {
        "params.weights": (params.weights, (classes, inputs.shape[-1])),
        "gradient.weights": (gradient.weights, params.weights.shape),
        "gradient.bias": (gradient.bias, params.bias.shape),
        "sample_weight": (weights, (rows,)),
        "offsets": (np.zeros((rows, classes)) if offsets is None else offsets, (rows, classes)),
    }
    for name, (value, shape) in shaped.items():
        if np.shape(value) != shape:
            raise ValueError(f"`{name}` must have shape {shape} here, got {np.shape(value)}.")
    check_labels(labels, rows)
    check_label_range(labels, classes)
    offsets = 0.0 if offsets is None else offsets
    setting = Setting(inputs, *map(to_dtype, (weights, strength, margin, offsets)))
    return _influence((form.name, bool(fit_intercept)), params, labels, setting, gradient)


@partial(jit, static_argnums=0)
def _influence(
    static: tuple[str, bool],
    params: LinearParams,
    labels: Array,
    setting: Setting,
    gradient: LinearParams,
) -> Array:
    name, free = static
    form = form_of(name)
    present = occurring(labels, setting.sample_weight, len(params.bias), free=free)

    still = jax.tree.map(jnp.zeros_like, setting)

    def along(weights: Array) -> LinearParams:
        change = still._replace(sample_weight=weights)
        return moved(form, params, labels, present, setting, change, free=free)

    (found,) = jax.linear_transpose(along, setting.sample_weight)(gradient)
    return found


def objective(
    form: DualForm, params: LinearParams, labels: Array, present: Array, setting: Setting
) -> Array:
    """The weighted mean of the losses + strength |W|^2, as a function of all of its arguments."""
    block = _block(params, labels, present, setting)
    _, z, own = maximizers(jnp, form, block)
    value = (block.counts * form.loss(jnp, z, own)).sum()
    return value + setting.strength * jnp.vdot(params.weights, params.weights)


def normalized(sample_weight: Array) -> Array:
    """Weights that sum to one."""
    return sample_weight / sample_weight.sum()


def occurring(labels: Array, sample_weight: Array, classes: int, *, free: bool) -> Array:
    """(K,) bool: the classes that count. Only a free bias can push away one that no row has."""
    if not free:
        return jnp.ones(classes, bool)
    return jnp.zeros(classes, bool).at[labels].max(sample_weight > 0)


def less_mean(inputs: Array, counts: Array, *, free: bool) -> tuple[Array, Array]:
    """Rows less their mean, and that mean: the same problem where the bias is free."""
    mean = counts @ inputs if free else jnp.zeros_like(inputs[0])
    return inputs - mean[None, :], mean


def uncorrelated(centred: Array, counts: Array) -> tuple[Array, Array, Array]:
    """Rows in the eigenvectors of their covariance, its eigenvalues, and these vectors (D, r).

    With fewer rows than features the weights lie in the span of the rows, and r = N.
    """
    rows, span = centred, None
    if centred.shape[0] < centred.shape[1]:
        span, triangle = _qr(centred.T)
        rows = triangle.T
    covariance = rows.T @ (counts[:, None] * rows)
    variances, vectors = jnp.linalg.eigh(covariance)
    basis = vectors if span is None else span @ vectors
    return rows @ vectors, jnp.maximum(variances, 0), basis


@jax.custom_batching.sequential_vmap  # type: ignore[untyped-decorator]  # JAX leaves it untyped
def _qr(matrix: Array) -> tuple[Array, ...]:
    """One after another in a batch: of 32 matrices, 768 x 160, a TPU's compiler takes 42 processor
    seconds for all at once and 3 for one."""
    return tuple(jnp.linalg.qr(matrix))


def _block(params: LinearParams, labels: Array, present: Array, setting: Setting) -> Block:
    """The rows with their scores."""
    scores = params.weights @ setting.inputs.T + params.bias[:, None]
    scores = jnp.where(present[:, None], scores + jnp.asarray(setting.offsets).T, LOW)
    return Block(scores, labels, normalized(setting.sample_weight), margin=setting.margin)


def _gradient(
    form: DualForm,
    params: LinearParams,
    setting: Setting,
    *,
    labels: Array,
    present: Array,
    free: bool,
) -> tuple[Array, Array]:
    """Of the objective in the parameters, (K, D) and (K,), as a function of the setting."""
    block = _block(params, labels, present, setting)
    a, _, own = maximizers(jnp, form, block)
    residuals = form.residuals(jnp, a, own) * block.counts[None, :]
    sums = residuals.sum(1) if free else jnp.zeros_like(params.bias)
    return residuals @ setting.inputs + 2 * setting.strength * params.weights, sums


def _system(
    form: DualForm,
    params: LinearParams,
    labels: Array,
    present: Array,
    setting: Setting,
    *,
    free: bool,
) -> tuple[_System, Array]:
    """The Hessian, in parameters of centred inputs where the bias is free, and the center (D,)."""
    block = _block(params, labels, present, setting)
    counts, (a, _, own) = block.counts, maximizers(jnp, form, block)
    second, bend = curvatures(form, counts, a, own)
    centred, center = less_mean(setting.inputs, counts, free=free)
    _, variances, basis = uncorrelated(centred, counts)
    tiny = jnp.finfo(centred.dtype).tiny
    level = second.sum() / jnp.maximum(present.sum(), 1) + tiny
    preconditioner = level * variances + 2 * setting.strength + tiny
    arrays = centred, own, counts, present, bend, setting.strength
    near = lax.stop_gradient(
        (basis, preconditioner, level)
    )  # helps to solve, and is no part of what is
    return _System(form, *arrays, free, *near), center


def _product(system: _System, step: Array) -> Array:
    """The Hessian times a step, (K, D + 1)."""
    form, there, (weights, bias) = system.form, system.present[:, None], split(step)
    changes = weights @ system.inputs.T + float(system.free) * bias[:, None]
    changes = jnp.where(there, changes, 0)
    curved = system.counts[None, :] * form.curve(jnp, system.bend, system.own, changes)
    curved = jnp.where(there, curved, 0)
    sums = curved.sum(1) if system.free else bias  # of a fixed bias: 1 times nothing
    return joined(curved @ system.inputs + 2 * system.strength * weights, sums)


def _solve(system: _System, right: Array) -> Array:
    """A step whose product is `right`, by conjugate gradients; NaN if they did not get there."""
    weights, bias = split(right)
    right = joined(weights, _without_shift(system, bias))

    def precondition(residual: Array) -> Array:
        weights, bias = split(residual)
        inside = weights @ system.basis
        rest = weights - inside @ system.basis.T
        found = (inside / system.preconditioner[None, :]) @ system.basis.T
        return joined(found + rest / (2 * system.strength), bias / system.level)

    enough = (ACCURACY * jnp.finfo(right.dtype).eps) ** 2
    found = conjugate_gradients(
        jnp,
        partial(_product, system),
        precondition,
        right,
        lambda _, square, start: square <= enough * start,
        PRODUCTS,
        flat=0.0,
    )[0]
    left = right - _product(system, found)
    most, least = (jnp.vdot(each, precondition(each)) for each in (right, left))
    solved = jnp.where(least <= ENOUGH**2 * most, 1.0, jnp.nan).astype(right.dtype)
    weights, bias = split(found)
    there = system.present[:, None]
    return joined(jnp.where(there, solved * weights, 0), solved * _without_shift(system, bias))


def _without_shift(system: _System, bias: Array) -> Array:
    """Without the common shift of all biases, where it changes nothing."""
    if system.form.geometry == "one-vs-rest":
        return jnp.where(system.present, bias, 0)
    mean = jnp.where(system.present, bias, 0).sum() / jnp.maximum(system.present.sum(), 1)
    return jnp.where(system.present, bias - mean, 0)


def _to_center(gradient: tuple[Array, Array], center: Array) -> tuple[Array, Array]:
    """A gradient in the parameters of the inputs, as one in those of centred inputs."""
    weights, bias = gradient
    return weights - bias[:, None] * center[None, :], bias


def _from_center(params: tuple[Array, Array], center: Array) -> tuple[Array, Array]:
    """Parameters of centred inputs as those of the inputs: W (x - m) + b = W x + (b - W m)."""
    weights, bias = params
    return weights, bias - weights @ center
