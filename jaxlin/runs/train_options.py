"""What `jaxlin train` can be asked for, and what of it cannot be meant: known before JAX loads."""

__all__ = ["LEAST_TOLERANCE", "VALIDATION", "LossName", "Options", "check_options", "is_full_batch"]

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxlin.runs.checkpointing import CheckpointOptions, check_checkpoints
from jaxlin.runs.devices import DeviceOptions, check_devices
from jaxlin.runs.examples import DataOptions
from jaxlin.runs.output import OutputOptions
from jaxlin.runs.wording import check_seed

LossName = Literal[
    "softmax",
    "hinge",
    "crammer-singer",
    "one-vs-rest",
    "squared-hinge",
    "squared-crammer-singer",
    "squared-one-vs-rest",
]

VALIDATION = 0.1
"""The share of the training examples that is kept unless somebody says otherwise."""
LEAST_TOLERANCE = 1e-13
"""That of `jaxlin.solvers.minimize`, known here before JAX is loaded and a folder begun."""


OF_DESCENT = ("epochs", "steps", "step_size", "patience", "optimizer", "schedule", "batch_size")
"""Options that say nothing to the full-batch solver."""


@dataclass(frozen=True, kw_only=True)
class PartOptions(DataOptions):
    """Data: which examples, and which of them."""

    validation: float = VALIDATION
    """Share (or, from 1 on, number) of the training examples kept for validation; 0: none. Data
    with a train, a validation and a test split bring their own."""
    limit: int | None = None
    """Use only this many training examples, drawn by the seed."""
    memory: float = 4.0
    """GiB of features to hold in memory; files of more are read block by block in every pass."""
    seed: int = 0
    """Decides every random choice of the run."""


@dataclass(frozen=True, kw_only=True)
class ObjectiveOptions:
    """Objective: what is minimized, mean loss + strength * R(W)."""

    loss: LossName = "softmax"
    """softmax cross-entropy; hinge (Weston-Watkins, the lecture's SVM); or another hinge."""
    margin: float = 1.0
    """The hinges' margin (the lecture's Delta)."""
    strength: float = 1e-4
    """Factor of the regularizer in the objective, mean loss + strength * R(W)."""
    regularizer: Literal["l2", "l1", "none"] = "l2"
    """R(W): sum of squares, sum of absolute values, or nothing. The bias is free."""
    preprocess: Literal["none", "scale", "center", "standardize"] = "standardize"
    """Raw; each feature to [-1, 1]; minus the mean image; or also divided by its spread."""


@dataclass(frozen=True, kw_only=True)
class DescentOptions:
    """Descent: steps along batches (--solver minibatch)."""

    optimizer: Literal[
        "sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw", "lion", "lars"
    ] = "adam"
    """How a gradient becomes a step."""
    step_size: float | None = None
    """Size of the first step, the learning rate (without it: one that suits the optimizer and the
    number and size of the features)."""
    schedule: Literal["constant", "cosine", "linear", "warmup-cosine", "steps"] = "cosine"
    """How the step size falls over the run; warmup-cosine rises over its first ninth, steps
    divides by 10 after 2/7, 4/7 and 6/7 of it."""
    batch_size: int = 256
    """Examples a step; 1 is single-example SGD, all of them gradient descent."""
    epochs: int | None = None
    """Passes over the training examples (without it: 30, or more for a small set)."""
    steps: int | None = None
    """Steps in all, instead of epochs."""
    patience: int | None = None
    """Stop after this many epochs without a better validation result."""


@dataclass(frozen=True, kw_only=True)
class CertifiedOptions:
    """Certified: the optimum, with a proof of how far it is (--solver full-batch)."""

    tolerance: float | None = None
    """Certified relative gap at which full-batch stops (without it: 1e-4)."""
    max_iterations: int | None = None
    """Steps after which full-batch stops without it (without this: 1,000)."""


