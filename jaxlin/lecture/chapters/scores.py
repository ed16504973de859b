"""From pixels to class scores: the four-pixel cat, and what one matrix product does.

Answers the lecture's "Parameterized mapping from images to label scores" (L81-L92), its figure of
an image mapped to scores, and the scores that "Loss function" quotes (L145).
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxlin.core import LinearParams
from jaxlin.lecture import figures as draw
from jaxlin.lecture.measuring import seconds
from jaxlin.lecture.nouns import ERRATUM, Chapter, Claim, Formula, Lesson, Picture, judge
from jaxlin.losses import softmax_cross_entropy, weston_watkins_hinge
from jaxlin.precision import jit
from jaxlin.scores import linear

NAMES = ("cat", "dog", "ship")
PIXELS = np.array([56.0, 231.0, 24.0, 2.0])
WEIGHTS = np.array([[0.2, -0.5, 0.1, 2.0], [1.5, 1.3, 2.1, 0.0], [0.0, 0.25, 0.2, -0.3]])
BIAS = np.array([1.1, 3.2, -1.2])
PRINTED = (-96.8, 437.9, 61.95)


def chapter(lesson: Lesson) -> Chapter:
    with jax.enable_x64(True):
        found = linear(LinearParams(jnp.array(WEIGHTS), jnp.array(BIAS)), jnp.array(PIXELS))
        cat = jnp.array(0)
        hinge = float(weston_watkins_hinge(found, cat))
        entropy = float(softmax_cross_entropy(found, cat))
        hinge_as_printed = float(weston_watkins_hinge(jnp.array(PRINTED), cat))
        origin = linear(LinearParams(jnp.array(WEIGHTS), jnp.zeros(3)), jnp.zeros(4))
    scores, at_origin = np.asarray(found), np.asarray(origin)
    figure = draw.image_to_scores(PIXELS, WEIGHTS, BIAS, scores, NAMES)
    return Chapter(
        "scores",
        "The score function",
        (
            "A linear classifier gives every class a score: a weighted sum of all pixels, plus a "
            "bias. Row $k$ of $W$ belongs to class $k$, so one product evaluates all classes.",
            Formula(r"f(x_i, W, b) = W x_i + b"),
            Picture(
                "image_to_scores",
                figure,
                "Four pixels, three classes, drawn from the numbers themselves. These weights "
                "are sure that the cat is a dog.",
            ),
            Claim(
                *("L145", "The scores of cat and dog", "−96.8 and 437.9"),
                f"{scores[0]:.1f} and {scores[1]:.1f}",
                judge(np.allclose(scores[:2], PRINTED[:2], rtol=0, atol=1e-9)),
            ),
            Claim(
                *("L145", "The score of ship", "61.95", f"{scores[2]:.2f}"),
                judge(abs(scores[2] - (PRINTED[2] + BIAS[2])) < 1e-9, ERRATUM),
                "0.25 · 231 + 0.2 · 24 − 0.3 · 2 = 61.95 is $w x$ alone; the bias −1.2 is missing.",
            ),
            Claim(
                *("figure", "The picture of the cat is taken for", "dog"),
                NAMES[int(scores.argmax())],
                judge(NAMES[int(scores.argmax())] == "dog"),
            ),
            Claim(
                *("L325", r"The multiclass hinge of these scores, $\Delta = 1$"),
                "by hand 694.25 (695.45)",
                f"{hinge:.2f} (with the printed ship score {hinge_as_printed:.2f})",
                judge(abs(hinge - 694.25) < 1e-9 and abs(hinge_as_printed - 695.45) < 1e-9),
                "max(0, 437.9 + 96.8 + 1) + max(0, 60.75 + 96.8 + 1), by hand.",
            ),
            Claim(
                *("L153", "Their cross-entropy loss", "by hand 534.7", f"{entropy:.1f}"),
                judge(abs(entropy - 534.7) < 1e-9),
                "437.9 + 96.8: the dog's probability is 1 to the last digit.",
            ),
            Claim(
                *("L112", "Without the bias, $x = 0$ scores 0 whatever the weights", "0"),
                f"{np.abs(at_origin).max():g}",
                judge(not np.any(at_origin)),
            ),
            *_on_real_pictures(lesson),
        ),
    )


def _on_real_pictures(lesson: Lesson) -> tuple[Claim, ...]:
    """The lecture's four notes (L86-L92) on these data: time and memory against neighbours."""
    train = lesson.train.inputs[:10_000].astype(np.float32)
    test = lesson.test.inputs[:100].astype(np.float32)
    classes, features = len(lesson.train.class_names), train.shape[1]
    rng = np.random.default_rng(0)
    params = LinearParams(
        jnp.array(rng.normal(size=(classes, features)), jnp.float32),
        jnp.zeros(classes, jnp.float32),
    )
    together = np.asarray(linear(params, test))
    one_by_one = np.stack([test @ np.asarray(row) for row in params.weights], axis=1)
    gap = np.abs(together - one_by_one).max() / np.abs(together).max()
    product = seconds(jit(linear), params, test) / len(test)
    neighbor = seconds(_nearest, train, test) / len(test) * len(lesson.train.inputs) / len(train)
    kept = (classes * features + classes) * 4
    return (
        Claim(
            *("L86", f"One product is {classes} classifiers at once", "equal"),
            f"largest difference {gap:.0e} of the largest score",
            judge(gap < 1e-5),
            "Row by row against one product, in float32: only the order of the sums differs.",
        ),
        Claim(
            *("L90", "After learning the training set can go; only $W$ and $b$ stay", "—"),
            f"{lesson.train.inputs.nbytes / 1e6:.2f} MB of pixels, {kept / 1e6:.3f} MB of weights",
            judge(kept < lesson.train.inputs.nbytes),
        ),
        Claim(
            *("L92", "One product is much faster than comparing with all training images"),
            "significantly faster",
            f"{1e6 * product:.1f} µs a picture against {1e6 * neighbor:.0f} µs: "
            f"{neighbor / product:.0f} times",
            judge(neighbor > product),
            "Nearest neighbor by squared distances, with the same library.",
        ),
    )


@jit
def _nearest(train: jax.Array, test: jax.Array) -> jax.Array:
    """The nearest training row of each test row: |a - b|^2 = |a|^2 - 2 a.b + |b|^2."""
    distances = jnp.sum(train**2, axis=1)[None] - 2 * test @ train.T
    return jnp.argmin(distances, axis=1)
