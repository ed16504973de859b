"""The jobs as functions of plain keywords: see `jaxlin.runs`."""

__all__ = ["evaluate", "gradcheck", "landscape", "open", "predict", "sweep", "train"]

import os
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxlin.runs import evaluation, gradient_check, landscape_options, prediction, train_options
from jaxlin.runs.examples import Given
from jaxlin.runs.keywords import options_of, with_options
from jaxlin.runs.run import Run, open_folder
from jaxlin.runs.sweeps import options as sweep_options


@with_options(train_options.Options)
def train(data: Any = "digits", *, test: Any = None, progress: bool = False, **options: Any) -> Run:
    """Train a linear classifier and write a run folder with its report, as `jaxlin train` does.

    Args:
      data: the name of a set ("digits", "fashion-mnist", ...), the path of a file or folder, a pair
        (inputs, labels) of arrays, or a `jaxlin.data.Dataset`.
      test: where the test set is not the data's own: a path, a pair or a `Dataset`.
      progress: say what is done on stderr, with a bar in a terminal; else nothing is printed.
      **options: those of `jaxlin train` in snake case, as `loss="softmax"`, `strength=1e-4`,
        `tolerance=1e-4` (the optimum with its certificate), `steps=1000`, `out="runs/mine"`
        (without it a new folder under `runs`), `overwrite=True`, `seed=0`. With `resume="auto"` an
        interrupted cell saves its state, and the same call goes on from it; `save_every` saves
        on the way, too.

    Raises:
      DataError: the data cannot be used; one sentence says which, how, and what to do.
      ValueError: an option cannot be meant, in the sentence of the command line.
      TypeError: no such option (the nearest is named), or its value is of another type.

    A fit that diverged leaves its last finite model, and a warning.

    >>> from tempfile import mkdtemp
    >>> run = train("digits", tolerance=1e-3, out=mkdtemp())
    >>> run.results["relative_gap"] <= 1e-3, len(run.history) > 2
    (True, True)
    """
    from jaxlin.runs import jobs

    words, given = _data_words(data, test, options)
    chosen = options_of(train_options.Options, words, of="runs.train", quiet=not progress)
    train_options.check_options(chosen)
    proves = train_options.is_full_batch(chosen)
    return _folder_of(jobs.train, chosen, _built(given, chosen), proves=proves)


@with_options(sweep_options.Options)
def sweep(data: Any = "digits", *, test: Any = None, progress: bool = False, **options: Any) -> Run:
    """Fit many heads in one pass, choose one on validation, test it once, as `jaxlin sweep` does.

    Args:
      data: as for `train`.
      test: as for `train`.
      progress: as for `train`.
      **options: those of `jaxlin sweep` in snake case, as `strengths=[1e-4, 1e-2]`,
        `losses=["softmax", "hinge"]`, `preset="clip"`, `solver="full-batch"`.

    Raises:
      DataError, ValueError, TypeError: as `train`; ValueError also where all heads diverged.

    >>> from tempfile import mkdtemp
    >>> run = sweep("digits", strengths=[1e-4, 1e-2], steps=30, out=mkdtemp())
    >>> len(run.results["heads"])
    2
    """
    from jaxlin.runs import jobs

    words, given = _data_words(data, test, options)
    asked = options_of(sweep_options.Options, words, of="runs.sweep", quiet=not progress)
    chosen = sweep_options.resolved(asked)
    proves = train_options.is_full_batch(chosen)
    return _folder_of(jobs.sweep, chosen, _built(given, chosen), proves=proves)


@with_options(evaluation.Options)
def evaluate(
    run: Run | str | os.PathLike, data: Any = None, *, progress: bool = False, **options: Any
) -> Run:
    """Measure a trained classifier on data with labels, as `jaxlin evaluate` does.

    Args:
      run: a `Run`, or its folder.
      data: as for `train`; without it the test set that the run was trained beside.
      progress: say on stderr what was noted while data were read.
      **options: those of `jaxlin evaluate` in snake case, as `split="validation"`.

    Returns:
      The run with the measures as its `results`: accuracy with its interval, loss, by class.

    >>> from tempfile import mkdtemp
    >>> run = train("digits", tolerance=1e-2, out=mkdtemp())
    >>> evaluate(run).results["accuracy"] > 0.9
    True
    """
    from jaxlin.runs.in_hand import is_in_hand

    hand = is_in_hand(data, "data")
    words = options | {"run": _folder(run)} | ({} if hand or data is None else {"data": data})
    chosen = options_of(evaluation.Options, words, of="runs.evaluate")
    results = evaluation.evaluate(chosen, data if hand else None, quiet=not progress)
    return open_folder(chosen.run)._replace(kind="evaluate", results=results, history=[])


