"""Where do the SVM and softmax go on the same data, under weak and strong regularization?

Both are trained from zero weights at both strengths. All four paths are seen on one plane, that
of the principal components of the four of them, over the loss each of them descends.

    python experiments/svm_versus_softmax_landscape.py --data cifar10 --out results/two_losses
"""

import argparse
import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxlin import losses, models, preprocess, train
from jaxlin.core import Batch, LinearParams
from jaxlin.data import load
from jaxlin.landscape import affine_plane, principal_components, project
from jaxlin.objectives import compose
from jaxlin.plots.landscape import draw_plane
from jaxlin.plots.style import new_figure, save

EXAMPLES = 5000
STRENGTHS = {"weak": 1e-4, "strong": 0.1}
LOSSES = {"SVM": losses.weston_watkins_hinge, "softmax": losses.softmax_cross_entropy}
STEPS, CHECKPOINT_EVERY, POINTS = 600, 20, 61


def run(data: str, data_dir: Path | None, out: Path, seed: int = 0) -> dict:
    """Train four times, draw the four planes, and return where each path ends."""
    found = load(data, data_dir=data_dir)
    inputs, labels = np.asarray(found.inputs[:EXAMPLES]), found.labels[:EXAMPLES]
    statistics = preprocess.fit(found.inputs, "standardize")
    batch = Batch(inputs, labels)
    paths = {
        (name, size): descend(loss, strength, statistics, batch, len(found.class_names), seed)
        for size, strength in STRENGTHS.items()
        for name, loss in LOSSES.items()
    }
    everything = [point for path in paths.values() for point in path]
    origin = jax.tree.map(lambda *leaves: jnp.mean(jnp.stack(leaves), axis=0), *everything)
    first, second = principal_components(everything, 2)
    seen = {key: project(path, origin, first, second) for key, path in paths.items()}
    corners = np.concatenate([projection.coordinates for projection in seen.values()])
    low, high = corners.min(axis=0), corners.max(axis=0)
    room = 0.15 * (high - low).max()
    steps = [np.linspace(a - room, b + room, POINTS) for a, b in zip(low, high, strict=True)]

    figure, axes = new_figure(10.6, 8.2, rows=2, columns=2)
    results = {"data": found.name, "examples": len(labels), "paths": {}}
    for ax, (key, projection) in zip(axes.flat, seen.items(), strict=True):
        name, size = key
        values = affine_plane(
            origin, first, second, *steps, inputs, labels,
            loss=LOSSES[name], strength=STRENGTHS[size], preprocessing=statistics,
        )  # fmt: skip
        filled = draw_plane(
            ax, *steps, values, path=projection.coordinates, title=f"{name}, {size} l2 "
            f"(strength {STRENGTHS[size]:g})", x="principal component 1", y="component 2",
        )  # fmt: skip
        figure.colorbar(filled, ax=ax, format="%.3g", label="objective")
        end = paths[key][-1]
        results["paths"][f"{name}, {size}"] = {
            "end": projection.coordinates[-1].tolist(),
            "explained": projection.explained,
            "weights_norm": float(jnp.linalg.norm(end.weights)),
            "least_on_plane": float(np.min(values)),
        }
    out.mkdir(parents=True, exist_ok=True)
    save(figure, out / "svm_versus_softmax_landscape.png", formats=("png", "svg"))
    (out / "svm_versus_softmax_landscape.json").write_text(
        json.dumps(results, indent=2) + "\n", encoding="utf-8"
    )
    return results


def descend(loss, strength, statistics, batch, classes: int, seed: int) -> list[LinearParams]:
    """The checkpoints of gradient descent with momentum from zero weights."""
    shift_and_scale = jax.tree.map(jnp.asarray, statistics._replace(kind=None))
    score = models.score_function(shift_and_scale._replace(kind=statistics.kind))
    features = batch.inputs.shape[1]
    objective = partial(compose(score, loss), strength=strength)
    rule = train.optimizer("adam", train.schedule("cosine", 3 / features, STEPS))
    descent = train.trainer(objective, rule)
    state = descent.init(LinearParams(jnp.zeros((classes, features)), jnp.zeros(classes)))
    path = [state.params]
    for reached, _ in train.chunks(
        descent, state, batch, key=jax.random.key(seed), steps=STEPS, chunk_steps=CHECKPOINT_EVERY
    ):
        path.append(jax.tree.map(np.asarray, reached.params))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path, default=Path("results/two_losses"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    results = run(options.data, options.data_dir, options.out, options.seed)
    if options.json:
        print(json.dumps(results))
        return
    for name, row in results["paths"].items():
        print(f"{name:<16} |W| {row['weights_norm']:.3f}, plane holds {row['explained']:.1%} "
              f"of its path, least objective on it {row['least_on_plane']:.4f}")  # fmt: skip
    print(f"Look at {options.out / 'svm_versus_softmax_landscape.png'}")


if __name__ == "__main__":
    main()
