"""What a chapter gets and what it returns: pictures; prose, formulas, tables, figures and claims.

A claim sets what the lecture says beside what was measured, and ends in a verdict.
"""

__all__ = [
    "BEYOND",
    "DIFFERS",
    "ERRATUM",
    "IN_SHAPE",
    "NEEDS_DATA",
    "REPRODUCED",
    "VERDICTS",
    "Chapter",
    "Claim",
    "Formula",
    "Lesson",
    "Picture",
    "Table",
    "judge",
]

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from jaxlin import preprocess
from jaxlin.data import Dataset, Splits

REPRODUCED = "reproduced"
IN_SHAPE = "reproduced in shape"
ERRATUM = "erratum"
NEEDS_DATA = "not shown by these data"
DIFFERS = "not reproduced"
BEYOND = "beyond the lecture"
VERDICTS = (REPRODUCED, IN_SHAPE, ERRATUM, NEEDS_DATA, DIFFERS, BEYOND)


class Lesson(NamedTuple):
    """What every chapter gets: the pictures to measure on."""

    train: Dataset
    test: Dataset
    features: Splits | None = None
    """Features of these pictures."""

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Of a picture, as `jaxlin.data.as_images` takes it."""
        return self.train.image_shape or self.train.inputs.shape[1:]

    def centered(self, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Pixels minus the mean image of all training pictures, and labels, of the first `rows`.

        Inputs (rows, D) float64, labels (rows,) int32.
        """
        mean_image = preprocess.fit(self.train.inputs, "center").shift
        return self.train.inputs[:rows] - mean_image, self.train.labels[:rows]


class Formula(NamedTuple):
    """A displayed formula, in the notation of `jaxlin.report.mathml`."""

    tex: str


class Picture(NamedTuple):
    """A figure of the chapter; `name` is the file that it is also saved as."""

    name: str
    figure: Figure
    caption: str


class Table(NamedTuple):
    """Rows of cells under a head; cells are prose."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


class Claim(NamedTuple):
    """One statement of the lecture, what it prints, what was measured, and the verdict."""

    lines: str
    """Where the lecture says it, such as "L81"."""
    text: str
    lecture: str
    measured: str
    verdict: str
    """One of `VERDICTS`."""
    why: str = ""


class Chapter(NamedTuple):
    """One section of the lecture, measured."""

    name: str
    """The module's name."""
    title: str
    parts: tuple[str | Formula | Picture | Table | Claim, ...]
    """In reading order; a `str` is a paragraph of prose."""

    @property
    def claims(self) -> list[Claim]:
        return [part for part in self.parts if isinstance(part, Claim)]

    @property
    def pictures(self) -> list[Picture]:
        return [part for part in self.parts if isinstance(part, Picture)]


def judge(holds: bool | np.bool, verdict: str = REPRODUCED) -> str:
    """`verdict` where what was measured agrees, else "not reproduced".

    >>> judge(1 + 1 == 2), judge(1 + 1 == 3)
    ('reproduced', 'not reproduced')
    """
    return verdict if holds else DIFFERS
