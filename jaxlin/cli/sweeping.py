"""The job of `jaxlin sweep`: from options to heads, a choice, one test, and a complete folder."""

__all__ = ["SweepJob", "open_comparison", "prepare_sweep", "sweep_and_write"]

import csv
import dataclasses
import json
import os
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlin import losses, metrics, models, preprocess, sweep
from jaxlin.batches import steps_per_epoch
from jaxlin.cli.common import write_json
from jaxlin.cli.environment import environment
from jaxlin.cli.progress import progress
from jaxlin.cli.runs import write_predictions
from jaxlin.cli.sweep_page import say_results, write_sweep_pictures
from jaxlin.cli.training import Job, measure, prepare, split_data
from jaxlin.core import Batch, DataError, LinearParams
from jaxlin.sweep import presets, selection
from jaxlin.sweep.full_batch import coarse_to_fine, solve
from jaxlin.sweep.minibatch import descend
from jaxlin.sweep.paired import compare

DEFAULT_STRENGTHS = tuple(np.logspace(-6, 0, 13).tolist())


class SweepJob(NamedTuple):
    """A `Job` and the heads that are to be fitted to it."""

    job: Job
    heads: list[sweep.Head]
    preset: presets.Preset | None
    full: bool
    """Full-batch and certified, or minibatch descent."""
    memory: int | None
    """Bytes that a bank may take."""

    @property
    def train(self):
        return self.job.train


class Other(NamedTuple):
    """What is read of the run that is compared with."""

    folder: Path
    split: str
    labels: list[str]
    predicted: list[str]


class _HeadRecord(NamedTuple):
    """A solved head, as the progress bar wants it."""

    step: int
    epoch: float
    loss: float
    validation_accuracy: float | None


def prepare_sweep(options) -> SweepJob:
    """Load the data and lay out the heads; everything that cannot be done is refused here."""
    preset = None if options.preset is None else presets.PRESETS[options.preset]
    job = prepare(dataclasses.replace(options, compare=None, memory=None))
    config = {k: v for k, v in job.config.items() if k not in ("compare", "memory")}
    full, examples = config["solver"] == "full-batch", len(job.train.labels)
    features, classes = job.train.inputs.shape[1], len(job.train.class_names)
    if preset is not None:
        presets.check_fit(
            options.preset, job.train.labels, batch_size=config["batch_size"], classes=classes
        )
    words = options.subsets or ("all",)
    heads = []
    for shots in options.shots or (preset.shots if preset else ()) or (None,):
        heads += sweep.grid(
            _strengths(options, preset, examples if shots is None else shots * classes),
            step_sizes=_step_sizes(options, preset, config, full=full),
            losses=options.losses or (config["loss"],),
            subsets=[subset for word in words for subset in sweep.parse_subset(word, features)],
            seeds=options.seeds or (preset.seeds if preset else ()) or (config["seed"],),
            shots=(shots,),
        )
    if options.step_size is None:
        config["step_size"] = None  # whatever it was, the heads say theirs
    if len(heads) > 1 and job.validation is None:
        raise ValueError(
            f"There are {len(heads)} heads to choose from, and --validation 0 keeps no examples to "
            "choose by. Give --validation, say 0.1, or a single strength."
        )
    memory = _free_memory() // 2 if options.memory is None else int(options.memory * 2**30)
    return SweepJob(job._replace(config=config), heads, preset, full, memory)


def _strengths(options, preset, examples: int):
    if preset is not None:
        return presets.strengths_for(preset, examples)
    if options.strengths is not None:
        return options.strengths
    single = type(options).__dataclass_fields__["strength"].default != options.strength
    axes = (options.step_sizes, options.losses, options.subsets)
    return (options.strength,) if single or any(axes) else DEFAULT_STRENGTHS


def _step_sizes(options, preset, config, *, full: bool):
    if full:
        return (None,)
    if preset is not None and options.step_sizes is None:
        return tuple(base * config["batch_size"] / 256 for base in preset.base_step_sizes)
    return options.step_sizes or (config["step_size"],)


