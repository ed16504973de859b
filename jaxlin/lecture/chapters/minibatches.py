"""Minibatch gradient descent against full-batch gradient descent.

Answers the lecture's "Mini-batch gradient descent" (L351-L361) and the reason it gives (L363).
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlin import train
from jaxlin.core import Batch, LinearParams
from jaxlin.lecture import figures as draw
from jaxlin.lecture.measuring import largest_eigenvalue
from jaxlin.lecture.nouns import IN_SHAPE, Chapter, Claim, Lesson, Picture, judge
from jaxlin.losses import softmax_cross_entropy
from jaxlin.objectives import compose
from jaxlin.precision import jit
from jaxlin.scores import linear

BATCH, EXAMPLES, PASSES = 256, 10_000, 5


def chapter(lesson: Lesson) -> Chapter:
    rows = min(EXAMPLES, len(lesson.train.labels))
    batch = min(BATCH, rows // 8)
    rows -= rows % batch  # whole batches only: a short one would be a noisier step
    pixels, labels = lesson.centered(rows)
    size = np.sqrt(np.mean(pixels**2))
    data = Batch(jnp.array(pixels / size, jnp.float32), jnp.array(labels))
    features = data.inputs.shape[1]
    classes = len(lesson.train.class_names)
    objective = functools.partial(compose(linear, softmax_cross_entropy), strength=1e-4)
    zeros = LinearParams(jnp.zeros((classes, features)), jnp.zeros(classes))
    step_size = 4.0 / largest_eigenvalue(data.inputs)
    descent = train.trainer(objective, train.optimizer("sgd", step_size))
    value = jit(objective)
    histories, ends = {}, {}
    for name, take in {"full batch": rows, f"minibatches of {batch}": batch}.items():
        seen, found, params = [0.0], [float(value(zeros, data))], zeros
        state = descent.init(params)
        every = train.chunks(
            descent,
            state,
            data,
            key=jax.random.key(0),
            steps=PASSES * rows // take,
            batch_size=take,
            chunk_steps=max(1, rows // take // 4),
        )
        for state, _ in every:
            seen.append(float(state.step) * take / rows)
            found.append(float(value(state.params, data)))
        histories[name] = (np.array(seen), np.array(found))
        ends[name] = found[-1]
    cosine, spread = _agreement(objective, zeros, data, batch)
    updates = rows // batch
    full_end, mini_end = ends.values()
    return Chapter(
        "minibatches",
        "Minibatch gradient descent",
        (
            "Computing the loss over the whole training set for a single update is wasteful: the "
            "gradient of a batch already points nearly the same way.",
            Picture(
                "minibatches",
                draw.curves(
                    histories, x="passes over the training pictures", y="loss on all of them"
                ),
                f"The same step size, the same {rows:,} pictures, the same number of passes: one "
                f"update a pass against {updates}.",
            ),
            Claim(
                *("L353", "A typical batch", "256 of 1.2 million"),
                f"{batch} of {rows:,}: {updates} updates a pass instead of 1",
                judge(updates > 1, IN_SHAPE),
            ),
            Claim(
                *(
                    "L363",
                    "A batch's gradient approximates the full gradient",
                    "good approximation",
                ),
                f"cosine {cosine:.3f} on average over 50 batches, "
                f"error {100 * spread:.0f} % of its length",
                judge(cosine > 0.7),
            ),
            Claim(
                *("L363", "Much faster convergence from more frequent updates", "much faster"),
                f"loss {mini_end:.3f} against {full_end:.3f} after {PASSES} passes",
                judge(mini_end < full_end),
            ),
        ),
    )


def _agreement(
    objective: Callable[..., Any], params: LinearParams, data: Batch, size: int
) -> tuple[float, float]:
    """Mean cosine and mean relative error of a batch's gradient, against the full one."""
    full = jit(jax.grad(objective))(params, data).weights.ravel()

    def one(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        rows = jax.random.choice(key, len(data.labels), (size,), replace=False)
        batch = Batch(data.inputs[rows], data.labels[rows])
        g = jax.grad(objective)(params, batch).weights.ravel()
        length = jnp.linalg.norm(full)
        return g @ full / jnp.linalg.norm(g) / length, jnp.linalg.norm(g - full) / length

    cosines, errors = jax.lax.map(one, jax.random.split(jax.random.key(1), 50))
    return float(jnp.mean(cosines)), float(jnp.mean(errors))
