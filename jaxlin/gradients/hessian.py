"""Second order: the Hessian and its products, against differences of the gradient."""

__all__ = ["check_hessian", "check_hvp"]

from collections.abc import Callable
from typing import Any

import jax

from jaxlin.gradients.by_outputs import Rows, check_settings, judge
from jaxlin.gradients.check import check_gradient
from jaxlin.gradients.claim import evaluated, is_like
from jaxlin.gradients.evaluate import GIB
from jaxlin.gradients.jacobian import opened
from jaxlin.gradients.jacobian_claim import (
    acting,
    action_rows,
    array_rows,
    linear_map,
    pushforward,
    with_nonlinear,
)
from jaxlin.gradients.leaves import Tree
from jaxlin.gradients.lines import scales_of
from jaxlin.gradients.outputs import Outputs
from jaxlin.gradients.report import GradientReport


def check_hessian(
    f: Callable,
    x: Tree,
    hessian: Tree | Callable[[Tree], Tree] | None = None,
    *,
    gradient: Callable[[Tree], Tree] | None = None,
    memory: int = GIB,
    **settings: Any,
) -> GradientReport:
    """Check a claimed Hessian of a scalar function against differences of its gradient.

    The gradient is checked first: where it is wrong, its differences are not the Hessian of `f`,
    and the report is that of the gradient.

    Args:
      f: `x -> scalar`.
      x: the point, a pytree with floating leaves.
      hessian: what is claimed: arrays laid out as `jax.hessian(f)(x)` does, a tree like `x` of
        trees like `x`, or a function of `x` that returns them. `None` stands for JAX's
        forward-over-reverse products and takes no more memory than a few gradients.
      gradient: `x -> gradient`, by default `jax.grad(f)`.
      memory: bytes that one device call may take.
      **settings: as in `check_jacobian`, the outputs being the entries of the gradient.

    Returns:
      The report; the entries are named `d(df/dx[2])/dx[0]`.

    Raises:
      As `check_jacobian`.

    >>> import jax.numpy as jnp
    >>> f = lambda x: x[0] ** 2 * x[1]
    >>> x = jnp.array([3.0, 5.0])
    >>> check_hessian(f, x, jnp.array([[10.0, 6.0], [6.0, 0.0]])).verdict
    'pass'
    >>> check_hessian(f, x, jnp.array([[10.0, 6.0], [6.0, 1.0]])).entries[0].name
    'd(df/dx[1])/dx[1]'
    """
    if hessian is None:
        report = check_hvp(f, x, gradient=gradient, memory=memory, **settings)
        return report._replace(subject="hessian")
    base, first = _opened(f, x, gradient, memory, settings)
    if base is None:
        return first._replace(subject="hessian")
    if callable(hessian) and not is_like(base.treedef, hessian):
        hessian = evaluated(base, hessian)
    rows = array_rows(base, hessian, called="hessian")
    return _judged(base, first, rows, "hessian", settings)


def check_hvp(
    f: Callable,
    x: Tree,
    hvp: Callable[[Tree, Tree], Tree] | None = None,
    *,
    gradient: Callable[[Tree], Tree] | None = None,
    memory: int = GIB,
    **settings: Any,
) -> GradientReport:
    """Check products with the Hessian, v -> H v, against differences of the gradient.

    Args:
      hvp: `(x, v) -> H v`, with v and the result like `x`. `None` stands for the derivative of
        the gradient by `jax.jvp`, forward over reverse.

    The other arguments, the report and the errors are those of `check_hessian`.

    >>> import jax.numpy as jnp
    >>> f = lambda x: jnp.sum(x**3)
    >>> check_hvp(f, jnp.array([1.0, 2.0]), lambda x, v: 6 * x * v).verdict
    'pass'
    """
    base, first = _opened(f, x, gradient, memory, settings)
    if base is None:
        return first._replace(subject="hvp")
    if hvp is None and not base.differentiable():
        raise ValueError(
            "`gradient` is a plain Python function, which JAX cannot differentiate: pass what is "
            "claimed as `hvp=` or `hessian=`."
        )
    operator, broken = linear_map(
        acting(base, hvp, pushforward), base.tree(base.x), base.leaves,
        units=scales_of(base), key=settings.get("key"), memory=memory,
        result="a tree like `x`",
        called="forward over reverse mode" if hvp is None else "`hvp`",
    )  # fmt: skip
    report = _judged(base, first, action_rows(operator, base, transposed=True), "hvp", settings)
    if broken is None:
        return report
    _, index = base.output_place(broken[0])
    name = _name(base)(broken[0])
    return with_nonlinear(report, broken, output=name, output_index=index)


def _opened(
    f: Callable,
    x: Tree,
    gradient: Callable[[Tree], Tree] | None,
    memory: int,
    settings: dict[str, Any],
) -> tuple[Outputs | None, GradientReport]:
    """The gradient as a function with many outputs, unless its own check settles the matter."""
    check_settings(**settings)
    if gradient is not None and not callable(gradient):
        raise ValueError("`gradient` must be a function of `x`: its differences are the Hessian.")
    first = check_gradient(f, x, gradient, key=settings.get("key"), memory=memory)
    if first.verdict == "fail":
        note = "the gradient itself is wrong, as named here: its differences are not the Hessian."
        return None, first._replace(notes=(note, *first.notes))
    if first.verdict == "kink":
        note = "`f` has a kink at the point, as named here: it has no Hessian there."
        return None, first._replace(verdict="inconclusive", notes=(note, *first.notes))
    return opened(jax.grad(f) if gradient is None else gradient, x, memory, settings), first


def _name(base: Outputs) -> Callable[[int], str]:
    return lambda i: f"(df/dx{base.output_name(i).removeprefix('f')})"


def _judged(
    base: Outputs, first: GradientReport, rows: Rows, subject: str, settings: dict[str, Any]
) -> GradientReport:
    report = judge(base, rows, subject=subject, name=_name(base), **settings)
    notes = report.notes
    if first.verdict == "inconclusive":
        notes += ("the check of the gradient itself is inconclusive.",)
    return report._replace(evaluations=report.evaluations + first.evaluations, notes=notes)
