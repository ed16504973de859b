"""Beyond the lecture: the same linear classifier on features of the pictures instead of pixels.

The lecture ends with pixels. What a linear classifier reaches depends on what it is given: here its
own features, made by hand, or those of a network (`--features`, a folder that
`experiments/probe_pipeline.py` writes), judged on the same test pictures.
"""

from typing import NamedTuple

import numpy as np

from jaxlin import hand_features, metrics, preprocess
from jaxlin.core import DataError
from jaxlin.data import as_images
from jaxlin.report.lecture import BEYOND, Chapter, Claim, Table, judge
from jaxlin.scores import linear
from jaxlin.solvers import minimize, relative_gap
from jaxlin.sweep.mcnemar import compare

STRENGTHS = (1e-2, 1e-3, 1e-4)
TOLERANCE = 1e-3
HELD_OUT = 5
"""One training picture in so many chooses the strength."""


def chapter(lesson) -> Chapter:
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
                f"{paired.only_second:,}; exact McNemar test: p = {paired.p_value:.2g}.",
            ),
        ),
    )


def _features(lesson) -> tuple[str, tuple[np.ndarray, np.ndarray]]:
    """What they are called, and those of the training and of the test pictures."""
    sets = lesson.train, lesson.test
    if lesson.features is None:
        shape = lesson.train.image_shape
        cell = max(shape[0] // 4, 2)
        made = [hand_features.describe(as_images(s.inputs, shape), cell=cell) for s in sets]
        return "hand-made features", (made[0], made[1])
    found = lesson.features.train, lesson.features.test
    for ours, theirs, split in zip(sets, found, ("training", "test"), strict=True):
        if theirs is None or not np.array_equal(ours.labels, theirs.labels):
            raise DataError(
                f"`--features` are not of these {split} pictures: their labels differ. Give a "
                "folder made from the same --data, in the same order."
            )
    return "a network's features", (found[0].inputs, found[1].inputs)


class _Probe(NamedTuple):
    """A classifier that was chosen on held-out pictures and fitted to all."""

    size: int
    """Numbers that stand for a picture."""
    strength: float
    gap: float
    predicted: np.ndarray
    """Classes of the test pictures."""
    accuracy: float


def _row(name, probe: _Probe) -> tuple:
    low, high = metrics.wilson_interval(probe.accuracy, len(probe.predicted))
    interval = f"{low:.4f} to {high:.4f}"
    return name, f"{probe.size:,}", f"{probe.strength:g}", f"{probe.accuracy:.4f}", interval


def _probe(lesson, inputs, test_inputs) -> _Probe:
    labels = lesson.train.labels.astype(np.int32)
    held = np.arange(len(labels)) % HELD_OUT == 0
    scaling = preprocess.fit(inputs[~held], "standardize")

    def fitted(strength, weights):
        return minimize(
            inputs, labels, strength=strength, tolerance=TOLERANCE, preprocessing=scaling,
            sample_weight=weights, classes=len(lesson.train.class_names),
        )  # fmt: skip

    def scored(solution, rows):
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


if __name__ == "__main__":
    from jaxlin.cli.lecture import alone

    raise SystemExit(alone(chapter))
