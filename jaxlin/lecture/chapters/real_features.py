"""Beyond the lecture: the same linear classifier on features of the pictures instead of pixels.

The lecture ends with pixels. What a linear classifier reaches depends on what it is given: here its
own features, made by hand, or those of a network (`--features`, a folder that
`experiments/probe_pipeline.py` writes), judged on the same test pictures.
"""

from typing import NamedTuple

import jax
import numpy as np

from jaxlin import hand_features, metrics, preprocess
from jaxlin.core import DataError, Solution
from jaxlin.data import Dataset, as_images
from jaxlin.lecture.nouns import BEYOND, Chapter, Claim, Lesson, Table, judge
from jaxlin.scores import linear
from jaxlin.solvers import minimize, relative_gap
from jaxlin.sweep.mcnemar import compare, p_value_in_words

STRENGTHS = (1e-2, 1e-3, 1e-4)
TOLERANCE = 1e-3
HELD_OUT = 5
"""One training picture in so many chooses the strength."""


def chapter(lesson: Lesson) -> Chapter:
    name, features = _features(lesson)
    probes = {"pixels": _probe(lesson, lesson.train.inputs, lesson.test.inputs)}
    probes[name] = _probe(lesson, *features)
    (_, before), (_, after) = probes.items()
    paired = compare(before.predicted, after.predicted, lesson.test.labels)
    return Chapter(
        "real_features",
        "Beyond the lecture: features instead of pixels",
        (
            "Nothing changes but the numbers that stand for a picture: scores $W x + b$, the "
            "softmax loss, a penalty on the squares of $W$. The strength of the penalty is chosen "
            f"on every {HELD_OUT}th training picture, from {', '.join(map(str, STRENGTHS))}.",
            Table(
                ("what a picture is", "numbers", "strength", "test accuracy", "95 % interval"),
                [_row(name, probe) for name, probe in probes.items()],
                "Each fit ends where it is proved to be near the optimum.",
            ),
            Claim(
                *("beyond", "Each classifier is the best of its kind", "not in the lecture"),
                f"certified relative gaps {before.gap:.0e} and {after.gap:.0e}",
                judge(max(before.gap, after.gap) <= TOLERANCE, BEYOND),
            ),
            Claim(
                *("beyond", f"What {name} are worth", "not in the lecture"),
                f"accuracy {before.accuracy:.4f} on pixels, {after.accuracy:.4f} on {name}, of "
                f"the same {len(lesson.test.labels):,} pictures",
                BEYOND,
                f"Right by pixels alone are {paired.only_first:,} pictures, by features alone "
                f"{paired.only_second:,}; exact McNemar test: "
                f"{p_value_in_words(paired.p_value)}.",
            ),
        ),
    )


def _features(lesson: Lesson) -> tuple[str, tuple[np.ndarray, np.ndarray]]:
    """What they are called, and those of the training and of the test pictures."""
    if lesson.features is None:
        return "hand-made features", (_made(lesson, lesson.train), _made(lesson, lesson.test))
    train, test = lesson.features.train, lesson.features.test
    return "a network's features", (
        _checked(train, lesson.train, "training"),
        _checked(test, lesson.test, "test"),
    )


def _made(lesson: Lesson, pictures: Dataset) -> np.ndarray:
    shape = lesson.image_shape
    images = as_images(pictures.inputs, shape)
    return hand_features.describe(images, cell=max(shape[0] // 4, 2))


def _checked(found: Dataset | None, pictures: Dataset, split: str) -> np.ndarray:
    if found is None or not np.array_equal(pictures.labels, found.labels):
        raise DataError(
            f"`--features` are not of these {split} pictures: their labels differ. Give a "
            "folder made from the same --data, in the same order."
        )
    return found.inputs


class _Probe(NamedTuple):
    """A classifier that was chosen on held-out pictures and fitted to all."""

    size: int
    """Numbers that stand for a picture."""
    strength: float
    gap: float
    predicted: np.ndarray
    """Classes of the test pictures."""
    accuracy: float


def _row(name: str, probe: _Probe) -> tuple[str, ...]:
    low, high = metrics.wilson_interval(probe.accuracy, len(probe.predicted))
    interval = f"{low:.4f} to {high:.4f}"
    return name, f"{probe.size:,}", f"{probe.strength:g}", f"{probe.accuracy:.4f}", interval


def _probe(lesson: Lesson, inputs: np.ndarray, test_inputs: np.ndarray) -> _Probe:
    labels = lesson.train.labels.astype(np.int32)
    held = np.arange(len(labels)) % HELD_OUT == 0
    scaling = preprocess.fit(inputs[~held], "standardize")

    def fitted(strength: float, weights: np.ndarray | None) -> Solution:
        return minimize(
            inputs, labels, strength=strength, tolerance=TOLERANCE, preprocessing=scaling,
            sample_weight=weights, classes=len(lesson.train.class_names),
        )  # fmt: skip

    def scored(solution: Solution, rows: np.ndarray) -> jax.Array:
        return linear(solution.params, preprocess.apply(scaling, rows))

    accuracies = [
        metrics.accuracy(scored(fitted(strength, 1.0 - held), inputs[held]), labels[held])
        for strength in STRENGTHS
    ]
    strength = STRENGTHS[int(np.argmax(accuracies))]
    solution = fitted(strength, None)
    scores = scored(solution, test_inputs)
    predicted = metrics.predicted_classes(scores)
    accuracy = metrics.accuracy(scores, lesson.test.labels)
    return _Probe(inputs.shape[1], strength, relative_gap(solution), predicted, accuracy)
