"""Is a certified fit of wide sparse text slower than scikit-learn's?

Rows as tf-idf makes them of short texts: words by Zipf's law, an eighth of them from a topic of the
class. scikit-learn's lbfgs stops where its gradient is small, and beside its time stands how far
above jaxlin's proved bound that was; it is run again with smaller tolerances until it is within the
gap that jaxlin proves.

    python experiments/benchmarks/sparse_text.py --out results/sparse_text
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
import scipy.sparse
from report import save_table
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression

from jaxlin.solvers import minimize

TOLERANCE = 1e-3
LADDER = (1e-4, 1e-5, 1e-6)
"""Tolerances of scikit-learn: its own, and smaller ones."""


def text(size, words, classes, length, seed=0):
    """(size, words) CSR with rows of norm 1, and labels."""
    generator = np.random.default_rng(seed)
    frequencies = 1 / np.arange(1, words + 1) ** 1.05
    reached = np.cumsum(frequencies / frequencies.sum())
    labels = generator.integers(0, classes, size)
    middle = slice(50, words // 3)  # neither the commonest words nor the rarest
    topics = [
        generator.choice(np.arange(words)[middle], min(400, words // 6), replace=False)
        for _ in range(classes)
    ]
    lengths = np.maximum(generator.lognormal(np.log(1.1 * length), 0.7, size).astype(int), 5)
    columns = []
    for label, count in zip(labels, lengths, strict=True):
        drawn = np.minimum(np.searchsorted(reached, generator.random(count)), words - 1)
        own = generator.random(count) < 0.12
        places = generator.random(own.sum()) ** 2 * len(topics[label])
        drawn[own] = topics[label][places.astype(int)]
        columns.append(drawn)
    rows = np.repeat(np.arange(size), lengths)
    entries = (np.ones(len(rows)), (rows, np.concatenate(columns)))
    counts = scipy.sparse.csr_array(entries, shape=(size, words))
    counts.sum_duplicates()
    seen = np.bincount(counts.indices, minlength=words)
    counts.data = (1 + np.log(counts.data)) * (np.log((1 + size) / (1 + seen)) + 1)[counts.indices]
    norms = scipy.sparse.linalg.norm(counts, axis=1)
    return scipy.sparse.csr_array(scipy.sparse.diags_array(1 / norms) @ counts), labels


def objective_of(model, inputs, labels, strength):
    scores = inputs @ model.coef_.T + model.intercept_
    losses = logsumexp(scores, axis=1) - scores[np.arange(len(labels)), labels]
    return losses.mean() + strength * (model.coef_**2).sum()


def timed(fit):
    start, busy = time.perf_counter(), time.process_time()
    found = fit()
    return found, time.perf_counter() - start, time.process_time() - busy


def compare(inputs, labels, C):
    strength = 1 / (2 * C * len(labels))
    ours, seconds, busy = timed(
        lambda: minimize(inputs, labels, strength=strength, tolerance=TOLERANCE)
    )
    found = {"C": C, "passes": ours.evaluations, "gap": ours.gap / ours.objective}
    found |= {"seconds": seconds, "processor seconds": busy, "peer": []}
    for tolerance in LADDER:
        model = LogisticRegression(C=C, tol=tolerance, max_iter=10_000)
        _, *took = timed(lambda model=model: model.fit(inputs, labels))
        above = (objective_of(model, inputs, labels, strength) - ours.lower_bound) / ours.objective
        found["peer"].append((tolerance, *took, float(above)))
        if above <= TOLERANCE:
            break
    return found


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=11_314)
    parser.add_argument("--words", type=int, default=60_000)
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--length", type=int, default=115, help="different words of a text, about")
    parser.add_argument("--C", type=float, nargs="+", default=[1.0, 100.0])
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    inputs, labels = text(options.size, options.words, options.classes, options.length)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        record = [compare(inputs, labels, C) for C in options.C]
    if options.json:
        print(json.dumps(record))
    rows = []
    for found in record:
        own, last = found["peer"][0], found["peer"][-1]
        rows.append(
            [
                f"C = {found['C']:g}",
                f"{found['seconds']:.1f} ({found['passes']:.0f} passes, gap {found['gap']:.0e})",
                f"{own[1]:.1f} ({own[3]:.0e} above)",
                f"{last[1]:.1f} (tol={last[0]:g}, {last[3]:.0e} above)",
            ]
        )
    columns = ["problem", "jaxlin, proved to 1e-3", "lbfgs, by default", "lbfgs, as near"]
    if not options.json:
        print("\n".join(" | ".join(row) for row in [columns, *rows]))
    if options.out:
        save_table(
            options.out,
            "sparse_text",
            title=f"Wide sparse text: {options.size:,} rows, {options.words:,} words, "
            f"{inputs.nnz:,} entries, {options.classes} classes: seconds",
            columns=columns,
            rows=rows,
            notes=["Synthetic rows as tf-idf makes them; scikit-learn's LogisticRegression."],
            changes="the penalty, above all: C is scikit-learn's.",
            measured=record,
        )


if __name__ == "__main__":
    main()
