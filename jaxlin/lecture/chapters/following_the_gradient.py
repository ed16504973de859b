"""Following the gradient: no other direction is steeper, and no random search is as good.

Answers the lecture's "Core Idea: Following the Gradient" (L208-L221), with the random search and
the random local search that the course notes put before it.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlin.core import Batch
from jaxlin.lecture import figures as draw
from jaxlin.lecture.measuring import softmax_loss
from jaxlin.lecture.nouns import Chapter, Claim, Lesson, Picture, Table, judge
from jaxlin.precision import jit
from jaxlin.scores import append_one

EXAMPLES, DIRECTIONS, TRIES = 1000, 2000, 1000
_Loss = Callable[[jax.Array], jax.Array]


def chapter(lesson: Lesson) -> Chapter:
    pixels, labels = lesson.centered(EXAMPLES)
    size = np.sqrt(np.mean(np.sum(pixels**2, axis=1)))
    data = Batch(append_one(jnp.array(pixels / size, jnp.float32)), jnp.array(labels))
    shape = (len(lesson.train.class_names), data.inputs.shape[1])
    loss = jit(functools.partial(softmax_loss, data=data))
    W = 0.1 * jax.random.normal(jax.random.key(0), shape)
    gradient = jit(jax.grad(loss))(W)
    steepest = float(jnp.linalg.norm(gradient))
    slopes = _slopes(gradient, jax.random.key(1))
    lengths = 10.0 ** -np.arange(1, 6)
    with jax.enable_x64(True):
        exact = Batch(jnp.array(data.inputs, jnp.float64), data.labels)
        point, down = jnp.array(W, jnp.float64), jnp.array(-gradient / steepest, jnp.float64)
        value = jit(softmax_loss)
        falls = [float(value(point + h * down, exact) - value(point, exact)) / h for h in lengths]
        limit = float(-jnp.sum(jit(jax.grad(softmax_loss))(point, exact) * down))
    histories = {
        "random search": _random_search(loss, W),
        "random local search": _local_search(loss, W),
        "following the gradient": _descend(loss, W),
    }
    ends = {name: float(found[-1]) for name, found in histories.items()}
    evaluations = np.arange(1, TRIES + 1)
    lines = {name: (evaluations, np.asarray(found)) for name, found in histories.items()}
    return Chapter(
        "following_the_gradient",
        "Following the gradient",
        (
            "Finding good weights by trying is like walking downhill blindfolded by jumping; the "
            "gradient feels the slope under one's feet.",
            Picture(
                "following_the_gradient",
                draw.curves(lines, x="tries (losses or gradients evaluated)", y="best loss so far"),
                f"Three ways to spend {TRIES:,} tries on {EXAMPLES:,} pictures.",
            ),
            Claim(
                *(
                    "L210",
                    "The gradient is the direction of steepest descent",
                    "the best direction",
                ),
                f"slope {-steepest:.3f}; the best of {DIRECTIONS:,} random directions "
                f"{slopes.min():.3f}",
                judge(slopes.min() > -steepest),
                f"A random direction in {W.size:,} dimensions is nearly at right angles to it.",
            ),
            Claim(
                *("L210", "… in the limit, as the step goes to zero", "in the limit"),
                ", ".join(f"{f:.5f}" for f in falls) + f" to {-limit:.5f}",
                judge(abs(falls[-1] + limit) < 1e-3 * limit),
                r"$(L(W + h u) - L(W)) / h$ for $h$ = 0.1 to 0.00001, $u = -g / \Vert g \Vert$.",
            ),
            Claim(
                *("L210", "There is no need to search randomly", "no need"),
                "; ".join(f"{name} {end:.3f}" for name, end in ends.items()),
                judge(ends["following the gradient"] < min(list(ends.values())[:2])),
            ),
            Table(
                ("method", f"loss after {TRIES:,} tries"),
                [(n, f"{e:.4f}") for n, e in ends.items()],
            ),
        ),
    )


def _slopes(gradient: jax.Array, key: jax.Array) -> np.ndarray:
    """The slope of the loss along random unit directions."""

    def slope(key: jax.Array) -> jax.Array:
        direction = jax.random.normal(key, gradient.shape)
        return jnp.sum(gradient * direction) / jnp.linalg.norm(direction)

    return np.asarray(jax.lax.map(slope, jax.random.split(key, DIRECTIONS)))


def _random_search(loss: _Loss, W: jax.Array) -> np.ndarray:
    def try_one(best: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        key_size, key = jax.random.split(key)
        size = 10 ** jax.random.uniform(key_size, minval=-2, maxval=1)
        best = jnp.minimum(best, loss(size * jax.random.normal(key, W.shape)))
        return best, best

    return _scan(try_one, loss(W))


def _local_search(loss: _Loss, W: jax.Array) -> np.ndarray:
    def try_one(state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        W, best = state
        moved = W + 0.1 * jax.random.normal(key, W.shape)
        value = loss(moved)
        state = jax.tree.map(
            lambda new, old: jnp.where(value < best, new, old), (moved, value), state
        )
        return state, state[1]

    return _scan(try_one, (W, loss(W)))


def _descend(loss: _Loss, W: jax.Array) -> np.ndarray:
    def step(W: jax.Array, _: Any) -> tuple[jax.Array, jax.Array]:
        value, gradient = jax.value_and_grad(loss)(W)
        return W - 2.0 * gradient, value

    return _scan(step, W)


def _scan(body: Callable[[Any, jax.Array], tuple[Any, jax.Array]], start: Any) -> np.ndarray:
    keys = jax.random.split(jax.random.key(2), TRIES)
    return np.minimum.accumulate(np.asarray(jit(lambda: jax.lax.scan(body, start, keys))()[1]))
