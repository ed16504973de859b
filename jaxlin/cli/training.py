"""The main job: from options to a trained model and a complete run folder."""

__all__ = ["Job", "judged", "prepare", "split_data", "train_and_write"]

import dataclasses
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlin import checkpoint, losses, models, preprocess, regularizers, sharding, train
from jaxlin.batches import steps_per_epoch
from jaxlin.cli import hosts
from jaxlin.cli.devices import NOT_ABOUT_THE_RUN as ABOUT_DEVICES
from jaxlin.cli.environment import environment
from jaxlin.cli.fitting import batch_parts
from jaxlin.cli.measuring import accuracy_and_loss, measure, measure_in_blocks
from jaxlin.cli.output import say, write_json
from jaxlin.cli.progress import progress as progress_bar
from jaxlin.cli.records import record_log
from jaxlin.cli.runs import memory_bytes, run_data, write_pictures, write_predictions
from jaxlin.cli.solving import solve
from jaxlin.cli.surviving import Watch, identity_of
from jaxlin.core import Batch, DataError, LinearParams
from jaxlin.data import NAMED, Dataset, load_validation
from jaxlin.data.rows import hold, take
from jaxlin.data.validate import refuse_large
from jaxlin.objectives import compose
from jaxlin.solvers import relative_gap
from jaxlin.steps import placed_for_training

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

    @property
    def identity(self) -> dict:
        """What a checkpoint of this run must have been saved for."""
        return identity_of(self.config, self.train, self.test, environment())


def prepare(options) -> Job:
    """Load and split the data, and fill in the options that depend on them."""
    if options.dtype == "float64":
        jax.config.update("jax_enable_x64", True)
    values = _values(options)
    parts = split_data(values)
    hosts.check_alike(options, values, parts)
    own = hosts.own_part(parts[0].inputs)
    refuse_large(own, values["dtype"], file=values["data"])
    _say_absent(parts[0], quiet=options.quiet)
    statistics = preprocess.fit(own, options.preprocess, across=hosts.across)
    return Job(*parts, statistics, _resolved(values, parts[0].inputs, statistics))


def _say_absent(data: Dataset, *, quiet: bool) -> None:
    """A note if there are classes without a training example: often the labels start at 1."""
    counts = np.bincount(data.labels, minlength=len(data.class_names))
    absent = np.flatnonzero(counts == 0)
    if not len(absent):
        return
    first, hint = data.class_names[absent[0]], ""
    if absent.tolist() == [0] and first == "0":
        hint = " Do the labels start at 1? Then subtract 1."
    say(
        f"note        {len(absent):,} of {len(counts):,} classes have no training example (the "
        f"first is {first!r}).{hint}",
        quiet=quiet,
    )


def split_data(config: dict) -> tuple[Dataset, Dataset | None, Dataset | None]:
    """The training, validation and test examples of a configuration; its seed decides."""
    apart = hosts.apart(config)
    train_set, test_set = run_data(config, apart)
    rng = np.random.default_rng(config["seed"])
    examples, limit = len(train_set.labels), config["limit"]
    if limit is not None and limit < examples:
        train_set = _rows(train_set, np.sort(rng.permutation(examples)[:limit]))
    options = {"memory": memory_bytes(config), "apart": apart}
    validation = load_validation(config["data"], class_names=train_set.class_names, **options)
    if validation is None:
        train_set, validation = _split(train_set, config["validation"], rng)
    if len(np.unique(train_set.labels)) < 2:
        raise DataError(
            f"{train_set.name}: the {len(train_set.labels)} training examples are of one class "
            "only. A classifier needs two: raise --limit or lower --validation."
        )
    return hosts.budgeted((train_set, validation, test_set), config["memory"])


def _rows(data: Dataset, rows) -> Dataset:
    """These rows, read if they fit memory, else a view."""
    inputs = take(data.inputs, rows)
    budget = getattr(inputs, "resident_bytes", 0)
    return data._replace(inputs=hold(inputs, budget), labels=data.labels[rows])


def _split(data: Dataset, validation: float, rng) -> tuple[Dataset, Dataset | None]:
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


def _values(options) -> dict:
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


