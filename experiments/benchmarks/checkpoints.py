"""What does a checkpoint cost?

The state of a minibatch run with Adam (parameters, both moments, the best parameters so far) of
two sizes: CIFAR-10's (10 x 3,072 weights) and ImageNet features' (1,000 x 2,048). Seconds to save
it (Orbax, fsync, manifest), to verify every byte, and to load it; the least and the median of
several. Beside them the floor: writing the same bytes to one file and pushing them to the disk.
Then one epoch of 50,000 x 3,072 uint8 pixels, batch 256, with and without a save at its end.

    python experiments/benchmarks/checkpoints.py --out results/checkpoints
"""

import argparse
import json
import os
import shutil
import sys
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from report import save_table

from jaxlin import checkpoint, losses, train
from jaxlin.core import Batch, LinearParams
from jaxlin.objectives import compose
from jaxlin.scores import linear

SIZES = {"10 x 3,072": (10, 3072), "1,000 x 2,048": (1000, 2048)}


def seconds_of(function, repeats):
    """(least, median) of `repeats` calls after one that warms up."""
    function()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return min(seconds), float(np.median(seconds))


def descent_of(classes):
    def score(params, inputs):
        return linear(params, inputs.astype(jnp.float32) / 255)

    objective = partial(compose(score, losses.softmax_cross_entropy), strength=1e-4)
    return train.trainer(objective, train.optimizer("adam", 1e-3))


def state_of(classes, features, examples=50_000):
    """A state full of noise, which cannot be compressed."""
    rng = np.random.default_rng(0)
    params = LinearParams(jnp.zeros((classes, features)), jnp.zeros(classes))
    state, _ = train.pack(train.beginning(descent_of(classes), params, examples))
    return jax.tree.map(
        lambda leaf: rng.normal(size=np.shape(leaf)).astype(np.asarray(leaf).dtype), state
    )


def plain_write(path, content):
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def costs(folder, classes, features, repeats):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    state = state_of(classes, features)
    content = b"".join(leaf.tobytes() for leaf in jax.tree.leaves(state))
    steps = iter(range(10**6))
    save = seconds_of(lambda: checkpoint.save(folder, next(steps), state, {}), repeats)
    found = checkpoint.find(folder)
    measured = {
        "megabytes": len(content) / 1e6,
        "megabytes_on_disk": sum(
            path.stat().st_size for path in found.folder.rglob("*") if path.is_file()
        )
        / 1e6,
        "save": save,
        "verify": seconds_of(lambda: checkpoint.problems(found.folder), repeats),
        "load": seconds_of(lambda: checkpoint.load(found, state), repeats),
        "plain_write": seconds_of(lambda: plain_write(folder / "plain", content), repeats),
    }
    shutil.rmtree(folder)
    return measured


def epochs(folder, repeats, count=10):
    """(least, median) seconds of an epoch without and with a save at its end."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (50_000, 3072), dtype=np.uint8)
    batch = Batch(jnp.asarray(pixels), jnp.asarray(rng.integers(0, 10, 50_000), jnp.int32))
    params = LinearParams(jnp.zeros((10, 3072)), jnp.zeros(10))
    descent, per_epoch = descent_of(10), -(-50_000 // 256)

    def fit(every):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        keeper = checkpoint.keeper(folder, identity={}, every=every, warn=print)

        def on_progress(progress):
            if keeper.due(int(progress.state.step)):
                state, record = train.pack(progress)
                keeper.save(int(progress.state.step), state, record)

        watched = {"on_progress": on_progress, "next_due": keeper.next_due} if every else {}
        fitted = train.run(
            *(descent, params, batch), key=jax.random.key(0), steps=count * per_epoch, **watched
        )
        return fitted.train_seconds / count

    fit(None)
    fit(per_epoch)
    plain, saving = [], []
    for _ in range(repeats):  # in turn, so that both see the same machine
        plain.append(fit(None))
        saving.append(fit(per_epoch))
    shutil.rmtree(folder)
    return {
        "plain": (min(plain), float(np.median(plain))),
        "saving": (min(saving), float(np.median(saving))),
    }


def save(folder, results, repeats):
    def text(value):
        pair = isinstance(value, tuple)
        return "{:.3f} s (median {:.3f} s)".format(*value) if pair else f"{value:.2f}"

    save_table(
        folder,
        "checkpoints",
        title="What a checkpoint costs",
        columns=["what", "measured"],
        rows=[
            [f"{name}: {what.replace('_', ' ')}", text(value)]
            for name, measured in results.items()
            for what, value in measured.items()
        ],
        notes=[f"The least (and the median) of {repeats}."],
        changes="another disk: most of the time is pushing bytes to it.",
        measured=results,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("results/checkpoints"))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results = {
        name: costs(options.out / "run", *size, options.repeats) for name, size in SIZES.items()
    }
    results["epoch of 50,000 x 3,072"] = epochs(options.out / "run", max(2, options.repeats // 2))
    save(options.out, results, options.repeats)
    if options.json:
        print(json.dumps(results))
        return 0
    for name, measured in results.items():
        print(name)
        for what, value in measured.items():
            text = f"{value:.2f}" if isinstance(value, float) else "{:.3f} s, median {:.3f} s"
            print(f"  {what:<18} {text.format(*value) if isinstance(value, tuple) else text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
