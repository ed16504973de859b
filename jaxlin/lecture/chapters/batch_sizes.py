"""Batch sizes: one example at a time, a hundred together, powers of two or not.

Answers the lecture's remarks on stochastic gradient descent and on the batch size (L365).
"""

import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxlin.core import Batch
from jaxlin.lecture import figures as draw
from jaxlin.lecture.measuring import softmax_loss
from jaxlin.lecture.nouns import (
    DIFFERS,
    IN_SHAPE,
    REPRODUCED,
    Chapter,
    Claim,
    Lesson,
    Picture,
    Table,
    judge,
)
from jaxlin.precision import jit
from jaxlin.scores import append_one

SIZES = (1, 16, 32, 64, 100, 128, 256)
ROUNDS = 20
NEIGHBORS = ((31, 32, 33), (63, 64, 65), (127, 128, 129), (255, 256, 257))


def chapter(lesson: Lesson) -> Chapter:
    pixels, labels = lesson.centered(512)
    size = np.sqrt(np.mean(np.sum(pixels**2, axis=1)))
    data = Batch(append_one(jnp.array(pixels / size, jnp.float32)), jnp.array(labels))
    W = jnp.zeros((len(lesson.train.class_names), data.inputs.shape[1]), jnp.float32)
    seconds = _seconds(W, data, sorted({*SIZES, *(n for row in NEIGHBORS for n in row)}))
    together, apart = seconds[100], 100 * seconds[1]
    hundred = Batch(data.inputs[:100], data.labels[:100])
    gradient = jit(jax.grad(softmax_loss))
    whole = gradient(W, hundred)
    singles = [
        gradient(W, Batch(hundred.inputs[i : i + 1], hundred.labels[i : i + 1])) for i in range(100)
    ]
    average = jnp.mean(jnp.stack(singles), axis=0)
    gap = float(jnp.abs(average - whole).max() / jnp.abs(whole).max())
    gains = [(seconds[a] / a + seconds[c] / c) / 2 / (seconds[b] / b) for a, b, c in NEIGHBORS]
    each = {n: 1e6 * seconds[n] / n for n in sorted(seconds)}
    line = {"one gradient": (np.array(SIZES), np.array([each[n] for n in SIZES]))}
    rows = [
        (*(f"{n}: {each[n]:.3g} µs" for n in group), f"{gain:.2f}")
        for group, gain in zip(NEIGHBORS, gains, strict=True)
    ]
    powers = float(np.median(gains))
    return Chapter(
        "batch_sizes",
        "Batch sizes",
        (
            "A batch of one is stochastic gradient descent (SGD, or on-line); the whole set is "
            "batch gradient descent (BGD); in between are minibatches (MGD), though people say SGD "
            "for those too. Larger batches use the machine better.",
            Picture(
                "batch_sizes",
                draw.curves(
                    line, x="batch size", y="time for each example (µs)", log="xy", marks=True
                ),
                "Time of one gradient, divided by the number of examples in it.",
            ),
            Claim(
                *("L365", "100 examples at once are faster than one example 100 times"),
                "much more efficient",
                f"{1e6 * together:.0f} µs against {1e6 * apart:.0f} µs: "
                f"{apart / together:.1f} times",
                judge(together < apart),
            ),
            Claim(
                *("L365", "… and the result is the same mean", "—"),
                f"largest difference {gap:.0e} of the largest entry",
                judge(gap < 1e-4),
                "In float32.",
            ),
            Claim(
                *("L365", "Sizes such as 32, 64 or 128", "e.g. 32, 64 or 128"),
                ", ".join(f"{n}: {each[n]:.2g} µs" for n in (32, 64, 128)) + " an example",
                judge(each[128] < each[1], REPRODUCED),
                "From there on larger batches bring little more.",
            ),
            Claim(
                *("L365", "Powers of two work faster", "many implementations do"),
                f"{powers:.2f} times the speed of their neighbors (median of four)",
                REPRODUCED if powers > 1.1 else (IN_SHAPE if powers > 1.02 else DIFFERS),
                "" if powers > 1.1 else "Hardly, on this machine: the matrix library pads.",
            ),
            Table(("one less", "power of two", "one more", "speed of the power"), rows),
        ),
    )


def _seconds(W: jax.Array, data: Batch, sizes: Sequence[int]) -> dict[int, float]:
    """Time of one gradient for each size: the least of many, sizes taken in turn."""
    gradient = jit(jax.grad(softmax_loss))
    batches = {n: Batch(data.inputs[:n], data.labels[:n]) for n in sizes}
    for batch in batches.values():
        jax.block_until_ready(gradient(W, batch))
    best = dict.fromkeys(sizes, np.inf)
    for _ in range(ROUNDS):
        for n, batch in batches.items():
            start = time.perf_counter()
            for _ in range(5):
                found = gradient(W, batch)
            jax.block_until_ready(found)
            best[n] = min(best[n], (time.perf_counter() - start) / 5)
    return best
