"""The information flow: from pictures and weights to the loss, and the gradients back.

Answers the lecture's "Summary of the Information Flow" (L368-L370).
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxlin.core import Batch, LinearParams
from jaxlin.gradients import closed_form
from jaxlin.lecture import loss_figures as draw
from jaxlin.lecture.measuring import in_float64, relative_error
from jaxlin.lecture.nouns import REPRODUCED, Chapter, Claim, Lesson, Picture, Table, judge
from jaxlin.losses import softmax_cross_entropy
from jaxlin.objectives import compose
from jaxlin.precision import jit
from jaxlin.scores import linear

EXAMPLES, STRENGTH = 64, 1e-3


@in_float64
def chapter(lesson: Lesson) -> Chapter:
    pixels, labels = lesson.centered(EXAMPLES)
    inputs, y = jnp.array(pixels / np.abs(pixels).max()), jnp.array(labels)
    classes = len(lesson.train.class_names)
    objective = compose(linear, softmax_cross_entropy)

    def loss(weights: jax.Array, inputs: jax.Array) -> jax.Array:
        params = LinearParams(weights, jnp.zeros(classes))
        return objective(params, Batch(inputs, y), strength=STRENGTH)

    W = 0.1 * jax.random.normal(jax.random.key(0), (classes, inputs.shape[1]))
    scores = linear(LinearParams(W, jnp.zeros(classes)), inputs)
    data_loss, pull = jax.value_and_grad(lambda s: jnp.mean(softmax_cross_entropy(s, y)))(scores)
    total, (on_weights, on_data) = jit(jax.value_and_grad(loss, argnums=(0, 1)))(W, inputs)
    by_hand = closed_form.softmax(W, None, inputs, labels, strength=STRENGTH)
    errors = [
        relative_error(a, b) for a, b in ((on_weights, by_hand.weights), (on_data, by_hand.inputs))
    ]
    moved = inputs - 5.0 * EXAMPLES * on_data
    after = float(loss(W, moved))
    program = jax.make_jaxpr(loss)(W, inputs)
    steps = [equation.primitive.name for equation in program.jaxpr.eqns]
    sizes = {
        "x": _shape(inputs),
        "y": _shape(y),
        "W": _shape(W),
        "scores": _shape(scores),
        "data_loss": f"{float(data_loss):.4f}",
        "penalty": f"{float(total - data_loss):.4f}",
        "total": f"{float(total):.4f}",
        "dscores": _arrow("f", pull),
        "dW": _arrow("W", on_weights - 2 * STRENGTH * W),
        "dW_penalty": _arrow("W", 2 * STRENGTH * W),
        "dx": _arrow("x", on_data) + "\n(optional)",
    }
    return Chapter(
        "information_flow",
        "The flow of information",
        (
            "Pictures and labels are given and fixed, the weights start as random numbers and "
            "change. Forward, scores and two losses; backward, the gradient on the weights, and "
            "on the data if one asks.",
            Picture(
                "information_flow",
                draw.information_flow(sizes),
                "Forward in black, gradients in red, each with its shape and norm, from one real "
                f"computation on {EXAMPLES} pictures. The dashed gradient on the data is optional.",
            ),
            Claim(
                *("L370", "The loss has a part from the data and one of the weights only"),
                "data loss + regularization loss",
                f"{float(data_loss):.4f} + {float(total - data_loss):.4f} = {float(total):.4f}",
                judge(math.isclose(total - data_loss, STRENGTH * jnp.sum(W**2), rel_tol=1e-9)),
            ),
            Claim(
                *("L370", "The gradient on the weights", "computed and used for the update"),
                f"{_shape(on_weights)}, equal to the one by hand to {errors[0]:.0e}",
                judge(errors[0] < 1e-12),
            ),
            Claim(
                *("L370", "Optionally the gradient on the data", "optionally"),
                f"{_shape(on_data)}, equal to the one by hand to {errors[1]:.0e}",
                judge(errors[1] < 1e-12),
                f"Moving the pictures against it instead of $W$: loss {float(total):.3f} to "
                f"{after:.3f}.",
            ),
            Claim(
                *("L370", "The whole computation is one program", "a diagram"),
                f"{len(steps)} operations in the traced program",
                REPRODUCED,
            ),
            Table(("the traced program's operations, in order",), ((", ".join(steps),),)),
        ),
    )


def _shape(array: jax.Array) -> str:
    return f"[{' × '.join(map(str, array.shape))}]"


def _arrow(name: str, gradient: jax.Array) -> str:
    norm = float(jnp.linalg.norm(gradient))
    return f"$\\partial L / \\partial {name}$ {_shape(gradient)}\nnorm {norm:.3g}"
