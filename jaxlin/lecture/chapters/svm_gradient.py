"""The gradient of the SVM loss, derived by hand, and the gradient check.

Answers the lecture's "Computing the gradient analytically with Calculus" (L319-L333).
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxlin.core import Batch
from jaxlin.gradients import closed_form
from jaxlin.gradients.finite_differences import gradient
from jaxlin.lecture.measuring import in_float64, relative_error, svm_loss
from jaxlin.lecture.nouns import Chapter, Claim, Formula, Lesson, Table, judge
from jaxlin.losses import weston_watkins_hinge
from jaxlin.precision import jit
from jaxlin.scores import append_one

EXAMPLES, FEATURES = 60, 40


def svm_gradient_of_one(W: np.ndarray, x: np.ndarray, y: int, delta: float = 1.0) -> np.ndarray:
    """The lecture's two formulas for one example: count the classes that miss the margin."""
    scores = W @ x
    misses = scores - scores[y] + delta > 0
    misses[y] = False
    gradient = np.outer(misses, x)
    gradient[y] = -misses.sum() * x
    return gradient


@in_float64
def chapter(lesson: Lesson) -> Chapter:
    pixels, labels = lesson.centered(EXAMPLES)
    kept = np.argsort(pixels.std(axis=0))[-FEATURES:]
    inputs = np.asarray(append_one(pixels[:, kept] / np.abs(pixels).max()))
    classes = len(lesson.train.class_names)
    W = np.random.default_rng(0).normal(0, 1, (classes, FEATURES + 1))
    data = Batch(jnp.array(inputs), jnp.array(labels))

    def loss(w: jax.Array) -> jax.Array:
        return svm_loss(w, data)

    by_hand = np.mean(
        [svm_gradient_of_one(W, x, y) for x, y in zip(inputs, labels, strict=True)], axis=0
    )
    by_jax = np.asarray(jit(jax.grad(loss))(jnp.array(W)))
    library = closed_form.weston_watkins(W, None, inputs, labels).weights
    numeric = gradient(loss, jnp.array(W), method="central", step=1e-6).value
    x, y = jnp.array([2.0]), jnp.array(0)
    at_kink = jax.grad(lambda w: weston_watkins_hinge(w @ x, y))(jnp.array([[0.5], [0.0]]))
    wrong = by_jax.copy()
    entry = np.unravel_index(np.abs(by_jax).argmax(), by_jax.shape)
    wrong[entry] *= -1
    caught = relative_error(numeric, wrong)
    margins = inputs @ W.T
    margins = margins - margins[np.arange(EXAMPLES), labels][:, None] + 1
    margins[np.arange(EXAMPLES), labels] = np.nan
    nearest = np.nanmin(np.abs(margins))
    pairs = (
        ("by hand (NumPy loop)", "`jax.grad`", by_hand, by_jax),
        ("by hand", "the library's closed form", by_hand, library),
        ("by hand", "centered differences, h = 1e-6", by_hand, numeric),
        ("`jax.grad`", "centered differences", by_jax, numeric),
    )
    errors = [relative_error(a, b) for *_, a, b in pairs]
    return Chapter(
        "svm_gradient",
        "The gradient by calculus, and the gradient check",
        (
            "For the true class, count the classes that miss the margin and subtract that many "
            "times $x$; each class that misses it receives $x$ once.",
            Formula(
                r"\nabla_{w_{y_i}} L_i = -\left(\sum_{j \ne y_i} "
                r"\mathbf{1}(w_j^\top x_i - w_{y_i}^\top x_i + \Delta > 0)\right) x_i"
            ),
            Formula(
                r"\nabla_{w_j} L_i = \mathbf{1}(w_j^\top x_i - w_{y_i}^\top x_i + \Delta > 0) x_i"
            ),
            Table(
                ("one gradient", "against another", "largest difference / largest entry"),
                [(a, b, f"{e:.0e}") for (a, b, *_), e in zip(pairs, errors, strict=True)],
                f"{EXAMPLES} pictures, {FEATURES} pixels and the bias, {W.size} parameters; the "
                f"nearest margin is {nearest:.0e} from its kink.",
            ),
            Claim(
                *("L327-L331", "The derived formulas", "equal to the gradient"),
                f"`jax.grad` to {errors[0]:.0e}",
                judge(errors[0] < 1e-13 and errors[1] < 1e-13),
            ),
            Claim(
                *("L321", "The gradient check: analytic against numerical", "agree"),
                f"{max(errors[2:]):.0e} over all {W.size} entries",
                judge(max(errors[2:]) < 1e-7),
            ),
            Claim(
                *("L321", "It finds errors: one entry with its sign flipped", "error prone"),
                f"difference {caught:.2f}",
                judge(caught > 1),
            ),
            Claim(
                *("L329", "The indicator is strict: a margin of exactly 0 counts as satisfied"),
                "1(· > 0)",
                f"gradient {float(jnp.abs(at_kink).max()):g} on the kink",
                judge(not np.any(at_kink)),
                "`jnp.maximum(0, ·)` would give one half.",
            ),
        ),
    )