def _free_memory() -> int:
    """Bytes that are free where the heads will live."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"] - stats.get("bytes_in_use", 0))
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 4 << 30


def sweep_and_write(job: SweepJob, options, out: Path, other: Other | None, *, name):
    """Fit, choose, refit, test, and write every file of the run folder.

    Returns:
      What `sweep.json` holds, and a sentence if no head came to anything, else "".
    """
    config, started = job.job.config, time.perf_counter()
    write_json(out / "config.json", config)
    write_json(out / "env.json", environment())
    fitted = _fit_all(job, out, chatty=not options.quiet, verbose=options.verbose)
    fit_seconds = time.perf_counter() - started
    if all(found.status == "diverged" for found in fitted):
        return {}, (
            f"all {len(fitted)} heads diverged: their losses were no longer finite. Give smaller "
            "--step-sizes, or --preprocess standardize."
        )
    shots = _few_shot(job, fitted) if job.heads[0].shots is not None else None
    position = selection.best(fitted) if shots is None else shots[-1]["position"]
    chosen = fitted[position]
    model, refit = _final(job, chosen, options)
    models.save(out / "model.safetensors", model)
    results = {
        "best": _head_json(chosen, job) | {"position": position},
        "test": None,
        "refit": refit,
        "few_shot": shots,
        "comparison": None,
        "metric": options.metric,
        "solver": config["solver"],
        "preset": name and {"name": name, "title": job.preset.title, "source": job.preset.source},
        "notes": _notes(job, fitted, position),
        "n_train": len(job.train.labels),
        "n_validation": 0 if job.job.validation is None else len(job.job.validation.labels),
        "data": {"name": job.train.name, "fingerprint": job.train.fingerprint},
        "heads": [_head_json(found, job) | _history_json(found) for found in fitted],
    }
    _test(job, model, results, out, options.metric, other)
    results["seconds"] = {"heads": fit_seconds, "total": time.perf_counter() - started}
    write_json(out / "sweep.json", results)
    write_sweep_pictures(out, results, config)
    say_results(results, out, quiet=options.quiet)
    return results, ""


def _fit_all(job: SweepJob, out: Path, *, chatty: bool, verbose: bool) -> list[sweep.Fitted]:
    """All heads, with a line of `metrics.jsonl` for every epoch of a bank or head solved."""
    data = _batch(job.job.train)
    held_out = job.job.validation
    validation = None
    if held_out is not None:
        weights = selection.selection_weights(held_out.labels, job.job.config["metric"])
        validation = _batch(held_out, weights)
    fit = partial(_solve_all if job.full else _descend_all, job, data, validation)
    total = len(job.heads) if job.full else _steps(job.job.config, len(data.labels))
    with (
        (out / "metrics.jsonl").open("w") as log,
        progress(total, show=chatty, verbose=verbose) as bar,
    ):

        def write(record: dict, shown) -> None:
            log.write(json.dumps(record) + "\n")
            log.flush()
            bar(shown)

        return fit(write)


def _descend_all(job: SweepJob, data, validation, write) -> list[sweep.Fitted]:
    config = job.job.config
    return descend(
        job.heads,
        data,
        validation,
        classes=len(job.train.class_names),
        statistics=job.job.statistics,
        descent=_descent(job, len(data.labels)),
        key=jax.random.key(config["seed"]),
        batch_size=config["batch_size"],
        patience=config["patience"],
        init_scale=_init_scale(job),
        dtype=_dtype(config),
        memory=job.memory,
        on_record=lambda record: write(record._asdict(), record),
    )


def _solve_all(job: SweepJob, data, validation, write) -> list[sweep.Fitted]:
    done = 0

    def on_fitted(found: sweep.Fitted) -> None:
        nonlocal done
        done += 1
        shown = _HeadRecord(done, found.epochs, found.objective, found.validation_accuracy)
        write(_head_json(found, job), shown)

    solver = partial(_solve, job, data, validation, statistics=job.job.statistics)
    if job.job.config["search"] == "grid":
        return solver(job.heads, on_fitted=on_fitted)
    halvings = job.preset.halvings if job.preset is not None else 4

    def evaluate(strengths, near):
        heads = [job.heads[0]._replace(strength=strength) for strength in strengths]
        return solver(heads, near=near, on_fitted=on_fitted)

    coarse = [head.strength for head in job.heads]
    return coarse_to_fine(evaluate, coarse, selection.best, halvings=halvings)


def _solve(job: SweepJob, data, validation, heads, *, statistics, **more) -> list[sweep.Fitted]:
    config = job.job.config
    return solve(
        heads,
        data,
        validation,
        classes=len(job.train.class_names),
        statistics=statistics,
        tolerance=config["tolerance"],
        margin=config["margin"],
        regularizer=config["regularizer"],
        dtype=np.float64 if config["dtype"] == "float64" else np.float32,
        **more,
    )


def _batch(data, weights=None) -> Batch:
    return Batch(data.inputs, data.labels.astype(np.int32), weights)


def _steps(config: dict, examples: int) -> int:
    return config["steps"] or config["epochs"] * steps_per_epoch(examples, config["batch_size"])


def _dtype(config: dict):
    return jnp.float64 if config["dtype"] == "float64" else jnp.float32


def _init_scale(job: SweepJob) -> float:
    """Zero, unless a preset says otherwise or there are seeds, which then differ by their draw."""
    if job.preset is not None:
        return job.preset.init_scale
    return 0.01 if len({head.seed for head in job.heads}) > 1 else 0.0


def _descent(job: SweepJob, examples: int) -> sweep.Descent:
    config = job.job.config
    return sweep.Descent(
        config["optimizer"],
        config["schedule"],
        _steps(config, examples),
        margin=config["margin"],
        regularizer=config["regularizer"],
        decoupled=config["optimizer"] == "adamw" and config["regularizer"] == "l2",
        batch_norm=job.preset is not None and job.preset.batch_norm,
        low_precision=config["dtype"] == "bfloat16",
    )


def _final(job: SweepJob, chosen: sweep.Fitted, options) -> tuple[models.Model, dict | None]:
    """The model that is tested: the chosen head, refitted on training and validation examples."""
    config, statistics = job.job.config, job.job.statistics
    wanted = not options.no_refit and (job.preset is None or job.preset.refit)
    refit = None
    if wanted and job.job.validation is not None and chosen.head.shots is None:
        everything, _, _ = split_data(config | {"validation": 0})
        statistics = preprocess.fit(everything.inputs, config["preprocess"])
        examples = len(everything.labels)
        units = "mean" if job.preset is None else job.preset.units
        if units in ("sum", "half-sum"):  # the published number stays, and N grows
            ratio = len(job.train.labels) / examples
            chosen = chosen._replace(
                head=chosen.head._replace(strength=chosen.head.strength * ratio)
            )
        again = _refit_solved if job.full else _refit_descended
        chosen = again(job, chosen, _batch(everything), statistics)
        refit = _head_json(chosen, job) | {"n": examples}
    dtype = np.float64 if config["dtype"] == "float64" else np.float32
    model = models.Model(
        LinearParams(*(np.asarray(leaf, dtype) for leaf in chosen.params)),
        statistics,
        tuple(job.train.class_names),
        job.train.image_shape,
        chosen.head.loss,
    )
    return model, refit


def _refit_solved(job, chosen, data, statistics) -> sweep.Fitted:
    (found,) = _solve(job, data, None, [chosen.head], statistics=statistics, near=[chosen])
    return found


def _refit_descended(job, chosen, data, statistics) -> sweep.Fitted:
    """The same schedule on all examples, as far along as the head was at its best."""
    config = job.job.config
    epochs, batch_size = chosen.epochs, config["batch_size"]
    if config["steps"] is not None:  # the same number of steps, hence other epochs
        epochs *= steps_per_epoch(len(job.train.labels), batch_size)
        epochs /= steps_per_epoch(len(data.labels), batch_size)
    (found,) = descend(
        [chosen.head],
        data,
        None,
        classes=len(job.train.class_names),
        statistics=statistics,
        descent=_descent(job, len(data.labels)),
        key=jax.random.key(config["seed"]),
        batch_size=batch_size,
        stop_after=epochs,
        init_scale=_init_scale(job),
        dtype=_dtype(config),
        memory=job.memory,
    )
    return found


def _few_shot(job: SweepJob, fitted) -> list[dict]:
    """For every number of shots: the strength best over the draws, and its accuracies."""
    found = []
    for shots in sorted({head.shots for head in job.heads}):
        own = [i for i, f in enumerate(fitted) if f.head.shots == shots]
        strengths = sorted({fitted[i].head.strength for i in own}, reverse=True)

        def mean_of(strength, own=own):
            members = [fitted[i] for i in own if fitted[i].head.strength == strength]
            return np.mean([member.validation_accuracy for member in members])

        chosen = max(strengths, key=mean_of)
        members = [i for i in own if fitted[i].head.strength == chosen]
        row = {"shots": shots, "strength": chosen, "draws": len(members)}
        row["validation_accuracy"] = float(mean_of(chosen))
        row["position"] = members[selection.best([fitted[i] for i in members])]
        if job.job.test is not None:
            heads = [fitted[i] for i in members]
            row["test_accuracies"] = _test_accuracies(job, heads)
            row |= _over_draws(row["test_accuracies"])
        found.append(row)
    return found


def _test_accuracies(job: SweepJob, heads) -> list[float]:
    stacked = LinearParams(*(np.stack([np.asarray(f.params[i]) for f in heads]) for i in (0, 1)))
    test = job.job.test
    weights = selection.selection_weights(test.labels, job.job.config["metric"])
    accuracies, _ = sweep.measure(
        [f.head for f in heads], stacked, sweep.Descent(margin=job.job.config["margin"]),
        job.job.statistics, _batch(test, weights),
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


def _test(job: SweepJob, model, results: dict, out: Path, metric: str, other) -> None:
    """Measure the final model once, write its predictions, and compare it with another run's."""
    test = job.job.test
    split, data = ("test", test) if test is not None else ("validation", job.job.validation)
    if data is None:
        return
    scores = models.scores(model, data.inputs)
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
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"split", "label", "predicted"} <= rows[0].keys():
        raise DataError(f"{path}: holds no predictions. --compare wants a finished run's folder.")
    if rows[0]["split"] != "test":
        raise DataError(f"{path}: holds predictions of no test set. Compare runs that have one.")
    return Other(folder, "test", [row["label"] for row in rows], [row["predicted"] for row in rows])


