"""All chapters of the lecture, measured in order, and the files that they leave."""

__all__ = [
    "CHAPTERS",
    "as_json",
    "check_names",
    "load_lesson",
    "measure",
    "module_of",
    "spoken",
    "write",
]

import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType

from jaxlin import data
from jaxlin.lecture.nouns import Chapter, Lesson
from jaxlin.lecture.page import lecture_page
from jaxlin.lecture.playground import playground_page
from jaxlin.plots.style import save
from jaxlin.runs.output import write_json, write_text

CHAPTERS = (
    *("pixels", "scores", "interpretations", "bias_trick", "preprocessing"),
    *("softmax", "stability", "svm_loss", "svm_and_softmax", "landscape"),
    *("following_the_gradient", "numerical_gradient", "step_sizes", "cost_of_numerical"),
    *("svm_gradient", "descent", "minibatches", "duplicates", "batch_sizes"),
    *("information_flow", "real_features"),
)
"""In the lecture's order."""


def load_lesson(name: str, *, data_dir: Path | None = None, features: Path | None = None) -> Lesson:
    """The pictures of a named data set, and features of them where there is a folder of these.

    Raises:
      ValueError: another name.
    """
    if name not in data.NAMED:
        raise ValueError(f"`--data` must be one of {', '.join(data.NAMED)}, got {name!r}.")
    train, test = (data.load(name, split=split, data_dir=data_dir) for split in ("train", "test"))
    return Lesson(train, test, None if features is None else data.load_splits(features))


def check_names(names: Sequence[str]) -> None:
    """Refuse what is no chapter."""
    unknown = sorted(set(names) - set(CHAPTERS))
    if unknown:
        known = ", ".join(CHAPTERS)
        raise ValueError(f"`--only {unknown[0]}`: no such chapter. Known are: {known}.")


def module_of(name: str) -> ModuleType:
    """The module of a chapter.

    >>> module_of("stability").__name__
    'jaxlin.lecture.chapters.stability'
    """
    return import_module(f"jaxlin.lecture.chapters.{name}")


def measure(
    lesson: Lesson, names: Sequence[str], tell: Callable[[Chapter, float], None]
) -> list[Chapter]:
    """The chapters of these names, in the lecture's order; each is told with its seconds."""
    chapters = []
    for name in sorted(set(names), key=CHAPTERS.index):
        begun = time.perf_counter()
        chapters.append(module_of(name).chapter(lesson))
        tell(chapters[-1], time.perf_counter() - begun)
    return chapters


def write(out: Path, chapters: Sequence[Chapter], *, data: str, seconds: float) -> None:
    """Both pages, the numbers and the figures, into a folder that is there."""
    write_text(out / "lecture.html", lecture_page(chapters, data=data, seconds=seconds))
    write_text(out / "playground.html", playground_page())
    write_json(out / "lecture.json", as_json(chapters, data=data, seconds=seconds))
    (out / "figures").mkdir(exist_ok=True)
    for chapter in chapters:
        for picture in chapter.pictures:
            save(picture.figure, out / "figures" / picture.name)


def spoken(chapter: Chapter) -> str:
    """The chapter's title and claims as lines of text."""
    blocks = [chapter.title]
    for claim in chapter.claims:
        verdict = f"{claim.verdict}. {claim.why}" if claim.why else claim.verdict
        blocks.append(
            f"{claim.text} [{claim.lines}]\n  lecture:  {claim.lecture}\n"
            f"  measured: {claim.measured}\n  verdict:  {verdict}"
        )
    return "\n\n".join(blocks)


def as_json(chapters: Sequence[Chapter], *, data: str, seconds: float) -> dict:
    """What `lecture.json` holds."""
    return {
        "data": data,
        "seconds": seconds,
        "chapters": {
            chapter.name: [claim._asdict() for claim in chapter.claims] for chapter in chapters
        },
    }
