"""How far should one step along the negative gradient go?

The lecture's figure of the step size: a point on the bowl, the arrow of the negative gradient,
and along its dashed line a small step, the best one and one that overshoots. The best step is
the exact minimum along the ray, from the kinks of the hinge.

    python experiments/step_size_over_landscape.py --data cifar10 --out results/step_size
"""

import argparse
import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxlin import models, preprocess
from jaxlin.core import Batch, LinearParams
from jaxlin.data import load
from jaxlin.landscape import affine_plane, hinge_profile, orthogonalize
from jaxlin.losses import weston_watkins_hinge
from jaxlin.objectives import compose
from jaxlin.plots.landscape import step_size_figure
from jaxlin.plots.style import save

EXAMPLES = 2000
POINTS = 81


def run(data: str, data_dir: Path | None, out: Path, seed: int = 0) -> dict:
    """Compute and draw the figure; return the step sizes and their losses."""
    train = load(data, data_dir=data_dir)
    inputs, labels = np.asarray(train.inputs[:EXAMPLES]), train.labels[:EXAMPLES]
    statistics = preprocess.fit(train.inputs, "standardize")
    classes, features = len(train.class_names), inputs.shape[1]
    weights = jax.random.normal(jax.random.key(seed), (classes, features)) / np.sqrt(features)
    start = LinearParams(weights, jnp.zeros(classes))

    score = models.score_function(statistics)
    objective = partial(compose(score, weston_watkins_hinge), batch=Batch(inputs, labels))
    gradient = jax.jit(jax.grad(objective))(start)
    down = jax.tree.map(jnp.negative, gradient)
    keywords = {"loss": weston_watkins_hinge, "preprocessing": statistics}
    profile = hinge_profile(start, down, inputs, labels, **keywords)
    best, least = profile.minimum()
    over = step_to(profile, 1.1 * profile(0.0), best) / best
    candidates = [(0.25, "small step"), (1.0, "best step"), (over, "overshot")]

    # The first axis in units of the best step. Across it, what the gradient says at the best
    # step, in units of the way on which the loss climbs back to that of the start.
    along = jax.tree.map(lambda leaf: leaf * best, down)
    bottom = jax.tree.map(jnp.add, start, along)
    across = orthogonalize(jax.jit(jax.grad(objective))(bottom), along)
    walls = hinge_profile(bottom, across, inputs, labels, **keywords)
    width = step_to(walls, profile(0.0), walls.minimum()[0])
    across = jax.tree.map(lambda leaf: leaf * width, across.tree)
    reach = candidates[-1][0] * 1.2
    steps_1, steps_2 = np.linspace(-0.6, reach, POINTS), np.linspace(-1.4, 1.4, POINTS)
    values = affine_plane(start, along, across, steps_1, steps_2, inputs, labels, **keywords)
    figure = step_size_figure(
        steps_1, steps_2, values, arrow=0.55 * candidates[1][0], candidates=candidates,
        x="along the negative gradient, in best steps", y="across it",
        title=f"Effect of the step size: hinge, {len(labels):,} examples of {train.name}",
    )  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    save(figure, out / "step_size_over_landscape.png", formats=("png", "svg"))
    table = {name: {"step_size": s * best, "loss": float(profile(s * best))}
             for s, name in candidates}  # fmt: skip
    results = {"data": train.name, "loss_at_start": float(profile(0.0)), "steps": table,
               "best_step_size": best, "least_loss": least}  # fmt: skip
    (out / "step_size_over_landscape.json").write_text(
        json.dumps(results, indent=2) + "\n", encoding="utf-8"
    )
    return results


def step_to(profile, target: float, low: float) -> float:
    """The step beyond `low` at which a convex profile has climbed to `target`."""
    high = low + max(1e-6, abs(low))
    while profile(high) < target:
        high = low + 2 * (high - low)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if profile(middle) < target else (low, middle)
    return high


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path, default=Path("results/step_size"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    results = run(options.data, options.data_dir, options.out, options.seed)
    if options.json:
        print(json.dumps(results))
        return
    print(f"loss at W   {results['loss_at_start']:.4f}")
    for name, row in results["steps"].items():
        print(f"{name:<11} {row['loss']:.4f}  after a step of size {row['step_size']:.3g}")
    print(f"Look at {options.out / 'step_size_over_landscape.png'}")


if __name__ == "__main__":
    main()
