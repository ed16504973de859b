"""Strengths filled in between two solved ones, against sums in NumPy and other fits."""

import numpy as np
import pytest

from jaxlin.solvers import certify, minimize, minimize_path
from jaxlin.solvers.interpolation import End, end_of, fill, reach
from jaxlin.solvers.problem import open_problem
from jaxlin.solvers.status import Fit, Status

pytestmark = pytest.mark.usefixtures("as_if_large")

STRENGTHS = np.logspace(-2, -4, 17)  # a factor of 4/3 apart, as in CLIP's protocol


@pytest.fixture(scope="module")
def problem_of():
    """Overlapping classes, large enough (2.4e6 multiplications) for the compiled rows."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 20, 3000)
    inputs = rng.normal(size=(3000, 40)) + 0.8 * rng.normal(size=(20, 40))[labels]
    return inputs.astype(np.float32), labels


def mean_loss(inputs, labels, name, params):
    """In float64, with NumPy's scores."""
    scores = inputs.astype(np.float64) @ params.weights.astype(np.float64).T + params.bias
    own = scores[np.arange(len(labels)), labels]
    if name == "softmax":
        largest = scores.max(1)
        return np.mean(np.log(np.exp(scores - largest[:, None]).sum(1)) + largest - own)
    if name == "squared-hinge":
        wrong = np.arange(scores.shape[1]) != labels[:, None]
        return np.mean((wrong * np.maximum(scores - own[:, None] + 1, 0) ** 2).sum(1))
    signs = np.where(np.arange(scores.shape[1]) == labels[:, None], 1, -1)
    return np.mean((np.maximum(1 - signs * scores, 0) ** 2).sum(1))


@pytest.mark.parametrize(
    ("loss", "intercept"),
    [("softmax", True), ("softmax", False), ("squared-hinge", True), ("squared-one-vs-rest", True)],
)
def test_what_is_filled_in_is_proved(problem_of, loss, intercept):
    inputs, labels = problem_of
    order = []
    path = minimize_path(
        inputs, labels, strengths=STRENGTHS, loss=loss, tolerance=1e-3, fit_intercept=intercept,
        callback=lambda t, _: order.append(t),
    )  # fmt: skip
    assert order == list(range(17))  # from the largest strength to the smallest
    filled = [t for t in range(17) if path[t].evaluations == 0]
    assert len(filled) >= 3
    for t in filled:
        found = path[t]
        weights = found.params.weights.astype(np.float64)
        value = mean_loss(inputs, labels, loss, found.params) + STRENGTHS[t] * np.sum(weights**2)
        # The reported objective is a bound. Scores of some tens are rounded at 2^-24, twice: 1e-5,
        # which a loss near 0.1 of 20 squares takes in as 2 * 2e-5 * sqrt(20 / 0.1) = 6e-4.
        assert value <= found.objective * (1 + 1e-12)
        assert found.objective <= value * (1 + 6e-4)
        assert 0 <= found.gap <= 1e-3 * found.objective
        assert found.status == Status.CONVERGED
        if not intercept:
            assert not found.params.bias.any()
    t = filled[len(filled) // 2]  # never above an optimum known much better
    best = minimize(inputs, labels, loss=loss, strength=STRENGTHS[t], tolerance=1e-6,
                    fit_intercept=intercept, init=path[t].params)  # fmt: skip
    assert path[t].lower_bound <= best.objective
    assert best.lower_bound <= path[t].objective


def opened(inputs, labels, strength, tolerance=1e-3):
    return open_problem(inputs, labels, strength=strength, tolerance=tolerance)[0]


def end_at(problem, params):
    """Certified just there."""
    weights, bias = (np.asarray(part, np.float64) for part in params)
    proof = certify(problem, weights, bias, dtype=np.float32, exact=True)
    fit = Fit(weights, bias, proof.lower_bound, 0.0, 0, 0.0, Status.CONVERGED, proof)
    return end_of(problem, fit)


def test_ends_that_are_wrong_prove_nothing(problem_of):
    inputs, labels = problem_of
    sides = [opened(inputs, labels, strength) for strength in (1e-3, 5e-4)]
    middle = opened(inputs, labels, 7e-4)
    solved = [minimize(inputs, labels, strength=s.strength, tolerance=1e-5) for s in sides]
    left, right = (end_at(s, found.params) for s, found in zip(sides, solved, strict=True))
    assert fill(middle, left, right) is not None
    spoiled = solved[1].params._replace(weights=solved[1].params.weights * np.float32(1.2))
    assert fill(middle, left, end_at(sides[1], spoiled)) is None
    assert fill(middle._replace(tolerance=1e-7), left, right) is None
    moved = right.dual._replace(products=right.dual.products + 0.01)
    assert fill(middle, left, End(right.strength, right.weights, right.bias, moved)) is None


def test_only_smooth_compiled_problems_reach_ahead(problem_of):
    inputs, labels = problem_of
    problem = opened(inputs, labels, 1e-3)
    assert reach(problem, 1e-3) == pytest.approx(10 * reach(problem, 1e-7))  # a fourth root
    assert reach(problem._replace(l1_strength=1e-3), 1e-3) == 0
    assert reach(opened(inputs[:50], labels[:50], 1e-3), 1e-3) == 0  # NumPy's rows
