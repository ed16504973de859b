"""How the values of a traced function round: the narrowest dtype and the largest term."""

__all__ = ["Program", "largest_term", "rounding_of", "underflow"]

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

Program = Any
"""A jaxpr, closed or not."""


def rounding_of(program: Program) -> tuple[float, bool]:
    """The largest `eps` of a floating value that depends on the inputs, and what cannot be seen.

    Args:
      program: a jaxpr, closed or not, all of whose inputs are of interest.

    Returns:
      The spacing at 1 of the narrowest dtype (0 if nothing floating depends on the inputs), and
      whether the program calls back to Python, whose dtypes are unknown.

    >>> import jax
    >>> f = lambda x: jnp.sum(x.astype(jnp.float16)).astype(jnp.float32)
    >>> rounding_of(jax.make_jaxpr(f)(jnp.ones(3)))
    (0.0009765625, False)
    """
    jaxpr: Program = getattr(program, "jaxpr", program)
    eps, opaque, _ = _walk(jaxpr, [True] * len(jaxpr.invars))
    return eps, opaque


def _walk(jaxpr: Program, inputs: Iterable[bool]) -> tuple[float, bool, list[bool]]:
    """`inputs` says which of them matter; the last result, which of the outputs depend on those."""
    reached = {v for v, matters in zip(jaxpr.invars, inputs, strict=True) if matters}
    eps, opaque = 0.0, False
    for equation in jaxpr.eqns:
        touched = [not hasattr(v, "val") and v in reached for v in equation.invars]
        if not any(touched):
            continue
        opaque |= "callback" in equation.primitive.name
        inner: list[Program] = [getattr(p, "jaxpr", p) for p in _programs(equation.params)]
        outputs = [True] * len(equation.outvars)
        for part in inner:
            one = len(inner) == 1 and len(part.invars) == len(touched)
            repeats = "num_carry" in equation.params or "cond_nconsts" in equation.params
            matters = touched if one and not repeats else [True] * len(part.invars)
            wide, hidden, reaches = _walk(part, matters)
            eps, opaque = max(eps, wide), opaque | hidden
            if one and not repeats and len(reaches) == len(outputs):
                outputs = reaches
        for variable, yes in zip(equation.outvars, outputs, strict=True):
            if yes:
                reached.add(variable)
                dtype = getattr(variable.aval, "dtype", None)
                if dtype is not None and jnp.issubdtype(dtype, jnp.floating):
                    eps = max(eps, float(jnp.finfo(dtype).eps))
    return eps, opaque, [not hasattr(v, "val") and v in reached for v in jaxpr.outvars]


def _programs(params: Mapping[str, Any]) -> list[Program]:
    """The jaxprs among the parameters of an equation."""
    found = []
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if hasattr(getattr(item, "jaxpr", item), "eqns"):
                found.append(item)
    return found


def underflow(eps: float) -> float:
    """Below which size values of a dtype with this `eps` may become 0.

    Of float16 the smallest number above 0; of the others the smallest normal one, for compiled
    programs do not bother with less.

    >>> underflow(2.0**-52) < 1e-307 < underflow(2.0**-23) < 1e-37 < underflow(2.0**-10)
    True
    """
    if eps <= jnp.finfo(jnp.float64).eps:
        return float(jnp.finfo(jnp.float64).tiny)
    half = eps == jnp.finfo(jnp.float16).eps
    return float(jnp.finfo(jnp.float16).smallest_subnormal if half else jnp.finfo("float32").tiny)


def largest_term(f: Callable, point: Array) -> float:
    """The largest finite floating value on the way from a point to f: what may cancel in it.

    >>> largest_term(lambda x: 100 * jnp.sum(x) - 300, jnp.ones(3))
    300.0
    """
    program = jax.make_jaxpr(f)(point)
    return _run(program.jaxpr, program.consts, [point])[1]


def _run(jaxpr: Program, constants: Sequence[Any], arguments: Sequence[Any]) -> tuple[list, float]:
    """Outputs of a program, and its largest value (of loops and branches, of their results)."""
    known = dict(zip(jaxpr.constvars, constants, strict=True))
    known |= dict(zip(jaxpr.invars, arguments, strict=True))
    largest = 0.0
    for equation in jaxpr.eqns:
        values = [v.val if hasattr(v, "val") else known[v] for v in equation.invars]
        inner = equation.params.get("jaxpr")
        if equation.primitive.name in ("pjit", "jit", "closed_call") and inner is not None:
            results, inside = _run(inner.jaxpr, inner.consts, values)
            largest = max(largest, inside)
        else:
            bound = equation.primitive.get_bind_params(equation.params)
            functions, params = bound if isinstance(bound, tuple) else ((), bound)
            results = equation.primitive.bind(*functions, *values, **params)
            results = results if equation.primitive.multiple_results else [results]
        for variable, result in zip(equation.outvars, results, strict=True):
            known[variable] = result
            if jnp.issubdtype(getattr(result, "dtype", int), jnp.floating):
                size = np.abs(np.asarray(result, np.float64))
                largest = max(largest, float(size[np.isfinite(size)].max(initial=0.0)))
    return [v.val if hasattr(v, "val") else known[v] for v in jaxpr.outvars], largest
