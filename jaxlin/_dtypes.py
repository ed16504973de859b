"""Half precision is read, never summed in: the one rule on dtypes that all formulas follow.

Numbers narrower than float32 (float16, bfloat16, float8 and below) are converted to float32 before
anything is added up, multiplied out or exponentiated, and the result is float32. float32 stays
float32 and float64 stays float64. Derivatives by half-precision arrays come in their dtype.
float16 ends at 65,504 and bfloat16 cannot count beyond 256: a sum in either is soon wrong.
"""

__all__ = ["accumulator", "widened"]

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from numpy.typing import DTypeLike


def accumulator(dtype: DTypeLike) -> jnp.dtype:
    """The dtype that numbers of `dtype` are summed in: float32, or `dtype` where that is wider.

    Integers and booleans are summed in the default floating dtype.

    >>> accumulator(jnp.bfloat16), accumulator(jnp.float32)
    (dtype('float32'), dtype('float32'))
    """
    dtype = jnp.dtype(dtype)
    if not jnp.issubdtype(dtype, jnp.floating):
        return jnp.result_type(float)
    return dtype if jnp.finfo(dtype).bits >= 32 else jnp.dtype("float32")


def widened(values: ArrayLike) -> Array:
    """`values` in the dtype that they are summed in; the array itself where that is its own.

    >>> widened(jnp.ones(2, jnp.float16)).dtype
    dtype('float32')
    """
    values = jnp.asarray(values)
    return values.astype(accumulator(values.dtype))
