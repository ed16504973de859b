"""What does the few-shot preset cost as one bank, beside its heads one after another?

The preset `few-shot` (1, 2, 4, 8 and 16 examples a class, ten draws of each, seven strengths: 350
heads, each certified to a relative gap of 1e-3) on 10,000 x 256 features with a falling spectrum,
solved as banks and, for comparison, path by path. The first bank compiles; the second run does
not. Beside the seconds: whether both agree within the gaps they certify.

    python experiments/benchmarks/few_shot.py --classes 10 100 --out results/few_shot
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from full_batch import features
from report import save_table

from jaxlin import preprocess, sweep
from jaxlin.core import Batch
from jaxlin.sweep import few_shot
from jaxlin.sweep.presets import PRESETS, strengths_for

TOLERANCE = 1e-3


def problem(classes, size, width):
    """Training and validation batches, and the heads of the preset."""
    inputs, labels, _ = features(size, width, classes)
    labels, cut = labels.astype(np.int32), 9 * size // 10
    preset, heads = PRESETS["few-shot"], []
    for shots in preset.shots:
        strengths = strengths_for(preset, shots * classes)
        heads += sweep.grid(strengths, seeds=preset.seeds, shots=(shots,))
    return Batch(inputs[:cut], labels[:cut]), Batch(inputs[cut:], labels[cut:]), heads


def timed(train, validation, heads, classes, *, banks):
    """Seconds and what was fitted; `banks=False` fits path by path."""
    seen, fewest = preprocess.fit(train.inputs, "none"), few_shot.FEWEST
    few_shot.FEWEST = fewest if banks else len(heads) + 1
    try:
        start = time.perf_counter()
        found = sweep.solve(
            heads, train, validation, classes=classes, statistics=seen, tolerance=TOLERANCE
        )
        return time.perf_counter() - start, found
    finally:
        few_shot.FEWEST = fewest


def agree(one, other):
    """The most by which certified intervals of the same head miss each other, relative."""
    worst = 0.0
    for a, b in zip(one, other, strict=True):
        apart = abs(a.objective - b.objective) / max(a.objective, b.objective)
        worst = max(worst, apart - max(a.relative_gap, b.relative_gap))
    return worst


def save(folder, record, options):
    def cell(row, name):
        return f"{row[name]:.3g}" if name in row else ""

    heads = next(iter(record.values()))["heads"]
    save_table(
        folder,
        "few_shot",
        title=f"The few-shot preset: {heads} heads on {options.size:,} x {options.width} features, "
        "seconds",
        columns=[
            *("classes", "one bank, compiled", "one bank, first call"),
            "one path after another",
        ],
        rows=[
            [classes, *(cell(row, name) for name in ("warm", "cold", "paths"))]
            for classes, row in record.items()
        ],
        notes=[f"Each head is certified to a relative gap of {TOLERANCE:g}."],
        changes="the number of classes and features.",
        measured=record,
    )


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--size", type=int, default=10_000)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--paths", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    record = {}
    for classes in options.classes:
        train, validation, heads = problem(classes, options.size, options.width)
        cold, _ = timed(train, validation, heads, classes, banks=True)
        warm, found = timed(train, validation, heads, classes, banks=True)
        row = {"heads": len(heads), "cold": cold, "warm": warm}
        row["not_done"] = sum(f.status != "done" for f in found)
        row["accuracy"] = float(np.mean([f.validation_accuracy for f in found]))
        if options.paths:
            row["paths"], others = timed(train, validation, heads, classes, banks=False)
            row["apart"] = agree(found, others)
            row["accuracy_of_paths"] = float(np.mean([f.validation_accuracy for f in others]))
        record[classes] = row
        if not options.json:
            print(f"{classes} classes: " + ", ".join(f"{k} {v:.4g}" for k, v in row.items()))
    if options.out:
        save(options.out, record, options)
    if options.json:
        print(json.dumps(record))


if __name__ == "__main__":
    main()
