"""What `tests/test_sharding.py` runs with eight CPU devices: prints one JSON object."""

import json
import sys
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from jaxlin import (
    batches,
    losses,
    models,
    platforms,
    precision,
    preprocess,
    scores,
    solvers,
    steps,
    stream,
    sweep,
    train,
)
from jaxlin.cli import main
from jaxlin.core import Batch, LinearParams
from jaxlin.data import load
from jaxlin.data.rows import RowView
from jaxlin.distributed import sharding
from jaxlin.objectives import compose
from jaxlin.passes import chunks, open_rows
from jaxlin.sweep import full_batch

KEY = jax.random.key(0)
MESHES = {
    "1": None,
    "8": sharding.mesh(),
    "3": sharding.mesh(3),  # 1,442 rows do not divide by 3, nor by 8
    "2x4": sharding.mesh(class_axis=4),  # nor do 10 classes by 4
}


def on(data, over):
    return data if over is None else sharding.place(data, over)


def minibatch(data, statistics):
    """Objective of the whole set after 150 steps of softmax, and equality of repetitions."""
    arrays = jax.tree.map(
        lambda leaf: leaf if isinstance(leaf, str) else jnp.asarray(leaf, jnp.float32), statistics
    )
    objective = partial(
        compose(models.score_function(arrays), losses.softmax_cross_entropy), strength=1e-3
    )
    descent = train.trainer(objective, optax.sgd(0.05, momentum=0.9))
    zeros = LinearParams(jnp.zeros((10, 64)), jnp.zeros(10))

    def fitted(over, steps=150):
        return train.run(descent, zeros, on(data, over), key=KEY, steps=steps, batch_size=100)

    fits = {name: fitted(over) for name, over in MESHES.items()}
    again = fitted(MESHES["8"])

    # Half of the run on eight devices, the other half on two.
    two = sharding.mesh(2)
    state = sharding.fetch(fitted(MESHES["8"], 75).state)
    for new, _ in train.chunks(
        descent, state, sharding.place(data, two), key=KEY, steps=150, batch_size=100
    ):
        state = new
    params = {name: fit.params for name, fit in fits.items()} | {"8, then 2": state.params}
    return {
        "objectives": {name: float(objective(p, data)) for name, p in params.items()},
        "same bits": all(map(np.array_equal, again.params, fits["8"].params)),
    }


def exchanged(batch_size, over, classes=12, features=20):
    """What a step exchanges: the collectives of the compiled chunk."""
    rng = np.random.default_rng(0)
    data = Batch(
        rng.normal(size=(2048, features)).astype(np.float32),
        rng.integers(0, classes, 2048).astype(np.int32),
    )
    objective = compose(scores.linear, losses.softmax_cross_entropy)
    descent = train.trainer(objective, optax.adam(0.1))
    params = LinearParams(np.zeros((classes, features), np.float32), np.zeros(classes, np.float32))
    state = descent.init(sharding.place_params(params, over))
    text = train.program(descent, state, sharding.place(data, over), batch_size=batch_size)
    return [[found.kind, found.elements] for found in sharding.collectives(text)]


def values():
    """Every loss at random parameters: the objective and its gradient's norm, on every mesh."""
    rng = np.random.default_rng(1)
    data = Batch(
        rng.normal(size=(101, 7)).astype(np.float32),
        rng.integers(0, 10, 101).astype(np.int32),
        rng.integers(0, 4, 101).astype(np.float32),
    )
    params = LinearParams(
        rng.normal(size=(10, 7)).astype(np.float32), rng.normal(size=10).astype(np.float32)
    )

    def all_losses(params, batch):
        named = {name: losses.named(name) for name in losses.LOSSES}
        named["smoothed"] = partial(losses.softmax_cross_entropy, label_smoothing=0.1)
        found = {}
        for name, loss in named.items():
            objective = partial(compose(scores.linear, loss), strength=0.1)
            value, gradient = jax.value_and_grad(objective)(params, batch)
            found[name] = value, optax.tree.norm(gradient)
        return found

    def measured(over):
        if over is None:
            return jax.jit(all_losses)(params, data)
        placed = sharding.place(data, over).batch
        return jax.jit(all_losses)(sharding.place_params(params, over), placed)

    return {name: jax.tree.map(float, measured(over)) for name, over in MESHES.items()}


