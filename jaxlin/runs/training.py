"""The main job: from prepared data to a trained model and a complete run folder."""

__all__ = ["train_and_write"]

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxlin import checkpoint, losses, models, regularizers, train
from jaxlin.batches import steps_per_epoch
from jaxlin.core import Batch, LinearParams
from jaxlin.data import Dataset
from jaxlin.distributed import sharding
from jaxlin.objectives import compose
from jaxlin.runs import hosts
from jaxlin.runs.batch_memory import batch_parts
from jaxlin.runs.checkpointing import Checkpointer
from jaxlin.runs.environment import environment
from jaxlin.runs.folder import write_pictures, write_predictions
from jaxlin.runs.full_batch import FullBatchFit, solve
from jaxlin.runs.measures import accuracy_and_loss, measure, measure_in_blocks
from jaxlin.runs.metrics_log import record_log
from jaxlin.runs.output import say, write_json
from jaxlin.runs.preparation import Job, evaluation_split, feature_size
from jaxlin.runs.progress import progress as progress_bar
from jaxlin.runs.train_options import Options
from jaxlin.runs.wording import training_lines
from jaxlin.solvers import relative_gap
from jaxlin.steps import placed_for_training


def train_and_write(
    job: Job, options: Options, out: Path, checkpointer: Checkpointer, mesh: Mesh | None = None
) -> tuple[dict, str]:
    """Train, evaluate, and write every file of the run folder.

    Leaves by `Stopped` where `checkpointer` says so.

    Returns:
      What `results.json` holds, and a sentence if the run diverged, else "".
    """
    config, chatty = job.config, not options.quiet
    write_json(out / "config.json", config)
    write_json(out / "env.json", environment())
    examples = len(job.train.labels)
    full = config["solver"] == "full-batch"
    if config["batch_size"] > examples and not full:
        say(f"The batch is the full {examples} examples.", quiet=options.quiet)
    started = time.perf_counter()
    fit: Callable[..., train.Fit | FullBatchFit] = solve if full else _fit
    fitted = fit(
        job,
        out,
        hosts.resume_alike(checkpointer, options),
        mesh=mesh,
        chatty=chatty,
        verbose=options.verbose,
    )
    dtype = np.float64 if config["dtype"] == "float64" else np.float32
    model = models.Model(
        LinearParams(*(np.asarray(leaf, dtype) for leaf in fitted.params)),
        job.statistics,
        tuple(job.train.class_names),
        job.train.image_shape,
        config["loss"],
        job.train.pixels,
    )
    models.save(out / "model.safetensors", model)
    results, scores = _evaluate(job, model, checkpointer)
    results |= {
        "n_train": examples,
        "n_validation": 0 if job.validation is None else len(job.validation.labels),
        "solver": config["solver"],
        **_outcome(fitted),
        "data": job.about_data(),
        "seconds": {
            "compile": fitted.compile_seconds,
            "train": fitted.train_seconds,
            "total": time.perf_counter() - started,
        },
    }
    write_json(out / "results.json", results)
    diverged = ""
    if isinstance(fitted, train.Fit) and fitted.status == "diverged":
        diverged = _divergence(fitted, job)
    checkpointer.stop_if_signaled("after training")
    first = jax.process_index() == 0

    split, data = evaluation_split(job.train, job.validation, job.test)
    if first:
        write_predictions(out / "predictions.csv", model, data, scores[split], split=split)
    checkpointer.stop_if_signaled("after training")  # all processes have to come here
    if not first:
        return results, diverged
    write_pictures(out, model, data, scores[split], split=split, results=results, config=config)
    _say_results(results, out, quiet=options.quiet)
    return results, diverged


def _outcome(fitted: train.Fit | FullBatchFit) -> dict:
    """What `results.json` says of a descent, or of a full-batch solution with its certificate."""
    if isinstance(fitted, train.Fit):
        return {"steps": int(fitted.state.step), "status": fitted.status}
    solution = fitted.solution
    return {
        "status": fitted.status,
        "evaluations": solution.evaluations,
        "iterations": solution.iterations,
        "lower_bound": solution.lower_bound,
        "gap": solution.gap,
        "objective": float(solution.objective),
        "relative_gap": relative_gap(solution),
    }


