"""What does the SVM loss look like around a random weight matrix?

The lecture's three panels, without regularization: the loss of one example along a ray (exactly,
with its kinks), of one example on a plane, and of a hundred examples on the same plane, which is
the average of the hundred planes of the single examples.

    python experiments/landscape_panels.py --data cifar10 --out results/landscape_panels
"""

import argparse
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxlin import preprocess
from jaxlin.core import LinearParams
from jaxlin.data import load
from jaxlin.landscape import affine_plane, hinge_profile, random
from jaxlin.losses import weston_watkins_hinge
from jaxlin.plots.landscape import panels_figure
from jaxlin.plots.style import save

EXAMPLES = 100
EXTENT = 3.0
POINTS = 101


def run(data: str, data_dir: Path | None, out: Path, seed: int = 0) -> dict:
    """Compute and draw the panels; return the figures of merit."""
    train = load(data, data_dir=data_dir)
    statistics = preprocess.fit(train.inputs, "center")  # the lecture's mean image
    inputs, labels = np.asarray(train.inputs[:EXAMPLES]), train.labels[:EXAMPLES]
    start, first, second = points(statistics, inputs, len(train.class_names), seed)
    keywords = {"loss": weston_watkins_hinge, "preprocessing": statistics}

    profile = hinge_profile(start, first, inputs[:1], labels[:1], **keywords)
    kinks = profile.breakpoints[np.abs(profile.breakpoints) <= EXTENT]
    along = np.unique(np.concatenate([np.linspace(-EXTENT, EXTENT, POINTS), kinks]))
    steps = np.linspace(-EXTENT, EXTENT, POINTS)
    plane = (start, first, second, steps, steps)
    singles = affine_plane(*plane, inputs, labels, quantity="losses", **keywords)
    hundred = np.asarray(affine_plane(*plane, inputs, labels, **keywords))
    average = singles.mean(axis=0, dtype=np.float64)

    figure = panels_figure(
        (along, profile(along), kinks, profile(kinks)),
        (steps, steps, singles[0]),
        (steps, steps, hundred),
    )
    out.mkdir(parents=True, exist_ok=True)
    save(figure, out / "landscape_panels.png", formats=("png", "svg"))
    step, value = profile.minimum()
    results = {
        "data": train.name,
        "kinks_of_one_example": len(profile.breakpoints),
        "minimum_of_one_example": {"step": step, "loss": value},
        "average_of_singles_error": float(np.max(np.abs(average - hundred) / hundred)),
        "least_bend": least_bend(hundred),
        "loss_range": [float(hundred.min()), float(hundred.max())],
    }
    (out / "landscape_panels.json").write_text(
        json.dumps(results, indent=2) + "\n", encoding="utf-8"
    )
    return results


def points(statistics, inputs, classes: int, seed: int):
    """A random W and two directions, of such a size that a step of 1 moves scores by about 1."""
    ready = np.asarray(preprocess.apply(statistics, inputs), np.float64)
    size = 1 / np.sqrt(np.mean(np.sum(ready**2, axis=1)))
    like = LinearParams(jnp.zeros((classes, inputs.shape[1])), jnp.zeros(classes))
    drawn = (random(key, like).tree for key in jax.random.split(jax.random.key(seed), 3))
    return [LinearParams(size * weights, jnp.zeros(classes)) for weights, _ in drawn]


def least_bend(values: np.ndarray) -> float:
    """The least second difference along rows, columns and diagonals, relative to the range."""
    lines = [*values, *values.T]
    lines += [np.diagonal(v, k) for v in (values, values[::-1]) for k in range(-40, 41)]
    bend = min(float(np.diff(np.float64(line), 2).min()) for line in lines if len(line) > 2)
    return bend / float(np.ptp(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path, default=Path("results/landscape_panels"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    results = run(options.data, options.data_dir, options.out, options.seed)
    if options.json:
        print(json.dumps(results))
    else:
        for key, value in results.items():
            print(f"{key:<26} {value}")
        print(f"Look at {options.out / 'landscape_panels.png'}")


if __name__ == "__main__":
    main()