@with_options(prediction.Options, but=("paths",))
def predict(
    run: Run | str | os.PathLike, inputs: Any, *, progress: bool = False, **options: Any
) -> Run:
    """Classify pictures or arrays with a trained classifier, as `jaxlin predict` does.

    Args:
      run: a `Run`, or its folder.
      inputs: arrays (N, D) or pictures (N, H, W[, C]); or a path, or several.
      progress: say on stderr what was noted while inputs were read.
      **options: those of `jaxlin predict` in snake case, as `top=5`.

    Returns:
      The run with `results["predictions"]`: for each row `input`, `split` and its `classes`, best
      first.

    >>> from tempfile import mkdtemp
    >>> from jaxlin import data
    >>> run = train("digits", tolerance=1e-2, out=mkdtemp())
    >>> rows = data.load("digits", split="test").inputs[:2]
    >>> len(predict(run, rows).results["predictions"])
    2
    """
    from jaxlin.runs.in_hand import inputs_in_hand

    paths = [inputs] if isinstance(inputs, str | os.PathLike) else inputs
    named = isinstance(paths, list | tuple) and all(isinstance(p, str | os.PathLike) for p in paths)
    words = options | {"run": _folder(run), "paths": paths if named else ()}
    chosen = options_of(prediction.Options, words, of="runs.predict")
    given = () if named else (inputs_in_hand(inputs),)
    results = prediction.predict(chosen, given, quiet=not progress)
    return open_folder(chosen.run)._replace(kind="predict", results=results, history=[])


@with_options(gradient_check.Options)
def gradcheck(data: Any = None, *, progress: bool = False, **options: Any) -> Run:
    """Check a gradient, as `jaxlin gradcheck` does.

    Args:
      data: as for `train`; without it digits, or the data of the run that is `at`.
      progress: print every report as it comes.
      **options: those of `jaxlin gradcheck` in snake case, as `loss="hinge"`, `at="trained"`,
        `out="checked"`.

    Returns:
      `results["verdict"]` is the worst of all `results["checks"]`; `folder` and `report` are there
      where `out` is given.

    >>> gradcheck("digits", limit=50).results["verdict"]
    'pass'
    """
    from jaxlin.runs.in_hand import in_hand, is_in_hand
    from jaxlin.runs.output import say

    hand = is_in_hand(data, "data")
    words = dict(options) if hand or data is None else options | {"data": data}
    if isinstance(words.get("at"), Run):
        words["at"] = str(_folder(words["at"]))
    chosen = options_of(gradient_check.Options, words, of="runs.gradcheck")

    def tell(name: str, report: Any) -> None:
        say(f"{name}: {report}\n", quiet=not progress)

    found = gradient_check.check(chosen, tell, in_hand(data, "data") if hand else None)
    report = None if found.out is None else found.out / "gradcheck.html"
    return Run(found.out, None, found.results, [], report, "gradcheck")


