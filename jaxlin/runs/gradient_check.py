"""Check a gradient: autodiff's, the hand-derived one, or one's own."""

__all__ = ["Checked", "Options", "check"]

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import tyro


@dataclass(frozen=True, kw_only=True)
class Options:
    """Check a gradient: autodiff's, the hand-derived one, or one's own.

    Exit code 0 if it passes (or is a valid subgradient on a kink), 1 if it is wrong or nothing
    could be decided.
    """

    data: str | None = None
    """digits (default), mnist, fashion-mnist, cifar10; or an .npz, features, a folder."""
    data_dir: Path | None = None
    """The folder that holds the files of a named data set."""
    loss: str | None = None
    """softmax (default), hinge, crammer-singer, one-vs-rest, or squared-... of the hinges."""
    margin: float = 1.0
    """The lecture's Delta."""
    strength: float = 0.0
    """Of the regularizer, sum of squared weights. If positive, the parts are checked apart, too."""
    preprocess: Literal["none", "scale", "center", "standardize"] | None = None
    """As in training (without it: center)."""
    limit: int = 500
    """Examples to use."""
    at: str = "random"
    """zero, random (uniform * 0.001, the lecture's), trained (a burn-in), or a run folder."""
    mode: Literal["quick", "sampled", "full"] = "quick"
    """Random directions and group testing, entries of every leaf, or every entry."""
    method: Literal["forward", "central", "richardson"] = "richardson"
    """Which estimate to report as numeric."""
    against: Literal["autodiff", "closed-form", "both"] = "both"
    """Whose gradient is on trial."""
    dtype: Literal["float32", "float64"] = "float32"
    """Of the parameters. The slopes are measured in float64 either way."""
    function: str | None = None
    """MODULE:NAME of a function of your own to check instead; the current folder is importable."""
    input: Path | None = None
    """The point for --function: a .npy, or an .npz (several arrays become a dict by name)."""
    gradient: str | None = None
    """MODULE:NAME of the gradient claimed for --function (without it: jax.grad)."""
    seed: int = 0
    """Of everything random."""
    out: Path | None = None
    """Folder for gradcheck.json, gradcheck.png and gradcheck.html."""
    overwrite: bool = False
    """Write into a folder that is not empty."""
    json: bool = False
    """Print one JSON object on stdout."""
    quiet: Annotated[bool, tyro.conf.arg(aliases=["-q"])] = False
    """Print nothing but errors and --json."""


class Checked(NamedTuple):
    """What a gradient check found."""

    title: str
    checks: dict[str, Any]
    """`GradientReport`s by the names of what was on trial."""
    results: dict
    """What `gradcheck.json` holds; its `verdict` is the worst of all."""
    out: Path | None
    """The folder that was written, or `None`."""


def check(options: Options, say: Callable[[str, Any], None], given: Any = None) -> Checked:
    """Check as `options` say, telling `say(name, report)`, and write the folder where asked.

    `given` is a `Dataset` in hand, or `None`: the data that `options` name.
    """
    from jaxlin.runs.output import check_out, prepare_out, write_json, write_text
    from jaxlin.runs.own_function import own_function
    from jaxlin.runs.wording import check_seed

    if options.limit < 1:
        raise ValueError(f"`--limit` must be at least 1, got {options.limit}.")
    check_seed("--seed", options.seed)
    _refuse_unused(options)
    if options.out is not None:
        check_out(options.out, overwrite=options.overwrite)
    if options.function:
        title, checks, figure = own_function(options)
    else:
        title, checks, figure = _objective(options, given)
    for name, report in checks.items():
        say(name, report)
    found = Checked(title, checks, _summary(title, checks), None)
    if options.out is None:
        return found
    from jaxlin.plots.style import save
    from jaxlin.report.gradients import gradcheck_page

    out = prepare_out(options.out, name="gradcheck", overwrite=options.overwrite)
    write_json(out / "gradcheck.json", found.results)
    picture = figure()
    save(picture, out / "gradcheck.png")
    write_text(out / "gradcheck.html", gradcheck_page(title, checks, picture))
    return found._replace(out=out)


