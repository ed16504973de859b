"""What `jaxlin sweep` can be asked for, and what of it cannot be meant."""

__all__ = ["Options", "resolved"]

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jaxlin.runs import train_options


@dataclass(frozen=True, kw_only=True)
class Options(train_options.Options):
    """Fit many heads in one pass, choose one on validation, and test it once.

    A head is a combination of strength, step size, loss, features and seed. All descend side by
    side on the same batches, or (--solver full-batch, --tolerance) are solved with certificates,
    each warm from its neighbor. The chosen head is refitted on training and validation examples.
    """

    strengths: tuple[float, ...] | None = None
    """Strengths to try (without them: 13, from 1e-6 to 1)."""
    step_sizes: tuple[float, ...] | None = None
    """Step sizes to try (minibatch only)."""
    losses: tuple[train_options.LossName, ...] | None = None
    """Losses to try."""
    subsets: tuple[str, ...] | None = None
    """Features to try: all, NAME=START:STOP (columns; several ranges with commas between), or
    dinov2:WIDTH for its layer and pooling choices."""
    seeds: tuple[int, ...] | None = None
    """Seeds of the initial weights (minibatch) or of the draws of --shots."""
    shots: tuple[int, ...] | None = None
    """Examples of each class to learn from, drawn by each seed (full-batch)."""
    preprocess: Literal["none", "scale", "center", "standardize"] | None = None  # type: ignore[assignment]  # open until `_with_preset`
    """Raw; each feature to [-1, 1]; minus the mean image; or also divided by its spread (without
    it: standardize, or what the preset says)."""
    optimizer: (
        Literal[
            "sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw", "lion", "lars"
        ]
        | None
    ) = None  # type: ignore[assignment]  # open until `_with_preset`
    """How a gradient becomes a step (without it: adam, or the preset's)."""
    schedule: Literal["constant", "cosine", "linear", "warmup-cosine", "steps"] | None = None  # type: ignore[assignment]  # open until `_with_preset`
    """How the step size falls over the run (without it: cosine, or the preset's)."""
    batch_size: int | None = None  # type: ignore[assignment]  # open until `_with_preset`
    """Examples a step (without it: 256, or the preset's)."""
    validation: float | None = None  # type: ignore[assignment]  # open until `_with_preset`
    """Share (or, from 1 on, number) of the training examples that choose (without it: 0.1, or
    none where a preset has nothing to choose)."""
    preset: (
        Literal[
            "clip", "clip-search", "kornblith", "simclr", "byol", "dinov2", "mae", "vissl",
            "few-shot",
        ]
        | None
    ) = None  # fmt: skip
    """A published protocol, with its exact numbers."""
    search: Literal["grid", "coarse-to-fine"] = "grid"
    """Try all strengths, or (full-batch) refine around the best: four halvings."""
    metric: Literal["accuracy", "mean-per-class"] = "accuracy"
    """What selects, and is reported: the share of examples, or the mean over classes of it."""
    no_refit: bool = False
    """Keep the chosen head as it was trained, without the validation examples."""
    compare: Path | None = None
    """Another run on the same test examples, with other features say: a paired test."""
    bank_memory: float = 4.0
    """GiB that a bank of heads may take; more heads are trained bank after bank."""


def resolved(options: Options) -> Options:
    """The options with what a preset fixes or changes the default of; refuse what cannot be meant.

    Raises:
      ValueError: with one sentence.
    """
    options = _with_preset(options)
    train_options.check_options(options)
    _check(options)
    return options


