"""The work of `jaxlin landscape`: the point, its directions, the values, and the pictures."""

__all__ = ["Job", "compute", "draw", "prepare"]

import dataclasses
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxlin import landscape, losses, models, preprocess, train
from jaxlin.batches import steps_per_epoch
from jaxlin.core import Batch, DataError, LinearParams
from jaxlin.data import Dataset, conform, load
from jaxlin.data.telling import of_split
from jaxlin.objectives import compose
from jaxlin.plots import landscape as pictures
from jaxlin.plots.style import literal, save
from jaxlin.precision import jit
from jaxlin.report import landscape as pages
from jaxlin.report.page import facts_lines
from jaxlin.runs.examples import moved, reading_of, training_data
from jaxlin.runs.folder import load_run
from jaxlin.runs.landscape_options import continues
from jaxlin.runs.output import check_out, prepare_out, write_json, write_text

_STRENGTHS = (0.0, 1e-4, 1e-3, 1e-2, 0.1)  # of the page's slider, with the chosen one


class Job(NamedTuple):
    """A point in parameter space and the objective around it."""

    data: Dataset
    params: LinearParams
    statistics: preprocess.Preprocessing
    loss_name: str
    loss: Callable
    strength: float
    margin: float
    config: dict
    """Of the run, or empty."""

    def objective(self) -> Callable:
        """`params -> scalar`, differentiable."""
        score = models.score_function(self.statistics)
        batch = Batch(jnp.asarray(self.data.inputs), jnp.asarray(self.data.labels))
        whole = compose(score, self.loss)
        return lambda params: whole(params, batch, strength=self.strength)

    def keywords(self) -> dict:
        return {"loss": self.loss, "preprocessing": self.statistics}


def draw(
    options: Any, shape: Sequence[int], say: Callable, given: Dataset | None = None
) -> tuple[Path, dict]:
    """Compute and draw what `options` say: the folder that was written, and the facts of it.

    `given` are data in hand, or `None`: those that `options` name.
    """
    if options.out is not None and not continues(options):
        check_out(options.out, overwrite=options.overwrite)
    job, out = prepare(options, given), options.out
    if out is None or not continues(options):
        out = prepare_out(out, name=f"landscape-{job.data.name}", overwrite=options.overwrite)
    return out, compute(job, options, shape, out, say)


def prepare(options: Any, given: Dataset | None = None) -> Job:
    """The data, the point and the objective that the options name."""
    model, config = (None, {}) if options.run is None else load_run(options.run)
    if given is not None:
        data = given
    elif options.data is None and config:
        data = training_data(moved(config, options))
    else:
        data = load(options.data or "digits", **reading_of(dataclasses.asdict(options)))
    if model is not None:
        data = conform(data, *model.expects, to=str(options.run))
    key = jax.random.key(options.seed)
    if options.examples is not None and options.examples < len(data.labels):
        drawn = jax.random.choice(
            jax.random.fold_in(key, 9), len(data.labels), (options.examples,), replace=False
        )
        rows = np.sort(np.asarray(drawn))
        data = data._replace(inputs=np.asarray(data.inputs[rows]), labels=data.labels[rows])
    classes, features = len(data.class_names), data.inputs.shape[1]
    if model is None:
        statistics = preprocess.fit(data.inputs, options.preprocess or "standardize")
        weights = jax.random.normal(jax.random.fold_in(key, 8), (classes, features))
        params = LinearParams(weights / _score_size(data, statistics), jnp.zeros(classes))
    else:
        params = LinearParams(*map(jnp.asarray, model.params))
        statistics = model.preprocessing
        if params.weights.shape != (classes, features):
            raise DataError(
                f"{options.run}: has weights {params.weights.shape}, and {data.name} asks for "
                f"{(classes, features)}. Give the data it was trained on."
            )
    name = options.loss or config.get("loss", "hinge")
    margin = _first(options.margin, config.get("margin"), 1.0)
    strength = float(_first(options.strength, config.get("strength"), 0.0))
    loss = losses.named(name, margin=margin)
    return Job(data, params, statistics, name, loss, strength, margin, config)


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)


