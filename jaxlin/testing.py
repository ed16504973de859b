"""Gradient checks as assertions, for pytest and anything else that likes `AssertionError`.

from jaxlin.testing import assert_gradient

def test_my_loss_has_the_gradient_i_derived():
    assert_gradient(my_loss, x, my_gradient)
"""

__all__ = [
    "assert_gradient",
    "assert_hessian",
    "assert_hvp",
    "assert_jacobian",
    "assert_jvp",
    "assert_vjp",
]

from collections.abc import Callable
from typing import Any

from jaxlin.gradients import (
    GradientReport,
    check_gradient,
    check_hessian,
    check_hvp,
    check_jacobian,
    check_jvp,
    check_vjp,
)


def assert_gradient(
    f: Callable, x: Any, gradient: Any = None, *, strict: bool = False, **settings: Any
) -> GradientReport:
    """Assert that `gradient` is the gradient of `f` at `x`.

    Args:
      f: `x -> scalar`.
      x: the point, a pytree with floating or complex leaves.
      gradient: a pytree like `x`, a function of `x`, or `None` for `jax.grad(f)`.
      strict: fail on a kink, too, even where the claimed value is a valid subgradient.
      **settings: of `jaxlin.gradients.check_gradient`, such as `mode="full"` or `key`.

    Returns:
      The report, if the gradient passed.

    Raises:
      GradientError: an `AssertionError` whose message names the wrong entries with the claimed
        and the measured values, or says why nothing could be decided.

    >>> import jax.numpy as jnp
    >>> report = assert_gradient(lambda x: jnp.sum(x**3), jnp.array([1.0, 2.0]))
    >>> report.verdict
    'pass'
    """
    __tracebackhide__ = True  # pytest shows the caller's line, not this one
    return check_gradient(f, x, gradient, **settings).raise_unless_passed(strict=strict)


def assert_jacobian(
    f: Callable, x: Any, jacobian: Any = None, *, strict: bool = False, **settings: Any
) -> GradientReport:
    """Assert that `jacobian` is the Jacobian of `f` at `x`; see `jaxlin.gradients.check_jacobian`.

    >>> import jax.numpy as jnp
    >>> assert_jacobian(jnp.sin, jnp.arange(2.0), lambda x: jnp.diag(jnp.cos(x))).verdict
    'pass'
    """
    __tracebackhide__ = True
    return check_jacobian(f, x, jacobian, **settings).raise_unless_passed(strict=strict)


def assert_jvp(
    f: Callable, x: Any, jvp: Callable | None = None, *, strict: bool = False, **settings: Any
) -> GradientReport:
    """Assert that forward mode, or `(x, v) -> J v`, is right; see `jaxlin.gradients.check_jvp`.

    >>> import jax.numpy as jnp
    >>> assert_jvp(jnp.sin, jnp.arange(2.0)).verdict
    'pass'
    """
    __tracebackhide__ = True
    return check_jvp(f, x, jvp, **settings).raise_unless_passed(strict=strict)


def assert_vjp(
    f: Callable, x: Any, vjp: Callable | None = None, *, strict: bool = False, **settings: Any
) -> GradientReport:
    """Assert that reverse mode, or `(x, u) -> u^T J`, is right; see `jaxlin.gradients.check_vjp`.

    >>> import jax.numpy as jnp
    >>> assert_vjp(jnp.sin, jnp.arange(2.0), lambda x, u: u * jnp.cos(x)).verdict
    'pass'
    """
    __tracebackhide__ = True
    return check_vjp(f, x, vjp, **settings).raise_unless_passed(strict=strict)


def assert_hessian(
    f: Callable, x: Any, hessian: Any = None, *, strict: bool = False, **settings: Any
) -> GradientReport:
    """Assert that `hessian` is the Hessian of `f` at `x`; see `jaxlin.gradients.check_hessian`.

    >>> import jax.numpy as jnp
    >>> assert_hessian(lambda x: jnp.sum(x**2), jnp.ones(2), 2 * jnp.eye(2)).verdict
    'pass'
    """
    __tracebackhide__ = True
    return check_hessian(f, x, hessian, **settings).raise_unless_passed(strict=strict)


def assert_hvp(
    f: Callable, x: Any, hvp: Callable | None = None, *, strict: bool = False, **settings: Any
) -> GradientReport:
    """Assert that `(x, v) -> H v` is right, H the Hessian; see `jaxlin.gradients.check_hvp`.

    >>> import jax.numpy as jnp
    >>> assert_hvp(lambda x: jnp.sum(x**2), jnp.ones(2), lambda x, v: 2 * v).verdict
    'pass'
    """
    __tracebackhide__ = True
    return check_hvp(f, x, hvp, **settings).raise_unless_passed(strict=strict)
