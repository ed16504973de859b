"""The bias trick: one matrix instead of a matrix and a vector.

Answers the lecture's "Bias trick" (L124-L137).
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxlin.core import LinearParams
from jaxlin.lecture import figures as draw
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
from jaxlin.scores import append_one, fold_bias, linear, unfold_bias

WEIGHTS = np.array([[0.2, -0.5, 0.1, 2.0], [1.5, 1.3, 2.1, 0.0], [0.0, 0.25, 0.2, -0.3]])
BIAS = np.array([1.1, 3.2, -1.2])
PIXELS = np.array([56.0, 231.0, 24.0, 2.0])


def chapter(lesson: Lesson) -> Chapter:
    classes, features = len(lesson.train.class_names), lesson.train.inputs.shape[1]
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        params = LinearParams(
            jnp.array(rng.normal(size=(classes, features))), jnp.array(rng.normal(size=classes))
        )
        pixels = jnp.array(lesson.test.inputs[:256], jnp.float64)
        separate = np.asarray(linear(params, pixels))
        matrix, longer = fold_bias(params), append_one(pixels)
        together = np.asarray(longer @ matrix.T)
        returned = unfold_bias(matrix)
        same = all(np.array_equal(a, b) for a, b in zip(returned, params, strict=True))
    error = np.abs(separate - together).max() / np.abs(separate).max()
    is_lecture = (features, classes) == (3072, 10)
    return Chapter(
        "bias_trick",
        "The bias trick",
        (
            "If every $x$ ends in a constant 1, the bias can be the last column of $W$, and there "
            "is a single matrix to learn.",
            Formula(
                r"W x + b = \matrix{W & b} \matrix{x \\ 1}",
            ),
            Picture(
                "bias_trick",
                draw.bias_trick(WEIGHTS, BIAS, PIXELS),
                "The four-pixel example again: adding $b$, or one more column for one more "
                "feature that is always 1.",
            ),
            Claim(
                *("L133", "The longer $x$ and $W$", "[3073 × 1] and [10 × 3073]"),
                f"[{longer.shape[1]} × 1] and [{' × '.join(map(str, matrix.shape))}]",
                REPRODUCED if is_lecture else IN_SHAPE,
            ),
            Claim(
                *("L124", "Both ways give the same scores", "equivalent"),
                f"largest difference {error:.0e} of the largest score, on 256 pictures",
                judge(error < 1e-13),
                "In float64: the bias enters the sum in another place, so the last digit may move.",
            ),
            Claim(
                *("L137", "A single matrix to learn, and the way back", "one instead of two"),
                f"{matrix.size:,} parameters; unfolding returns $W$ and $b$ exactly",
                judge(same),
            ),
        ),
    )