@with_options(landscape_options.Options)
def landscape(
    run: Run | str | os.PathLike | None = None,
    data: Any = None,
    *,
    progress: bool = False,
    **options: Any,
) -> Run:
    """Draw the loss along a ray or a plane in parameter space, as `jaxlin landscape` does.

    Args:
      run: a `Run`, or its folder: its weights are the point; without it random weights.
      data: as for `train`; without it those of the run, or digits.
      progress: say on stderr what was found.
      **options: those of `jaxlin landscape` in snake case, as `kind="ray"`, `points="51x51"`.

    Returns:
      `folder` holds `landscape.npz` and the pictures, `report` is the interactive page.

    >>> from tempfile import mkdtemp
    >>> drawn = landscape(kind="ray", points="5", examples=50, out=mkdtemp())
    >>> drawn.results["points"], drawn.report.name
    ('5', 'landscape.html')
    """
    from jaxlin.runs.in_hand import in_hand, is_in_hand
    from jaxlin.runs.output import say
    from jaxlin.runs.slices import draw

    hand = is_in_hand(data, "data")
    words = options | {"run": None if run is None else _folder(run)}
    words |= {} if hand or data is None else {"data": data}
    if isinstance(words.get("start"), Run):
        words["start"] = _folder(words["start"])
    chosen = options_of(landscape_options.Options, words, of="runs.landscape", quiet=not progress)
    shape = landscape_options.shape_of(chosen)
    landscape_options.check_options(chosen)
    out, found = draw(
        *(chosen, shape, lambda *told: say(*told, quiet=not progress)),
        in_hand(data, "data") if hand else None,
    )
    return Run(out, None, found, [], out / "landscape.html", "landscape")


def open(folder: Run | str | os.PathLike) -> Run:
    """What a folder of `train`, `sweep`, `landscape` or `gradcheck` holds, a command's too.

    Raises:
      DataError: it is no such folder, or one of its files is broken.

    >>> open("nowhere")
    Traceback (most recent call last):
    jaxlin.core.DataError: nowhere: there is no such run folder. Train one with `jaxlin train`.
    """
    return open_folder(_folder(folder))


def _folder(run: Run | str | os.PathLike) -> Path:
    if not isinstance(run, Run):
        return Path(os.path.expanduser(run))
    if run.folder is None:
        raise ValueError("this run has no folder. Give one that `runs.train` returned.")
    return run.folder


def _data_words(data: Any, test: Any, options: dict[str, Any]) -> tuple[dict[str, Any], Given]:
    """Options on data that are named, and what is in hand."""
    from jaxlin.runs.in_hand import is_in_hand

    words = dict(options)
    if isinstance(words.get("compare"), Run):
        words["compare"] = _folder(words["compare"])
    hands = [is_in_hand(data, "data"), is_in_hand(test, "test")]
    words |= {} if hands[0] else {"data": data}
    words |= {} if hands[1] or test is None else {"test": test}
    return words, Given(data if hands[0] else None, test if hands[1] else None)


def _built(given: Given, options: Any) -> Given:
    """Data in hand, checked; options on how files are read are refused beside them."""
    from jaxlin.runs.examples import refuse_given
    from jaxlin.runs.in_hand import in_hand

    if given.train is None:
        return given
    refuse_given(options, "and the data are in hand. Leave it out.", but=("image_shape",))
    return given._replace(train=in_hand(given.train, "data", image_shape=options.image_shape))


def _folder_of(job: Callable[..., Any], options: Any, given: Given, *, proves: bool) -> Run:
    """Do one of `jaxlin.runs.jobs`, and open what it left."""
    from jaxlin.runs.devices import start

    with _settings_kept():
        mesh = start(options, proves=proves)
        from jaxlin.runs.hosts import share_output

        with share_output(options) as own, _interruptible(own) as stopping:
            done = job(own, stopping, mesh, given)
            if done.failure and not done.results:
                raise ValueError(done.failure)
            if done.failure:
                warnings.warn(done.failure, stacklevel=3)
            return open_folder(done.folder)


@contextmanager
def _settings_kept() -> Iterator[None]:
    """What a job sets for all of JAX, precision and float64, is as before when it ends."""
    import jax

    names = ("jax_default_matmul_precision", "jax_enable_x64")
    before = {name: getattr(jax.config, name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


@contextmanager
def _interruptible(options: Any) -> Iterator[Callable[[], str]]:
    """Where a run saves its state, an interrupt does so first, and is raised then."""
    from jaxlin.checkpoint import Stopped, stop_signals

    if options.save_every is None and options.resume == "never":
        yield lambda: ""
        return
    try:
        with stop_signals() as stopping:
            yield stopping
    except Stopped as stop:
        how = "all is saved" if stop.saved else "but this state could not be saved"
        if stop.signal != "SIGINT":
            signal.raise_signal(signal.Signals[stop.signal])
        raise KeyboardInterrupt(
            f'stopped {stop.where}, {how}: the same call with resume="auto" goes on.'
        ) from None
