"""Error against step size, and the Taylor remainder: the two curves that show why a check works."""

__all__ = ["StepCurve", "TaylorCurve", "step_curve", "taylor_curve"]

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxlin.gradients.evaluate import GIB, Function
from jaxlin.gradients.leaves import Tree
from jaxlin.gradients.lines import groups_of, random_signs


class StepCurve(NamedTuple):
    """The U curve: truncation falls with the step, round-off grows."""

    steps: np.ndarray
    """(S,), descending."""
    errors: dict[str, np.ndarray]
    """By "forward float64" and so on: the median relative error of the sampled entries, (S,)."""
    entries: int


class TaylorCurve(NamedTuple):
    """Remainders along a random direction: rate 1 without the gradient, 2 with the right one."""

    steps: np.ndarray
    zeroth: np.ndarray
    """|f(x + t d) - f(x)|."""
    first: np.ndarray
    """|f(x + t d) - f(x) - t * gradient . d|."""


def step_curve(
    f: Callable,
    x: Tree,
    reference: Tree,
    *,
    entries: int = 24,
    seed: int = 0,
    memory: int = GIB,
) -> StepCurve:
    """Relative errors of forward and central differences over twelve decades of steps.

    Args:
      f: `x -> scalar`.
      x: the point.
      reference: the gradient to measure the errors against, a pytree like `x`.
      entries: how many entries to sample, among the larger half of the gradient.
      seed: of the sample.
      memory: bytes that one device call may take.

    >>> import jax.numpy as jnp
    >>> curve = step_curve(lambda x: jnp.sum(x**3), jnp.ones(3), 3 * np.ones(3))
    >>> bool(curve.errors["central float64"].min() < 1e-8)
    True
    """
    values = Function(lambda _: 0.0, reference).x
    order = np.argsort(-np.abs(values))[: max(1, len(values) // 2)]
    chosen = np.random.default_rng(seed).permutation(order)[:entries]
    size = float(np.abs(Function(f, x).x).max()) or 1.0
    steps = 10.0 ** np.arange(0, -12.5, -0.5) * size
    errors = {}
    for dtype in ("float64", "float32"):
        function = Function(f, x, dtype=dtype, memory=memory)
        base = float(function.along_axes([0], [0.0])[0])
        forward, central = [], []
        for step in steps:
            h = function.exact_steps(chosen, np.full(len(chosen), step))
            plus = function.along_axes(chosen, h)
            minus = function.along_axes(chosen, -h)
            with np.errstate(invalid="ignore", divide="ignore"):
                forward.append((plus - base) / h)
                central.append((plus - minus) / (2 * h))
        for name, slopes in (("forward", forward), ("central", central)):
            with np.errstate(invalid="ignore", divide="ignore"):
                relative = np.abs(np.array(slopes) / values[chosen] - 1)
            relative[~np.isfinite(relative)] = np.nan
            usable = np.isfinite(relative).all(axis=1)
            medians = np.full(len(steps), np.nan)
            medians[usable] = np.median(relative[usable], axis=1)
            errors[f"{name} {dtype}"] = medians
    return StepCurve(steps, errors, len(chosen))


def taylor_curve(
    f: Callable, x: Tree, gradient: Tree, *, seed: int = 0, memory: int = GIB
) -> TaylorCurve:
    """Remainders of the zeroth and the first Taylor polynomial along one random direction.

    >>> import jax.numpy as jnp
    >>> curve = taylor_curve(lambda x: jnp.sum(jnp.sin(x)), jnp.ones(3), np.cos(np.ones(3)))
    >>> rate = np.log2(curve.first[6] / curve.first[7])
    >>> bool(abs(rate - 2) < 0.1)
    True
    """
    function = Function(f, x, memory=memory)
    (group,) = groups_of(function, most=0)
    line = random_signs(np.random.default_rng(seed), len(function.x)) * group.scale
    values = Function(lambda _: 0.0, gradient).x
    steps = 2.0 ** -np.arange(0, 40)
    changes = function.along(line[None], np.append(steps, 0.0), np.zeros(41, int))
    changes = changes[:-1] - changes[-1]
    return TaylorCurve(steps, np.abs(changes), np.abs(changes - steps * (values @ line)))
