"""Classify pictures or arrays with a trained classifier."""

__all__ = ["Options", "predict", "value_name"]

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from jaxlin.runs.examples import SourceOptions


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


def predict(options: Options, given: Any = (), *, quiet: bool = False) -> dict:
    """Classify inputs with a run's model.

    Args:
      options: which run, and which inputs.
      given: `Unlabeled`s in hand, beside the paths that `options` name.
      quiet: say nothing while inputs are read.

    Returns:
      What `jaxlin predict --json` prints: `run`, `loss`, and `predictions`, one for each row.
    """
    from jaxlin.data import conform, load_inputs
    from jaxlin.runs.examples import reading_as
    from jaxlin.runs.folder import load_run, say_reading
    from jaxlin.runs.progress import reading

    if not options.paths and not given:
        raise ValueError("there is nothing to classify. Name pictures, .npy or .npz files.")
    if options.top < 1:
        raise ValueError(f"--top must be 1 or more, got {options.top}.")
    model, config = load_run(options.run)
    parts = [conform(part, *model.expects, to="the model") for part in given]
    with reading(show=not quiet) as progress:
        for path in options.paths:
            how = reading_as(model, config, asdict(options), path) | {"progress": progress}
            for part in load_inputs(path, split=options.split, **how):
                parts.append(conform(part, *model.expects, to="the model"))
    say_reading(parts, model, quiet=quiet)
    kind = value_name(model.loss)
    found = [best for part in parts for best in _best(model, part, options.top, kind)]
    return {"run": str(options.run), "loss": model.loss, "predictions": found}


def value_name(loss: str) -> str:
    """What stands beside a predicted class: its probability, or with the hinges its score."""
    return "probability" if loss == "softmax" else "score"


def _best(model: Any, part: Any, top: int, kind: str) -> list[dict]:
    """The best classes of every row of a part."""
    import numpy as np

    from jaxlin import models
    from jaxlin.metrics import predicted_classes
    from jaxlin.runs.folder import probabilities

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
