"""Vanilla gradient descent, and LBFGS.

Answers the lecture's "Gradient Descent" (L337-L349).
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import minimize as scipy_minimize

from jaxlin import train
from jaxlin.core import Batch, LinearParams
from jaxlin.lecture import figures as draw
from jaxlin.lecture.measuring import largest_eigenvalue
from jaxlin.lecture.nouns import Chapter, Claim, Lesson, Picture, judge
from jaxlin.losses import softmax_cross_entropy
from jaxlin.objectives import compose
from jaxlin.precision import jit
from jaxlin.scores import linear
from jaxlin.solvers import minimize

EXAMPLES, STEPS, STRENGTH = 2000, 150, 1e-2


def chapter(lesson: Lesson) -> Chapter:
    pixels, labels = lesson.centered(EXAMPLES)
    classes = len(lesson.train.class_names)
    data = Batch(jnp.array(pixels / np.sqrt(np.mean(pixels**2)), jnp.float32), jnp.array(labels))
    rows, features = data.inputs.shape
    loss_fun = functools.partial(compose(linear, softmax_cross_entropy), strength=STRENGTH)
    zeros = LinearParams(jnp.zeros((classes, features)), jnp.zeros(classes))
    step_size = 2.0 / (largest_eigenvalue(data.inputs) / 2 + 1)
    evaluate_gradient = jit(jax.value_and_grad(loss_fun))

    weights, vanilla = zeros, []
    for _ in range(STEPS):
        loss, weights_grad = evaluate_gradient(weights, data)
        weights = jax.tree.map(lambda w, g: w - step_size * g, weights, weights_grad)
        vanilla.append(float(loss))

    descent = train.trainer(loss_fun, train.optimizer("sgd", step_size))
    fit = train.run(descent, zeros, data, key=jax.random.key(0), steps=STEPS, batch_size=rows)
    same = max(
        float(jnp.abs(a - b).max() / jnp.abs(b).max())
        for a, b in zip(fit.params, weights, strict=True)
    )
    lbfgs = _lbfgs(evaluate_gradient, zeros, data)
    optimum = minimize(
        np.asarray(data.inputs), labels, strength=STRENGTH, tolerance=1e-3, classes=classes
    )
    best = optimum.lower_bound
    gaps = {
        "vanilla gradient descent": np.array(vanilla) - best,
        "L-BFGS": np.minimum.accumulate(np.array(lbfgs)) - best,
    }
    lines = {
        name: (np.arange(1, len(gap) + 1), np.maximum(gap, 1e-5)) for name, gap in gaps.items()
    }
    falling = float(np.diff(vanilla).max())
    return Chapter(
        "descent",
        "Gradient descent",
        (
            "Evaluate the gradient, take a step against it, repeat: the loop at the core of "
            "every neural network library.",
            Picture(
                "descent",
                draw.curves(lines, x="gradients evaluated", y="loss above the optimum", log="y"),
                f"Softmax on {rows:,} pictures, strength {STRENGTH:g}; the optimum is known to "
                f"{optimum.gap:.0e} from a certified fit.",
            ),
            Claim(
                *("L339-L345", "The vanilla loop, `weights += -step_size * weights_grad`"),
                "the update",
                f"written out and compiled as a whole: weights equal to {same:.0e}",
                judge(same < 1e-3),
                f"{STEPS} steps in float32.",
            ),
            Claim(
                *("L347", "Follow the gradient until happy with the results", "decreases"),
                f"loss {vanilla[0]:.4f} to {vanilla[-1]:.4f}, lower at every step",
                judge(falling < 1e-6),
                "With a step below two over the curvature no step can overshoot.",
            ),
            Claim(
                *("L349", "There are other ways, such as LBFGS", "named"),
                f"{len(lbfgs)} evaluations to {min(lbfgs):.4f}, where {STEPS} vanilla steps reach "
                f"{vanilla[-1]:.4f} (optimum {optimum.objective:.4f})",
                judge(min(lbfgs) < vanilla[-1] and len(lbfgs) <= STEPS),
            ),
        ),
    )


def _lbfgs(evaluate_gradient: Callable[..., Any], start: LinearParams, data: Batch) -> list[float]:
    """The loss at every evaluation of SciPy's L-BFGS."""
    classes, features = start.weights.shape
    seen = []

    def flat(vector: np.ndarray) -> tuple[float, np.ndarray]:
        matrix = jnp.array(vector, jnp.float32).reshape(classes, features + 1)
        loss, gradient = evaluate_gradient(LinearParams(matrix[:, :-1], matrix[:, -1]), data)
        seen.append(float(loss))
        joined = np.concatenate([gradient.weights, gradient.bias[:, None]], axis=1)
        return float(loss), np.float64(joined).ravel()

    zero = np.zeros(classes * (features + 1))
    limits = {"maxfun": STEPS - 50, "maxiter": STEPS, "ftol": 1e-9, "gtol": 1e-7}
    scipy_minimize(flat, zero, jac=True, method="L-BFGS-B", options=limits)
    return seen
