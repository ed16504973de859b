"""The lecture's gradient, run as it is written there, and checked.

W = rand(10, 3073) * 0.001 on CIFAR-10 with the bias trick, the loss as a function of W alone, the
numeric gradient entry by entry (30,731 evaluations forward, 61,460 centred), the analytic one by
calculus and by autodiff, and the effect of the step size. The lecture leaves the preprocessing,
the subset and the loss of its table open; on mean-centred pixels the softmax loss reproduces its
shape: flat, a minimum near a step of 1e-6, then ten times more per decade.

    python experiments/lecture_gradient.py --data cifar10 --data-dir ~/data --out runs/gradient
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from jaxlin import Batch
from jaxlin.data import load
from jaxlin.gradients import check_gradient, closed_form, finite_differences, linear_objective
from jaxlin.losses import LOSSES

PRINTED = {  # the lecture's table: step size by its exponent, loss after the step
    -10: 2.200652,
    -9: 2.200057,
    -8: 2.194116,
    -7: 2.135493,
    -6: 1.647802,
    -5: 2.844355,
    -4: 25.558142,
    -3: 254.086573,
    -2: 2539.370888,
    -1: 25392.214036,
}
PRINTED_START = 2.200718


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Run the lecture's gradient example."""

    data: str = "cifar10"
    """digits, mnist, fashion-mnist, cifar10; or an .npz, a .npy, a folder of pictures."""
    data_dir: Path | None = None
    """The folder that holds the files of a named data set."""
    limit: int = 500
    """Examples."""
    loss: Literal["softmax", "hinge"] = "softmax"
    """The loss."""
    seed: int = 0
    """Of the random weights."""
    out: Path | None = None
    """Folder for lecture_gradient.json."""
    json: bool = False
    """Print one JSON object on stdout."""


def run(options: Options) -> dict:
    """The example, its counts, its errors and its table."""
    data = load(options.data, data_dir=options.data_dir)
    inputs = np.asarray(data.inputs[: options.limit], float)
    inputs = inputs - np.asarray(data.inputs, np.float32).mean(axis=0, dtype=np.float64)
    inputs = np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)  # the bias trick
    labels, classes = data.labels[: options.limit], len(data.class_names)
    objective = linear_objective(LOSSES[options.loss], Batch(inputs, labels))
    w = np.random.default_rng(options.seed).random((classes, inputs.shape[1])) * 0.001
    by_hand = {"softmax": closed_form.softmax, "hinge": closed_form.weston_watkins}
    by_hand = by_hand[options.loss](w, None, inputs, labels).weights
    with jax.enable_x64(True):
        autodiff = np.asarray(jax.jit(jax.grad(objective.__call__))(jnp.asarray(w)))
    forward = finite_differences.gradient(objective, w, method="forward", step=1e-5)
    central = finite_differences.gradient(objective, w, method="central", step=1e-5)
    report = check_gradient(objective, w, mode="full")
    with jax.enable_x64(True):
        value = jax.jit(objective.__call__)
        start = float(value(jnp.asarray(w)))
        table = {
            exponent: float(value(jnp.asarray(w - 10.0**exponent * forward.value)))
            for exponent in PRINTED
        }

    def off(numeric):
        return float(np.abs(numeric - autodiff).max() / np.abs(autodiff).max())

    return {
        "data": data.name,
        "examples": len(labels),
        "shape": list(w.shape),
        "parameters": w.size,
        "evaluations": {"forward": forward.evaluations, "central": central.evaluations},
        "error": {
            "forward, h = 1e-5": off(forward.value),
            "central, h = 1e-5": off(central.value),
            "closed form": off(by_hand),
        },
        "check": {"verdict": report.verdict, "max_relative_error": report.max_relative_error},
        "loss": start,
        "steps": {f"1e{exponent:+03d}": table[exponent] for exponent in PRINTED},
        "printed": {"loss": PRINTED_START, "steps": {f"1e{e:+03d}": v for e, v in PRINTED.items()}},
    }


def show(result) -> None:
    """The numbers for people."""
    counts = result["evaluations"]
    lines = [
        f"{result['parameters']:,} parameters {tuple(result['shape'])}, {result['examples']} "
        f"examples of {result['data']}",
        f"forward difference  {counts['forward']:,} evaluations",
        f"centred difference  {counts['central']:,} evaluations",
        *(f"error of {name:<20} {value:.1e}" for name, value in result["error"].items()),
        f"full check          {result['check']['verdict']}",
        "",
        f"{'step size':<12}{'new loss':>16}{'in the lecture':>18}",
        f"{'(original)':<12}{result['loss']:>16.6f}{result['printed']['loss']:>18.6f}",
    ]
    for step, value in result["steps"].items():
        lines.append(f"{step:<12}{value:>16.6f}{result['printed']['steps'][step]:>18.6f}")
    print("\n".join(lines), file=sys.stderr)


def main() -> int:
    options = tyro.cli(Options, config=(tyro.conf.FlagCreatePairsOff,))
    result = run(options)
    show(result)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        path = options.out / "lecture_gradient.json"
        path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if options.json:
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
