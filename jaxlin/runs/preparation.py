"""From options to a job: the data in their three parts, and every option that depends on them."""

__all__ = ["Job", "evaluation_split", "feature_size", "prepare", "say_data", "split_data"]

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxlin import preprocess
from jaxlin.batches import steps_per_epoch
from jaxlin.core import DataError
from jaxlin.data import NAMED, Dataset
from jaxlin.data.rows import materialize, take
from jaxlin.data.telling import reading_counts, reading_lines, splits_lines
from jaxlin.data.validate import refuse_large
from jaxlin.distributed.processes import all_reduce
from jaxlin.runs import hosts
from jaxlin.runs.checkpointing import identity_of
from jaxlin.runs.devices import NOT_ABOUT_THE_RUN as ABOUT_DEVICES
from jaxlin.runs.environment import environment
from jaxlin.runs.examples import IN_HAND, NOT_GIVEN, Given, run_data
from jaxlin.runs.output import say
from jaxlin.runs.progress import reading
from jaxlin.runs.train_options import VALIDATION, Options, is_full_batch

# The default step size is c / (D * size**power) for D features of root mean square `size`. A step
# of Adam's kind moves every weight by the same amount, hence a score by D * size times that; a
# step of plain gradient descent is itself proportional to the features.
STEP_SIZES = {
    **{"sgd": (1.0, 2), "momentum": (0.2, 2), "nesterov": (0.2, 2), "adagrad": (8.0, 1)},
    **{"rmsprop": (0.8, 1), "adam": (0.8, 1), "adamw": (0.8, 1), "lion": (0.2, 1)},
    "lars": (1.0, 0),
}
NOT_ABOUT_THE_RUN = (
    *("config", "out", "overwrite", "json", "quiet", "verbose", "save_every", "resume"),
    *ABOUT_DEVICES,
)


