"""The loss function's landscape: a ray and two planes through weight space.

Answers the lecture's "Visualizing the loss function" (L189-L195) and its remark that the SVM is a
convex problem (L206).
"""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlin import regularizers
from jaxlin.core import Batch, LinearParams
from jaxlin.landscape.directions import random as random_direction
from jaxlin.landscape.slices import plane, ray
from jaxlin.lecture import loss_figures as draw
from jaxlin.lecture.measuring import in_float64
from jaxlin.lecture.nouns import (
    IN_SHAPE,
    REPRODUCED,
    Chapter,
    Claim,
    Formula,
    Lesson,
    Picture,
    judge,
)
from jaxlin.losses import weston_watkins_hinge
from jaxlin.objectives import compose
from jaxlin.precision import jit
from jaxlin.scores import append_one

EXAMPLES = 100


@in_float64
def chapter(lesson: Lesson) -> Chapter:
    pixels, labels = lesson.centered(EXAMPLES)
    hundred = Batch(append_one(pixels), jnp.asarray(labels))
    one = Batch(hundred.inputs[:1], hundred.labels[:1])
    shape = (len(lesson.train.class_names), hundred.inputs.shape[1])
    # A step of a = 1 changes the scores by about 1, the margin.
    size = 1 / float(jnp.linalg.norm(hundred.inputs, axis=1).mean())
    keys = jax.random.split(jax.random.key(7), 3)
    start, first, second = (
        _matrix(size * random_direction(key, jnp.zeros(shape)).tree) for key in keys
    )
    steps = np.linspace(-4, 4, 81)
    svm = compose(_scores, weston_watkins_hinge, regularizers.none)
    along = np.asarray(ray(lambda w: svm(w, one), start, first, steps))
    planes = [
        np.asarray(plane(lambda w, d=d: svm(w, d), start, first, second, steps, steps))
        for d in (one, hundred)
    ]
    bends, straight = _straightness(start, first, one, float(np.abs(steps).max()))
    singles = _single_planes(start, first, second, hundred, steps)
    averaged = np.abs(singles.mean(axis=0) - planes[1]).max() / planes[1].max()
    curvature = min(np.diff(planes[1], n=2, axis=axis).min() for axis in (0, 1))
    chord = _worst_chord(svm, hundred, shape, size)
    parameters = int(np.prod(shape))
    exact = parameters == 30_730
    return Chapter(
        "landscape",
        "The loss landscape",
        (
            f"A weight matrix is a point in a space of {parameters:,} dimensions. Cutting it along "
            "a random ray or a random plane leaves something that can be drawn.",
            Formula(r"L(W + a W_1), \quad L(W + a W_1 + b W_2)"),
            Picture(
                "landscape",
                draw.landscape_panels(steps, along, planes, bends),
                f"The SVM loss without regularization on {lesson.train.name}: one example along a "
                "ray (ticks: its bends, computed exactly), the same example on a plane, and a "
                "hundred examples on that plane. Blue is low, red is high.",
            ),
            Claim(
                *(
                    "L191",
                    "The weight matrix of a linear classifier",
                    "[10 × 3073], 30,730 numbers",
                ),
                f"[{' × '.join(map(str, shape))}], {parameters:,} numbers",
                REPRODUCED if exact else IN_SHAPE,
            ),
            Claim(
                *("L195", "One example's loss is piecewise linear", "piecewise linear"),
                f"{len(bends)} bends on the ray; between them straight to {straight:.0e}",
                judge(straight < 1e-12 and len(bends) > 1),
                f"At most {shape[0] - 1} bends: one for each wrong class.",
            ),
            Claim(
                *("L195", "The bowl of a hundred examples is the average of a hundred such bowls"),
                "the average",
                f"largest difference {averaged:.0e} of the largest loss, on 81 × 81 points",
                judge(averaged < 1e-13),
                "Each single bowl from the scores alone; the average from the objective itself.",
            ),
            Claim(
                *("L206", "The SVM loss is a convex problem", "convex"),
                f"smallest second difference {curvature:.0e}; 500 random chords lie above the loss "
                f"by at least {chord:.1e}",
                judge(curvature > -1e-12 and chord > -1e-12),
            ),
        ),
    )


def _matrix(weights: jax.Array) -> LinearParams:
    """The bias trick: one matrix holds everything, and the bias stays 0."""
    return LinearParams(weights, jnp.zeros(len(weights)))


def _scores(params: LinearParams, inputs: Any) -> jax.Array:
    return inputs @ params.weights.T


def _straightness(
    start: LinearParams, first: LinearParams, one: Batch, reach: float
) -> tuple[np.ndarray, float]:
    """Where one example's loss bends on the ray, and how far from straight it is in between."""
    label = int(one.labels[0])
    at, along = (np.asarray(_scores(p, one.inputs))[0] for p in (start, first))
    others = np.arange(len(at)) != label
    margins, slopes = (at - at[label] + 1)[others], (along - along[label])[others]
    bends = np.sort(-margins / slopes)
    bends = bends[np.abs(bends) < reach]
    edges = np.concatenate([[-reach], bends, [reach]])
    off = 0.0
    for left, right in itertools.pairwise(edges):
        steps = jnp.linspace(left, right, 5)
        values = weston_watkins_hinge(at[None] + steps[:, None] * along[None], jnp.full(5, label))
        off = max(off, float(np.abs(np.diff(values, n=2)).max() / (1 + values.max())))
    return bends, off


def _single_planes(
    start: LinearParams, first: LinearParams, second: LinearParams, data: Batch, steps: np.ndarray
) -> np.ndarray:
    """Each example's own loss on the plane, (N, T, T), from three matrices of scores."""
    at, one, two = (_scores(p, data.inputs) for p in (start, first, second))
    a, b = jnp.meshgrid(jnp.asarray(steps), jnp.asarray(steps), indexing="ij")

    def single(s: jax.Array, s1: jax.Array, s2: jax.Array, label: jax.Array) -> jax.Array:
        scores = s[None, None] + jnp.multiply.outer(a, s1) + jnp.multiply.outer(b, s2)
        return weston_watkins_hinge(scores, jnp.full(a.shape, label))

    return np.asarray(jax.lax.map(lambda rows: single(*rows), (at, one, two, data.labels)))


def _worst_chord(
    svm: Callable[[LinearParams, Batch], jax.Array],
    data: Batch,
    shape: tuple[int, ...],
    size: float,
) -> float:
    """min over random pairs of t L(V) + (1 - t) L(W) - L(t V + (1 - t) W)."""

    @jit
    def chord(key: jax.Array) -> jax.Array:
        one, two, share = jax.random.split(key, 3)
        v, w = (_matrix(5 * size * jax.random.normal(k, shape)) for k in (one, two))
        t = jax.random.uniform(share)
        between = jax.tree.map(lambda p, q: t * p + (1 - t) * q, v, w)
        return t * svm(v, data) + (1 - t) * svm(w, data) - svm(between, data)

    return float(jax.lax.map(chord, jax.random.split(jax.random.key(1), 500)).min())
