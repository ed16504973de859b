"""How a gradient becomes a step: optax's optimizers and step-size schedules by name."""

__all__ = ["OPTIMIZERS", "SCHEDULES", "optimizer", "schedule"]

from functools import partial
from typing import Any

import optax
from jax.typing import ArrayLike

from jaxlin.core import LinearParams

_WEIGHTS_ALONE: Any = LinearParams._make((True, False))
"""What is applied to the weights and not to the bias, as optax wants to be told."""

OPTIMIZERS = {
    "sgd": optax.sgd,
    "momentum": partial(optax.sgd, momentum=0.9),
    "nesterov": partial(optax.sgd, momentum=0.9, nesterov=True),
    "adagrad": optax.adagrad,
    "rmsprop": optax.rmsprop,
    "adam": optax.adam,
    "adamw": optax.adamw,
    "lion": optax.lion,
    # As published and as everybody uses it: a bias has no trust ratio.
    "lars": partial(optax.lars, trust_ratio_mask=_WEIGHTS_ALONE),
}
SCHEDULES = ("constant", "cosine", "linear", "warmup-cosine", "steps")


def schedule(name: str, step_size: ArrayLike, steps: int) -> optax.Schedule:
    """The step size over a run: "constant", or falling to 0 by a "cosine" or a "linear" law.

    "warmup-cosine" rises linearly over the first ninth of the run, then falls as a cosine; "steps"
    divides by 10 after 2/7, 4/7 and 6/7 of it. Both are laws of published linear evaluations, see
    `jaxlin.sweep.presets`.

    >>> [round(float(schedule("linear", 0.5, 10)(step)), 3) for step in (0, 5, 10)]
    [0.5, 0.25, 0.0]
    """
    laws = {
        "constant": lambda: optax.constant_schedule(step_size),
        "cosine": lambda: optax.cosine_decay_schedule(step_size, steps),
        "linear": lambda: optax.linear_schedule(step_size, 0.0, steps),
        "warmup-cosine": lambda: _warmup_cosine(step_size, steps),
        "steps": lambda: optax.piecewise_constant_schedule(
            step_size, {round(sevenths * steps / 7): 0.1 for sevenths in (2, 4, 6)}
        ),
    }
    if name not in laws:
        raise ValueError(f"`schedule` must be one of {', '.join(laws)}, got {name!r}.")
    return laws[name]()


def _warmup_cosine(step_size: ArrayLike, steps: int) -> optax.Schedule:
    rise = max(1, steps // 9)
    return optax.join_schedules(
        [
            optax.linear_schedule(0.0, step_size, rise),
            optax.cosine_decay_schedule(step_size, max(1, steps - rise)),
        ],
        [rise],
    )


def optimizer(
    name: str, step_size: ArrayLike | optax.Schedule, *, decay: ArrayLike = 0.0
) -> optax.GradientTransformation:
    """One of `OPTIMIZERS` by name; any other optax transformation works as well.

    Args:
      name: a key of `OPTIMIZERS`.
      step_size: a number or a schedule.
      decay: for "adamw" only, the factor by which a step of size 1 shrinks the weights. The
        bias is never decayed. `2 * strength` is decoupled l2 regularization.

    >>> import numpy as np
    >>> descent = optimizer("sgd", 0.5)
    >>> step, _ = descent.update(np.array([2.0]), descent.init(np.zeros(1)))
    >>> step.tolist()
    [-1.0]
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"`optimizer` must be one of {', '.join(OPTIMIZERS)}, got {name!r}.")
    if name == "adamw":
        return optax.adamw(step_size, weight_decay=decay, mask=_WEIGHTS_ALONE)
    return OPTIMIZERS[name](step_size)
