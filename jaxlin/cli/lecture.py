"""Reproduce an introductory lecture: every number, table and figure, on one page."""

__all__ = ["CHAPTERS", "Lesson", "Options", "alone", "run", "script"]

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from jaxlin.runs.output import OutputOptions

CHAPTERS = (
    *("pixels", "scores", "interpretations", "bias_trick", "preprocessing"),
    *("softmax", "stability", "svm_loss", "svm_and_softmax", "landscape"),
    *("following_the_gradient", "numerical_gradient", "step_sizes", "cost_of_numerical"),
    *("svm_gradient", "descent", "minibatches", "duplicates", "batch_sizes"),
    *("information_flow", "real_features"),
)


@dataclass(frozen=True, kw_only=True)
class Options(OutputOptions):
    """Run the lecture's experiments and write `lecture.html` and `playground.html`."""

    data: str = "digits"
    """digits, mnist, fashion-mnist, cifar10. With cifar10 it is the lecture itself."""
    data_dir: Path | None = None
    """The folder that holds the files of a named data set."""
    features: Path | None = None
    """A folder of features of these pictures, as experiments/probe_pipeline.py writes it, for the
    section beyond the lecture (without it: features made by hand)."""
    only: tuple[str, ...] = ()
    """Names of chapters (without it: all)."""


class Lesson(NamedTuple):
    """What every chapter gets: the pictures to measure on."""

    train: Any
    """A `jaxlin.data.Dataset`."""
    test: Any
    """A `jaxlin.data.Dataset`."""
    features: Any = None
    """`jaxlin.data.Splits` of features of these pictures."""

    def centered(self, rows: int) -> Any:
        """Pixels minus the mean image of all training pictures: a `Batch` of the first `rows`.

        Inputs (rows, D) float64, labels (rows,) int32, both NumPy.
        """
        from jaxlin import preprocess
        from jaxlin.core import Batch

        mean_image = preprocess.fit(self.train.inputs, "center").shift
        return Batch(self.train.inputs[:rows] - mean_image, self.train.labels[:rows])


def run(options: Options) -> int:
    """Measure every chapter, save its pictures, and write the two pages."""
    from jaxlin.runs.output import emit, prepare_out, say, write_json

    unknown = set(options.only) - set(CHAPTERS)
    if unknown:
        known = ", ".join(CHAPTERS)
        raise ValueError(f"`--only {sorted(unknown)[0]}`: no such chapter. Known are: {known}.")
    out = prepare_out(options.out, name="lecture", overwrite=options.overwrite)
    lesson = _load(options)
    start = time.perf_counter()
    chapters = []
    for name in [name for name in CHAPTERS if not options.only or name in options.only]:
        begun = time.perf_counter()
        chapters.append(script(name).chapter(lesson))
        say(f"{name:<24}{time.perf_counter() - begun:6.1f} s", quiet=options.quiet)
        if options.verbose:
            say(_spoken(chapters[-1]), quiet=options.quiet)
    seconds = time.perf_counter() - start
    measured = _as_json(chapters, data=options.data, seconds=seconds)
    _write(out, chapters, data=options.data, seconds=seconds)
    write_json(out / "lecture.json", measured)
    say(f"wrote {out / 'lecture.html'} in {seconds:.0f} s", quiet=options.quiet)
    if options.json:
        emit({"out": str(out), **measured})
    return 0


def alone(chapter: Callable[[Lesson], Any], argv: list[str] | None = None) -> int:
    """Run one chapter by itself: print its claims, and with --out save its pictures."""
    import sys

    from jaxlin.cli.parsing import parse
    from jaxlin.cli.streams import prepare_streams

    prepare_streams()
    try:
        options = parse(Options, sys.argv[1:] if argv is None else argv, command="lecture")
        lesson = _load(options)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    done = chapter(lesson)
    print(_spoken(done))
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        _save_pictures(options.out, [done])
    return 0


def _spoken(chapter: Any) -> str:
    """The chapter's title and claims as lines of text."""
    blocks = [chapter.title]
    for claim in chapter.claims:
        verdict = f"{claim.verdict}. {claim.why}" if claim.why else claim.verdict
        blocks.append(
            f"{claim.text} [{claim.lines}]\n  lecture:  {claim.lecture}\n"
            f"  measured: {claim.measured}\n  verdict:  {verdict}"
        )
    return "\n\n".join(blocks)


def _load(options: Options) -> Lesson:
    from jaxlin import data

    if options.data not in data.NAMED:
        raise ValueError(f"`--data` must be one of {', '.join(data.NAMED)}, got {options.data!r}.")
    splits = data.load_splits(options.data, data_dir=options.data_dir)
    features = None if options.features is None else data.load_splits(options.features)
    return Lesson(splits.train, splits.test, features)


def script(name: str) -> Any:
    """The module `experiments/lecture/NAME.py`, whose `chapter(lesson)` returns a `Chapter`.

    The scripts lie in the source tree; a wheel carries the same files as `jaxlin/_lecture`.
    """
    import importlib.util

    package = Path(__file__).parents[1]
    folders = (package / "_lecture", package.parent / "experiments" / "lecture")
    found = next((f / f"{name}.py" for f in folders if (f / f"{name}.py").is_file()), None)
    if found is None:
        raise FileNotFoundError(f"The lecture's script `{name}.py` is missing from {folders[0]}.")
    specification: Any = importlib.util.spec_from_file_location(f"jaxlin_lecture_{name}", found)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def _write(out: Path, chapters: list, *, data: str, seconds: float) -> None:
    from jaxlin.report.lecture import lecture_page, playground_page
    from jaxlin.runs.output import write_text

    write_text(out / "lecture.html", lecture_page(chapters, data=data, seconds=seconds))
    write_text(out / "playground.html", playground_page())
    _save_pictures(out / "figures", chapters)


def _save_pictures(folder: Path, chapters: list) -> None:
    from jaxlin.plots.style import save

    folder.mkdir(parents=True, exist_ok=True)
    for chapter in chapters:
        for picture in chapter.pictures:
            save(picture.figure, folder / picture.name)


def _as_json(chapters: list, *, data: str, seconds: float) -> dict:
    return {
        "data": data,
        "seconds": seconds,
        "chapters": {
            chapter.name: [claim._asdict() for claim in chapter.claims] for chapter in chapters
        },
    }