def solved():
    """Certified fits of 3,001 rows on one device and on eight."""
    rng = np.random.default_rng(2)
    inputs = rng.normal(size=(3001, 150)).astype(np.float32)
    labels = (inputs @ rng.normal(size=(150, 6)) + 8 * rng.normal(size=(3001, 6))).argmax(1)
    statistics = preprocess.fit(inputs, "standardize")
    found = {}
    for loss, tolerance in (("softmax", 1e-5), ("squared-hinge", 1e-4)):
        for name in ("1", "8"):
            solution = solvers.minimize(
                inputs, labels, loss=loss, strength=1e-2, tolerance=tolerance,
                preprocessing=statistics, mesh=MESHES[name],
            )  # fmt: skip
            found[f"{loss} {name}"] = [solution.objective, solution.lower_bound]
    return found


def swept():
    """Banks of 5 heads and certified paths: their objectives and norms, with the last digits."""
    rng = np.random.default_rng(4)
    inputs = rng.normal(size=(2101, 101)).astype(np.float32)
    labels = (inputs @ rng.normal(size=(101, 10)) + 8 * rng.normal(size=(2101, 10))).argmax(1)
    data, held = (Batch(inputs[r], labels[r].astype(np.int32)) for r in (slice(2000), slice(101)))
    statistics = preprocess.fit(data.inputs, "standardize")
    heads = sweep.grid([1e-3], step_sizes=[1e-3, 2e-3, 4e-3, 8e-3, 1e8], losses=["softmax"])
    common = {"classes": 10, "statistics": statistics}
    descent = sweep.Descent("momentum", steps=60)
    found = {"bank": {}, "path": {}}
    for name in ("1", "8", "2x4"):
        fitted = sweep.descend(
            heads, data, held, descent=descent, key=KEY, batch_size=100, mesh=MESHES[name],
            patience=2, **common,
        )  # fmt: skip
        found["diverged"] = fitted[4].status
        found["bank"][name] = [
            [f.status, f.validation_accuracy, *(f.validation_loss, f.objective, f.weight_norm)]
            for f in fitted[:4]
        ]
    for name in ("1", "8"):
        fitted = full_batch.solve(
            sweep.grid([1e-2, 1e-1]), data, held, tolerance=1e-7, mesh=MESHES[name], **common
        )
        found["path"][name] = [[f.objective, f.relative_gap, f.validation_loss] for f in fitted]
    return found


def streamed():
    """Training on rows that are read in windows, on every mesh: the objective after three epochs.

    Windows of 4 batches, the last one of a single batch: every device has its share of each.
    """
    rng = np.random.default_rng(6)
    inputs = rng.normal(size=(2016, 16)).astype(np.float32)
    labels = (inputs @ rng.normal(size=(16, 4))).argmax(1).astype(np.int32)
    data = Batch(RowView(inputs, np.arange(len(inputs))), labels)
    data.inputs.resident_bytes = 4 * 400 * 64
    stream.BLOCK_BYTES = 7 * 64
    objective = partial(compose(scores.linear, losses.softmax_cross_entropy), strength=1e-3)
    descent = train.trainer(objective, optax.sgd(0.05, momentum=0.9))
    zeros = LinearParams(jnp.zeros((4, 16)), jnp.zeros(4))
    found = {}
    for name, over in MESHES.items():
        placed = steps.placed_for_training(data, over)
        fit = train.run(descent, zeros, placed, key=KEY, steps=63, batch_size=96)
        found[name] = float(objective(fit.params, Batch(inputs, labels)))
    return found | {"streamed": stream.is_streamed(data.inputs)}


