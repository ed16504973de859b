"""Score functions: from the features of an example to one score per class.

The linear score f(x, W, b) = W x + b runs K classifiers as one matrix product: row k of W is
the template of class k and its inner product with the example is the score. `fold_bias` and
`append_one` are the bias trick, which writes the same function with a single matrix.
"""

__all__ = ["append_one", "fold_bias", "linear", "unfold_bias"]

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxlin._checks import check_linear
from jaxlin._dtypes import accumulator, widened
from jaxlin.core import LinearParams
from jaxlin.precision import exact


@exact
def linear(params: LinearParams, inputs: ArrayLike) -> Array:
    """Scores `inputs @ weights.T + bias`.

    Integer inputs (raw uint8 pixels) are converted to the dtype of the weights here, inside
    the compiled program: the pixels stay small in memory, and uint8 arithmetic, which wraps
    around at 256, never happens. Products of half-precision numbers are added up in float32,
    and the scores are float32.

    Args:
      params: weights (K, D) and bias (K,).
      inputs: (..., D), floating or integer.

    Returns:
      (..., K), floating.

    Raises:
      ValueError: the shapes do not fit together.

    Source: the CS231n notes, "Linear Classification", f(x_i, W, b) = W x_i + b.

    >>> params = LinearParams(jnp.array([[1.0, 2.0], [0.0, -1.0]]), jnp.array([0.5, 0.0]))
    >>> linear(params, jnp.array([3.0, 1.0])).tolist()
    [5.5, -1.0]
    """
    weights, bias = map(jnp.asarray, params)
    inputs = jnp.asarray(inputs)
    check_linear(weights, bias, inputs)
    weights, inputs = _mixable(weights), _mixable(inputs)
    if not jnp.issubdtype(inputs.dtype, jnp.floating):
        pixels = inputs.dtype.itemsize == 1  # exact in half precision, wider integers are not
        inputs = inputs.astype(weights.dtype if pixels else accumulator(weights.dtype))
    products = jnp.matmul(
        inputs,
        weights.T,
        preferred_element_type=accumulator(jnp.result_type(inputs, weights)),
    )
    return products + jnp.broadcast_to(widened(bias), products.shape)


def _mixable(array: Array) -> Array:
    """float32 for the floats of 8 bits and fewer, which JAX multiplies by their own kind alone."""
    narrow = jnp.issubdtype(array.dtype, jnp.floating) and jnp.finfo(array.dtype).bits < 16
    return widened(array) if narrow else array


def fold_bias(params: LinearParams) -> Array:
    """The bias trick on parameters: the bias becomes the last column of the weights.

    Returns:
      (K, D + 1); with `append_one(inputs)` one product gives the scores of `linear`.

    Source: the CS231n notes, "Bias trick" (CIFAR-10: [10 x 3072] becomes [10 x 3073]).

    >>> fold_bias(LinearParams(jnp.array([[1.0, 2.0]]), jnp.array([0.5]))).tolist()
    [[1.0, 2.0, 0.5]]
    """
    return jnp.concatenate([params.weights, params.bias[:, None]], axis=1)


def unfold_bias(matrix: Array) -> LinearParams:
    """The inverse of `fold_bias`: the last column of `matrix` (K, D + 1) is the bias.

    >>> unfold_bias(jnp.array([[1.0, 2.0, 0.5]])).bias.tolist()
    [0.5]
    """
    return LinearParams(matrix[:, :-1], matrix[:, -1])


def append_one(inputs: ArrayLike) -> Array:
    """The bias trick on inputs: (..., D) becomes (..., D + 1), the last feature always 1.

    >>> append_one(jnp.array([3.0, 1.0])).tolist()
    [3.0, 1.0, 1.0]
    """
    inputs = jnp.asarray(inputs)
    return jnp.concatenate([inputs, jnp.ones((*inputs.shape[:-1], 1), inputs.dtype)], axis=-1)
