"""Reproduce an introductory lecture: every number, table and figure, on one page."""

__all__ = ["Options", "run"]

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxlin.runs.output import OutputOptions


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


def run(options: Options) -> int:
    """Measure the chapters, and write both pages, the numbers and the figures."""
    from jaxlin.lecture.reproduce import (
        CHAPTERS,
        as_json,
        check_names,
        load_lesson,
        measure,
        spoken,
        write,
    )
    from jaxlin.runs.output import emit, prepare_out, say

    check_names(options.only)
    out = prepare_out(options.out, name="lecture", overwrite=options.overwrite)
    lesson = load_lesson(options.data, data_dir=options.data_dir, features=options.features)

    def tell(chapter: Any, seconds: float) -> None:
        say(f"{chapter.name:<24}{seconds:6.1f} s", quiet=options.quiet)
        if options.verbose:
            say(spoken(chapter), quiet=options.quiet)

    begun = time.perf_counter()
    chapters = measure(lesson, options.only or CHAPTERS, tell)
    seconds = time.perf_counter() - begun
    write(out, chapters, data=options.data, seconds=seconds)
    say(f"wrote {out / 'lecture.html'} in {seconds:.0f} s", quiet=options.quiet)
    if options.json:
        emit({"out": str(out), **as_json(chapters, data=options.data, seconds=seconds)})
    return 0
