"""The gradient laboratory: numeric gradients, the lecture's calculus, and the verdict on both.

>>> import jax.numpy as jnp
>>> from jaxlin.gradients import check_gradient
>>> check_gradient(lambda x: jnp.sum(jnp.sin(x)), jnp.arange(3.0)).verdict
'pass'
"""

from jaxlin.gradients import closed_form, finite_differences
from jaxlin.gradients.check import MODES, check_gradient
from jaxlin.gradients.finite_differences import NumericGradient
from jaxlin.gradients.hessian import check_hessian, check_hvp
from jaxlin.gradients.jacobian import check_jacobian, check_jvp, check_vjp
from jaxlin.gradients.linear import LinearObjective, MarginCount, linear_objective
from jaxlin.gradients.report import Entry, GradientError, GradientReport

__all__ = [
    "MODES",
    "Entry",
    "GradientError",
    "GradientReport",
    "LinearObjective",
    "MarginCount",
    "NumericGradient",
    "check_gradient",
    "check_hessian",
    "check_hvp",
    "check_jacobian",
    "check_jvp",
    "check_vjp",
    "closed_form",
    "finite_differences",
    "linear_objective",
]
