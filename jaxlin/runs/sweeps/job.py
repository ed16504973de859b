"""What `jaxlin sweep` is to do, and how its heads are described in JSON."""

__all__ = ["SweepJob", "as_batch", "head_json", "history_json"]

from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh

from jaxlin import metrics, sweep
from jaxlin.core import Batch
from jaxlin.data import Dataset
from jaxlin.runs.preparation import Job
from jaxlin.sweep import presets


class SweepJob(NamedTuple):
    """A `Job` and the heads that are to be fitted to it."""

    job: Job
    heads: list[sweep.Head]
    preset: presets.Preset | None
    full: bool
    """Full-batch and certified, or minibatch descent."""
    memory: int | None
    """Bytes that a bank may take."""
    mesh: Mesh | None = None
    """The devices that the rows, and the heads of descent, are spread over; `None` for one."""

    @property
    def train(self) -> Dataset:
        return self.job.train


def as_batch(data: Dataset, weights: np.ndarray | None = None) -> Batch:
    """A `Dataset` as solvers and banks take it."""
    return Batch(data.inputs, data.labels.astype(np.int32), weights)


def head_json(found: sweep.FittedHead, job: SweepJob) -> dict:
    """The axes of a fitted head, and what came of it."""
    head = found.head
    described = head._asdict() | {"subset": head.subset.name}
    if job.preset is not None:
        shots, classes = head.shots, len(job.train.class_names)
        examples = len(job.train.labels) if shots is None else shots * classes
        described["published"] = head.strength / presets.strength_for(
            1.0, job.preset.units, examples
        )
    accuracy = found.validation_accuracy
    interval = None
    if accuracy is not None and job.job.validation is not None:
        interval = list(metrics.wilson_interval(accuracy, len(job.job.validation.labels)))
    return described | {
        "validation_accuracy": accuracy,
        "validation_interval": interval,
        "validation_loss": found.validation_loss,
        "objective": found.objective,
        "relative_gap": found.relative_gap,
        "weight_norm": found.weight_norm,
        "epochs": found.epochs,
        "status": found.status,
    }


def history_json(found: sweep.FittedHead) -> dict:
    """(epoch, validation accuracy, mean objective since the last), as it went on."""
    return {"history": [list(row) for row in found.history]}