def _score_size(data: Dataset, statistics: preprocess.Preprocessing) -> float:
    """Root mean square length of the preprocessed inputs: then random scores are of size 1."""
    rows = np.asarray(data.inputs[:: max(1, len(data.labels) // 1000)])
    ready = np.asarray(preprocess.apply(statistics, rows), np.float64)
    return float(np.sqrt(np.mean(np.sum(ready**2, axis=1)))) or 1.0


def compute(job: Job, options: Any, shape: Sequence[int], out: Path, say: Callable) -> dict:
    """Compute the slice, write its files into `out`, and return the facts of it."""
    started = time.perf_counter()
    extent = options.extent or (1.0 if options.run is not None else 3.0)
    facts = {
        "data": job.data.name,
        "split": job.data.split,
        "examples": len(job.data.labels),
        "loss": job.loss_name,
        "margin": job.margin,
        "strength": job.strength,
        "kind": options.kind,
        "point": "random weights" if options.run is None else str(options.run),
        "seed": options.seed,
    }
    if options.kind in ("ray", "interpolate"):
        found = _line(job, options, shape[0], extent, facts, out)
    else:
        found = _plane(job, options, shape, extent, facts, out)
    found["seconds"] = round(time.perf_counter() - started, 3)
    write_json(out / "landscape.json", found)
    for line in facts_lines(found):
        say(line)
    say(f"Look at        {out / 'landscape.html'}")
    return found


def _directions(job: Job, options: Any, count: int) -> list[landscape.Direction]:
    """What the slice runs along; random ones have the length of the weights."""
    keys = jax.random.split(jax.random.key(options.seed), 2)
    distribution = "uniform" if options.directions == "uniform" else "gaussian"
    kind = None if options.normalize == "none" else options.normalize

    def drawn(key: jax.Array) -> landscape.Direction:
        return landscape.random(key, job.params, distribution=distribution, normalize=kind)

    if options.directions == "hessian":
        objective = job.objective()
        return list(landscape.hessian_eigenvectors(keys[0], objective, job.params, count))
    if options.directions == "gradient":
        gradient = jit(jax.grad(job.objective()))(job.params)
        down = jax.tree.map(jnp.negative, gradient)
        first = landscape.normalize(down, job.params, kind or "global")
        return [first._replace(name="negative gradient"), drawn(keys[1])][:count]
    return [drawn(key) for key in keys[:count]]


def _axis(extent: float, points: int) -> np.ndarray:
    return np.linspace(-extent, extent, points) if points > 1 else np.zeros(1)


def _describe(directions: Sequence[landscape.Direction]) -> list[dict]:
    return [{"name": d.name, "norm": float(d.norm)} for d in directions]


def _line(job: Job, options: Any, points: int, extent: float, facts: dict, out: Path) -> dict:
    if options.kind == "interpolate":
        start = _start(job, options)
        direction = landscape.between(start, job.params)._replace(name="from the start to the run")
        steps, x = np.linspace(0, 1, points), "t (0: the start, 1: the run)"
    else:
        start, direction = job.params, _directions(job, options, 1)[0]
        steps, x = _axis(extent, points), f"a: {direction.name}"
    facts = facts | {"directions": _describe([direction])}
    slice_ = partial(landscape.affine_ray, start, direction)
    exact, drawing = {}, {}
    if options.exact:
        profile = landscape.hinge_profile(
            start, direction, job.data.inputs, job.data.labels, strength=job.strength,
            **job.keywords(),
        )  # fmt: skip
        step, value = profile.minimum()
        inside = profile.breakpoints[
            (profile.breakpoints >= steps[0]) & (profile.breakpoints <= steps[-1])
        ]
        exact = {
            "kinks": len(profile.breakpoints),
            "kinks_shown": len(inside),
            "minimum": {"step": step, "loss": value},
        }
        drawing = {"kinks": inside, "kink_values": profile(inside), "minimum": (step, value)}
        steps = np.unique(np.concatenate([steps, inside[:: max(1, len(inside) // 2000)]]))

    def evaluate(rows: np.ndarray) -> ArrayLike:
        if options.exact:
            return profile(rows)
        inputs, labels = job.data.inputs, job.data.labels
        return slice_(rows, inputs, labels, strength=job.strength, **job.keywords())

    stored = landscape.files.compute(out / "landscape.npz", evaluate, (steps,), facts)
    accuracy = slice_(
        stored.steps[0], job.data.inputs, job.data.labels, quantity="accuracy", **job.keywords()
    )
    figure = pictures.ray_figure(steps, stored.values, x=x, title=literal(_title(job)), **drawing)
    save(figure, out / "landscape.png", formats=("png", "svg"))
    found = facts | _summary(stored, accuracy) | exact
    html = pages.ray_page(
        steps, stored.values, accuracy=accuracy, name=x, facts=found, title=_title(job), **drawing
    )
    write_text(out / "landscape.html", html)
    return found


def _start(job: Job, options: Any) -> LinearParams:
    """Where an interpolation begins: another run, or zero weights."""
    if options.start is None:
        return jax.tree.map(jnp.zeros_like, job.params)
    other, _ = load_run(options.start)
    for name in ("shift", "scale"):
        if not np.array_equal(getattr(other.preprocessing, name), getattr(job.statistics, name)):
            raise DataError(
                f"{options.start}: was trained with another preprocessing than the run, so no "
                "line joins them. Train both with the same --preprocess and data."
            )
    return LinearParams(*map(jnp.asarray, other.params))


def _plane(
    job: Job, options: Any, shape: Sequence[int], extent: float, facts: dict, out: Path
) -> dict:
    path = None
    if options.kind == "trajectory":
        center, directions, path, steps, explained = _trajectory(job, options, shape)
        facts = facts | {"explained": explained}
    else:
        center, directions = job.params, _directions(job, options, 2)
        steps = [_axis(extent, points) for points in shape]
    facts = facts | {"directions": _describe(directions)}
    data = (job.data.inputs, job.data.labels)
    first, second = directions
    slice_: Callable[..., Any] = partial(landscape.affine_plane, center, first, second)

    def evaluate(rows: np.ndarray) -> ArrayLike:
        return slice_(rows, steps[1], *data, **job.keywords())

    stored = landscape.files.compute(
        out / "landscape.npz", evaluate, tuple(steps), facts | {"values": "without the l2 term"}
    )
    accuracy = slice_(*steps, *data, quantity="accuracy", **job.keywords())
    penalty = landscape.plane(
        lambda params: jnp.sum(params.weights**2), center, first, second, steps[0], steps[1]
    )
    values = stored.values + job.strength * np.asarray(penalty)
    names = f"a: {first.name}", f"b: {second.name}"
    figure = pictures.plane_figure(
        steps[0], steps[1], values, path=path, x=names[0], y=names[1], title=literal(_title(job))
    )
    save(figure, out / "landscape.png", formats=("png", "svg"))
    if options.surface:
        figure = pictures.surface_figure(
            steps[0], steps[1], values, x="a", y="b", title=literal(_title(job))
        )
        save(figure, out / "surface.png")
    found = facts | _summary(stored._replace(values=values), accuracy)
    html = pages.plane_page(
        steps[0],
        steps[1],
        stored.values,
        penalty=penalty,
        accuracy=accuracy,
        path=path,
        names=names,
        strengths=sorted({*_STRENGTHS, job.strength}),
        strength=job.strength,
        facts=found,
        title=_title(job),
    )
    write_text(out / "landscape.html", html)
    return found


def _trajectory(
    job: Job, options: Any, shape: Sequence[int]
) -> tuple[Any, Sequence[landscape.Direction], np.ndarray, list[np.ndarray], float]:
    """Train from zero weights as the run was, and span the plane of the path."""
    config = {"optimizer": "adam", "schedule": "cosine", "batch_size": 256} | job.config
    examples = len(job.data.labels)
    size = _score_size(job.data, job.statistics)
    step_size = config.get("step_size") or 0.8 / (size * job.data.inputs.shape[1] ** 0.5)
    per_epoch = steps_per_epoch(examples, config["batch_size"])
    steps = config.get("steps") or (config.get("epochs") or 30) * per_epoch
    score = models.score_function(job.statistics)
    descent = train.trainer(
        partial(compose(score, job.loss), strength=job.strength),
        train.optimizer(config["optimizer"], train.schedule(config["schedule"], step_size, steps)),
    )
    state = descent.init(jax.tree.map(jnp.zeros_like, job.params))
    path = [state.params]
    batch = Batch(job.data.inputs, job.data.labels)
    for reached, _ in train.chunks(
        descent, state, batch, key=jax.random.key(options.seed), steps=steps,
        batch_size=config["batch_size"], chunk_steps=max(1, min(per_epoch, steps // 20)),
    ):  # fmt: skip
        path.append(jax.tree.map(np.asarray, reached.params))
    end = jax.tree.map(jnp.asarray, path[-1])
    directions = landscape.principal_components(path, 2)
    seen = landscape.project(path, end, *directions)
    low, high = seen.coordinates.min(axis=0), seen.coordinates.max(axis=0)
    room = 0.25 * np.maximum(high - low, 0.1 * (high - low).max())
    axes = [np.linspace(a - r, b + r, n) for a, b, r, n in zip(low, high, room, shape, strict=True)]
    return end, directions, seen.coordinates, axes, round(seen.explained, 6)


def _title(job: Job) -> str:
    count = len(job.data.labels)
    examples = "1 example" if count == 1 else f"{count:,} examples"
    of = of_split(job.data)
    return f"{job.loss_name}, {examples} of {of}, strength {job.strength:g}"


def _summary(stored: landscape.files.Stored, accuracy: ArrayLike) -> dict:
    """The least value on the grid and how many cells are not finite."""
    finite = np.isfinite(stored.values)
    found: dict[str, Any] = {"points": "x".join(map(str, stored.values.shape))}
    found["not_finite"] = int(np.sum(~finite))
    if finite.any():
        best = np.unravel_index(np.nanargmin(np.where(finite, stored.values, np.nan)), finite.shape)
        found["least_loss"] = float(stored.values[best])
        found["least_loss_at"] = [float(s[i]) for s, i in zip(stored.steps, best, strict=True)]
        found["best_accuracy"] = float(np.max(accuracy))
    return found
