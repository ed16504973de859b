"""How much does it matter that a stream is shuffled in blocks only?

The worst case: the examples lie sorted by class. They are streamed from a file in windows of
several shares of the data and blocks of several sizes, and trained with the same steps as in
memory, where the shuffle is complete. At the other end: batches in the order of the file.

    python experiments/shuffle_in_blocks.py --data cifar10 --out results/shuffle
"""

import argparse
import json
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxlin import losses, metrics, models, preprocess, stream, train
from jaxlin.core import Batch, LinearParams
from jaxlin.data import load_splits, open_features
from jaxlin.objectives import compose
from jaxlin.plots.style import COLORS, INK, new_figure, save, tidy

BATCH, EPOCHS, STEP_SIZE, SEEDS = 128, 5, 2e-4, 3
BLOCKS_OF_A_WINDOW = (1, 2, 4, 8, 16, 32, 64)
SHARES = (0.01, 0.05, 0.2)


def descend(data, score, classes: int, key, batches=None) -> LinearParams:
    """A few epochs of softmax by Adam with a falling step size."""
    examples, features = data.inputs.shape
    steps = EPOCHS * -(-examples // BATCH)
    rule = optax.adam(train.schedule("cosine", STEP_SIZE, steps))
    descent = train.trainer(compose(score, losses.softmax_cross_entropy), rule)
    state = descent.init(LinearParams(jnp.zeros((classes, features)), jnp.zeros(classes)))
    if batches is None:
        for reached, _ in train.chunks(
            descent, state, data, key=key, steps=steps, batch_size=BATCH
        ):
            state = reached
        return state.params
    step = jax.jit(descent.step)
    for rows in batches:
        state, _ = step(state, Batch(data.inputs[rows], data.labels[rows]))
    return state.params


def run(data: str, data_dir: Path | None, out: Path, limit: int | None) -> dict:
    """Test accuracies of every way to shuffle, over a few seeds."""
    found, _, held = load_splits(data, data_dir=data_dir)
    order = np.argsort(found.labels[:limit], kind="stable")
    inputs, labels = np.ascontiguousarray(found.inputs[:limit][order]), found.labels[:limit][order]
    statistics = preprocess.fit(inputs, "standardize")
    ready = jax.tree.map(jnp.asarray, statistics._replace(kind=None))
    score = models.score_function(ready._replace(kind=statistics.kind))
    classes = len(found.class_names)

    def accuracy(params) -> float:
        model = models.Model(params, statistics, found.class_names, None, "softmax")
        return metrics.accuracy(models.scores(model, held.inputs), held.labels)

    keys = [jax.random.key(seed) for seed in range(SEEDS)]
    held_in_memory = Batch(inputs, labels)
    complete = [accuracy(descend(held_in_memory, score, classes, key)) for key in keys]
    in_order = [range(i, min(i + BATCH, len(labels))) for i in range(0, len(labels), BATCH)]
    whole = [np.array(rows) for rows in in_order if len(rows) == BATCH] * EPOCHS
    unshuffled = accuracy(descend(held_in_memory, score, classes, keys[0], whole))
    streamed = {}
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "features.npy", inputs)
        np.save(Path(folder) / "labels.npy", labels)
        for share in SHARES:
            # A window takes a quarter of the memory that the inputs may have.
            budget = int(4 * share * inputs.nbytes)
            source = open_features(folder, resident_bytes=budget).inputs
            for blocks in BLOCKS_OF_A_WINDOW:
                rows = max(1, stream.window_rows(source, BATCH) // blocks)
                stream.BLOCK_BYTES = rows * inputs[0].nbytes
                streamed[share, blocks] = [
                    accuracy(descend(Batch(source, labels), score, classes, key)) for key in keys
                ]
    results = {
        "data": found.name,
        "examples": len(labels),
        "complete_shuffle": complete,
        "file_order": unshuffled,
        "streamed": [
            {"window_share": share, "blocks_of_a_window": blocks, "test_accuracy": values}
            for (share, blocks), values in streamed.items()
        ],
    }
    out.mkdir(parents=True, exist_ok=True)
    draw(results, out / "shuffle_in_blocks.png")
    return results


def leave_table(folder: Path, results: dict) -> None:
    from benchmarks.report import save_table

    means = {
        (row["window_share"], row["blocks_of_a_window"]): np.mean(row["test_accuracy"])
        for row in results["streamed"]
    }
    shares, blocks = (list(dict.fromkeys(key)) for key in zip(*means, strict=True))
    save_table(
        folder,
        "shuffle_in_blocks",
        title=f"Blocks or a complete shuffle: {results['data']} sorted by class, test accuracy",
        columns=["a window of", *(f"{n} block{'s' * (n > 1)}" for n in blocks)],
        rows=[
            [f"{100 * share:g} % of the data", *(f"{means[share, n]:.3f}" for n in blocks)]
            for share in shares
        ],
        notes=[
            f"A complete shuffle in memory {np.mean(results['complete_shuffle']):.3f}, the order "
            f"of the file {results['file_order']:.3f}; means over {SEEDS} seeds.",
            "![Test accuracy against the blocks of a window](../pictures/shuffle_in_blocks.png)",
        ],
        changes="windows that hold few classes.",
        measured=results,
    )


def draw(results: dict, path: Path) -> None:
    """Test accuracy against the blocks of a window, a line for each share of the data."""
    figure, axes = new_figure(7.2, 4.2)
    axes = axes[0, 0]
    for color, share in zip(COLORS, SHARES, strict=False):
        rows = [row for row in results["streamed"] if row["window_share"] == share]
        blocks = [row["blocks_of_a_window"] for row in rows]
        values = np.array([row["test_accuracy"] for row in rows])
        axes.plot(
            blocks, values.mean(axis=1), "o-", color=color, label=f"{100 * share:g} % of the data"
        )
        axes.fill_between(blocks, values.min(axis=1), values.max(axis=1), color=color, alpha=0.18)
    complete = np.mean(results["complete_shuffle"])
    for height, text in (
        (complete, "complete shuffle, in memory"),
        (results["file_order"], "in the order of the file"),
    ):
        axes.axhline(height, color=INK, linestyle="--", linewidth=1)
        axes.annotate(text, (BLOCKS_OF_A_WINDOW[-1], height), (0, 4), ha="right",
                      textcoords="offset points")  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_xticks(BLOCKS_OF_A_WINDOW, BLOCKS_OF_A_WINDOW)
    tidy(axes, title=f"{results['data']} sorted by class, {EPOCHS} epochs",
         x="blocks in a window", y="test accuracy")  # fmt: skip
    axes.legend(title="a window holds", frameon=False, loc="lower right")
    save(figure, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--limit", type=int, help="use only the first training examples")
    parser.add_argument("--out", type=Path, default=Path("results/shuffle"))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    results = run(args.data, args.data_dir, args.out, args.limit)
    leave_table(args.out, results)
    if args.json:
        print(json.dumps(results))
        return
    print(f"{results['data']}, {results['examples']:,} examples sorted by class, {EPOCHS} epochs")
    print(f"complete shuffle, in memory       {np.mean(results['complete_shuffle']):.4f}")
    for row in results["streamed"]:
        share, blocks = 100 * row["window_share"], row["blocks_of_a_window"]
        values = row["test_accuracy"]
        print(f"windows of {share:2g} %, {blocks:>2} blocks each      {np.mean(values):.4f}")
    print(f"in the order of the file          {results['file_order']:.4f}")
    print(f"Look at {args.out / 'shuffle_in_blocks.png'}")


if __name__ == "__main__":
    main()
