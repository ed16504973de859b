"""How much does a feature extractor gain over raw pixels? From pictures to a certified probe.

Pictures become features (oriented gradients of cells and a histogram of hue, made by hand, no
network and no download), features become files, and the files a linear probe whose optimum is
certified. Three probes: raw pixels, features with the course's cells of 8 pixels, and features with
cells of 4 pixels. Strength is chosen on validation; the test set is looked at once.

    python experiments/probe_pipeline.py --data cifar10 --out results/probe
    jaxlin features info results/probe/features
    jaxlin train --data results/probe/features --tolerance 1e-3
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from jaxlin import hand_features, metrics, models, preprocess, solvers
from jaxlin.data import as_images, load_splits, open_features
from jaxlin.plots.style import COLORS, new_figure, save, tidy

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)
TOLERANCE = 1e-3


def write_features(folder: Path, data, part: str, cell: int) -> None:
    """`folder/part/features.npy`, `labels.npy`, and the class names above."""
    place = folder / part
    place.mkdir(parents=True, exist_ok=True)
    images = as_images(data.inputs, data.image_shape)
    np.save(place / "features.npy", hand_features.describe(images, cell=cell))
    np.save(place / "labels.npy", data.labels)
    (folder / "classes.txt").write_text("\n".join(data.class_names) + "\n", encoding="utf-8")


def probe(train, test, seed: int, limit: int | None = None) -> dict:
    """Choose the strength on a tenth of the training set, fit on all of it, and measure once."""
    inputs, labels = np.asarray(train.inputs[:limit]), train.labels[:limit]
    order = np.random.default_rng(seed).permutation(len(labels))
    held, kept = order[: len(order) // 10], order[len(order) // 10 :]
    choices = {}
    for strength in STRENGTHS:
        fitted = fit(inputs[kept], labels[kept], len(train.class_names), strength)
        found = models.scores(fitted[0], inputs[held])
        choices[strength] = metrics.accuracy(found, labels[held])
    best = max(choices, key=choices.get)
    start = time.perf_counter()
    model, solution = fit(inputs, labels, len(train.class_names), best)
    seconds = time.perf_counter() - start
    accuracy = metrics.accuracy(models.scores(model, np.asarray(test.inputs)), test.labels)
    return {
        "width": inputs.shape[1],
        "strength": best,
        "validation_accuracy": choices[best],
        "validation_by_strength": choices,
        "test_accuracy": accuracy,
        "test_interval": metrics.wilson_interval(accuracy, len(test.labels)),
        "test_examples": len(test.labels),
        "objective": solution.objective,
        "relative_gap": solvers.relative_gap(solution),
        "status": solvers.describe(solution.status),
        "seconds_of_the_last_fit": seconds,
    }


def fit(inputs, labels, classes: int, strength: float):
    """Softmax on standardized inputs, certified."""
    statistics = preprocess.fit(inputs, "standardize")
    solution = solvers.minimize(
        *(inputs, labels), loss="softmax", strength=strength, tolerance=TOLERANCE,
        preprocessing=statistics, classes=classes,
    )  # fmt: skip
    names = tuple(map(str, range(classes)))
    return models.Model(solution.params, statistics, names, None, "softmax"), solution


def draw(found: dict, path: Path, title: str) -> None:
    """Validation accuracy of every strength, and the test accuracy with its interval."""
    figure, axes = new_figure(9.6, 3.9, columns=2, width_ratios=[1.1, 1])
    left, right = axes[0]
    for color, (name, row) in zip(COLORS, found.items(), strict=False):
        shares = row["validation_by_strength"]
        left.plot(list(shares), list(shares.values()), "o-", color=color, label=name)
        left.plot(row["strength"], row["validation_accuracy"], "o", color=color, markersize=10)
    left.set_xscale("log")
    tidy(left, title="Validation, by strength", x="strength of the penalty", y="accuracy")
    left.legend(frameon=False)
    for place, (color, (_, row)) in enumerate(zip(COLORS, found.items(), strict=False)):
        low, high = row["test_interval"]
        share = row["test_accuracy"]
        right.bar(place, share, 0.62, color=color)
        right.errorbar(place, share, [[share - low], [high - share]], color="#1f2430", capsize=5)
        right.annotate(f"{share:.3f}", (place, high), (0, 4), textcoords="offset points",
                       ha="center", fontweight="bold")  # fmt: skip
    names = [f"{name}\n{row['width']:,} numbers" for name, row in found.items()]
    right.set_xticks(range(len(names)), names)
    right.set_ylim(0, 1.15 * max(row["test_interval"][1] for row in found.values()))
    tidy(right, title="Test, with 95 % interval", y="accuracy")
    right.grid(axis="x", visible=False)
    figure.suptitle(title)
    save(figure, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits", help="digits, cifar10, fashion-mnist, ...")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path, default=Path("results/probe"))
    parser.add_argument("--limit", type=int, help="use only the first training examples")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    train, _, test = load_splits(args.data, data_dir=args.data_dir)
    side = min(train.image_shape[:2])
    cells = {cell: args.out / f"features_{cell}" for cell in (side // 4, side // 8)}
    cells[side // 4] = args.out / "features"
    start = time.perf_counter()
    for cell, folder in cells.items():
        write_features(folder, train, "train", cell)
        write_features(folder, test, "test", cell)
    extracting = time.perf_counter() - start
    found = {"raw pixels": probe(train, test, args.seed, args.limit)}
    for cell, folder in cells.items():
        parts = [open_features(folder, part=part) for part in ("train", "test")]
        found[f"cells of {cell} pixels"] = probe(*parts, args.seed, args.limit)
    title = f"{train.name}: raw pixels against features made by hand"
    draw(found, args.out / "probe_pipeline.png", title)
    result = {"data": train.name, "seconds_of_extracting": extracting, "probes": found}
    (args.out / "probe_pipeline.json").write_text(
        json.dumps(result, indent=2) + "\n", encoding="utf-8"
    )
    if args.json:
        print(json.dumps(result))
        return
    print(f"{train.name}: features of {len(train.labels) + len(test.labels):,} pictures, twice, "
          f"in {extracting:.1f} s, in {cells[side // 4]}")  # fmt: skip
    for name, row in found.items():
        low, high = row["test_interval"]
        print(f"{name:<18} {row['width']:>5} numbers  validation {row['validation_accuracy']:.4f}  "
              f"test {row['test_accuracy']:.4f} (95 % interval {low:.4f} to {high:.4f})  "
              f"strength {row['strength']:g}, relative gap {row['relative_gap']:.0e}")  # fmt: skip
    print(f"Look at {args.out / 'probe_pipeline.png'}")


if __name__ == "__main__":
    main()