def _refuse_unused(options: Options) -> None:
    """Refuse what says nothing: data and losses beside a function that has its own."""
    of_a_classifier: tuple[str, ...] = (
        "data",
        "data_dir",
        "loss",
        "margin",
        "strength",
        "preprocess",
        "limit",
    )
    of_a_classifier = (*of_a_classifier, "at", "against", "dtype")
    for field in fields(Options):
        given = getattr(options, field.name) != field.default
        if options.function is not None and field.name in of_a_classifier and given:
            name = field.name.replace("_", "-")
            raise ValueError(
                f"`--{name}` is for the gradient of a classifier, and `--function` has its own. "
                "Leave one of the two out."
            )


def _summary(title: str, checks: dict[str, Any]) -> dict:
    """One verdict for all: the worst; the entries of all, with whose they are."""
    reports = {name: report.to_dict() for name, report in checks.items()}
    order = ("fail", "inconclusive", "kink", "pass")
    return {
        "title": title,
        "verdict": min((r["verdict"] for r in reports.values()), key=order.index),
        "evaluations": sum(r["evaluations"] for r in reports.values()),
        "max_relative_error": max(
            (r["max_relative_error"] for r in reports.values()), key=lambda e: float(e)
        ),
        "entries": [{"claim": n, **e} for n, r in reports.items() for e in r["entries"]],
        "checks": reports,
    }


def _objective(options: Options, given: Any) -> tuple[str, dict[str, Any], Callable[[], Any]]:
    """Checks of a linear classifier's objective on data."""
    from functools import partial

    import numpy as np

    from jaxlin import losses
    from jaxlin.core import Batch
    from jaxlin.data.telling import of_split
    from jaxlin.gradients import check_gradient, linear_objective

    if options.input is not None or options.gradient is not None:
        raise ValueError("`--input` and `--gradient` belong to `--function`.")
    inputs, data, params, loss_name = _problem(options, given)
    loss = losses.named(loss_name, margin=options.margin)
    batch = Batch(inputs, data.labels)
    objective = linear_objective(loss, batch, strength=options.strength)
    check = partial(check_gradient, mode=options.mode, key=options.seed, method=options.method)
    checks = {}
    if options.against in ("autodiff", "both"):
        checks["autodiff"] = check(objective, params)
        if options.strength > 0:
            apart = linear_objective(loss, batch)
            checks["autodiff of the data loss"] = check(apart, params)
            penalty = partial(_penalty, options.strength)
            checks["autodiff of the regularizer"] = check(penalty, params)
    if options.against in ("closed-form", "both"):
        by_hand = _closed_form(loss_name, options, inputs, data.labels)
        if by_hand is not None:
            checks["closed form"] = check(objective, params, by_hand)
        elif options.against == "closed-form":
            raise ValueError(f"there is no closed form of `{loss_name}`: use --against autodiff.")
    rows = f"{len(data.labels):,} examples of {of_split(data)}"
    title = f"{loss_name} on {rows}, {_place(options)}"
    return title, checks, lambda: _figure(objective, params, data, title, np)


def _penalty(strength: float, params: Any) -> Any:
    from jaxlin import regularizers

    return strength * regularizers.l2(params.weights)


def _problem(options: Options, given: Any) -> tuple[Any, Any, Any, str]:
    """Inputs as the classifier sees them, the data, the parameters and the loss's name."""
    import jax
    import numpy as np

    from jaxlin import preprocess
    from jaxlin.core import DataError, LinearParams
    from jaxlin.data import load

    model = config = None
    if options.at not in ("zero", "random", "trained"):
        from jaxlin.runs.examples import training_data
        from jaxlin.runs.folder import load_run

        model, config = load_run(Path(options.at))
    if given is not None:
        train = given
    elif options.data is None and config is not None:
        train = training_data(config)
    else:
        train = load(options.data or "digits", data_dir=options.data_dir)
    rng = np.random.default_rng(options.seed)
    rows = np.sort(rng.permutation(len(train.labels))[: options.limit])
    data = train._replace(inputs=np.asarray(train.inputs[rows]), labels=train.labels[rows])
    if model is not None and options.preprocess is None:
        fitted = model.preprocessing
    else:
        fitted = preprocess.fit(train.inputs, options.preprocess or "center")
    raw = fitted.kind == "none"
    dtype = np.dtype(options.dtype)
    with jax.enable_x64(True):
        inputs = data.inputs if raw else np.asarray(preprocess.apply(fitted, data.inputs))
    inputs = inputs if raw else inputs.astype(np.float32)
    classes, features = len(data.class_names), inputs.shape[1]
    loss = options.loss or (model.loss if model is not None else "softmax")
    if model is not None:
        params = LinearParams(*(np.asarray(a) for a in model.params))
        if params.weights.shape != (classes, features):
            raise DataError(
                f"{options.at}: the run has weights {params.weights.shape}, the data need "
                f"{(classes, features)}. Check it on the data that it was trained on."
            )
    elif options.at == "zero":
        params = LinearParams(np.zeros((classes, features), dtype), np.zeros(classes, dtype))
    else:
        weights = (rng.random((classes, features)) * 1e-3).astype(dtype)
        params = LinearParams(weights, np.zeros(classes, dtype))
        if options.at == "trained":
            params = _burned_in(options, loss, inputs, data.labels, params)
    return inputs, data, params, loss


