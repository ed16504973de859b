"""What a numerical gradient costs, against the analytic one.

Answers the lecture's "A problem of efficiency" (L317) and the comparison that opens "Computing the
gradient analytically with Calculus" (L321).
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxlin.core import Batch
from jaxlin.gradients.finite_differences import gradient
from jaxlin.gradients.linear import linear_objective
from jaxlin.lecture.measuring import in_float64, seconds, svm_loss
from jaxlin.lecture.nouns import IN_SHAPE, REPRODUCED, Chapter, Claim, Lesson, Table, judge
from jaxlin.losses import weston_watkins_hinge
from jaxlin.precision import jit
from jaxlin.scores import append_one

FEW = 8


@in_float64
def chapter(lesson: Lesson) -> Chapter:
    pixels, labels = lesson.centered(10_000)
    classes = len(lesson.train.class_names)
    W = jnp.array(np.random.default_rng(0).random((classes, pixels.shape[1] + 1)) * 0.001)
    few = Batch(append_one(pixels[:FEW]), jnp.array(labels[:FEW]))
    forward = gradient(linear_objective(weston_watkins_hinge, few), W, method="forward", step=1e-5)
    many = Batch(append_one(jnp.array(pixels, jnp.float32)), jnp.array(labels))
    share = len(lesson.train.labels) / len(many.labels)
    W32 = W.astype("float32")
    one_loss = share * seconds(jit(svm_loss), W32, many)
    one_gradient = share * seconds(jit(jax.value_and_grad(svm_loss)), W32, many)
    numeric = one_loss * forward.evaluations
    exact = W.size == 30_730
    fits = REPRODUCED if exact else IN_SHAPE
    return Chapter(
        "cost_of_numerical",
        "What it costs",
        (
            "A numerical gradient needs the whole loss once more for every parameter; the analytic "
            "one costs about as much as a single loss, whatever the number of parameters.",
            Table(
                ("gradient", "losses evaluated", "on the whole training set"),
                (
                    ("forward differences", f"{W.size + 1:,}", f"{_nice(numeric)} (extrapolated)"),
                    ("centered differences", f"{2 * W.size:,}", f"{_nice(2 * one_loss * W.size)}"),
                    ("analytic (`jax.grad`)", "—", _nice(one_gradient)),
                ),
                f"One loss over {len(lesson.train.labels):,} pictures takes {_nice(one_loss)}.",
            ),
            Claim(
                *("L317", "Parameters", "30730", f"{W.size}", judge(W.size > 0, fits)),
            ),
            Claim(
                *("L317", "Evaluations for one update, forward", "30,731"),
                f"{forward.evaluations:,}, counted",
                judge(forward.evaluations == W.size + 1, fits),
                f"Centered differences need {2 * W.size:,}.",
            ),
            Claim(
                *("L321", "The analytic gradient is very fast", "very fast to compute"),
                f"{_nice(one_gradient)} against {_nice(numeric)}: "
                f"{numeric / one_gradient:,.0f} times",
                judge(numeric > 100 * one_gradient),
                f"Value and gradient together cost {one_gradient / one_loss:.1f} losses.",
            ),
        ),
    )


def _nice(seconds: float) -> str:
    if seconds >= 90:
        return f"{seconds / 60:.0f} min"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"
