"""Classify pictures or arrays with a trained classifier."""

__all__ = ["Options", "run"]

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True, kw_only=True)
class Options:
    """Classify pictures or arrays with a trained classifier.

    Prints CSV: a row for each input and rank, with the probability (softmax) or the score
    (hinges).
    """

    run: tyro.conf.Positional[Path]
    """The run folder."""
    paths: tyro.conf.Positional[tuple[Path, ...]]
    """Pictures, folders of pictures, .npy or .npz files, or features."""
    top: Annotated[int, tyro.conf.arg(aliases=["--top-k", "-k"])] = 1
    """How many classes to name for each input, best first."""
    json: bool = False
    """Print one JSON object on stdout instead of CSV."""


def run(options: Options) -> int:
    """Print the best classes of every input."""
    import csv
    import sys

    import numpy as np

    from jaxlin import models
    from jaxlin.cli.output import emit
    from jaxlin.cli.runs import load_run, probabilities, safe_cell
    from jaxlin.data import load_inputs

    if not options.paths:
        raise ValueError("there is nothing to classify. Name pictures, .npy or .npz files.")
    if options.top < 1:
        raise ValueError(f"--top must be 1 or more, got {options.top}.")
    model, _ = load_run(options.run)
    kind = "probability" if model.loss == "softmax" else "score"
    found = []
    for path in options.paths:
        inputs, names = load_inputs(path, image_shape=model.image_shape)
        scores = models.scores(model, inputs)
        values = probabilities(scores) if kind == "probability" else scores
        order = np.argsort(-scores, axis=1, kind="stable")[:, : options.top]
        found += [
            {
                "input": name,
                "classes": [
                    {"class": model.class_names[label], kind: float(row[label])} for label in best
                ],
            }
            for name, row, best in zip(names, values, order, strict=True)
        ]
    if options.json:
        emit({"run": str(options.run), "loss": model.loss, "predictions": found})
        return 0
    writer = csv.writer(sys.stdout)
    writer.writerow(["input", "rank", "class", kind])
    writer.writerows(
        [safe_cell(item["input"]), rank, safe_cell(best["class"]), f"{best[kind]:.6g}"]
        for item in found
        for rank, best in enumerate(item["classes"], start=1)
    )
    return 0