def _with_preset(options: Options) -> Options:
    """The options with what a preset fixes, or changes the default of, filled in."""
    if options.preset is None:
        return _with_defaults(options)

    from jaxlin.sweep.presets import PRESETS as TABLE

    preset = TABLE[options.preset]
    defaults = {field.name: field.default for field in dataclasses.fields(Options)}
    axes = ["strengths", "losses"]
    axes += ["step_sizes"] if preset.base_step_sizes or preset.solver == "full-batch" else []
    axes += ["seeds", "shots"] if preset.shots else []
    for name in axes:
        if getattr(options, name) is not None:
            raise ValueError(
                f"--{name.replace('_', '-')} is fixed by the preset {options.preset}. Leave one "
                "of the two out."
            )
    for name in ("search", "strength", "step_size"):
        if getattr(options, name) != defaults[name]:
            raise ValueError(
                f"--{name.replace('_', '-')} is fixed by the preset {options.preset}. Leave it out."
            )
    filled: dict[str, Any] = {"search": preset.search}
    for name, value in preset.options.items():
        if getattr(options, name) not in (defaults[name], value):
            raise ValueError(
                f"--{name.replace('_', '-')} {getattr(options, name)} is not that of the preset "
                f"{options.preset}, {value}. Leave it out, or sweep without the preset."
            )
        filled[name] = value
    for name, value in preset.adjustable.items():
        if getattr(options, name) == defaults[name]:
            other = {"epochs": "steps", "steps": "epochs"}.get(name)
            if other is None or getattr(options, other) is None:
                filled[name] = value
    return _with_defaults(dataclasses.replace(options, **filled))


def _with_defaults(options: Options) -> Options:
    """What is still open gets the default of `jaxlin train`."""
    usual = {field.name: field.default for field in dataclasses.fields(train_options.Options)}
    names = ("preprocess", "optimizer", "schedule", "batch_size", "validation")
    filled: dict[str, Any] = {name: usual[name] for name in names if getattr(options, name) is None}
    return dataclasses.replace(options, **filled)


def _check(options: Options) -> None:
    """Refuse what cannot be meant, in one sentence each."""
    for name in ("strengths", "step_sizes", "losses", "subsets", "seeds", "shots"):
        values = getattr(options, name)
        if values is not None and not values:
            raise ValueError(f"--{name.replace('_', '-')} is empty. Give at least one value.")
    full = train_options.is_full_batch(options)
    if full and options.step_sizes is not None:
        raise ValueError(
            "--step-sizes belong to minibatch descent, and this is a full-batch solver. Leave them "
            "out, or choose --solver minibatch."
        )
    if options.shots is not None and not full:
        raise ValueError("--shots are solved full-batch. Add --solver full-batch.")
    if full and len(options.seeds or ()) > 1 and not options.shots and options.preset is None:
        raise ValueError(
            "--seeds change nothing for a full-batch solver, which starts from zero. Leave them "
            "out, or give --shots."
        )
    if options.search == "coarse-to-fine" and not full:
        raise ValueError("--search coarse-to-fine is full-batch. Add --solver full-batch.")
    if options.search == "coarse-to-fine" and options.shots is not None:
        raise ValueError(
            "--search coarse-to-fine follows one head, and --shots are chosen by the mean over "
            "their draws. Use --search grid."
        )
    if options.search == "coarse-to-fine" and options.preset is None:
        if options.strengths is not None and len(options.strengths) < 3:
            raise ValueError("--search coarse-to-fine needs 3 or more --strengths to start from.")
        if options.strengths is not None and min(options.strengths) <= 0:
            raise ValueError("--search coarse-to-fine needs positive --strengths.")
    for plural, single in (("strengths", "strength"), ("losses", "loss")):
        default = {field.name: field.default for field in dataclasses.fields(Options)}[single]
        if getattr(options, plural) is not None and getattr(options, single) != default:
            raise ValueError(f"--{single} and --{plural} exclude each other. Give one of them.")
    if options.step_sizes is not None and options.step_size is not None:
        raise ValueError("--step-size and --step-sizes exclude each other. Give one of them.")
    if not 0 < options.bank_memory < float("inf"):
        raise ValueError(f"--bank-memory must be positive, got {options.bank_memory}.")
