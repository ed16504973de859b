"""Classify pictures or arrays with a trained classifier."""

__all__ = ["Options", "run"]

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from jaxlin.cli.examples import SourceOptions


@dataclass(frozen=True, kw_only=True)
class Options(SourceOptions):
    """Classify pictures or arrays with a trained classifier.

    Every row of every split is classified, and named by its split and number. Prints CSV: a row for
    each input and rank, with the probability (softmax) or the score (hinges).
    """

    run: tyro.conf.Positional[Path]
    """The run folder."""
    paths: tyro.conf.Positional[tuple[Path, ...]]
    """Pictures, folders of pictures, arrays, features, or named sets."""
    split: Literal["test", "validation", "train"] | None = None
    """Only these rows, where the files have splits."""
    top: Annotated[int, tyro.conf.arg(aliases=["--top-k", "-k"])] = 1
    """How many classes to name for each input, best first."""
    json: bool = False
    """Print one JSON object on stdout instead of CSV."""


def run(options: Options) -> int:
    """Print the best classes of every input."""
    import csv
    import sys

    from jaxlin.cli.examples import reading_as
    from jaxlin.cli.output import emit
    from jaxlin.cli.progress import reading
    from jaxlin.cli.runs import load_run, safe_cell, say_reading
    from jaxlin.data import conform, load_inputs

    if not options.paths:
        raise ValueError("there is nothing to classify. Name pictures, .npy or .npz files.")
    if options.top < 1:
        raise ValueError(f"--top must be 1 or more, got {options.top}.")
    model, config = load_run(options.run)
    kind = "probability" if model.loss == "softmax" else "score"
    parts = []
    with reading(show=True) as progress:
        for path in options.paths:
            how = reading_as(model, config, asdict(options), path) | {"progress": progress}
            for part in load_inputs(path, split=options.split, **how):
                parts.append(conform(part, *model.expects, to="the model"))
    say_reading(parts, model)
    found = [best for part in parts for best in _best(model, part, options.top, kind)]
    if options.json:
        emit({"run": str(options.run), "loss": model.loss, "predictions": found})
        return 0
    writer = csv.writer(sys.stdout)
    writer.writerow(["input", "rank", "class", kind])
    writer.writerows(
        [safe_cell(item["input"]), rank, safe_cell(best["class"]), _number(best[kind])]
        for item in found
        for rank, best in enumerate(item["classes"], start=1)
    )
    return 0


def _best(model: Any, part: Any, top: int, kind: str) -> list[dict]:
    """The best classes of every row of a part."""
    import numpy as np

    from jaxlin import models
    from jaxlin.cli.runs import probabilities
    from jaxlin.metrics import predicted_classes

    scores = models.scores(model, part.inputs)
    values = probabilities(scores) if kind == "probability" else scores
    order = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    named = predicted_classes(scores) >= 0  # no class where a score is not a number
    return [
        {
            "input": name,
            "split": part.split,
            "classes": [
                {"class": model.class_names[label], kind: float(row[label])} for label in best
            ]
            if is_named
            else [{"class": "", kind: None}],
        }
        for name, row, best, is_named in zip(part.names, values, order, named, strict=True)
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
