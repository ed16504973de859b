"""The step-size table: how far along the negative gradient to go.

Answers the lecture's sweep over step sizes (L269-L304), "Update in negative gradient direction" and
"Effect of step size" with its figure (L307-L315).

The table's data and weights were never published. Its loss starts near log 10, so it is softmax
(an SVM starts near 9); its first differences give a gradient of norm 813 and its tail grows by
2.54e5 a unit of step: centered pixels of a small subset. Here: 100 pictures.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from jaxlin.core import Batch
from jaxlin.gradients.finite_differences import gradient
from jaxlin.gradients.linear import linear_objective
from jaxlin.landscape.slices import plane, ray
from jaxlin.lecture import loss_figures as draw
from jaxlin.lecture.measuring import in_float64
from jaxlin.lecture.nouns import IN_SHAPE, REPRODUCED, Chapter, Claim, Lesson, Picture, Table, judge
from jaxlin.losses import softmax_cross_entropy
from jaxlin.scores import append_one

PRINTED_ORIGINAL = 2.200718
PRINTED = (
    *(2.200652, 2.200057, 2.194116, 2.135493, 1.647802),
    *(2.844355, 25.558142, 254.086573, 2539.370888, 25392.214036),
)
STEP_SIZES = tuple(10.0**k for k in range(-10, 0))
EXAMPLES = 100


@in_float64
def chapter(lesson: Lesson) -> Chapter:
    pixels, labels = lesson.centered(EXAMPLES)
    stretched = pixels * (255 / lesson.train.inputs.max())  # digits have 17 grey levels
    data = Batch(append_one(stretched), jnp.asarray(labels))
    loss = linear_objective(softmax_cross_entropy, data)  # closes over X_train and Y_train
    shape = (len(lesson.train.class_names), data.inputs.shape[1])
    W = jnp.array(np.random.default_rng(0).random(shape) * 0.001)
    numeric = gradient(loss, W, method="forward", step=1e-5)
    df = jnp.asarray(numeric.value)
    original = float(loss(W))
    after = np.array([float(loss(W - step * df)) for step in STEP_SIZES])
    uphill = float(loss(W + 1e-7 * df))
    best = STEP_SIZES[int(after.argmin())]
    growth = after[-1] / after[-2]
    first = (original - after[0]) / STEP_SIZES[0]
    same_pixels = shape == (10, 3073)
    rows = [("original loss", f"{PRINTED_ORIGINAL:.6f}", f"{original:.6f}")]
    rows += [
        (f"`{step:e}`", f"{printed:.6f}", f"{measured:.6f}")
        for step, printed, measured in zip(STEP_SIZES, PRINTED, after, strict=True)
    ]
    return Chapter(
        "step_sizes",
        "The effect of the step size",
        (
            "The gradient says in which direction to go, not how far. The lecture takes one "
            "numerical gradient at a random $W$ and tries ten step sizes.",
            Table(("step size", "the lecture prints", "we measure"), rows),
            Picture(
                "step_sizes",
                _figure(loss, W, df, after, best),
                "Left: the loss around $W$ from above; the arrow is the negative gradient, the "
                "dashed line its direction, the ticks a small, the best and a large step. "
                "Right: the table.",
            ),
            Claim(
                *("L283", "A random $W$ starts near $\\log 10 = 2.303$", "2.200718"),
                f"{original:.6f}",
                judge(1.9 < original < 3.6, IN_SHAPE),
                "The lecture's pictures and weights are unknown; an SVM would start near 9.",
            ),
            Claim(
                *("L292-L296", "Tiny steps change almost nothing, and in proportion"),
                "2.200652, 2.200057, 2.194116",
                ", ".join(f"{v:.6f}" for v in after[:3]),
                judge(abs((original - after[2]) / (1e-8 * first) - 1) < 0.05, IN_SHAPE),
                f"The slope, $\\Vert g \\Vert^2$ = {first:.3g}, against 6.6e5 in the table.",
            ),
            Claim(
                *("L296", "One step size is best", "1e-06: 1.647802"),
                f"{best:.0e}: {after.min():.6f}",
                judge(
                    1 < after.argmin() < 9 and after.min() < original,
                    REPRODUCED if best == 1e-6 else IN_SHAPE,
                ),
                ""
                if best == 1e-6
                else "The best step scales with one over the squared length of the pictures"
                + ("; one decade further here." if same_pixels else ", shorter for these data."),
            ),
            Claim(
                *("L301-L304", "Too large a step overshoots: ten times the loss a decade"),
                f"ratio {PRINTED[-1] / PRINTED[-2]:.4f}, up to 25392",
                f"ratio {growth:.4f}, up to {after[-1]:.0f}",
                judge(abs(growth - 10) < 0.1 and after[-1] > original, IN_SHAPE),
                "Far out the loss is linear: the largest score difference.",
            ),
            Claim(
                *("L307", "The update goes against the gradient", "decrease, not increase"),
                f"step 1e-7 against it {original:.6f} to {after[3]:.6f}, along it {uphill:.6f}",
                judge(after[3] < original < uphill),
            ),
        ),
    )


def _figure(
    loss: Callable[[jax.Array], jax.Array],
    W: jax.Array,
    df: jax.Array,
    after: np.ndarray,
    best: float,
) -> Figure:
    """The bowl on the plane of the gradient and of the gradient beyond the valley."""
    length = float(jnp.linalg.norm(df))
    ahead = -df / length
    line = np.linspace(0, 12 * best * length, 241)
    along = np.asarray(ray(loss, W, ahead, line))
    valley = float(line[along.argmin()])
    over = float(line[np.argmax((line > valley) & (along > along[0]))])
    beyond = jax.grad(loss)(W + over * ahead)  # a random direction would show a flat trough
    aside = beyond - jnp.sum(beyond * ahead) * ahead
    aside = aside / jnp.linalg.norm(aside)
    across = np.linspace(-0.45 * over, 1.3 * over, 71)
    up = np.linspace(-0.75 * over, 0.75 * over, 61)
    values = np.asarray(plane(loss, W, ahead, aside, across, up))
    marks = {"small": 0.3 * valley, "best": valley, "too large": 1.08 * over}
    return draw.step_sizes(
        across,
        up,
        values,
        marks=marks,
        losses={"the lecture": (STEP_SIZES, PRINTED), "measured": (STEP_SIZES, after)},
    )
