"""How long is one epoch of minibatch training, against PyTorch, NumPy and scikit-learn?

One epoch of softmax regression by gradient descent, batches of 256 in random order, pixels in
memory as uint8: 50,000 CIFAR-10 pictures (or as many random ones without `--data cifar10`). All
contenders in one run; the least of several warm repetitions; compilation apart. Limits beside
them: the two matrix products of every step alone, and one full-batch gradient over the same bytes.

    python experiments/benchmarks/minibatch.py --data cifar10 --out results/minibatch
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from report import save_table

from jaxlin import losses, models, preprocess, train
from jaxlin.core import Batch, LinearParams
from jaxlin.objectives import compose

BATCH, CLASSES, STEP_SIZE = 256, 10, 1e-3


def least(function, repeats):
    """Seconds of the fastest of `repeats` calls, after one that warms up."""
    function()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def load(name, data_dir, limit):
    """(inputs uint8, labels) of the training part, or random pixels of CIFAR-10's size."""
    if name == "random":
        rng = np.random.default_rng(0)
        count = limit or 50_000
        pixels = rng.integers(0, 256, (count, 3072), dtype=np.uint8)
        return pixels, rng.integers(0, CLASSES, count).astype(np.int32)
    from jaxlin.data import load

    data = load(name, data_dir=data_dir)
    return data.inputs[:limit], data.labels[:limit].astype(np.int32)


def jaxlin_epoch(inputs, labels):
    """A function that trains one epoch, and the seconds its compilation took."""
    statistics = jax.tree.map(
        lambda leaf: leaf if isinstance(leaf, str) else jnp.asarray(leaf, jnp.float32),
        preprocess.fit(inputs, "standardize"),
    )
    objective = compose(models.score_function(statistics), losses.softmax_cross_entropy)
    descent = train.trainer(objective, optax.sgd(STEP_SIZE))
    zeros = LinearParams(jnp.zeros((CLASSES, inputs.shape[1])), jnp.zeros(CLASSES))
    state = descent.init(zeros)
    data = Batch(jnp.asarray(inputs), jnp.asarray(labels))
    steps = -(-len(labels) // BATCH)
    compiled = train.compile_steps(descent, state, data, batch_size=BATCH)

    def epoch():
        for new, _ in train.chunks(
            descent, state, data, key=jax.random.key(0), steps=steps, batch_size=BATCH
        ):
            jax.block_until_ready(new)

    return epoch, compiled


def torch_loop(inputs, labels, *, narrow):
    """The tensor loop people write by hand, over uint8 or over float32 pixels."""
    import torch

    pixels, classes = torch.from_numpy(inputs), torch.from_numpy(labels).long()
    if not narrow:
        pixels = (pixels.float() - 120) / 64

    def epoch():
        model = torch.nn.Linear(inputs.shape[1], CLASSES)
        optimizer = torch.optim.SGD(model.parameters(), STEP_SIZE)
        order = torch.randperm(len(classes))
        for start in range(0, len(classes), BATCH):
            rows = order[start : start + BATCH]
            batch = pixels[rows]
            if narrow:
                batch = (batch.float() - 120) / 64
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(batch), classes[rows]).backward()
            optimizer.step()

    return epoch


def torch_loader(inputs, labels):
    """The same through a DataLoader over a TensorDataset of float32 pixels."""
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    pixels = (torch.from_numpy(inputs).float() - 120) / 64
    loader = DataLoader(
        TensorDataset(pixels, torch.from_numpy(labels).long()), batch_size=BATCH, shuffle=True
    )

    def epoch():
        model = torch.nn.Linear(inputs.shape[1], CLASSES)
        optimizer = torch.optim.SGD(model.parameters(), STEP_SIZE)
        for batch, classes in loader:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(batch), classes).backward()
            optimizer.step()

    return epoch


def numpy_loop(inputs, labels):
    """The lecture's loop, vectorized by hand."""

    def epoch():
        weights = np.zeros((CLASSES, inputs.shape[1]), np.float32)
        bias = np.zeros(CLASSES, np.float32)
        order = np.random.default_rng(0).permutation(len(labels))
        for start in range(0, len(labels), BATCH):
            rows = order[start : start + BATCH]
            batch = (inputs[rows].astype(np.float32) - 120) / 64
            scores = batch @ weights.T + bias
            shares = np.exp(scores - scores.max(axis=1, keepdims=True))
            shares /= shares.sum(axis=1, keepdims=True)
            shares[np.arange(len(rows)), labels[rows]] -= 1
            shares /= len(rows)
            weights -= STEP_SIZE * (shares.T @ batch)
            bias -= STEP_SIZE * shares.sum(axis=0)

    return epoch


def scikit_learn(inputs, labels):
    """SGDClassifier: single examples, one against the rest, float64 copies."""
    from sklearn.linear_model import SGDClassifier

    pixels = (inputs.astype(np.float64) - 120) / 64

    def epoch():
        model = SGDClassifier(loss="log_loss", alpha=0, learning_rate="constant", eta0=STEP_SIZE)
        model.partial_fit(pixels, labels, classes=np.arange(CLASSES))

    return epoch


