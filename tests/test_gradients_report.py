"""What a report prints: numbers that a verdict calls different look different."""

import numpy as np
import pytest

from jaxlin.gradients import check_gradient


def rows_of(report):
    """The table's rows, as lists of words."""
    lines = str(report).splitlines()
    head = next(i for i, line in enumerate(lines) if "analytic" in line)
    return [line.split() for line in lines[head + 1 : lines.index("", head)]]


@pytest.mark.parametrize("error", [1e-6, 1e-7, 1e-9])
@pytest.mark.parametrize("mode", ["quick", "full"])
def test_a_wrong_value_never_prints_like_the_measured_one(error, mode):
    f = lambda x: float(2 * x[0] + 3 * x[1])  # noqa: E731
    report = check_gradient(f, np.ones(2), np.array([2.0, 3.0 + error]), mode=mode)
    assert report.verdict == "fail"
    ((_, analytic, numeric, *_),) = rows_of(report)
    assert float(analytic) - float(numeric) == pytest.approx(error, rel=0.2)


def test_two_slopes_of_a_weak_kink_are_told_apart():
    f = lambda x: float(1000 * x[0] + 1e-4 * abs(x[0]))  # noqa: E731
    report = check_gradient(f, np.zeros(1), np.array([1001.0]), mode="full")
    ((_, _, _, _, left, right, *_),) = rows_of(report)
    assert report.entries[0].kinked
    assert float(right) - float(left) == pytest.approx(2e-4, rel=0.2)


def test_a_common_factor_next_to_one_is_not_called_one():
    x = np.array([1.0, 2.0, -3.0])
    f = lambda x: float(np.sum(x**2))  # noqa: E731
    report = check_gradient(f, x, 2 * x * (1 + 1e-7), mode="full")
    (note,) = [note for note in report.notes if "times the measured value" in note]
    assert float(note.split(" is ")[1].split()[0]) - 1 == pytest.approx(1e-7, rel=0.2)
