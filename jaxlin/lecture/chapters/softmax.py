"""The softmax classifier: a loss, a distribution, a divergence, a likelihood and a posterior.

Answers the lecture's "Softmax classifier" (L149-L167) and its note on names (L187).
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxlin import losses, probability, regularizers
from jaxlin.core import Batch, LinearParams
from jaxlin.lecture import figures as draw
from jaxlin.lecture.measuring import in_float64
from jaxlin.lecture.nouns import REPRODUCED, Chapter, Claim, Formula, Lesson, Picture, judge
from jaxlin.objectives import compose
from jaxlin.precision import jit
from jaxlin.scores import linear

SCORES = (1.0, -2.0, 0.0)
STRENGTH = 0.01


@in_float64
def chapter(lesson: Lesson) -> Chapter:
    rng = np.random.default_rng(0)
    scores = jnp.array(rng.normal(0, 5, (1000, 10)))
    labels = jnp.array(rng.integers(0, 10, 1000))
    loss = losses.softmax_cross_entropy(scores, labels)
    q = probability.softmax(scores)
    ratio_form = probability.negative_log_likelihood(q, labels)
    forms = float(jnp.abs(loss - ratio_form).max())
    one_hot = jax.nn.one_hot(labels, 10, dtype=q.dtype)
    p = probability.softmax(jnp.array(rng.normal(0, 2, (1000, 10))))
    crossed = float(jnp.abs(probability.cross_entropy(one_hot, q) - loss).max())
    divergence = probability.entropy(p) + probability.kl_divergence(p, q)
    identity = float(jnp.abs(probability.cross_entropy(p, q) - divergence).max())
    sure = float(jnp.abs(probability.entropy(one_hot)).max())
    likelihood, posterior, spread, full = _estimation(lesson, rng)
    sums = float(jnp.abs(q.sum(axis=1) - 1).max())
    bars = {
        "scores $f$": np.array(SCORES),
        "$e^f$, unnormalized": np.exp(SCORES),
        "probabilities": np.asarray(probability.softmax(jnp.array(SCORES))),
    }
    uniform = float(losses.softmax_cross_entropy(jnp.zeros(10), jnp.array(0)))
    return Chapter(
        "softmax",
        "The softmax classifier",
        (
            "Scores are read as unnormalized log probabilities; the loss is minus the log of the "
            "probability of the true class. The full loss is the mean over the examples, plus "
            "the regularization.",
            Formula(
                r"L_i = -\log\left(\frac{e^{f_{y_i}}}{\sum_j e^{f_j}}\right) = "
                r"-f_{y_i} + \log \sum_j e^{f_j}"
            ),
            Formula(r"L = \frac{1}{N} \sum_i L_i + \lambda R(W)"),
            Picture(
                "softmax",
                draw.probability_bars(bars, ("cat", "dog", "ship")),
                "Scores (1, −2, 0) through the softmax function: exponentiate, then normalize.",
            ),
            Claim(
                *("L153", "The two forms of the loss", "equivalent"),
                f"largest difference {forms:.0e} over 1,000 random score vectors",
                judge(forms < 1e-12),
            ),
            Claim(
                *("L155", "The softmax function: between zero and one, sums to one"),
                "(0, 1), sum 1",
                f"from {float(q.min()):.1e} to {float(q.max()):.6f}; sums off by {sums:.0e}",
                judge(float(q.min()) > 0 and float(q.max()) < 1 and sums < 1e-14),
            ),
            Claim(
                *("L153", "Equal scores for ten classes", "—", f"{uniform:.4f} = log 10"),
                judge(abs(uniform - math.log(10)) < 1e-15),
                "What any run must start from when its weights are close to 0.",
            ),
            Claim(
                *("L153", "The full loss: the mean over the examples, plus the regularization"),
                r"mean of $L_i$ + $\lambda R(W)$",
                f"off by {full:.0e}, against NumPy's sums",
                judge(full < 1e-14),
                r"$R(W)$ is the sum of all squared weights; the bias is left out.",
            ),
            Formula(r"H(p, q) = -\sum_x p(x) \log q(x) = H(p) + D_{KL}(p \parallel q)"),
            Claim(
                *("L157", "The loss is the cross-entropy with a one-hot $p$", "$H(p, q)$"),
                f"largest difference {crossed:.0e}",
                judge(crossed < 1e-12),
            ),
            Claim(
                *("L161", "$H(p,q) = H(p) + D_{KL}(p \\parallel q)$", "an identity"),
                f"off by {identity:.0e} over 1,000 random pairs",
                judge(identity < 1e-12),
            ),
            Claim(
                *("L161", "The entropy of the one-hot $p$", "0", f"{sure:g}", judge(sure == 0)),
                "So minimizing the loss is minimizing the divergence.",
            ),
            Claim(
                *("L165", "Minimizing the mean loss is maximum likelihood estimation", "MLE"),
                f"$-\\log \\text{{likelihood}}$ equals $N$ times the loss to {likelihood:.0e}",
                judge(likelihood < 1e-12),
                "The likelihood as a product over 200 pictures, in extended range.",
            ),
            Claim(
                *("L167", "$R(W)$ is a Gaussian prior: MAP estimation"),
                "MAP",
                f"$N L(W)$ minus the negative log posterior is constant to {posterior:.0e} "
                f"over 20 random $W$; prior variance {spread:.3g}",
                judge(posterior < 1e-10),
                r"Variance $1 / (2 N \lambda)$ of independent normal weights.",
            ),
            Claim(
                *("L187", "“Softmax loss” is shorthand: softmax is only the squashing function"),
                "cross-entropy loss",
                "`softmax_cross_entropy` (loss) and `softmax` (function)",
                REPRODUCED,
            ),
        ),
    )


def _estimation(lesson: Lesson, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Relative errors of "N x loss = -log likelihood", of "= -log posterior + constant" (with the
    prior's variance), and of "loss = mean + strength * sum of squares"."""
    from scipy.stats import norm

    scale = lesson.train.inputs.max()
    inputs = jnp.array(lesson.train.inputs[:200] / scale)
    labels = jnp.array(lesson.train.labels[:200])
    batch, examples = Batch(inputs, labels), len(labels)
    classes = len(lesson.train.class_names)
    objective = jit(compose(linear, losses.softmax_cross_entropy))
    variance = np.asarray(regularizers.prior_variance(STRENGTH, examples=examples)).item()
    prior = norm(scale=math.sqrt(variance))
    likelihood_error, gaps = 0.0, []
    for _ in range(20):
        weights = jnp.array(rng.normal(0, 0.1, (classes, inputs.shape[1])))
        params = LinearParams(weights, jnp.zeros(classes))
        q = np.asarray(probability.softmax(linear(params, inputs)))
        mantissas, exponents = np.frexp(q[np.arange(examples), labels])
        log_likelihood = np.log(np.prod(mantissas)) + exponents.sum() * math.log(2)
        mle = examples * float(objective(params, batch))
        likelihood_error = max(likelihood_error, abs(mle + log_likelihood) / mle)
        log_posterior = log_likelihood + prior.logpdf(np.asarray(weights)).sum()
        gaps.append(examples * float(objective(params, batch, strength=STRENGTH)) + log_posterior)
    loss = float(objective(params, batch, strength=STRENGTH))
    full = np.mean(-np.log(q[np.arange(examples), labels])) + STRENGTH * np.sum(np.square(weights))
    constant = float(np.ptp(gaps) / np.abs(gaps).max())
    return likelihood_error, constant, variance, abs(loss - full) / full
