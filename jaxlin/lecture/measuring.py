"""What several chapters measure with."""

__all__ = [
    "in_float64",
    "largest_eigenvalue",
    "relative_error",
    "seconds",
    "softmax_loss",
    "svm_loss",
]

import time
from collections.abc import Callable
from functools import wraps
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxlin.core import Batch, RowSource
from jaxlin.lecture.nouns import Chapter, Lesson
from jaxlin.losses import softmax_cross_entropy, weston_watkins_hinge
from jaxlin.precision import jit

REPEATS = 5
"""Of what is timed."""


def in_float64(chapter: Callable[[Lesson], Chapter]) -> Callable[[Lesson], Chapter]:
    """A chapter that is computed in float64."""

    @wraps(chapter)
    def computed(lesson: Lesson) -> Chapter:
        with jax.enable_x64(True):
            return chapter(lesson)

    return computed


def softmax_loss(W: jax.Array, data: Batch) -> jax.Array:
    """The mean cross-entropy of `data`, whose last feature is the one of the bias trick."""
    return jnp.mean(softmax_cross_entropy(jnp.asarray(data.inputs) @ W.T, jnp.asarray(data.labels)))


def svm_loss(W: jax.Array, data: Batch) -> jax.Array:
    """The mean multiclass hinge of `data`, whose last feature is the one of the bias trick."""
    return jnp.mean(weston_watkins_hinge(jnp.asarray(data.inputs) @ W.T, jnp.asarray(data.labels)))


def largest_eigenvalue(inputs: ArrayLike | RowSource) -> float:
    """Of X^T X / N, by power iteration; half of it bounds the curvature of the softmax loss.

    >>> round(largest_eigenvalue(np.array([[2.0, 0.0], [0.0, 1.0]])), 3)
    2.0
    """
    X = jnp.asarray(inputs, jnp.float32)

    @jit
    def push(vector: jax.Array) -> tuple[jax.Array, jax.Array]:
        vector = X.T @ (X @ vector) / len(X)
        length = jnp.linalg.norm(vector)
        return vector / length, length

    vector, length = push(jnp.ones(X.shape[1], jnp.float32))
    for _ in range(30):
        vector, length = push(vector)
    return float(length)


def relative_error(found: ArrayLike, exact: ArrayLike) -> float:
    """The largest difference of two arrays, relative to the largest entry of the second.

    >>> relative_error([1.0, 3.0], [1.0, 4.0])
    0.25
    """
    found, exact = np.asarray(found), np.asarray(exact)
    return float(np.abs(found - exact).max() / np.abs(exact).max())


def seconds(function: Callable[..., Any], *arguments: Any) -> float:
    """The least time of a call, of several after the first."""
    arguments = jax.tree.map(jnp.asarray, arguments)
    jax.block_until_ready(function(*arguments))
    times = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - begun)
    return min(times)
