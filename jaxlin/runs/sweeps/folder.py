"""The job of `jaxlin sweep`: from options to heads, a choice, one test, and a complete folder."""

__all__ = ["prepare_sweep", "sweep_and_write"]

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxlin import models, sweep
from jaxlin.runs import hosts
from jaxlin.runs.checkpointing import Checkpointer
from jaxlin.runs.environment import environment
from jaxlin.runs.examples import NOT_GIVEN, Given
from jaxlin.runs.output import write_json
from jaxlin.runs.preparation import prepare
from jaxlin.runs.sweeps.fitting import final_model, fit_all
from jaxlin.runs.sweeps.job import SweepJob, head_json, history_json
from jaxlin.runs.sweeps.page import say_results, write_sweep_pictures
from jaxlin.runs.sweeps.results import (
    Other,
    counted,
    few_shot,
    notes,
    test_once,
)
from jaxlin.sweep import presets, selection

DEFAULT_STRENGTHS = tuple(np.logspace(-6, 0, 13).tolist())


def prepare_sweep(options: Any, mesh: Mesh | None = None, given: Given = NOT_GIVEN) -> SweepJob:
    """Load the data and lay out the heads; everything that cannot be done is refused here."""
    preset = None if options.preset is None else presets.PRESETS[options.preset]
    job = prepare(dataclasses.replace(options, compare=None), given)
    config = {name: value for name, value in job.config.items() if name != "compare"}
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
    memory = int(options.bank_memory * 2**30)
    return SweepJob(job._replace(config=config), heads, preset, full, memory, mesh)


def _strengths(options: Any, preset: presets.Preset | None, examples: int) -> Sequence[float]:
    if preset is not None:
        return presets.strengths_for(preset, examples)
    if options.strengths is not None:
        return options.strengths
    single = type(options).__dataclass_fields__["strength"].default != options.strength
    axes = (options.step_sizes, options.losses, options.subsets)
    return (options.strength,) if single or any(axes) else DEFAULT_STRENGTHS


def _step_sizes(
    options: Any, preset: presets.Preset | None, config: dict, *, full: bool
) -> Sequence[float | None]:
    if full:
        return (None,)
    if preset is not None and options.step_sizes is None:
        return tuple(base * config["batch_size"] / 256 for base in preset.base_step_sizes)
    return options.step_sizes or (config["step_size"],)


def sweep_and_write(
    job: SweepJob, options: Any, out: Path, checkpointer: Checkpointer, other: Other | None
) -> tuple[dict, str]:
    """Fit, choose, refit, test, and write every file of the run folder.

    Leaves by `Stopped` where `checkpointer` says so.

    Returns:
      What `sweep.json` holds, and a sentence if no head came to anything, else "".
    """
    config, started = job.job.config, time.perf_counter()
    write_json(out / "config.json", config)
    write_json(out / "env.json", environment())
    checkpointer = hosts.resume_alike(checkpointer, options)
    fitted = fit_all(job, out, checkpointer, chatty=not options.quiet, verbose=options.verbose)
    fit_seconds = time.perf_counter() - started
    if all(found.status == "diverged" for found in fitted):
        return {}, (
            f"all of the {counted(len(fitted))} diverged: losses were no longer finite. Give "
            "smaller --step-sizes, or --preprocess standardize."
        )
    shots = few_shot(job, fitted) if job.heads[0].shots is not None else None
    position = selection.best(fitted) if shots is None else shots[-1]["position"]
    chosen = fitted[position]
    model, refit = final_model(job, chosen, checkpointer, refit=not options.no_refit)
    checkpointer.stop_if_signaled("after fitting")
    models.save(out / "model.safetensors", model)
    results = {
        "best": head_json(chosen, job) | {"position": position},
        "test": None,
        "refit": refit,
        "few_shot": shots,
        "comparison": None,
        "metric": options.metric,
        "solver": config["solver"],
        "preset": job.preset
        and {"name": options.preset, "title": job.preset.title, "source": job.preset.source},
        "notes": notes(job, fitted, position),
        "n_train": len(job.train.labels),
        "n_validation": 0 if job.job.validation is None else len(job.job.validation.labels),
        "data": job.job.about_data(),
        "heads": [head_json(found, job) | history_json(found) for found in fitted],
    }
    test_once(job, model, results, out, options.metric, other)
    results["seconds"] = {"heads": fit_seconds, "total": time.perf_counter() - started}
    write_json(out / "sweep.json", results)
    checkpointer.stop_if_signaled("after fitting")  # all processes have to come here
    if jax.process_index() != 0:
        return results, ""
    write_sweep_pictures(out, results, config)
    say_results(results, out, quiet=options.quiet)
    return results, ""