def _fit(
    job: Job,
    out: Path,
    checkpointer: Checkpointer,
    *,
    mesh: Mesh | None,
    chatty: bool,
    verbose: bool,
) -> train.Fit:
    """Run the training loop, with a progress bar, one line of JSON a record, and checkpoints."""
    config, statistics = job.config, job.statistics
    examples, features = job.train.inputs.shape
    classes = len(job.train.class_names)
    steps = config["steps"] or config["epochs"] * steps_per_epoch(examples, config["batch_size"])
    dtype = jnp.float64 if config["dtype"] == "float64" else jnp.float32
    loss = losses.named(config["loss"], margin=config["margin"])
    penalty = getattr(regularizers, config["regularizer"])
    strength, decay = config["strength"], 0.0
    if config["optimizer"] == "adamw" and config["regularizer"] == "l2":
        strength, decay = 0.0, 2 * strength  # decoupled: the step shrinks the weights itself
    there = statistics._replace(
        shift=jnp.asarray(statistics.shift), scale=jnp.asarray(statistics.scale)
    )
    score = models.score_function(there, precision=config["precision"])
    objective = partial(compose(score, loss, penalty), strength=strength)
    law = train.schedule(config["schedule"], config["step_size"], steps)
    optimizer = train.optimizer(config["optimizer"], law, decay=decay)
    data = Batch(job.train.inputs, job.train.labels.astype(np.int32))
    first = LinearParams(jnp.zeros((classes, features), dtype), jnp.zeros(classes, dtype))
    size = config["batch_size"]
    parts = batch_parts(objective, optimizer, first, data, batch_size=size, mesh=mesh)
    if parts > 1:
        say(f"Memory is short: each batch is computed in {parts} parts.", quiet=not chatty)
    descent = train.trainer(objective, optimizer, parts=parts)

    def validated(held_out: Dataset, params: LinearParams) -> tuple[float, float]:
        model = models.Model(params, statistics, job.train.class_names, None, config["loss"])
        measured = accuracy_and_loss(held_out, loss, hosts.scores(model, held_out.inputs))
        return measured["loss"], measured["accuracy"]

    key = jax.random.key(config["seed"])
    placed = first if mesh is None else sharding.place_params(first, mesh)
    progress = train.beginning(descent, placed, examples, config["batch_size"])
    if checkpointer.keeper is not None:
        state, _ = train.pack(progress)
        checkpoint.check_space(out, (key, state))
        if checkpointer.found is not None:
            key, state = hosts.load(checkpointer.found, (key, state))
            progress = train.unpack(state, checkpointer.found.record["progress"])

    def on_progress(progress: train.Progress) -> None:
        step = int(progress.state.step)
        tired = config["patience"] is not None and progress.waited >= config["patience"]
        state, record = train.pack(progress)
        checkpointer.save_if_due(
            step, (key, state), {"progress": record}, last=tired or step == steps
        )

    before = [record._asdict() for record in progress.history]
    with (
        record_log(out / "metrics.jsonl", before) as log,
        progress_bar(steps, show=chatty, verbose=verbose) as bar,
    ):

        def on_record(record: train.Record) -> None:
            log(record._asdict())
            bar(record)

        return train.run(
            *(descent, first, placed_for_training(data, mesh)),
            key=key,
            steps=steps,
            batch_size=config["batch_size"],
            validate=None if job.validation is None else partial(validated, job.validation),
            patience=config["patience"],
            on_record=on_record,
            start=progress,
            on_progress=on_progress if checkpointer.keeper is not None else None,
            next_due=None if checkpointer.keeper is None else checkpointer.keeper.next_due,
        )


def _evaluate(job: Job, model: models.Model, checkpointer: Checkpointer) -> tuple[dict, dict]:
    """Results of every part, and the scores they came from; a streamed part that is not shown
    leaves none."""
    loss = losses.named(job.config["loss"], margin=job.config["margin"])
    results: dict = {"train": None, "validation": None, "test": None}
    scores = {}
    shown, _ = evaluation_split(job.train, job.validation, job.test)
    for split in results:
        data = getattr(job, split)
        checkpointer.stop_if_signaled("after training")
        blockwise = not isinstance(data and data.inputs, np.ndarray)
        if data is not None and split != shown and blockwise:
            results[split] = measure_in_blocks(model, data, loss)
        elif data is not None:
            scores[split] = hosts.scores(model, data.inputs)
            measured = measure(model, data, loss, scores[split])
            results[split] = measured
    penalty = getattr(regularizers, job.config["regularizer"])
    weights = jnp.asarray(model.params.weights)
    results["objective"] = results["train"]["loss"] + job.config["strength"] * float(
        penalty(weights)
    )
    return results, scores


def _divergence(fitted: train.Fit, job: Job) -> str:
    """The sentence for a loss that is no longer a number."""
    scale = feature_size(job.train.inputs, job.statistics)
    return (
        f"the loss was no longer finite at step {fitted.history[-1].step} with step size "
        f"{job.config['step_size']:g} and features of size {scale:.3g}: lower --step-size, or "
        "use --preprocess standardize; the last finite model was kept."
    )


def _say_results(results: dict, out: Path, *, quiet: bool) -> None:
    for line in training_lines(results):
        say(line, quiet=quiet)
    say(f"Look at     {out / 'report.html'}", quiet=quiet)