def _burned_in(
    options: Any, loss: str, inputs: Any, labels: Any, params: Any, steps: int = 100
) -> Any:
    """A hundred steps of gradient descent: past the start, where gradients are atypical."""
    import jax
    import numpy as np

    from jaxlin import losses
    from jaxlin.core import Batch
    from jaxlin.gradients import linear_objective
    from jaxlin.precision import jit

    objective = linear_objective(
        losses.named(loss, margin=options.margin), Batch(inputs, labels), strength=options.strength
    )
    rate = 1 / (np.mean(np.sum(np.square(inputs, dtype=np.float64), axis=1)) + 1)
    step = jit(lambda p: jax.tree.map(lambda a, g: a - rate * g, p, jax.grad(objective)(p)))
    with jax.enable_x64(options.dtype == "float64"):
        for _ in range(steps):
            params = step(params)
        return jax.tree.map(np.asarray, params)


def _closed_form(name: str, options: Any, inputs: Any, labels: Any) -> Callable[[Any], Any] | None:
    """The hand-derived gradient as a function of the parameters, if there is one."""
    from jaxlin.core import LinearParams
    from jaxlin.gradients import closed_form

    formulas: dict[str, Callable[..., Any]] = {
        "softmax": closed_form.softmax,
        "hinge": closed_form.weston_watkins,
        "crammer-singer": closed_form.crammer_singer,
        "one-vs-rest": closed_form.one_vs_rest,
    }
    if name not in formulas:
        return None
    margin = {} if name == "softmax" else {"margin": options.margin}

    def gradient(params: Any) -> Any:
        result = formulas[name](*params, inputs, labels, strength=options.strength, **margin)
        return LinearParams(result.weights, result.bias)

    return gradient


def _place(options: Any) -> str:
    return {"zero": "at W = 0", "random": "at random W", "trained": "after a burn-in"}.get(
        options.at, f"at {options.at}"
    )


def _figure(objective: Callable[..., Any], params: Any, data: Any, title: str, np: Any) -> Any:
    import jax

    from jaxlin.core import LinearParams
    from jaxlin.data import as_images
    from jaxlin.gradients import finite_differences
    from jaxlin.gradients.curves import step_curve, taylor_curve
    from jaxlin.plots.gradients import gradcheck
    from jaxlin.precision import jit

    with jax.enable_x64(True):
        wide = LinearParams(*(jax.numpy.asarray(np.asarray(a, np.float64)) for a in params))
        claim = jax.tree.map(np.asarray, jit(jax.grad(lambda p: objective(p)))(wide))
    numeric = finite_differences.gradient(objective, params, method="richardson").value
    largest = float(np.abs(claim.weights).max()) or 1.0
    error = np.abs(claim.weights - numeric.weights) / largest
    tiles = error[None]
    if data.image_shape is not None:
        tiles = as_images(error, data.image_shape)
        tiles = tiles.max(axis=-1) if tiles.ndim == 4 else tiles
    return gradcheck(
        step_curve(objective, params, claim),
        taylor_curve(objective, params, claim),
        np.concatenate([claim.weights.ravel(), claim.bias]),
        np.concatenate([numeric.weights.ravel(), numeric.bias]),
        tiles=tiles,
        title=title,
    )
