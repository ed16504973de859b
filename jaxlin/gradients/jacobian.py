"""Functions with many outputs: their Jacobian, and the rules of both modes of differentiation."""

__all__ = ["check_jacobian", "check_jvp", "check_vjp", "opened"]

from collections.abc import Callable
from typing import Any

from jaxlin.gradients.by_outputs import check_settings, judge
from jaxlin.gradients.claim import evaluated, is_like
from jaxlin.gradients.evaluate import GIB
from jaxlin.gradients.jacobian_claim import (
    acting,
    action_rows,
    array_rows,
    linear_map,
    product_rows,
    pullback,
    pushforward,
    with_nonlinear,
)
from jaxlin.gradients.leaves import Tree
from jaxlin.gradients.lines import generator, scales_of
from jaxlin.gradients.outputs import Outputs
from jaxlin.gradients.report import GradientReport


def check_jacobian(
    f: Callable,
    x: Tree,
    jacobian: Tree | Callable[[Tree], Tree] | None = None,
    *,
    memory: int = GIB,
    **settings: Any,
) -> GradientReport:
    """Check a claimed Jacobian of a function with many outputs against measured slopes.

    Args:
      f: `x -> outputs`, an array or a tree of arrays, all floating; a JAX function or any Python
        function of NumPy arrays.
      x: the point, a pytree with floating leaves.
      jacobian: what is claimed: arrays laid out as `jax.jacobian(f)(x)` does, of shape
        `f(x).shape + leaf.shape`, or a function of `x` that returns them. `None` stands for JAX's
        reverse mode, `jax.vjp`, and judges the derivative rules that `f` is made of.
      memory: bytes that one device call may take.
      **settings: `mode`, `key`, `method`, `samples` and `limit` as in `check_gradient` (in
        "sampled" mode outputs are drawn as well as entries); `directions` (18) random lines and
        `combinations` (24) of the outputs, in quick mode. Up to that many outputs are each judged
        by themselves, as a gradient is; one wrong entry is missed with a probability of at most
        2^-15. Of more outputs random combinations are; then it is at most 2^-11.

    Returns:
      The report, with entries named by output and entry of x, such as `df[2]/dx['w'][3, 1]`. In
      full mode its arrays are laid out as `jax.jacobian` does.

    Raises:
      TypeError: `x` or an output is not floating.
      ValueError: `f` is not finite at `x` or near it, or not deterministic; the claim has other
        shapes; or JAX cannot differentiate `f` and no claim was given.

    >>> import jax.numpy as jnp
    >>> f = lambda x: jnp.array([x[0] * x[1], x[1] ** 2])
    >>> x = jnp.array([2.0, 3.0])
    >>> check_jacobian(f, x).verdict
    'pass'
    >>> report = check_jacobian(f, x, jnp.array([[3.0, 2.0], [1.0, 6.0]]))
    >>> report.verdict, [entry.name for entry in report.entries]
    ('fail', ['df[1]/dx[0]'])
    """
    if jacobian is None:
        return check_vjp(f, x, memory=memory, **settings)._replace(subject="jacobian")
    base = opened(f, x, memory, settings)
    if callable(jacobian) and not is_like(base.treedef, jacobian):
        jacobian = evaluated(base, jacobian)
    return judge(
        base, array_rows(base, jacobian, called="jacobian"), subject="jacobian", **settings
    )


def check_vjp(
    f: Callable,
    x: Tree,
    vjp: Callable[[Tree, Tree], Tree] | None = None,
    *,
    memory: int = GIB,
    **settings: Any,
) -> GradientReport:
    """Check a rule of reverse mode, u -> u^T J, against measured slopes.

    Args:
      vjp: `(x, u) -> u^T J`, with u like f(x) and the result like `x`. `None` stands for `jax.vjp`
        of `f`, with every `jax.custom_vjp` that `f` is made of.

    The other arguments, the report and the errors are those of `check_jacobian`.

    >>> import numpy as np
    >>> A = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    >>> check_vjp(lambda x: A @ x, np.ones(2), lambda x, u: u @ A).verdict
    'pass'
    """
    base = opened(f, x, memory, settings)
    if vjp is None:
        _need_jax(base, "jacobian")
    operator, broken = linear_map(
        acting(base, vjp, pullback), base.output_tree(), base.leaves,
        units=base.units, key=settings.get("key"), memory=memory,
        result="a tree like `x`",
        called="reverse mode, jax.vjp(f, x)," if vjp is None else "`vjp`",
    )  # fmt: skip
    report = judge(base, action_rows(operator, base), subject="vjp", **settings)
    if broken is None:
        return report
    path, index = base.place(broken[0])
    return with_nonlinear(report, broken, path=path, index=index)


def check_jvp(
    f: Callable,
    x: Tree,
    jvp: Callable[[Tree, Tree], Tree] | None = None,
    *,
    memory: int = GIB,
    **settings: Any,
) -> GradientReport:
    """Check a rule of forward mode, v -> J v, against measured slopes.

    Forward mode is run once for every entry of x, in batches.

    Args:
      jvp: `(x, v) -> J v`, with v like `x` and the result like f(x). `None` stands for `jax.jvp` of
        `f`, with every `jax.custom_jvp` that `f` is made of. (`check_gradient` and
        `check_jacobian` judge reverse mode; where rules contradict each other one of them fails.)

    The other arguments, the report and the errors are those of `check_jacobian`.

    >>> import jax.numpy as jnp
    >>> check_jvp(jnp.sin, jnp.arange(3.0), lambda x, v: jnp.cos(x) * v).verdict
    'pass'
    """
    base = opened(f, x, memory, settings)
    if jvp is None:
        _need_jax(base, "jvp")
    operator, broken = linear_map(
        acting(base, jvp, pushforward), base.tree(base.x), base.layout,
        units=scales_of(base), key=settings.get("key"), memory=memory,
        result="a tree like f(x)",
        called="forward mode, jax.jvp(f, x, v)," if jvp is None else "`jvp`",
    )  # fmt: skip
    report = judge(base, product_rows(operator, base), subject="jvp", **settings)
    if broken is None:
        return report
    name, (_, index) = base.output_name(broken[0]), base.output_place(broken[0])
    return with_nonlinear(report, broken, output=name, output_index=index)


def opened(f: Callable, x: Tree, memory: int, settings: dict[str, Any]) -> Outputs:
    """`f` with all its outputs, evaluated at `x`."""
    check_settings(**settings)
    base = Outputs(f, x, memory=memory)
    base.open(generator(settings.get("key")))
    return base


def _need_jax(base: Outputs, argument: str) -> None:
    if not base.differentiable():
        raise ValueError(
            "`f` is a plain Python function, which JAX cannot trace and hence not differentiate: "
            f"pass what is claimed as `{argument}=`."
        )
