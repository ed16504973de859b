"""How long does a certified fit take with a thousand classes, and how much of it are products?

Features of a falling spectrum (`full_batch.features`). Beside each time stands that of the two
matrix products of a pass, which nothing that reads all rows can go below, times the passes.

    python experiments/benchmarks/many_classes.py --out results/many_classes
    python experiments/benchmarks/many_classes.py --problems softmax,1281167,768,1000,1e-5,float16
"""

import argparse
import json
import resource
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from full_batch import features
from report import save_table

from jaxlin.solvers import describe, minimize

PROBLEMS = (
    "softmax,80000,768,1000,1e-5,float32",
    "one-vs-rest,20000,64,1000,1e-3,float32",
    "hinge,20000,64,1000,1e-3,float32",
    "crammer-singer,20000,64,1000,1e-3,float32",
)
TOLERANCE = 1e-3


def products(size, width, classes):
    """Seconds of the two products of a pass, in blocks of rows."""
    rows = min(size, 8192)
    inputs, weights = jnp.ones((rows, width)), jnp.ones((classes, width))

    @jax.jit
    def both(weights, inputs):
        scores = weights @ inputs.T
        return scores @ inputs

    jax.block_until_ready(both(weights, inputs))
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        jax.block_until_ready(both(weights, inputs))
        seconds.append(time.perf_counter() - start)
    return min(seconds) * size / rows


def rows_of(size, width, classes, dtype):
    """Rows made part by part where they are many, so that no wider copy is ever whole."""
    if size <= 200_000:
        inputs, labels, _ = features(size, width, classes)
        return inputs.astype(dtype), labels
    part, labels, inputs = 100_000, np.empty(size, np.int64), np.empty((size, width), dtype)
    generator = np.random.default_rng(0)
    centers = 0.13 * generator.normal(size=(classes, width)).astype(np.float32)
    spectrum = (np.arange(1, width + 1) ** -0.5).astype(np.float32)
    for start in range(0, size, part):
        own = generator.integers(0, classes, min(part, size - start))
        noise = generator.standard_normal((len(own), width), np.float32)
        labels[start : start + part] = own
        inputs[start : start + part] = (noise + centers[own]) * spectrum
    return inputs, labels


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--problems", nargs="+", default=PROBLEMS, help="loss,rows,features,classes,strength,dtype"
    )
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args(arguments)
    rows, record = [], []
    for words in options.problems:
        loss, size, width, classes, strength, dtype = words.split(",")
        size, width, classes = int(size), int(width), int(classes)
        inputs, labels = rows_of(size, width, classes, dtype)
        start = time.perf_counter()
        solution = minimize(
            inputs, labels, loss=loss, strength=float(strength), tolerance=TOLERANCE
        )
        seconds = time.perf_counter() - start
        pass_seconds = products(size, width, classes)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        record.append(
            {
                "problem": words,
                "seconds": seconds,
                "passes": solution.evaluations,
                "gap": solution.gap / solution.objective,
                "products": pass_seconds,
                "GiB": memory,
                "status": describe(solution.status),
            }
        )
        rows.append(
            [
                f"{loss}, {classes:,} classes, {size:,} x {width}, {dtype}",
                strength,
                f"{seconds:.0f}",
                f"{solution.evaluations:.0f}",
                f"{pass_seconds * solution.evaluations:.0f}",
                f"{solution.gap / solution.objective:.0e}",
            ]
        )
        print(json.dumps(record[-1]), flush=True)
    if options.out:
        save_table(
            options.out,
            "many_classes",
            title="Many classes: seconds to a proved 1e-3",
            columns=["problem", "strength", "seconds", "passes", "their products", "gap"],
            rows=rows,
            notes=["Compilation included; one fit of each."],
            changes="the penalty, above all.",
            measured=record,
        )


if __name__ == "__main__":
    main()
