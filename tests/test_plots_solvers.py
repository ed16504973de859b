"""The pictures draw the numbers they are given."""

import numpy as np

from jaxlin.plots.solvers import save_time_to_accuracy, time_to_accuracy
from jaxlin.report.training import bounds_figure

CURVES = {
    "ours": [(0.1, 2.0, 0.0), (0.2, 1.1, 0.5), (0.3, 1.0001, 0.9999)],
    "theirs": [(1.0, 1.5), (2.0, 1.01)],
}


def test_the_lines_are_the_relative_distances(tmp_path):
    axes = time_to_accuracy(CURVES, 1.0).axes[0]
    ours, theirs = axes.lines[0], axes.lines[-1]
    np.testing.assert_allclose(ours.get_ydata(), [1.0, 0.1, 1e-4])
    np.testing.assert_allclose(theirs.get_ydata(), [0.5, 0.01])
    gap = next(line for line in axes.lines if "gap" in line.get_label())
    np.testing.assert_allclose(gap.get_ydata(), [0.1 + 0.5, 2e-4])
    save_time_to_accuracy(CURVES, 1.0, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000


def test_a_report_draws_bounds_from_where_they_are_proved_and_the_gap_between():
    bounds = zip([1, 2, 3, 4], [2.0, 1.1, 1.0, 1.0], [None, 0, 0.5, 0.99], strict=True)
    names = ("evaluations", "objective", "lower_bound")
    figure = bounds_figure([dict(zip(names, record, strict=True)) for record in bounds])
    lines = {line.name: (line.x, line.y) for line in figure.data}
    assert lines["objective"] == ((1, 2, 3, 4), (2.0, 1.1, 1.0, 1.0))
    assert lines["lower bound"] == ((3, 4), (0.5, 0.99))
    np.testing.assert_allclose(lines["relative gap"][1], [0.5, 0.01])
    assert figure.layout.yaxis2.range == (-2.1, 0.1)  # whole powers of ten, which have labels
