"""Autodiff, calculus or differences: what a gradient costs, and how far off it is.

Time, evaluations and error of the gradient of the softmax objective by autodiff, by the closed
form, and by forward, centred, extrapolated and structured differences, against the number of
parameters (features are added by tiling the data) and of examples. The error is relative to the
largest entry of the closed form. Generic differences are skipped where they would take longer
than `--patience` seconds (estimated from the smaller sizes), which is what they are about.

    python experiments/autodiff_versus_numeric.py --data digits --out runs/comparison
"""

import dataclasses
import json
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from jaxlin import Batch
from jaxlin.data import load
from jaxlin.gradients import closed_form, finite_differences, linear_objective
from jaxlin.losses import LOSSES


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Compare ways to a gradient."""

    data: str = "digits"
    """digits, mnist, fashion-mnist, cifar10; or an .npz, a .npy, a folder of pictures."""
    data_dir: Path | None = None
    """The folder that holds the files of a named data set."""
    features: tuple[int, ...] = (30, 96, 307, 972, 3073)
    """Features with the one of the bias trick; times 10 classes this is the parameters."""
    examples: tuple[int, ...] = (50, 500)
    """Numbers of examples."""
    patience: float = 20.0
    """Seconds that one gradient may take."""
    out: Path | None = None
    """Folder for comparison.json and comparison.png."""
    json: bool = False
    """Print one JSON object on stdout."""


def problem(data, rows: int, features: int):
    """Inputs (rows, features), centred, tiled or cut to the width; the last is one."""
    inputs = np.asarray(data.inputs[:rows], float)
    inputs = inputs - inputs.mean(axis=0)
    copies = -(-(features - 1) // inputs.shape[1])
    inputs = np.tile(inputs, (1, copies))[:, : features - 1]
    inputs = inputs + 0.1 * np.random.default_rng(0).normal(size=inputs.shape)
    return np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1), data.labels[:rows]


def ways(inputs, labels, w):
    """name -> (function that gives the gradient, evaluations of the loss or `None`)."""
    objective = linear_objective(LOSSES["softmax"], Batch(inputs, labels))
    generic = jax.tree_util.Partial(_value, objective)  # the same function, structure hidden
    with jax.enable_x64(True):
        by_autodiff = jax.jit(jax.grad(objective.__call__))
        point = jnp.asarray(w)

    def autodiff():
        with jax.enable_x64(True):
            return np.asarray(by_autodiff(point))

    def numeric(f, **settings):
        return lambda: finite_differences.gradient(f, w, **settings).value

    n = w.size
    return {
        "autodiff": (autodiff, None),
        "closed form": (lambda: closed_form.softmax(w, None, inputs, labels).weights, None),
        "forward": (numeric(generic, method="forward"), n + 1),
        "central": (numeric(generic, method="central"), 2 * n),
        "richardson": (numeric(generic, method="richardson"), 6 * n),
        "structured central": (numeric(objective, method="central"), 2 * n),
        "structured richardson": (numeric(objective, method="richardson"), 6 * n),
    }


def _value(objective, w):
    return objective(w)


def timed(f, patience: float) -> tuple[float, np.ndarray]:
    """Seconds of the second call, which compiles nothing (of the first, if that was long)."""
    start = time.perf_counter()
    result = f()
    first = time.perf_counter() - start
    if first > patience:
        return first, result
    start = time.perf_counter()
    result = f()
    return time.perf_counter() - start, result


def run(options: Options) -> dict:
    """One row per way, size and number of examples."""
    data = load(options.data, data_dir=options.data_dir)
    classes, rows, slow = len(data.class_names), [], {}
    for count in options.examples:
        for features in options.features:
            inputs, labels = problem(data, count, features)
            w = np.random.default_rng(1).random((classes, features)) * 1e-3
            exact = closed_form.softmax(w, None, inputs, labels).weights
            for name, (f, evaluations) in ways(inputs, labels, w).items():
                work = w.size**2 * len(labels)
                if slow.get(name, 0.0) * work > options.patience:
                    continue
                seconds, value = timed(f, options.patience)
                if evaluations is not None and not name.startswith("structured"):
                    slow[name] = seconds / work
                row = {
                    "way": name,
                    "parameters": w.size,
                    "examples": len(labels),
                    "seconds": seconds,
                    "evaluations": evaluations,
                    "error": float(np.abs(value - exact).max() / np.abs(exact).max()),
                }
                rows.append(row)
                shown = "-" if evaluations is None else f"{evaluations:,}"
                print(
                    f"n {w.size:>7,}  N {len(labels):>6,}  {name:<22} {seconds:>9.4f} s  "
                    f"{shown:>9} evaluations  error {row['error']:.1e}",
                    file=sys.stderr,
                    flush=True,
                )
    device = jax.devices()[0]
    return {"data": data.name, "device": f"{device.platform} {device.device_kind}", "rows": rows}


def picture(result):
    """Time and error against the number of parameters, for the largest number of examples."""
    from jaxlin.plots.style import COLORS, new_figure, tidy

    figure, axes = new_figure(10.0, 4.0, columns=2)
    most = max(row["examples"] for row in result["rows"])
    names = list(dict.fromkeys(row["way"] for row in result["rows"]))
    for i, name in enumerate(names):
        rows = [r for r in result["rows"] if r["way"] == name and r["examples"] == most]
        n = [row["parameters"] for row in rows]
        style = {"color": COLORS[i], "marker": "o", "ms": 4, "lw": 1.4, "label": name}
        axes[0, 0].loglog(n, [row["seconds"] for row in rows], **style)
        axes[0, 1].loglog(n, [max(row["error"], 1e-17) for row in rows], **style)
    tidy(axes[0, 0], title=f"Time, {most:,} examples", x="parameters", y="seconds")
    tidy(axes[0, 1], title="Error", x="parameters", y="relative to the largest entry")
    axes[0, 1].legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def main() -> int:
    options = tyro.cli(Options, config=(tyro.conf.FlagCreatePairsOff,))
    result = run(options)
    if options.out is not None:
        from jaxlin.plots.style import save

        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "comparison.json").write_text(
            json.dumps(result, indent=2) + "\n", encoding="utf-8"
        )
        save(picture(result), options.out / "comparison.png")
    if options.json:
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
