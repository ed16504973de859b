"""The multiclass SVM loss, its margin, and its relatives.

Answers the SVM loss of the lecture's "Analytically with calculus" (L325), with the values and
remarks of the course notes that it was taken from ("Linear Classification", "Multiclass SVM").
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxlin import losses
from jaxlin.lecture import figures as draw
from jaxlin.lecture.measuring import in_float64
from jaxlin.lecture.nouns import Chapter, Claim, Formula, Lesson, Picture, Table, judge

SCORES, LABEL, MARGIN = (13.0, -7.0, 11.0), 0, 10.0


@in_float64
def chapter(lesson: Lesson) -> Chapter:
    value = float(losses.weston_watkins_hinge(jnp.array(SCORES), jnp.array(LABEL), margin=MARGIN))
    rng = np.random.default_rng(0)
    scores = jnp.array(rng.normal(0, 3, (1000, 10)))
    labels = jnp.array(rng.integers(0, 10, 1000))
    by_loop = np.array(
        [
            sum(max(0.0, s - row[y] + 1) for j, s in enumerate(row) if j != y)
            for row, y in zip(np.asarray(scores), np.asarray(labels), strict=True)
        ]
    )
    loop = float(np.abs(losses.weston_watkins_hinge(scores, labels) - by_loop).max())
    stretch = max(
        float(
            jnp.abs(
                losses.weston_watkins_hinge(c * scores, labels, margin=c)
                - c * losses.weston_watkins_hinge(scores, labels)
            ).max()
        )
        for c in (0.01, 0.5, 7.0, 100.0)
    )
    lead = jnp.linspace(-4, 4, 401)
    others = jnp.array([0.0, -1.5])
    rows = jnp.stack([lead, *(jnp.full_like(lead, s) for s in others)], axis=1)
    zeros = jnp.zeros(len(lead), int)
    family: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
        "Weston–Watkins (the lecture)": losses.weston_watkins_hinge,
        "Crammer–Singer": losses.crammer_singer_hinge,
        "one vs. rest": losses.one_vs_rest_hinge,
        "softmax": losses.softmax_cross_entropy,
    }
    drawn = {n: (np.asarray(lead), np.asarray(f(rows, zeros))) for n, f in family.items()}
    example = jnp.array(SCORES)
    table = [(n, f"{float(f(example, jnp.array(LABEL))):.4g}") for n, f in family.items()]
    return Chapter(
        "svm_loss",
        "The multiclass SVM loss",
        (
            r"The true class should lead every other by at least $\Delta$; what is missing to "
            "that lead, summed over the other classes, is the loss.",
            Formula(r"L_i = \sum_{j \ne y_i} \max(0, w_j^\top x_i - w_{y_i}^\top x_i + \Delta)"),
            Picture(
                "svm_loss",
                draw.curves(drawn, x="score of the true class", y="loss"),
                "Four losses while the true class's score moves and the other two stay at 0 and "
                "−1.5. The hinges are piecewise linear, and all but one-vs.-rest are zero from a "
                "lead of 1 on; softmax is never satisfied.",
            ),
            Claim(
                *("course", r"Scores (13, −7, 11), true class 0, $\Delta = 10$", "8"),
                f"{value:g}",
                judge(value == 8),
                "max(0, −7 − 13 + 10) + max(0, 11 − 13 + 10) = 0 + 8.",
            ),
            Claim(
                *("L325", "The formula as a loop over the wrong classes", "the definition"),
                f"largest difference {loop:.0e} over 1,000 rows",
                judge(loop < 1e-12),
            ),
            Claim(
                *("course", r"$\Delta = 1$ is enough: another one only rescales $W$"),
                "$\\Delta$ and $\\lambda$ control the same tradeoff",
                rf"$L(cW; c\Delta) = c L(W; \Delta)$ to {stretch:.0e}",
                judge(stretch < 1e-11),
                r"So margin $\Delta$ with strength $\lambda$ is margin 1 with $\lambda \Delta$, "
                r"solved by $W / \Delta$.",
            ),
            Table(("loss of (13, −7, 11), true class 0, margin 1", "value"), table),
        ),
    )
