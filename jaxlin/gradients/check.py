"""The verdict: does a claimed gradient belong to a function?

The claim is compared with slopes whose error bars come from two step sizes, from the noise of
the function's values and from the rounding of the claim itself, so there is no tolerance to
pick. Three modes share the measurement and differ in the lines along which it is made:

    quick     random directions; where one disagrees, group testing names the entries
    sampled   randomly drawn entries of every leaf
    full      every entry

In quick mode the directions have random signs. Let any number of entries be wrong, one of them
by more than the error bar: the two signs of that entry move the disagreement of a direction by
twice its error, so at most one of them can hide it, and m independent directions all miss it
with probability at most 2^-m. (A single wrong entry shows in every one of them.) Error bars differ
from line to line; a sixth of the lines, those with the widest, are left out of the statement.

Source: the CS231n notes, "Gradient Checks", for the protocol; Erdős (1945), Bull. AMS 51,
  898-902, for the argument about random signs.
"""

__all__ = ["MODES", "check_gradient"]

from collections.abc import Callable

import numpy as np
from jax.typing import DTypeLike

from jaxlin.gradients.claim import claimed, with_measured_rounding
from jaxlin.gradients.complex_parts import NOTE, has_complex, in_real_parts
from jaxlin.gradients.directions import by_directions
from jaxlin.gradients.entries import by_entries
from jaxlin.gradients.evaluate import GIB, Function
from jaxlin.gradients.finite_differences import METHODS
from jaxlin.gradients.leaves import Tree
from jaxlin.gradients.lines import Key, Trial, generator, scales_of
from jaxlin.gradients.report import GradientReport
from jaxlin.gradients.structured import has_structure
from jaxlin.gradients.working_dtype import prepared
from jaxlin.transfer import device_of

MODES = ("quick", "sampled", "full")


def check_gradient(
    f: Callable,
    x: Tree,
    gradient: Tree | Callable[[Tree], Tree] | None = None,
    *,
    mode: str = "quick",
    key: Key = None,
    method: str = "richardson",
    directions: int = 12,
    samples: int = 64,
    limit: int = 1000,
    dtype: DTypeLike | None = None,
    memory: int = GIB,
) -> GradientReport:
    """Check a claimed gradient of a scalar function against measured slopes.

    Args:
      f: `x -> scalar`; a JAX function, a `LinearObjective`, or any Python function of NumPy
        arrays (then `gradient` must be given).
      x: the point, a pytree with floating leaves of any floating dtype, or complex ones. `f` is
        evaluated in float64 wherever it can be and is the same function there.
      gradient: what is claimed. A function of `x` is evaluated in float64, a pytree of values is
        taken as it is, with the rounding of its dtype allowed for. `None` stands for
        `jax.grad(f)`, and judges the derivative rules that `f` is made of, custom ones too.
        Where `x` is complex, z = a + i b, the gradient is df/da - i df/db, as `jax.grad` has it;
        take `jnp.conj` of one in torch's convention. Entries are named by their part, z.real
        and z.imag, with the derivative by that part.
      mode: "quick" (random directions, then group testing), "sampled" (entries drawn from every
        leaf) or "full" (every entry).
      key: a JAX random key or an integer; the same key gives the same report.
      method: the estimate to report as numeric: "richardson", "central" or "forward".
      directions: random directions per leaf in quick mode; 12 miss a wrong entry with a
        probability of at most 2^-10.
      samples: entries per leaf in sampled mode.
      limit: the most entries that the report lists.
      dtype: what to evaluate `f` in, whatever the dtype of `x`. By default float64, or the
        dtype of `x` where the values of `f` in both differ by more than rounding, as those of a
        function that draws random numbers with `x.dtype` do.
      memory: bytes that one device call may take.

    Returns:
      The report. Nothing is raised for a wrong gradient: see
      `GradientReport.raise_unless_passed`.

    Raises:
      TypeError: `x` has integer leaves, or `f` does not return a floating number.
      ValueError: `f` is not scalar, not finite at `x` or near it, or not deterministic; the tree
        or the shapes of the gradient are not those of `x`; or `f` cannot be differentiated by
        JAX and no gradient was given.

    >>> import jax.numpy as jnp
    >>> f = lambda x: jnp.sum(x**2)
    >>> check_gradient(f, jnp.array([1.0, 2.0])).verdict
    'pass'
    >>> report = check_gradient(f, jnp.array([1.0, 2.0]), jnp.array([2.0, -4.0]))
    >>> report.verdict, report.entries[0].index, report.entries[0].analytic
    ('fail', (1,), -4.0)
    """
    for name, choice, allowed in (("mode", mode, MODES), ("method", method, METHODS)):
        if choice not in allowed:
            raise ValueError(f"`{name}` must be one of {', '.join(allowed)}, got {choice!r}.")
    for name, count in (("directions", directions), ("samples", samples), ("limit", limit)):
        if count < 1:
            raise ValueError(f"`{name}` must be at least 1, got {count}.")
    custom: tuple[str, ...] = ()
    if has_complex(x):
        f, x, gradient = in_real_parts(f, x, gradient)
        custom = (NOTE,)
    function = prepared(f, x, scales_of, dtype=dtype, memory=memory)
    value = _value_at(function)
    scale = scales_of(function)
    claim = with_measured_rounding(
        function, gradient, claimed(function, gradient, scale), scale, value
    )
    claim = claim._replace(notes=claim.notes + custom)
    structured = function.dtype == "float64" and has_structure(f)
    trial = Trial(function, claim, value, structured, memory)
    rng = generator(key)
    if mode == "quick":
        return by_directions(trial, rng, directions=directions, limit=limit, method=method)
    return by_entries(
        trial, rng, samples=None if mode == "full" else samples, limit=limit, method=method
    )


def _value_at(function: Function) -> float:
    """f(x), after making sure that it is finite and the same when asked again."""
    value = float(function.along_axes([0], [0.0])[0])
    if not np.isfinite(value):
        raise ValueError(f"`f` is {value} at the point `x` itself: it has no gradient there.")
    if has_structure(function.f):
        return value  # pure by construction
    try:
        again = [float(function.once()), float(function.once())]
    except Exception:  # only a traced `f` may object to NumPy arrays; tracing already worked
        again = [float(function.along_axes([0], [0.0])[0])] * 2
    # Two eager evaluations round alike, except where an accelerator sums in any order; a compiled
    # one may round differently, and has the randomness of its tracing baked in.
    size = max(abs(value), abs(again[0]))
    slack = (8 * function.eps if device_of().platform == "cpu" else 1e-5) * size
    apart = abs(value - again[0])
    if apart > 1e-3 * size:  # terms that cancel leave nothing but their rounding
        apart = max(0.0, apart - 64 * function.eps * function.terms(size))
    if abs(again[0] - again[1]) > slack or apart > 1e-3 * size:
        other = again[1] if again[0] == value else again[0]
        raise ValueError(
            f"`f` is not deterministic: two evaluations at the same point differ, {value!r} and "
            f"{other!r}. Fix its random key or seed."
        )
    return value
