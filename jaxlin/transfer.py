"""NumPy arrays on their way to the device: on a CPU, into memory that JAX takes over as it is.

JAX's own copy of a large array is made by one thread in small pages: 256 MB take it 0.25 s, several
passes over them, and a thread for each core, into memory that may have large pages, 0.02 s.
"""

__all__ = ["aligned", "device_of", "to_device"]

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from operator import attrgetter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import DTypeLike

ALIGNMENT = 64
"""Of buffers, in bytes, so that JAX may use them without a copy."""
LARGE = 8 << 20
"""Bytes from which on threads are worth starting."""
MOST_THREADS = 8
"""By then memory has no more bandwidth."""


def aligned(shape: Sequence[int], dtype: DTypeLike) -> np.ndarray:
    """Memory for an array, not yet filled, aligned so that JAX can take it over.

    >>> aligned((2, 3), np.float32).ctypes.data % ALIGNMENT
    0
    """
    dtype = np.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    raw = np.empty(size + ALIGNMENT, np.uint8)
    first = -raw.ctypes.data % ALIGNMENT
    return raw[first : first + size].view(dtype).reshape(shape)


def device_of(array: Any = None) -> jax.Device:
    """The device that holds `array`, or its first shard; for all else the one JAX computes on.

    >>> device_of(np.ones(3)) == device_of(jnp.ones(3))
    True
    """
    if isinstance(array, jax.Array) and not isinstance(array, jax.core.Tracer):
        return min(array.sharding.addressable_devices, key=attrgetter("id"))
    default = jax.config.jax_default_device
    if default is None or isinstance(default, str):
        return jax.local_devices(backend=default)[0]
    return default


def to_device(array: np.ndarray) -> jax.Array:
    """A copy of an array (N, ...) on the default device; later changes to `array` do not show.

    >>> to_device(np.arange(3, dtype=np.uint8))
    Array([0, 1, 2], dtype=uint8)
    """
    if device_of().platform != "cpu" or array.nbytes < LARGE:
        return jnp.array(array)
    own, threads = aligned(array.shape, array.dtype), min(os.cpu_count() or 1, MOST_THREADS)
    edges = np.linspace(0, len(array), threads + 1).astype(int)
    parts = [slice(*ends) for ends in pairwise(edges)]
    with ThreadPoolExecutor(threads, thread_name_prefix="jaxlin-place") as pool:
        list(
            pool.map(lambda part: np.copyto(own[part], array[part]), parts)
        )  # raises what one does
    return jax.device_put(own)
