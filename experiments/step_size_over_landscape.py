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
from jaxlin.data import load_splits
from jaxlin.landscape import affine_plane, hinge_profile, normalize, orthogonalize, random
from jaxlin.losses import weston_watkins_hinge
from jaxlin.objectives import compose
from jaxlin.plots.landscape import step_size_figure
from jaxlin.plots.style import save

EXAMPLES = 2000
POINTS = 81


def run(data: str, data_dir: Path | None, out: Path, seed: int = 0) -> dict:
    """Compute and draw the figure; return the step sizes and their losses."""
    train, _ = load_splits(data, data_dir=data_dir)
    inputs, labels = np.asarray(train.inputs[:EXAMPLES]), train.labels[:EXAMPLES]
    statistics = preprocess.fit(train.inputs, "standardize")
    classes, features = len(train.class_names), inputs.shape[1]
    keys = jax.random.split(jax.random.key(seed), 2)
    weights = jax.random.normal(keys[0], (classes, features)) / np.sqrt(features)
    start = LinearParams(weights, jnp.zeros(classes))

    score = models.score_function(statistics)
    objective = partial(compose(score, weston_watkins_hinge), batch=Batch(inputs, labels))
    gradient = jax.jit(jax.grad(objective))(start)
    down = jax.tree.map(jnp.negative, gradient)
    keywords = {"loss": weston_watkins_hinge, "preprocessing": statistics}
    profile = hinge_profile(start, down, inputs, labels, **keywords)
    best, least = profile.minimum()
    candidates = [(0.25, "small step"), (1.0, "best step"), (overshoot(profile, best), "overshot")]

    # axes in units of the best step, of equal length in parameter space
    along = jax.tree.map(lambda leaf: leaf * best, down)
    across = orthogonalize(random(keys[1], start), along)
    across = normalize(across, along, kind="global")
    reach = candidates[-1][0] * 1.25
    steps_1, steps_2 = np.linspace(-0.35 * reach, reach, POINTS), np.linspace(-0.7, 0.7, POINTS)
    steps_2 = steps_2 * reach
    values = affine_plane(start, along, across, steps_1, steps_2, inputs, labels, **keywords)
    figure = step_size_figure(
        steps_1, steps_2, values, arrow=0.55 * candidates[1][0], candidates=candidates,
        x="along the negative gradient, in best steps", y="across it, same length",
        title=f"Effect of the step size: hinge, {len(labels):,} examples of {train.name}",
    )  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    save(figure, out / "step_size_over_landscape.png", formats=("png", "svg"))
    table = {name: {"step_size": s * best, "loss": float(profile(s * best))}
             for s, name in candidates}  # fmt: skip
    results = {"data": train.name, "loss_at_start": float(profile(0.0)), "steps": table,
               "best_step_size": best, "least_loss": least}  # fmt: skip
    (out / "step_size_over_landscape.json").write_text(json.dumps(results, indent=2) + "\n")
    return results


def overshoot(profile, best: float) -> float:
    """The step, in units of the best one, at which the loss is a tenth above the start's."""
    target, low, high = 1.1 * float(profile(0.0)), best, 2 * best
    while profile(high) < target:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if profile(middle) < target else (low, middle)
    return high / best


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
