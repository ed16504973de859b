"""The numerical gradient: the lecture's listing, and the formulas behind it.

Answers the lecture's "Computing the gradient numerically" (L215, L230-L261).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxlin.core import Batch
from jaxlin.gradients.finite_differences import gradient
from jaxlin.gradients.linear import linear_objective
from jaxlin.lecture import figures as draw
from jaxlin.lecture.measuring import in_float64, relative_error
from jaxlin.lecture.nouns import Chapter, Claim, Formula, Lesson, Picture, judge
from jaxlin.losses import softmax_cross_entropy
from jaxlin.precision import jit

EXAMPLES, FEATURES = 20, 8
STEPS = 10.0 ** np.arange(-12.0, 0.0)


def eval_numerical_gradient(
    f: Callable[[jax.Array], jax.Array], x: jax.Array, h: float = 0.00001
) -> jax.Array:
    """The lecture's listing, without writing into `x`: one entry after the other."""
    fx = f(x)
    slopes = [(f(x.at[index].add(h)) - fx) / h for index in np.ndindex(x.shape)]
    return jnp.array(slopes).reshape(x.shape)


@in_float64
def chapter(lesson: Lesson) -> Chapter:
    pixels, labels = lesson.centered(EXAMPLES)
    strongest = np.argsort(pixels.std(axis=0))[-FEATURES:]
    inputs = pixels[:, strongest] / np.abs(pixels).max()
    loss = linear_objective(softmax_cross_entropy, Batch(jnp.array(inputs), jnp.array(labels)))
    classes = len(lesson.train.class_names)
    W = jnp.array(np.random.default_rng(0).normal(0, 0.5, (classes, FEATURES)))
    before = np.array(W)
    exact = np.asarray(jit(jax.grad(loss))(W))
    compiled = jit(loss)
    calls = 0

    def counted(w: jax.Array) -> jax.Array:
        nonlocal calls
        calls += 1
        return compiled(w)

    listing = np.asarray(eval_numerical_gradient(counted, W))
    forward, central = (
        gradient(lambda w: float(compiled(w)), W, method=method, step=1e-5)
        for method in ("forward", "central")
    )
    extrapolated = gradient(lambda w: float(compiled(w)), W, method="richardson")
    at_listing = int(np.argmin(np.abs(np.log10(STEPS) + 5)))
    errors = {
        "forward, float64": _errors(loss, W, exact, "forward", "float64"),
        "centered, float64": _errors(loss, W, exact, "central", "float64"),
        "forward, float32": _errors(loss, W, exact, "forward", "float32"),
    }
    best = {name: STEPS[np.nanargmin(found)] for name, found in errors.items()}
    lines = {name: (STEPS, found) for name, found in errors.items()}
    agree = np.abs(listing - forward.value).max() / np.abs(exact).max()
    by_forward, by_central = (relative_error(g.value, exact) for g in (forward, central))
    return Chapter(
        "numerical_gradient",
        "The gradient, numerically",
        (
            "The derivative is a limit of slopes; taking a small step instead of the limit gives a "
            "number for each parameter, the partial derivatives, and together they are the "
            "gradient.",
            Formula(r"\frac{d f(x)}{d x} = \lim_{h \to 0} \frac{f(x + h) - f(x)}{h}"),
            Picture(
                "numerical_gradient",
                draw.curves(
                    lines, x="step h", y="largest error / largest entry", log="xy", marks=True
                ),
                "The error of the whole gradient against the step. To the right the formula is "
                "too coarse (slope 1 forward, slope 2 centered), to the left rounding takes over.",
            ),
            Claim(
                *("L230-L257", "The listing, coded as it stands but for writing into `x`"),
                f"n + 1 = {W.size + 1} evaluations",
                f"{calls} evaluations, equal to the library's to {agree:.0e}",
                judge(calls == W.size + 1 == forward.evaluations and agree < 1e-8),
                "Equal up to rounding divided by h.",
            ),
            Claim(
                *("L250", "`x` is restored (“very important!”)", "unchanged"),
                "bit for bit unchanged",
                judge(np.array_equal(before, W)),
                "Arrays are immutable here: a displaced copy is evaluated instead.",
            ),
            Claim(
                *("L259", "h = 1e-5 is sufficient in practice", "often sufficient"),
                f"error {by_forward:.0e} in float64, "
                f"{errors['forward, float32'][at_listing]:.0e} in float32",
                judge(by_forward < 1e-4),
                "In float32, JAX's default, h = 1e-5 drowns in rounding: check in float64.",
            ),
            Claim(
                *("L261", "The centered difference works better", "often works better"),
                f"{by_central:.0e} against {by_forward:.0e} at h = 1e-5",
                judge(by_central < by_forward),
            ),
            Claim(
                *("L259", "As small a step as causes no numerical issues", "smallest"),
                "; ".join(f"{n}: best h {best[n]:.0e}" for n in errors),
                judge(best["forward, float64"] < 1e-6 < best["centered, float64"] * 10),
                "About the square root of the rounding forward, the cube root centered.",
            ),
            Claim(
                *("beyond", "Extrapolating centered differences to h = 0", "—"),
                f"error {relative_error(extrapolated.value, exact):.0e}, for 6 n evaluations",
                judge(relative_error(extrapolated.value, exact) < by_central * 10),
            ),
        ),
    )


def _errors(
    loss: Callable[[jax.Array], jax.Array],
    W: jax.Array,
    exact: np.ndarray,
    method: str,
    dtype: str,
) -> np.ndarray:
    """The error at every step, evaluating point by point; NaN where x + h would equal x."""
    compiled = jit(loss)

    def black_box(w: ArrayLike) -> float:
        return float(compiled(jnp.asarray(w, dtype)))

    found = []
    for h in STEPS:
        if dtype == "float32" and h < 1e-7:
            found.append(np.nan)
        else:
            numeric = gradient(black_box, W.astype(dtype), method=method, step=h, dtype=dtype)
            found.append(relative_error(numeric.value, exact))
    return np.array(found)