@dataclass(frozen=True, kw_only=True)
class Options(
    PartOptions,
    ObjectiveOptions,
    DescentOptions,
    CertifiedOptions,
    OutputOptions,
    CheckpointOptions,
    DeviceOptions,
):
    """Train a linear classifier and write a run folder with its report."""

    solver: Literal["auto", "minibatch", "full-batch"] = "auto"
    """minibatch descends along batches; full-batch solves the problem and proves how far from the
    optimum it stopped; auto is full-batch where --tolerance asks for that, else minibatch."""
    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Read options from the config.json of a run; other options override it."""


def is_full_batch(options: Options) -> bool:
    """Whether the problem is solved, with a certificate, rather than descended along batches."""
    # Measured on digits, Fashion-MNIST and CIFAR-10: descent is as accurate on the test set, in
    # seconds; the full-batch solver is for those who want the optimum, and its proof.
    return options.solver == "full-batch" or (
        options.solver == "auto" and options.tolerance is not None
    )


def check_options(options: Options) -> None:
    """Refuse numbers that cannot be meant, in one sentence each."""
    check_devices(options)
    check_checkpoints(options)
    if options.test_labels is not None and options.test is None:
        raise ValueError("--test-labels needs --test, the features that they belong to.")
    positive: tuple[str, ...] = (
        "batch_size",
        "epochs",
        "steps",
        "step_size",
        "limit",
        "patience",
        "image_size",
    )
    positive = (*positive, "max_iterations")
    for name in (*positive, "memory"):
        value = getattr(options, name)
        if value is not None and not value > 0:
            raise ValueError(f"--{name.replace('_', '-')} must be positive, got {value}.")
        if value is not None and value == float("inf"):
            raise ValueError(f"--{name.replace('_', '-')} must be finite, got {value}.")
    for name in ("strength", "validation", "margin"):
        value = getattr(options, name)
        if not 0 <= value < float("inf"):
            raise ValueError(f"--{name} must be 0 or more and finite, got {value}.")
    check_seed("--seed", options.seed)
    if options.validation > 1 and options.validation != int(options.validation):
        raise ValueError(
            f"--validation must be a share below 1 or a whole number, got {options.validation}."
        )
    if options.epochs is not None and options.steps is not None:
        raise ValueError("--epochs and --steps exclude each other. Give one of them.")
    if options.tolerance is not None and not 0 < options.tolerance < 1:
        raise ValueError(f"--tolerance must be between 0 and 1, got {options.tolerance}.")
    if options.tolerance is not None and options.tolerance < LEAST_TOLERANCE:
        raise ValueError(
            f"--tolerance must be at least {LEAST_TOLERANCE:g}, got {options.tolerance:g}: the "
            "smallest relative gap that float64 can certify."
        )
    full, usual = is_full_batch(options), {field.name: field.default for field in fields(Options)}
    for name in OF_DESCENT:
        if full and getattr(options, name) != usual[name]:
            raise ValueError(
                f"--{name.replace('_', '-')} belongs to minibatch descent, and this is a "
                "full-batch solver. Leave it out, or choose --solver minibatch."
            )
    if not full and options.max_iterations is not None:
        raise ValueError(
            "--max-iterations belongs to the full-batch solver. Give --steps or --epochs, or "
            "choose --solver full-batch."
        )
    if options.solver == "minibatch" and options.tolerance is not None:
        raise ValueError("--tolerance needs certificates. Choose --solver full-batch.")
    if full and options.margin == 0:
        raise ValueError(
            "--margin must be positive for the full-batch solver, got 0. Give --margin 1, or "
            "choose --solver minibatch."
        )
    if options.precision != "highest" and (full or options.dtype == "float64"):
        what = "the full-batch solver's certificates" if full else "--dtype float64"
        raise ValueError(
            f"--precision {options.precision} rounds more than {what} can bear. Leave it out."
        )
    smooth = ("softmax", "squared-hinge", "squared-one-vs-rest")
    if full and options.regularizer == "l1" and options.loss not in smooth:
        raise ValueError(
            f"--regularizer l1 needs a smooth loss with the full-batch solver, got {options.loss}. "
            f"Choose --loss {', '.join(smooth[:-1])} or {smooth[-1]}, or --solver minibatch."
        )
    if full and options.class_devices > 1:
        raise ValueError("--class-devices is for minibatch descent. Leave it out.")
    tried = getattr(options, "losses", None) or (options.loss,)
    if options.margin != usual["margin"] and set(tried) == {"softmax"}:
        raise ValueError("--margin is the hinges', and softmax has none. Leave it out.")
    strengths = getattr(options, "strengths", None)
    if options.regularizer == "none" and (strengths or options.strength != usual["strength"]):
        given = "--strengths" if strengths else "--strength"
        raise ValueError(
            f"{given} weighs the regularizer, and --regularizer none has none. Leave one of the "
            "two out."
        )
    if options.patience is not None and options.validation == 0:
        raise ValueError("--patience needs validation examples. Give --validation, say 0.1.")
