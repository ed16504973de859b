"""Why minibatches work: the extreme case of exact duplicates.

Answers the lecture's duplicate argument (L363): 1.2 million pictures are 1,200 copies of 1,000.
"""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np

from jaxlin.core import Batch
from jaxlin.lecture.measuring import in_float64, softmax_loss
from jaxlin.lecture.nouns import IN_SHAPE, Chapter, Claim, Formula, Lesson, judge
from jaxlin.losses import softmax_cross_entropy
from jaxlin.precision import jit
from jaxlin.scores import append_one

UNIQUE, COPIES = 20, 1200


@in_float64
def chapter(lesson: Lesson) -> Chapter:
    classes = len(lesson.train.class_names)
    labels = lesson.train.labels
    first = [
        row for k in range(classes) for row in np.flatnonzero(labels == k)[: UNIQUE // classes]
    ]
    pixels = lesson.centered(int(max(first)) + 1)[0][first]
    features = min(pixels.shape[1], 512)
    inputs = append_one(jnp.array(pixels[:, :features] / 255))
    few = Batch(inputs, jnp.array(labels[first]))
    many = Batch(jnp.tile(inputs, (COPIES, 1)), jnp.tile(few.labels, COPIES))
    W = jnp.array(np.random.default_rng(0).normal(0, 0.1, (classes, features + 1)))
    losses_few, losses_many = (np.asarray(_losses(W, d)) for d in (few, many))
    copies = losses_many.reshape(COPIES, len(first))
    identical = bool((copies == copies[0]).all())
    exact = [_exact_mean(v) for v in (copies[0], losses_many)]
    gradient_few, gradient_many = (jit(jax.grad(softmax_loss))(W, d) for d in (few, many))
    gap = float(jnp.abs(gradient_few - gradient_many).max() / jnp.abs(gradient_few).max())
    rounding = abs(losses_many.mean() - losses_few.mean())
    return Chapter(
        "duplicates",
        "Why minibatches work: duplicates",
        (
            "Training pictures are correlated. In the extreme case every picture is there 1,200 "
            "times; then the mean over all of them is the mean over one copy of each.",
            Formula(
                r"\frac{1}{1200 n} \sum_{c=1}^{1200} \sum_{i=1}^n L_i = "
                r"\frac{1}{n} \sum_{i=1}^n L_i"
            ),
            Claim(
                *("L363", "1.2 million pictures, 1,200 copies of 1,000", "1,200,000 rows"),
                f"{COPIES:,} copies of {len(first)}: {len(losses_many):,} rows",
                judge(len(losses_many) == COPIES * len(first), IN_SHAPE),
                "Fewer different pictures, the same number of copies.",
            ),
            Claim(
                *("L363", "All copies have the same loss and gradient", "the same"),
                "losses bit for bit equal" if identical else "losses differ",
                judge(identical),
            ),
            Claim(
                *("L363", "The mean loss over all is the mean over the few", "the exact same loss"),
                "equal as fractions" if exact[0] == exact[1] else "different as fractions",
                judge(exact[0] == exact[1] and rounding < 1e-12),
                f"Summed in float64 the two means differ by {rounding:.0e}.",
            ),
            Claim(
                *("L363", "So is the gradient", "the same"),
                f"largest difference {gap:.0e} of the largest entry",
                judge(gap < 1e-12),
                "Rounding only: the sums have another order.",
            ),
        ),
    )


@jit
def _losses(W: jax.Array, data: Batch) -> jax.Array:
    """Row by row, so that a row's rounding cannot depend on how many others there are."""

    def of_one(row: tuple[jax.Array, jax.Array]) -> jax.Array:
        x, y = row
        return softmax_cross_entropy(W @ x, y)

    return jax.lax.map(of_one, (data.inputs, data.labels))


def _exact_mean(values: np.ndarray) -> Fraction:
    return sum(map(Fraction, values.tolist()), Fraction()) / len(values)
