"""SVM against softmax on the same scores.

Answers the comparison in the course notes behind the lecture ("SVM vs. Softmax"), and the lecture's
remark that there are many ways to define the loss (L149, L202).
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxlin.lecture.nouns import Chapter, Claim, Lesson, Table, judge
from jaxlin.losses import softmax_cross_entropy, weston_watkins_hinge
from jaxlin.probability import softmax

RIVALS = ((10.0, -2.0, 3.0), (10.0, 9.0, 9.0), (10.0, -100.0, -100.0))


def chapter(lesson: Lesson) -> Chapter:
    with jax.enable_x64(True):
        peaked = np.asarray(softmax(jnp.array([1.0, -2.0, 0.0])))
        diffuse = np.asarray(softmax(jnp.array([0.5, -1.0, 0.0])))
        rivals, zeros = jnp.array(RIVALS), jnp.zeros(3, int)
        hinge = np.asarray(weston_watkins_hinge(rivals, zeros))
        entropy = np.asarray(softmax_cross_entropy(rivals, zeros))
    rows = [
        (", ".join(f"{s:g}" for s in scores).replace("-", "−"), f"{h:g}", f"{e:.3g}")
        for scores, h, e in zip(RIVALS, hinge, entropy, strict=True)
    ]
    return Chapter(
        "svm_and_softmax",
        "SVM and softmax on the same scores",
        (
            "Both losses look at the same scores. The SVM wants a margin and then stops; softmax "
            "always wants more probability for the true class. How peaked its probabilities are "
            "depends on the size of the scores, hence on the regularization.",
            Claim(
                *("course", "Probabilities of scores (1, −2, 0)", "0.7, 0.04, 0.26"),
                _list(peaked),
                judge(np.allclose(peaked, [0.7, 0.04, 0.26], rtol=0, atol=0.006)),
            ),
            Claim(
                *("course", "Of half these scores (0.5, −1, 0): the same order, more diffuse"),
                "0.55, 0.12, 0.33",
                _list(diffuse),
                judge(np.allclose(diffuse, [0.55, 0.12, 0.33], rtol=0, atol=0.006)),
            ),
            Table(("scores, true class first", r"SVM, $\Delta = 1$", "softmax"), rows),
            Claim(
                *("course", "The SVM is happy with (10, −2, 3), (10, 9, 9), (10, −100, −100)"),
                "zero loss",
                _list(hinge),
                judge(not hinge.any()),
            ),
            Claim(
                *("course", "Softmax is not: (10, 9, 9) costs much more than (10, −100, −100)"),
                "much higher loss",
                f"{entropy[1]:.3f} against {entropy[2]:.0e}",
                judge(entropy[1] > 0.5 and entropy[2] < 1e-12),
            ),
        ),
    )


def _list(values: np.ndarray) -> str:
    return ", ".join(f"{v:.2g}" for v in values)
