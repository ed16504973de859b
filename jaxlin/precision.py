"""Matrix products whose operands are rounded, and whose sums are not.

    highest   operands as they are: 24 bits of significand in float32
    tf32      operands rounded to 11 bits, with the range of float32 (NVIDIA's TensorFloat-32)
    bf16      operands rounded to 8 bits, with the range of float32 (bfloat16)

Sums are in the dtype of the weights always, in float32 where these are narrower. The rounding is
written out, so that it is the same on every device; on units made for it the product is then exact
and fast, elsewhere it costs the rounding. The gradient's products round their operands likewise.
"""

__all__ = ["PRECISIONS", "product"]

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxlin._dtypes import widened

PRECISIONS = ("highest", "tf32", "bf16")


def product(inputs: Array, weights: Array, precision: str) -> Array:
    """`inputs @ weights.T` with rounded operands.

    Args:
      inputs: (N, D).
      weights: (K, D), floating; the result has their dtype, or float32 where that is wider.
      precision: one of `PRECISIONS`.

    Raises:
      ValueError: another precision.

    >>> third = jnp.full((1, 1), 1 / 3, jnp.float32)
    >>> [product(third, jnp.ones((1, 1), jnp.float32), p).item() for p in PRECISIONS]
    [0.3333333432674408, 0.333251953125, 0.333984375]
    """
    if precision not in PRECISIONS:
        raise ValueError(f"`precision` must be one of {', '.join(PRECISIONS)}, got {precision!r}.")
    weights = widened(weights)
    if precision == "highest":
        return inputs.astype(weights.dtype) @ weights.T
    return _rounded(inputs.astype(weights.dtype), weights, precision)


def _round(values, precision):
    if precision == "bf16":
        return values.astype(jnp.bfloat16)
    return lax.reduce_precision(values, exponent_bits=8, mantissa_bits=10)


def _sum(equation, left, right, precision, dtype):
    left, right = _round(left, precision), _round(right, precision)
    return jnp.einsum(equation, left, right, preferred_element_type=dtype)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _rounded(inputs, weights, precision):
    return _sum("nd,kd->nk", inputs, weights, precision, weights.dtype)


def _forward(inputs, weights, precision):
    return _rounded(inputs, weights, precision), (inputs, weights)


def _backward(precision, saved, slope):
    inputs, weights = saved
    to_inputs = _sum("nk,kd->nd", slope, weights, precision, inputs.dtype)
    return to_inputs, _sum("nk,nd->kd", slope, inputs, precision, weights.dtype)


_rounded.defvjp(_forward, _backward)