def _resolved(values: dict, inputs, statistics) -> dict:
    """`values` with the defaults that depend on the solver and the data filled in."""
    if values["solver"] == "auto":
        # Measured on digits, Fashion-MNIST and CIFAR-10: descent is as accurate on the test set,
        # in seconds; the full-batch solver is for those who want the optimum, and its proof.
        values["solver"] = "minibatch" if values["tolerance"] is None else "full-batch"
    if values["solver"] == "full-batch":
        values["tolerance"] = values["tolerance"] or 1e-4
        values["max_iterations"] = values["max_iterations"] or 1000
        return values
    if values["step_size"] is None:
        factor, power = STEP_SIZES[values["optimizer"]]
        features = 1 if values["optimizer"] == "lars" else inputs.shape[1]
        size = _feature_size(inputs, statistics) or 1.0
        values["step_size"] = float(f"{factor / (features * size**power):.3g}")
    if values["epochs"] is None and values["steps"] is None:
        # Small sets need more passes for the same number of steps: 30 epochs, or 3,000 steps.
        per_epoch = steps_per_epoch(len(inputs), values["batch_size"])
        values["epochs"] = min(500, max(30, -(-3000 // per_epoch)))
    return values


def _feature_size(inputs, statistics) -> float:
    """Root mean square of the preprocessed features, over up to 1,000 rows."""
    block = np.asarray(inputs[:: max(1, len(inputs) // 1000)])
    values = np.asarray(preprocess.apply(statistics, block), np.float64)
    return float(np.sqrt(np.mean(np.square(values))))


def train_and_write(job: Job, options, out: Path, watch: Watch, mesh=None) -> tuple[dict, str]:
    """Train, evaluate, and write every file of the run folder.

    Leaves by `Stopped` where `watch` says so.

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
    fit = solve if full else _fit
    fitted = fit(
        job, out, hosts.shared(watch, options), mesh=mesh, chatty=chatty, verbose=options.verbose
    )
    dtype = np.float64 if config["dtype"] == "float64" else np.float32
    model = models.Model(
        LinearParams(*(np.asarray(leaf, dtype) for leaf in fitted.params)),
        job.statistics,
        tuple(job.train.class_names),
        job.train.image_shape,
        config["loss"],
    )
    models.save(out / "model.safetensors", model)
    results, scores = _evaluate(job, model, watch)
    results |= {
        "n_train": examples,
        "n_validation": 0 if job.validation is None else len(job.validation.labels),
        "solver": config["solver"],
        **_outcome(fitted),
        "data": {"name": job.train.name, "fingerprint": job.train.fingerprint},
        "seconds": {
            "compile": fitted.compile_seconds,
            "train": fitted.train_seconds,
            "total": time.perf_counter() - started,
        },
    }
    write_json(out / "results.json", results)
    diverged = _divergence(fitted, job) if fitted.status == "diverged" else ""
    watch.look("after training")
    first = jax.process_index() == 0

    split, data = judged(job.train, job.validation, job.test)
    if first:
        write_predictions(out / "predictions.csv", model, data, scores[split], split=split)
    watch.look("after training")  # all processes have to come here
    if not first:
        return results, diverged
    write_pictures(out, model, data, scores[split], split=split, results=results, config=config)
    _say_results(results, out, quiet=options.quiet)
    return results, diverged


def _outcome(fitted) -> dict:
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


def judged(train_set, validation, test) -> tuple[str, Dataset]:
    """The part of the data that pictures and predictions are about: the least seen one."""
    named = {"test": test, "validation": validation, "train": train_set}
    return next((split, data) for split, data in named.items() if data is not None)


def _fit(job: Job, out: Path, watch: Watch, *, mesh, chatty: bool, verbose: bool) -> train.Fit:
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
    score = models.score_function(
        jax.tree.map(jnp.asarray, statistics._replace(kind=None))._replace(kind=statistics.kind),
        precision=config["precision"],
    )
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
    validate = None
    if job.validation is not None:

        def validate(params):
            model = models.Model(params, statistics, job.train.class_names, None, config["loss"])
            measured = accuracy_and_loss(
                job.validation, loss, hosts.scores(model, job.validation.inputs)
            )
            return measured["loss"], measured["accuracy"]

    key = jax.random.key(config["seed"])
    placed = first if mesh is None else sharding.place_params(first, mesh)
    progress = train.beginning(descent, placed, examples, config["batch_size"])
    if watch.keeper is not None:
        state, _ = train.pack(progress)
        checkpoint.check_space(out, (key, state))
        if watch.found is not None:
            key, state = hosts.load(watch.found, (key, state))
            progress = train.unpack(state, watch.found.record["progress"])

    def on_progress(progress: train.Progress) -> None:
        step = int(progress.state.step)
        tired = config["patience"] is not None and progress.waited >= config["patience"]
        state, record = train.pack(progress)
        watch.visit(step, (key, state), {"progress": record}, last=tired or step == steps)

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
            validate=validate,
            patience=config["patience"],
            on_record=on_record,
            start=progress,
            on_progress=on_progress if watch.keeper is not None else None,
            next_due=None if watch.keeper is None else watch.keeper.next_due,
        )


def _evaluate(job: Job, model, watch: Watch) -> tuple[dict, dict]:
    """Results of every part, and the scores they came from; a streamed part that is not shown
    leaves none."""
    loss = losses.named(job.config["loss"], margin=job.config["margin"])
    results: dict = {"train": None, "validation": None, "test": None}
    scores = {}
    shown, _ = judged(job.train, job.validation, job.test)
    for split in results:
        data = getattr(job, split)
        watch.look("after training")
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
    scale = _feature_size(job.train.inputs, job.statistics)
    return (
        f"the loss was no longer finite at step {fitted.history[-1].step} with step size "
        f"{job.config['step_size']:g} and features of size {scale:.3g}: lower --step-size, or "
        "use --preprocess standardize; the last finite model was kept."
    )


def _say_results(results: dict, out: Path, *, quiet: bool) -> None:
    for split in ("train", "validation", "test"):
        part = results[split]
        if part is not None:
            low, high = part["accuracy_interval"]
            say(
                f"{split:<11} accuracy {part['accuracy']:.4f}  "
                f"(95 % interval {low:.4f} to {high:.4f}, {part['n']:,} examples)  "
                f"loss {part['loss']:.4f}",
                quiet=quiet,
            )
    if results["test"] is None:
        say("test        none was given (--test FILE gives one)", quiet=quiet)
    seconds = results["seconds"]
    if "gap" in results:
        say(
            f"objective   {results['objective']:.7g}  optimum at least "
            f"{results['lower_bound']:.7g}, relative gap {results['relative_gap']:.1e}, "
            f"{results['evaluations']:.4g} passes in {seconds['train']:.1f} s",
            quiet=quiet,
        )
        say(f"status      {results['status']}", quiet=quiet)
    else:
        say(
            f"objective   {results['objective']:.7g}  after {results['steps']:,} steps in "
            f"{seconds['train']:.1f} s (and {seconds['compile']:.1f} s to compile)",
            quiet=quiet,
        )
    say(f"Look at     {out / 'report.html'}", quiet=quiet)
