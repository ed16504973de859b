"""Numeric stability of the softmax: shift the scores before exponentiating.

Answers the lecture's "Practical issues: Numeric stability" (L169-L183).
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxlin.lecture.nouns import Chapter, Claim, Formula, Lesson, Table, judge
from jaxlin.probability import softmax, softmax_unstable

SCORES = (123.0, 456.0, 789.0)


def chapter(lesson: Lesson) -> Chapter:
    rows, answers = [], {}
    for bits in (64, 32):
        with jax.enable_x64(bits == 64):
            scores = jnp.array(SCORES, f"float{bits}")
            for name, function in (("as written", softmax_unstable), ("shifted", softmax)):
                answers[name, bits] = np.asarray(function(scores))
                rows.append((f"float{bits}", name, *(f"{p:.5g}" for p in answers[name, bits])))
    with jax.enable_x64(True):
        shifted = np.asarray(jnp.array(SCORES) - max(SCORES))
        logits = jnp.array(np.random.default_rng(0).normal(0, 3, (1000, 10)))
        moved = max(
            float(jnp.abs(softmax(logits + constant) - softmax(logits)).max())
            for constant in (-300.0, -1.0, 7.0, 300.0)
        )
    unstable, stable = answers["as written", 64], answers["shifted", 64]
    exact = np.array([5.7527e-290, 2.3985e-145, 1.0])
    return Chapter(
        "stability",
        "Numeric stability",
        (
            "Exponentials of large scores overflow. Adding the same constant to every score "
            "changes no probability, so the largest can be moved to 0 first.",
            Formula(
                r"\frac{e^{f_y}}{\sum_j e^{f_j}} = \frac{C e^{f_y}}{C \sum_j e^{f_j}} = "
                r"\frac{e^{f_y + \log C}}{\sum_j e^{f_j + \log C}}, \quad "
                r"\log C = -\max_j f_j"
            ),
            Table(
                ("precision", "formula", "$p_0$", "$p_1$", "$p_2$"), rows, "f = (123, 456, 789)."
            ),
            Claim(
                *("L181", "The scores after the shift", "[−666, −333, 0]"),
                str([int(v) for v in shifted]).replace("-", "−"),
                judge(shifted.tolist() == [-666, -333, 0]),
            ),
            Claim(
                *("L178", "The formula as written blows up", "“potential blowup”"),
                f"float64 {_list(unstable)}, float32 {_list(answers['as written', 32])}",
                judge(np.isnan(unstable[2]) and np.isnan(answers["as written", 32]).all()),
                "exp(789) is beyond float64 (1.8e308), exp(123) already beyond float32 (3.4e38).",
            ),
            Claim(
                *("L182", "The shifted formula gives the correct answer", "safe"),
                f"({', '.join(f'{p:.4e}' for p in stable[:2])}, {stable[2]:g}); "
                f"float32 {_list(answers['shifted', 32])}",
                judge(
                    np.allclose(stable, exact, rtol=1e-4)
                    and answers["shifted", 32].tolist() == [0, 0, 1]
                ),
                "exp(−666) and exp(−333), by hand; both are below float32's range, hence 0 there.",
            ),
            Claim(
                *("L173", "Any constant may be added", "does not change the results"),
                f"largest change {moved:.0e} over 1,000 rows and four constants",
                judge(moved < 1e-13),
            ),
        ),
    )


def _list(values: np.ndarray) -> str:
    return f"[{', '.join(f'{v:g}' for v in values)}]"
