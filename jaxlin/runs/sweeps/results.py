"""What `sweep.json` says: heads, few-shot means, the one test, a comparison, and warnings."""

__all__ = [
    "Other",
    "check_comparison",
    "counted",
    "few_shot",
    "notes",
    "open_comparison",
    "test_once",
]

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxlin import losses, metrics, sweep
from jaxlin.core import DataError, LinearParams
from jaxlin.data import Dataset
from jaxlin.models import Model
from jaxlin.runs import hosts
from jaxlin.runs.folder import safe_cell, write_predictions
from jaxlin.runs.measures import measure
from jaxlin.runs.sweeps.job import SweepJob, as_batch
from jaxlin.runs.train_options import Options
from jaxlin.runs.wording import in_options
from jaxlin.sweep import selection
from jaxlin.sweep.mcnemar import compare


class Other(NamedTuple):
    """What is read of the run that is compared with."""

    folder: Path
    split: str
    labels: list[str]
    predicted: list[str]


def few_shot(job: SweepJob, fitted: Sequence[sweep.FittedHead]) -> list[dict]:
    """For every number of shots: the strength best over the draws, and its accuracies."""
    found = []
    for shots in sorted({head.shots for head in job.heads if head.shots is not None}):
        own = [i for i, f in enumerate(fitted) if f.head.shots == shots]
        strengths = sorted({fitted[i].head.strength for i in own}, reverse=True)

        def mean_of(strength: float, own: list[int] = own) -> float:
            members = [fitted[i] for i in own if fitted[i].head.strength == strength]
            known = [member.validation_accuracy for member in members]
            return float(np.mean(np.array(known, np.float64)))

        chosen = max(strengths, key=mean_of)
        members = [i for i in own if fitted[i].head.strength == chosen]
        row: dict[str, Any] = {"shots": shots, "strength": chosen, "draws": len(members)}
        mean = mean_of(chosen)
        row["validation_accuracy"] = None if np.isnan(mean) else mean  # a single head has no choice
        row["position"] = members[selection.best([fitted[i] for i in members])]
        if job.job.test is not None:
            heads = [fitted[i] for i in members]
            row["test_accuracies"] = _test_accuracies(job, heads, job.job.test)
            row |= _over_draws(row["test_accuracies"])
        found.append(row)
    return found


def _test_accuracies(
    job: SweepJob, heads: Sequence[sweep.FittedHead], test: Dataset
) -> list[float]:
    stacked = LinearParams(*(np.stack([np.asarray(f.params[i]) for f in heads]) for i in (0, 1)))
    weights = selection.selection_weights(test.labels, job.job.config["metric"])
    accuracies, _ = sweep.measure(
        [f.head for f in heads], stacked, sweep.Descent(margin=job.job.config["margin"]),
        job.job.statistics, as_batch(test, weights), mesh=job.mesh,
    )  # fmt: skip
    return accuracies.tolist()


def _over_draws(accuracies: list[float]) -> dict:
    """Mean over the draws, with Student's interval of the mean."""
    from scipy.stats import t

    mean = float(np.mean(accuracies))
    if len(accuracies) < 2:
        return {"test_accuracy": mean, "test_interval": None}
    half = float(t.ppf(0.975, len(accuracies) - 1) * np.std(accuracies, ddof=1))
    half /= len(accuracies) ** 0.5
    return {"test_accuracy": mean, "test_interval": [mean - half, mean + half]}


def test_once(
    job: SweepJob, model: Model, results: dict, out: Path, metric: str, other: Other | None
) -> None:
    """Measure the final model once, write its predictions, and compare it with another run's."""
    test = job.job.test
    split, data = ("test", test) if test is not None else ("validation", job.job.validation)
    if data is None:
        return
    scores = hosts.scores(model, data.inputs)
    if jax.process_index() == 0:
        write_predictions(out / "predictions.csv", model, data, scores, split=split)
    if test is None:
        return
    loss = losses.named(model.loss, margin=job.job.config["margin"])
    measured = measure(model, test, loss, scores)
    if metric == "mean-per-class":
        mean, interval = metrics.mean_per_class_accuracy(scores, test.labels)
        measured |= {"mean_per_class_accuracy": mean, "mean_per_class_interval": list(interval)}
    results["test"] = measured
    results["best"] |= {
        "test_accuracy": measured["accuracy"],
        "test_interval": measured["accuracy_interval"],
    }
    if other is not None:
        results["comparison"] = _compared(model, test, scores, other)


def open_comparison(folder: Path) -> Other:
    """The predictions of another run folder, read before anything is computed."""
    path = folder / "predictions.csv"
    if not path.is_file():
        raise DataError(f"{path}: is missing. --compare wants the folder of a finished run.")
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"split", "label", "predicted"} <= rows[0].keys():
        raise DataError(f"{path}: holds no predictions. --compare wants a finished run's folder.")
    if rows[0]["split"] != "test":
        raise DataError(f"{path}: holds predictions of no test set. Compare runs that have one.")
    return Other(folder, "test", [row["label"] for row in rows], [row["predicted"] for row in rows])


def check_comparison(other: Other, test: Dataset | None) -> None:
    """Refuse, before anything is fitted, a run that was not tested on these very examples."""
    if test is None:
        raise DataError(
            f"{other.folder}: a comparison needs a test set, and there is none. Give --test, or "
            "leave --compare out."
        )
    names = [safe_cell(name) for name in test.class_names]
    if [names[label] for label in test.labels] != other.labels:
        raise DataError(
            f"{other.folder}: was tested on other examples ({len(other.labels):,} with other "
            f"labels or another order; here {len(test.labels):,}). Compare runs on one test set."
        )


def _compared(model: Model, test: Dataset, scores: np.ndarray, other: Other) -> dict:
    """The paired comparison, on the very same examples in the same order."""
    number = {safe_cell(name): k for k, name in enumerate(model.class_names)}
    theirs = [number.get(name, -1) for name in other.predicted]
    found = compare(metrics.predicted_classes(scores), theirs, test.labels)
    return {"with": str(other.folder)} | found._asdict()


def counted(heads: int) -> str:
    """
    >>> counted(1), counted(96)
    ('1 head', '96 heads')
    """
    return f"{heads} head{'s' if heads != 1 else ''}"


def notes(job: SweepJob, fitted: Sequence[sweep.FittedHead], position: int) -> list[str]:
    """What a reader should know before trusting the choice."""
    notes, best = [], fitted[position].head
    for axis, option in (("strength", "--strengths"), ("step_size", "--step-sizes")):
        tried = sorted({getattr(found.head, axis) for found in fitted} - {None})
        value = getattr(best, axis)
        if len(tried) > 2 and job.preset is None and value in (tried[0], tried[-1]):
            end = "smallest" if value == tried[0] else "largest"
            notes.append(
                f"The best {axis.replace('_', ' ')}, {value:.3g}, is the {end} of those tried: "
                f"the optimum may lie beyond. Widen {option}."
            )
    diverged = sum(found.status == "diverged" for found in fitted)
    if diverged:
        notes.append(f"{diverged} of {counted(len(fitted))} diverged and were not chosen from.")
    gaps = [(f.relative_gap, f) for f in fitted if f.relative_gap is not None]
    loose = [(gap, f) for gap, f in gaps if gap > job.job.config["tolerance"]]
    if loose:
        worst = max(gap for gap, _ in loose)
        notes.append(
            f"{len(loose)} of {counted(len(fitted))} stopped above the tolerance, at a relative "
            f"gap of up to {worst:.1e}: {in_options(loose[0][1].status, Options)}."
        )
    return notes
