"""How long does a loss landscape take, against point-by-point evaluation and against peers?

A 51 x 51 plane over 50,000 CIFAR-10 images (or random ones of their size with `--data random`),
softmax and hinge; the exact profile of a hinge along a ray; the generic plane. All in one run.
The contenders that evaluate point by point are measured on a few points and extrapolated, which
the table says.

    python experiments/benchmarks/landscape.py --data cifar10 --out results/landscape
"""

import argparse
import json
import platform
import resource
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from report import save_table

from jaxlin import losses
from jaxlin.core import Batch, LinearParams
from jaxlin.landscape import affine_plane, hinge_profile, plane, random, ray
from jaxlin.objectives import compose
from jaxlin.scores import linear

POINTS = 51
MEASURED = 12  # points of the contenders that take one after the other
NAMES = {"softmax": losses.softmax_cross_entropy, "hinge": losses.weston_watkins_hinge}


def least(function, repeats: int = 5) -> float:
    """Seconds of the fastest of `repeats` calls, after one that compiles."""
    jax.block_until_ready(function())
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        jax.block_until_ready(function())
        seconds.append(time.perf_counter() - begun)
    return min(seconds)


def load(data: str, data_dir, limit):
    if data == "random":
        rng = np.random.default_rng(0)
        count = limit or 50_000
        return rng.integers(0, 256, (count, 3072), dtype=np.uint8), rng.integers(0, 10, count)
    from jaxlin.data import load

    train = load(data, data_dir=data_dir)
    return np.asarray(train.inputs[:limit]), train.labels[:limit]


def point_by_point(loss, params, directions, inputs, labels) -> float:
    """Seconds a point of a compiled objective takes at best, the data on the device."""
    # pixels as float32 beforehand, which is faster than bytes here: the contender's best
    batch = Batch(jnp.asarray(inputs, jnp.float32), jnp.asarray(labels))
    objective = jax.jit(compose(linear, loss))
    points = [
        jax.tree.map(lambda w, d, e, a=a: w + a * d - a * e, params, *(d.tree for d in directions))
        for a in np.linspace(-1, 1, MEASURED)
    ]
    return min(least(partial(objective, point, batch), 1) for point in points)


