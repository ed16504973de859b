"""Gradient checks as assertions, for pytest and anything else that likes `AssertionError`.

from jaxlin.testing import assert_gradient

def test_my_loss_has_the_gradient_i_derived():
    assert_gradient(my_loss, x, my_gradient)
"""

__all__ = ["assert_gradient"]

from collections.abc import Callable
from typing import Any

from jaxlin.gradients import GradientReport, check_gradient


def assert_gradient(
    f: Callable, x: Any, gradient: Any = None, *, strict: bool = False, **settings
) -> GradientReport:
    """Assert that `gradient` is the gradient of `f` at `x`.

    Args:
      f: `x -> scalar`.
      x: the point, a pytree with floating leaves.
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