def _compared(model, test, scores, other: Other) -> dict:
    """The paired comparison; only the very same examples in the same order will do."""
    from jaxlin.cli.runs import safe_cell

    names = [safe_cell(name) for name in model.class_names]
    labels = [names[label] for label in test.labels]
    if labels != other.labels:
        raise DataError(
            f"{other.folder}: was tested on other examples ({len(other.labels):,} with other "
            f"labels or another order; here {len(labels):,}). Compare runs on one test set."
        )
    number = {name: k for k, name in enumerate(names)}
    theirs = [number.get(name, -1) for name in other.predicted]
    found = compare(scores.argmax(axis=1), theirs, test.labels)
    return {"with": str(other.folder)} | found._asdict()


def _notes(job: SweepJob, fitted, position: int) -> list[str]:
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
        notes.append(f"{diverged} of {len(fitted)} heads diverged and were not chosen from.")
    loose = [f for f in fitted if f.relative_gap is not None and f.status != "done"]
    if loose:
        worst = max(f.relative_gap for f in loose)
        notes.append(
            f"{len(loose)} of {len(fitted)} heads stopped above the tolerance, at a relative gap "
            f"of up to {worst:.1e}: {loose[0].status}."
        )
    return notes


def _head_json(found: sweep.Fitted, job: SweepJob) -> dict:
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


def _history_json(found: sweep.Fitted) -> dict:
    return {"history": [list(row) for row in found.history]}
