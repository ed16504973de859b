"""How exact matrix products are: exact unless rounding is asked for, on every device.

A product whose precision is not stated is what a device likes best: on a CPU exact, on an NVIDIA
GPU since 2020 rounded to TensorFloat-32, on a TPU to bfloat16. So the package states it: what is
compiled here is compiled by `jit`, and a function that makes products and is handed out as it is
bears `exact`. A product that states its own precision keeps it.

`product` rounds its operands on purpose, and never its sums:

    highest   operands as they are: 24 bits of significand in float32
    tf32      operands rounded to 11 bits, with the range of float32 (NVIDIA's TensorFloat-32)
    bf16      operands rounded to 8 bits, with the range of float32 (bfloat16)

Sums are in the dtype of the weights always, in float32 where these are narrower. The rounding is
written out, so that it is the same on every device; on units made for it the product is then exact
and fast, elsewhere it costs the rounding. The gradient's products round their operands likewise.
"""

__all__ = ["PRECISIONS", "Compiled", "einsum", "exact", "float64", "jit", "product"]

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial, wraps
from typing import Any, ParamSpec, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxlin._dtypes import widened
from jaxlin.platforms import with_float64
from jaxlin.transfer import device_of

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
Returned = TypeVar("Returned", covariant=True)

PRECISIONS = ("highest", "tf32", "bf16")


def exact(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """`function`, in which every product that does not state its precision is exact.

    So are the products of its derivatives. On a CPU the numbers are the same bits without it.

    >>> program = jax.make_jaxpr(exact(jnp.dot))(jnp.ones(2), jnp.ones(2))
    >>> str(program).count("HIGHEST") > 0
    True
    """

    @wraps(function)
    def stated(*arguments: Arguments.args, **settings: Arguments.kwargs) -> Result:
        with jax.default_matmul_precision("highest"):
            return function(*arguments, **settings)

    return stated


class Compiled(Protocol[Returned]):
    """What `jit` makes of a function.

    >>> twice: Compiled = jit(lambda x: 2 * x)
    >>> twice(3).item()
    6
    """

    def __call__(self, *arguments: Any, **settings: Any) -> Returned: ...

    def lower(self, *arguments: Any, **settings: Any) -> jax.stages.Lowered: ...

    def __hash__(self) -> int: ...


def jit(function: Callable[..., Result], **settings: Any) -> Compiled[Result]:
    """`jax.jit` of a function that is `exact`; the settings are those of `jax.jit`.

    >>> jit(jnp.dot)(jnp.arange(3), jnp.arange(3)).item()
    5
    """
    compiled: Any = jax.jit(exact(function), **settings)
    return compiled


@contextmanager
def float64() -> Iterator[None]:
    """Inside, JAX computes in float64: where it is, or on this machine's processors.

    These have it where the device computes float64 in pairs of float32, whose errors are larger
    than those that bounds and error bars allow for. Arrays that were put on a device on purpose
    stay there.

    >>> with float64():
    ...     print(jnp.ones(1, jnp.float64).dtype)
    float64
    """
    device = device_of()
    capable = with_float64(device)
    # to name the default device would compile anew what was compiled without
    place = nullcontext() if capable is device else jax.default_device(capable)
    with jax.enable_x64(True), place:
        yield


def product(inputs: Array | np.ndarray, weights: Array | np.ndarray, precision: str) -> Array:
    """`inputs @ weights.T` with rounded operands.

    Args:
      inputs: (N, D); classes may come first, then these are the weights and those the inputs.
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
    inputs = jnp.asarray(inputs).astype(weights.dtype)
    if precision == "highest":
        return jnp.matmul(inputs, weights.T, precision=lax.Precision.HIGHEST)
    return _rounded(inputs, weights, precision)


def _round(values: Array, precision: str) -> Array:
    if precision == "bf16":
        return values.astype(jnp.bfloat16)
    return lax.reduce_precision(values, exponent_bits=8, mantissa_bits=10)


def _sum(equation: str, left: Array, right: Array, precision: str, dtype: jnp.dtype) -> Array:
    left, right = _round(left, precision), _round(right, precision)
    # two bfloat16 have an exact product in float32: nothing to be stated but that it is meant so
    stated = lax.Precision.DEFAULT if precision == "bf16" else lax.Precision.HIGHEST

    def summed(left: Array, right: Array, *, stated: Any = stated) -> Array:
        return jnp.einsum(equation, left, right, precision=stated, preferred_element_type=dtype)

    if precision == "bf16" or dtype != jnp.float32:
        return summed(left, right)
    on_tensor_cores = partial(summed, stated=lax.DotAlgorithmPreset.TF32_TF32_F32)
    return lax.platform_dependent(left, right, cuda=on_tensor_cores, default=summed)


def einsum(equation: str, left: Array, right: Array, precision: str) -> Array:
    """A product of two arrays of one dtype with rounded operands and sums in that dtype.

    Args:
      equation: as `jnp.einsum` takes it.
      precision: one of `PRECISIONS`; only operands in float32 are rounded.

    >>> third = jnp.full((1, 1), 1 / 3, jnp.float32)
    >>> einsum("kd,nd->kn", third, jnp.ones((1, 1), jnp.float32), "tf32").item()
    0.333251953125
    """
    if precision == "highest" or left.dtype != jnp.float32:
        return jnp.einsum(equation, left, right, precision=lax.Precision.HIGHEST)
    return _sum(equation, left, right, precision, left.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _rounded(inputs: Array, weights: Array, precision: str) -> Array:
    return _sum("nd,kd->nk", inputs, weights, precision, weights.dtype)


def _forward(inputs: Array, weights: Array, precision: str) -> tuple[Array, tuple[Array, Array]]:
    return _rounded(inputs, weights, precision), (inputs, weights)


def _backward(precision: str, saved: tuple[Array, Array], slope: Array) -> tuple[Array, Array]:
    inputs, weights = saved
    to_inputs = _sum("nk,kd->nd", slope, weights, precision, inputs.dtype)
    return to_inputs, _sum("nk,nd->kd", slope, inputs, precision, weights.dtype)


_rounded.defvjp(_forward, _backward)