def many_classes():
    """A step of 100,003 classes split over eight devices."""
    over = sharding.mesh(class_axis=8)
    classes = 100_003
    params = LinearParams(np.zeros((classes, 4), np.float32), np.zeros(classes, np.float32))
    data = Batch(np.eye(4, dtype=np.float32), np.array([0, 1, 99_999, 100_002], np.int32))
    descent = train.trainer(compose(scores.linear, losses.softmax_cross_entropy), optax.sgd(1.0))
    state = descent.init(sharding.place_params(params, over))
    placed = sharding.place(data, over)
    state, info = next(train.chunks(descent, state, placed, key=KEY, steps=1, batch_size=4))
    weights = state.params.weights
    text = train.program(descent, state, placed, batch_size=4)
    whole = sharding.fetch(state.params, classes)
    return {
        "shard": weights.addressable_shards[0].data.shape,
        "loss": float(info.loss[0]),
        "own": float(whole.weights[100_002, 3]),
        "largest exchange": max(found.elements for found in sharding.collectives(text)),
    }


def plan_is_the_epoch():
    """The rows that the devices see in each step, as sets of global row numbers."""
    over = sharding.mesh(3)
    plan = batches.epoch_plan(KEY, 5, 101, 16)
    split = sharding.shard_plan(plan, 101, over)
    share = -(-101 // 3)
    rows = np.asarray(split.rows) + share * np.arange(3)[None, :, None]
    seen = [sorted(r[w > 0].tolist()) for r, w in zip(rows, np.asarray(split.weights), strict=True)]
    meant = [sorted(r[w > 0].tolist()) for r, w in zip(plan.rows, plan.weights, strict=True)]
    return seen == meant


def proved_elsewhere():
    """Fits on devices that are said to have no float64, against the fit on one that has it."""
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(1500, 320)).astype(np.float32) + 100
    labels = np.argmax(inputs[:, :10] + generator.normal(size=(1500, 10)), 1)
    fit = partial(solvers.minimize, inputs, labels, strength=1e-3, tolerance=1e-4)
    over = sharding.mesh(jax.devices()[5:])
    first, *_ = jax.devices()
    real = platforms.arithmetic_of
    emulated = real(first)._replace(float64="emulated")
    platforms.arithmetic_of = lambda device: real(device) if device == first else emulated
    places, walked = set(), chunks.transpose_total

    def watched(*arguments, **settings):
        found = walked(*arguments, **settings)
        if found[0].dtype == np.float64:
            spread = isinstance(found[0], jax.core.Tracer)
            places.add("a mesh" if spread else min(device.id for device in found[0].devices()))
        return found

    chunks.transpose_total = watched
    try:
        with jax.default_device(jax.devices()[5]):
            there = [fit(), fit(mesh=over)]
            arithmetic = open_rows(inputs, 10, host=False).arithmetic
            with precision.float64():
                places.update(device.id for device in jnp.ones(3).devices())
    finally:
        platforms.arithmetic_of, chunks.transpose_total = real, walked
    here = [fit(), fit(mesh=over)]
    bounds = [[each.objective, each.lower_bound] for each in here + there]
    return {"bounds": bounds, "places": list(places), "arithmetic": arithmetic}


def command(out):
    Figure.savefig = lambda *arguments, **settings: None  # drawing takes longer than all else
    return main(
        ["train", "--out", out, "--devices", "8", "--class-devices", "2", "--steps", "60", "-q"]
    )


if __name__ == "__main__":
    digits = load("digits")
    data = Batch(digits.inputs, digits.labels.astype(np.int32))
    parts = {
        "minibatch": partial(minibatch, data, preprocess.fit(digits.inputs, "standardize")),
        "exchanged 64": partial(exchanged, 64, MESHES["8"]),
        "exchanged 1024": partial(exchanged, 1024, MESHES["8"]),
        "values": values,
        "full batch": solved,
        "swept": swept,
        "streamed": streamed,
        "many classes": many_classes,
        "plan is the epoch's": plan_is_the_epoch,
        "proved elsewhere": proved_elsewhere,
        "command": partial(command, sys.argv[1]),
    }
    found = {}
    for name, part in parts.items():
        start = time.perf_counter()
        found[name] = part()
        print(f"{time.perf_counter() - start:6.1f} s  {name}", file=sys.stderr)
    print(json.dumps(found))