def two_products(inputs):
    """The floating-point work alone: scores and gradient of every batch, nothing else."""
    batches = jnp.asarray(inputs[:BATCH], jnp.float32)
    count = -(-len(inputs) // BATCH)

    @jax.jit
    def products(weights):
        def body(_, weights):
            scores = batches @ weights.T
            return weights - 1e-9 * (scores.T @ batches)

        return jax.lax.fori_loop(0, count, body, weights)

    weights = jnp.ones((CLASSES, inputs.shape[1]))
    return lambda: jax.block_until_ready(products(weights))


def full_batch(inputs, labels):
    """One gradient over all rows in cache-sized blocks: every byte is read once."""
    rows = 2000 if len(inputs) % 2000 == 0 else len(inputs)
    blocks = jnp.asarray(inputs).reshape(-1, rows, inputs.shape[1])
    classes = jnp.asarray(labels).reshape(-1, rows)

    @jax.jit
    def gradient(params):
        def body(total, block):
            pixels, own = block
            part = jax.grad(_block_loss)(params, pixels, own)
            return jax.tree.map(jnp.add, total, part), None

        return jax.lax.scan(body, jax.tree.map(jnp.zeros_like, params), (blocks, classes))[0]

    params = LinearParams(jnp.zeros((CLASSES, inputs.shape[1])), jnp.zeros(CLASSES))
    return lambda: jax.block_until_ready(gradient(params))


def _block_loss(params, pixels, own):
    scores = pixels.astype(jnp.float32) @ params.weights.T + params.bias
    return losses.softmax_cross_entropy(scores, own).sum()


def peak_memory(args, *, tiny):
    """Peak resident bytes of a fresh process that trains one epoch."""
    extra = ["--limit", "256"] if tiny else ["--limit", str(args.limit)] if args.limit else []
    command = [sys.executable, __file__, "--data", args.data, "--memory-of-one-epoch", *extra]
    if args.data_dir:
        command += ["--data-dir", str(args.data_dir)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def high_water_mark():
    """Peak resident bytes of this process; `ru_maxrss` would inherit the parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(
            row
            for row in status.read_text(encoding="utf-8").splitlines()
            if row.startswith("VmHWM")
        )
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def save(folder, result, shape, repeats):
    ratios, memory = result["ratios"], result["memory"]["times_the_pixels"]
    save_table(
        folder,
        "minibatch",
        title=f"One epoch of minibatch softmax: {shape[0]:,} x {shape[1]:,} uint8 "
        f"({result['data']}), batch {BATCH}",
        columns=["contender", "seconds", "times jaxlin"],
        rows=[
            [f"**{name}**" if name == "jaxlin" else name, f"{value:.3g}", f"{ratios[name]:.2g}"]
            for name, value in sorted(result["seconds"].items(), key=lambda item: item[1])
        ],
        notes=[
            f"All in one run, the least of {repeats}, warm; jaxlin's compilation, once, "
            f"{result['compile_seconds']:.1f} s. The epoch's peak memory is that of the runtime "
            f"plus {memory:.1f} times the uint8 pixels."
        ],
        changes="fewer features or larger batches, where the products alone weigh more and all "
        "contenders come closer; more cores; a busy machine, which slows NumPy and PyTorch more.",
        measured=result,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="random", help="random, cifar10, ...")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--memory-of-one-epoch", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    inputs, labels = load(args.data, args.data_dir, args.limit)
    epoch, compiled = jaxlin_epoch(inputs, labels)
    if args.memory_of_one_epoch:
        epoch()
        print(high_water_mark())
        return
    contenders = {
        "jaxlin": epoch,
        "two matrix products alone (limit)": two_products(inputs),
        "one full-batch gradient, same bytes": full_batch(inputs, labels),
        "NumPy loop": numpy_loop(inputs, labels),
    }
    try:
        contenders |= {
            "PyTorch tensor loop, uint8 pixels": torch_loop(inputs, labels, narrow=True),
            "PyTorch tensor loop, float32 pixels": torch_loop(inputs, labels, narrow=False),
            "PyTorch DataLoader": torch_loader(inputs, labels),
        }
    except ImportError:
        print("PyTorch is not installed: its rows are left out.", file=sys.stderr)
    seconds = {name: least(run, args.repeats) for name, run in contenders.items()}
    seconds["scikit-learn SGDClassifier"] = least(scikit_learn(inputs, labels), 1)
    tiny, real = peak_memory(args, tiny=True), peak_memory(args, tiny=False)
    result = {
        "data": args.data,
        "examples": len(labels),
        "cores": os.cpu_count(),
        "compile_seconds": compiled,
        "seconds": seconds,
        "ratios": {name: value / seconds["jaxlin"] for name, value in seconds.items()},
        "memory": {
            "runtime_bytes": tiny,
            "epoch_bytes": real,
            "times_the_pixels": (real - tiny) / inputs.nbytes,
        },
    }
    if args.out:
        save(args.out, result, inputs.shape, args.repeats)
    if args.json:
        print(json.dumps(result))
        return
    shape = f"{len(labels):,} x {inputs.shape[1]} uint8"
    print(f"one epoch, {shape}, batch {BATCH}, {os.cpu_count()} cores")
    for name, value in sorted(seconds.items(), key=lambda item: item[1]):
        print(f"{name:<38} {value:8.3f} s {value / seconds['jaxlin']:8.2f} x jaxlin")
    print(f"jaxlin's compilation, once: {compiled:.2f} s")
    print(
        f"peak memory: {real / 1e6:.0f} MB; with 256 pictures {tiny / 1e6:.0f} MB; the difference "
        f"is {result['memory']['times_the_pixels']:.2f} times the pixels"
    )


if __name__ == "__main__":
    main()