def peer(name: str, inputs, labels) -> float | None:
    """Seconds a point takes `loss_landscapes.random_plane` (PyTorch); None where not installed."""
    try:
        import loss_landscapes
        import torch
        from loss_landscapes.metrics import Loss
    except ImportError:
        return None
    model = torch.nn.Linear(inputs.shape[1], int(labels.max()) + 1)
    target = torch.from_numpy(np.asarray(labels, np.int64))
    pixels = torch.from_numpy(inputs).float()  # expanded beforehand: in the peer's favour

    def hinge(scores, target):  # Weston-Watkins
        own = scores.gather(1, target[:, None])
        return (torch.relu(scores - own + 1).sum(1) - 1).mean()

    criterion = torch.nn.CrossEntropyLoss() if name == "softmax" else hinge
    side = 2
    with torch.no_grad():
        metric = Loss(criterion, pixels, target)
        call = partial(loss_landscapes.random_plane, model, metric, 1, side, deepcopy_model=True)
        return least(call, MEASURED // side**2) / side**2


def planes(params, directions, inputs, labels) -> dict:
    steps = np.linspace(-1, 1, POINTS)
    found = {}
    for name, loss in NAMES.items():
        call = partial(affine_plane, params, *directions, steps, steps, inputs, labels, loss=loss)
        ours = least(call)
        one = point_by_point(loss, params, directions, inputs, labels) * POINTS**2
        theirs = peer(name, inputs, labels)
        found[name] = {
            "seconds": ours,
            "jax_point_by_point_seconds": one,
            "times_jax": one / ours,
            "loss_landscapes_seconds": None if theirs is None else theirs * POINTS**2,
            "times_loss_landscapes": None if theirs is None else theirs * POINTS**2 / ours,
        }
    corner = affine_plane(
        params, *directions, [0.0, steps[0]], [0.0, steps[-1]], inputs, labels,
        loss=losses.softmax_cross_entropy,
    )  # fmt: skip
    found["accuracy_seconds"] = least(partial(call, quantity="accuracy"), 3)
    found["products_seconds"] = products_alone(params, directions, inputs)
    found["finite"] = bool(np.isfinite(corner).all())
    return found


def products_alone(params, directions, inputs) -> float:
    """The limit below the element-wise work: three products in blocks of the same size."""
    stacked = jnp.concatenate([params.weights, *(d.tree.weights for d in directions)])

    @jax.jit
    def run(rows):
        blocks = rows.reshape(-1, 250, rows.shape[1])
        return jax.lax.map(lambda x: jnp.sum(x.astype(jnp.float32) @ stacked.T), blocks)

    rows = jnp.asarray(inputs[: len(inputs) // 250 * 250])
    return least(lambda: run(rows))


def profile(params, directions, inputs, labels) -> dict:
    """The exact profile, and how far its values are from a dense evaluation in both dtypes."""
    seconds = least(lambda: hinge_profile(params, directions[0], inputs, labels).breakpoints)
    found = hinge_profile(params, directions[0], inputs, labels)
    steps = np.linspace(-1, 1, 9)
    errors = {}
    for dtype in (np.float64, np.float32):
        with jax.enable_x64(dtype is np.float64):
            point, way = (
                LinearParams(*(jnp.asarray(np.asarray(leaf), dtype) for leaf in tree))
                for tree in (params, directions[0].tree)
            )
            rows = inputs[:2000]
            exact = hinge_profile(point, way, rows, labels[:2000])(steps)
            objective = compose(linear, losses.weston_watkins_hinge)
            batch = Batch(jnp.asarray(rows), jnp.asarray(labels[:2000]))
            dense = np.asarray(ray(partial(objective, batch=batch), point, way, steps), np.float64)
            errors[np.dtype(dtype).name] = float(np.max(np.abs(exact - dense) / dense))
    return {"seconds": seconds, "breakpoints": len(found.breakpoints), "relative_error": errors}


def generic(inputs, labels) -> dict:
    """The generic plane against the same points in a Python loop, on a hundred rows of 64."""
    batch = Batch(jnp.asarray(inputs[:100, :64]), jnp.asarray(labels[:100]))
    objective = partial(compose(linear, losses.softmax_cross_entropy), batch=batch)
    like = LinearParams(jnp.zeros((10, 64)), jnp.zeros(10))
    params, *directions = (random(key, like) for key in jax.random.split(jax.random.key(1), 3))
    params = jax.tree.map(lambda leaf: 1e-3 * leaf, params.tree)
    steps = np.linspace(-1, 1, POINTS)
    begun = time.perf_counter()
    jax.block_until_ready(plane(objective, params, *directions, steps, steps))
    ours = time.perf_counter() - begun
    compiled = jax.jit(objective)

    def loop():
        return [
            float(compiled(jax.tree.map(lambda w, d, e, a=a, b=b: w + a * d + b * e, params,
                                        *(d.tree for d in directions))))
            for a in steps for b in steps
        ]  # fmt: skip

    return {
        "points": POINTS**2,
        "seconds_with_compile": ours,
        "python_loop_seconds": least(loop, 1),
    }


def save(folder: Path, results: dict) -> None:
    def cell(times):
        return "" if times is None else f"{times:.0f}"

    exact, loop = results["exact_profile"], results["generic"]
    rows = [
        [
            name,
            f"{found['seconds']:.2f}",
            cell(found["times_jax"]),
            cell(found["times_loss_landscapes"]),
        ]
        for name, found in results.items()
        if isinstance(found, dict) and "times_jax" in found
    ]
    alone = {
        "accuracy": results["accuracy_seconds"],
        "the three matrix products alone (the limit)": results["products_seconds"],
        f"exact hinge profile, {exact['breakpoints']:,} kinks, float64": exact["seconds"],
    }
    rows += [[name, f"{seconds:.2f}", "", ""] for name, seconds in alone.items()]
    shown = f"{POINTS} x {POINTS} points over {results['examples']:,} pictures"
    save_table(
        folder,
        "landscape",
        title=f"A plane of {shown} ({results['data']})",
        columns=[
            *("what", "seconds", "compiled JAX, point by point: times as long"),
            "`loss-landscapes`: times as long",
        ],
        rows=rows,
        notes=[
            f"The least of several, warm; the peers are measured on {MEASURED} points, and "
            "extrapolated."
        ],
        changes="a model whose scores are not linear in the parameters: there the grid is "
        "evaluated point by point (next table).",
        measured=results,
    )
    save_table(
        folder,
        "landscape_generic",
        title=f"A plane of any objective: {loop['points']:,} points on 100 small examples",
        columns=["what", "seconds"],
        rows=[
            ["**`landscape.plane`, with compilation**", f"{loop['seconds_with_compile']:.2f}"],
            ["a Python loop over a compiled function", f"{loop['python_loop_seconds']:.2f}"],
        ],
        notes=[],
        changes="more work a point: where the work dominates both cost the same.",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="random", help="cifar10, or random pixels")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path, default=Path("results/landscape"))
    parser.add_argument("--limit", type=int, help="use only this many images")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    inputs, labels = load(options.data, options.data_dir, options.limit)
    like = LinearParams(jnp.zeros((10, inputs.shape[1])), jnp.zeros(10))
    keys = jax.random.split(jax.random.key(0), 3)
    # scores of size 1 on raw pixels, as a trained classifier has
    size = 1 / np.sqrt(np.mean(np.sum(np.square(inputs[:1000], dtype=np.float64), axis=1)))
    drawn = [jax.tree.map(lambda leaf: leaf * size, random(key, like).tree) for key in keys]
    params, directions = drawn[0], [random(keys[0], like)._replace(tree=d) for d in drawn[1:]]
    results = {"data": options.data, "examples": len(labels), "points": POINTS**2,
               "measured_points": MEASURED}  # fmt: skip
    results |= planes(params, directions, inputs, labels)
    results["exact_profile"] = profile(params, directions, inputs, labels)
    results["generic"] = generic(inputs, labels)
    results["machine"] = {"processor": platform.processor() or platform.machine(),
                          "devices": str(jax.devices()), "jax": jax.__version__}  # fmt: skip
    results["peak_memory_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    save(options.out, results)
    print(json.dumps(results) if options.json else json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