class Job(NamedTuple):
    """What is to be done: data in their three parts, and the resolved options."""

    train: Dataset
    validation: Dataset | None
    test: Dataset | None
    statistics: preprocess.Preprocessing
    """Fitted on the training examples alone."""
    config: dict
    """Every option that decides the numbers, all defaults filled in."""
    given: Given = NOT_GIVEN
    """Data in hand, which the configuration cannot name."""

    def about_data(self) -> dict:
        """What results say of the data: name, fingerprint, splits, and what was passed over."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        about = {"name": self.train.name, "fingerprint": self.train.fingerprint}
        return about | reading_counts(parts)

    @property
    def identity(self) -> dict:
        """What a checkpoint of this run must have been saved for."""
        return identity_of(self.config, self.train, self.test, environment())


def prepare(options: Options, given: Given = NOT_GIVEN) -> Job:
    """Load and split the data, or take those `given`, and fill in what depends on them."""
    if options.dtype == "float64":
        jax.config.update("jax_enable_x64", True)
    values = _values(options)
    in_hand = zip(("data", "test"), given, strict=True)
    values |= {name: IN_HAND for name, data in in_hand if data is not None}
    with reading(show=not options.quiet) as progress:
        parts = split_data(values, given, progress=progress)
    hosts.check_alike(options, values, parts)
    own = hosts.own_part(parts[0].inputs)
    refuse_large(own, values["dtype"], file=values["data"])
    statistics = preprocess.fit(own, options.preprocess, all_reduce=all_reduce)
    values["solver"] = "full-batch" if is_full_batch(options) else "minibatch"
    return Job(*parts, statistics, _resolved(values, parts[0].inputs, statistics), given)


def say_data(job: Job, *, quiet: bool) -> None:
    """What was read, which rows are which, and what was not read: at most six lines."""
    parts = {"train": job.train, "validation": job.validation, "test": job.test}
    for line in splits_lines(parts) + reading_lines([*parts.values()]) + _absent(job.train):
        say(line, quiet=quiet)


def _absent(data: Dataset) -> list[str]:
    """A note if there are classes without a training example: often the labels start at 1."""
    counts = np.bincount(data.labels, minlength=len(data.class_names))
    absent = np.flatnonzero(counts == 0)
    if not len(absent):
        return []
    first, hint = data.class_names[absent[0]], ""
    if absent.tolist() == [0] and first == "0":
        hint = " Do the labels start at 1? Then subtract 1."
    return [
        f"note        {len(absent):,} of {len(counts):,} classes have no training example (the "
        f"first is {first!r}).{hint}"
    ]


def split_data(
    config: dict,
    given: Given = NOT_GIVEN,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Dataset, Dataset | None, Dataset | None]:
    """The training, validation and test examples of a configuration; its seed decides."""
    folders = hosts.distributed_folders(config)
    train_set, validation, test_set = run_data(config, folders, given=given, progress=progress)
    rng = np.random.default_rng(config["seed"])
    examples, limit = len(train_set.labels), config["limit"]
    if limit is not None and limit < examples:
        train_set = _rows(train_set, np.sort(rng.permutation(examples)[:limit]))
    if validation is None:
        train_set, validation = _split(train_set, config["validation"], rng)
    elif config["validation"] != VALIDATION:
        told = (
            f"--validation {config['validation']:g} is not used: the data have a validation split."
        )
        validation = validation._replace(notes=(*validation.notes, told))
    if len(np.unique(train_set.labels)) < 2:
        raise DataError(
            f"{train_set.name}: the {len(train_set.labels)} training examples are of one class "
            "only. A classifier needs two: raise --limit or lower --validation."
        )
    return hosts.set_memory((train_set, validation, test_set), config["memory"])


def _rows(data: Dataset, rows: np.ndarray) -> Dataset:
    """These rows, read if they fit memory, else a view."""
    inputs = take(data.inputs, rows)
    budget = getattr(inputs, "resident_bytes", 0)
    return data._replace(inputs=materialize(inputs, budget), labels=data.labels[rows])


def _split(
    data: Dataset, validation: float, rng: np.random.Generator
) -> tuple[Dataset, Dataset | None]:
    """Keep a share (below 1) or a number (from 1 on) of the examples for validation."""
    examples = len(data.labels)
    count = round(validation * examples) if validation < 1 else int(validation)
    if validation == 0:
        return data, None
    if not 1 <= count < examples:
        raise ValueError(
            f"--validation {validation:g} would keep {count} of {examples} training examples. "
            "Give a share between 0 and 1 or a smaller number."
        )
    order = rng.permutation(examples)
    return _rows(data, np.sort(order[count:])), _rows(data, np.sort(order[:count]))


def _values(options: Options) -> dict:
    """The options that decide the numbers, with paths that hold from any folder."""
    values = dataclasses.asdict(options)
    for name in NOT_ABOUT_THE_RUN:
        values.pop(name)
    for name, value in values.items():
        if isinstance(value, Path):
            values[name] = str(value.absolute())
    if options.data not in NAMED and Path(options.data).exists():
        values["data"] = str(Path(options.data).absolute())
    return values


def _resolved(values: dict, inputs: Any, statistics: preprocess.Preprocessing) -> dict:
    """`values` with the defaults that depend on the solver and the data filled in."""
    if values["solver"] == "full-batch":
        values["tolerance"] = values["tolerance"] or 1e-4
        values["max_iterations"] = values["max_iterations"] or 1000
        return values
    if values["step_size"] is None:
        factor, power = STEP_SIZES[values["optimizer"]]
        features = 1 if values["optimizer"] == "lars" else inputs.shape[1]
        size = feature_size(inputs, statistics) or 1.0
        values["step_size"] = float(f"{factor / (features * size**power):.3g}")
    if values["epochs"] is None and values["steps"] is None:
        # Small sets need more passes for the same number of steps: 30 epochs, or 3,000 steps.
        per_epoch = steps_per_epoch(len(inputs), values["batch_size"])
        values["epochs"] = min(500, max(30, -(-3000 // per_epoch)))
    return values


def feature_size(inputs: Any, statistics: preprocess.Preprocessing) -> float:
    """Root mean square of the preprocessed features, over up to 1,000 rows."""
    block = np.asarray(inputs[:: max(1, len(inputs) // 1000)])
    values = np.asarray(preprocess.apply(statistics, block), np.float64)
    return float(np.sqrt(np.mean(np.square(values))))


def evaluation_split(
    train_set: Dataset, validation: Dataset | None, test: Dataset | None
) -> tuple[str, Dataset]:
    """The part of the data that pictures and predictions are about: the least seen one."""
    named = {"test": test, "validation": validation, "train": train_set}
    return next((split, data) for split, data in named.items() if data is not None)
