"""Regularizers: a penalty R(W) on the weights alone; the bias is never penalized.

The objective adds `strength * R(W)` to the mean loss. With `l2` that is the negative logarithm
of a Gaussian prior: minimizing mean loss + strength * sum(W**2) over N examples is maximum a
posteriori estimation with independent normal weights of variance 1 / (2 * N * strength)
(`prior_variance`), which is also scikit-learn's `C`.

Weights of half precision are summed in float32, and the penalty is float32.
"""

__all__ = ["l1", "l2", "none", "prior_variance"]

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxlin._dtypes import accumulator, widened


def l2(weights: Array) -> Array:
    r"""Sum of squares, without a factor 1/2: the lecture's R(W).

    $$R(W) = \sum_k \sum_l W_{k,l}^2$$

    Source: the CS231n notes, "Regularization", R(W) = sum over k, l of W_{k,l}^2.

    >>> l2(jnp.array([[1.0, -2.0]])).item()
    5.0
    """
    return jnp.sum(jnp.square(widened(weights)))


def l1(weights: Array) -> Array:
    r"""Sum of absolute values: favours weights that are exactly zero (a Laplace prior).

    $$R(W) = \sum_k \sum_l |W_{k,l}|$$

    >>> l1(jnp.array([[1.0, -2.0]])).item()
    3.0
    """
    return jnp.sum(jnp.abs(widened(weights)))


def none(weights: Array) -> Array:
    """No penalty: always 0.

    >>> none(jnp.array([[1.0, -2.0]])).item()
    0.0
    """
    return jnp.zeros((), accumulator(weights.dtype))


def prior_variance(strength: ArrayLike, examples: int) -> ArrayLike:
    """Variance of the Gaussian prior that `strength` times `l2` stands for, given N examples.

    N times the objective is sum of losses + N * strength * sum(W**2); a normal prior of variance
    v contributes sum(W**2) / (2 v), hence v = 1 / (2 * N * strength).

    >>> prior_variance(0.5, examples=4)
    0.25
    """
    return 1 / (2 * examples * strength)
