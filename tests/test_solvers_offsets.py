"""Parts of the scores that are not learned, as SciPy's own fit has them, and paper."""

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
import scipy.special

from jaxlin.core import DataError, LinearParams
from jaxlin.solvers import Status, minimize

ROWS, FEATURES, CLASSES = 60, 3, 4  # of most fits here, so that they share a program
STRENGTH = 1e-2


def data(seed=0):
    generator = np.random.default_rng(seed)
    inputs = generator.normal(size=(ROWS, FEATURES)) + 1
    offsets = 2 * generator.normal(size=(ROWS, CLASSES)) + [5.0, 0.0, -3.0, 0.0]
    return inputs, generator.integers(0, 3, ROWS), offsets


def least(inputs, labels, offsets, counts, free=True):
    """The optimum over the classes that occur, by L-BFGS in NumPy."""
    classes = labels.max() + 1
    shape = classes, inputs.shape[1]
    counts = counts / counts.sum()

    def objective(flat):
        weights, bias = flat[: np.prod(shape)].reshape(shape), flat[np.prod(shape) :]
        scores = inputs @ weights.T + bias + offsets[:, :classes]
        logs = scipy.special.log_softmax(scores, axis=1)
        slopes = counts[:, None] * (np.exp(logs) - np.eye(classes)[labels])
        gradient = slopes.T @ inputs + 2 * STRENGTH * weights, free * slopes.sum(0)
        value = -counts @ logs[np.arange(len(labels)), labels] + STRENGTH * (weights**2).sum()
        return value, np.concatenate([part.ravel() for part in gradient])

    start = np.zeros(classes * (inputs.shape[1] + 1))
    options = {"ftol": 1e-15, "gtol": 1e-10, "maxiter": 2000}
    return scipy.optimize.minimize(objective, start, jac=True, method="L-BFGS-B", options=options)


def objective_of(params, inputs, labels, offsets, counts):
    scores = inputs @ params.weights.astype(float).T + params.bias + offsets
    losses = -scipy.special.log_softmax(scores, axis=1)[np.arange(len(labels)), labels]
    return np.average(losses, weights=counts) + STRENGTH * (params.weights.astype(float) ** 2).sum()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_optimum_is_that_of_scipy(dtype):
    """With weights of 0, a mapped input, a start, and a class that no row has."""
    inputs, labels, offsets = data()
    counts = np.random.default_rng(1).integers(0, 3, ROWS).astype(float)
    mapping = SimpleNamespace(shift=np.full(FEATURES, 0.5), scale=np.array([1.0, 2.0, 0.5]))
    inputs = inputs.astype(dtype)
    mapped = (inputs.astype(float) - mapping.shift) * mapping.scale
    seen = []
    found = minimize(
        inputs, labels, strength=STRENGTH, offsets=offsets, sample_weight=counts, classes=CLASSES,
        preprocessing=mapping, tolerance=1e-6, callback=lambda *told: seen.append(told),
        init=LinearParams(np.ones((CLASSES, FEATURES)), np.arange(CLASSES)),
    )  # fmt: skip
    optimum = least(mapped, labels, offsets, counts).fun
    # L-BFGS ends within 1e-10 or so of the optimum
    assert found.lower_bound <= optimum * (1 + 1e-9)
    assert optimum <= found.objective * (1 + 1e-9)
    assert found.status == Status.CONVERGED
    assert found.gap <= 1e-6 * found.objective
    assert found.params.weights.dtype == found.params.bias.dtype == dtype
    # the objective handed back is that of these very parameters, rounded as they are
    value = objective_of(found.params, mapped, labels, offsets, counts)
    assert value == pytest.approx(found.objective, rel=1e-7 if dtype == np.float32 else 1e-12)
    assert seen == [(found.evaluations, found.objective, found.lower_bound)]
    scores = mapped @ found.params.weights.T + found.params.bias + offsets
    assert (scores.argmax(1) < 3).all()


def test_without_a_bias_offsets_are_all_that_is_constant():
    inputs, labels, offsets = data(2)
    found = minimize(
        inputs, labels, strength=STRENGTH, offsets=offsets[:, :3], fit_intercept=False,
        tolerance=1e-6,
    )  # fmt: skip
    optimum = least(inputs, labels, offsets, np.ones(ROWS), free=False).fun
    assert not found.params.bias.any()
    assert found.lower_bound <= optimum * (1 + 1e-9)
    assert optimum <= found.objective * (1 + 1e-9)
    assert found.status == Status.CONVERGED


def test_offsets_that_the_bias_undoes_change_nothing():
    inputs, labels, _ = data(3)
    settings = dict(strength=STRENGTH, tolerance=1e-10, classes=CLASSES)
    plain = minimize(inputs, labels, **settings)
    by_class = np.array([1.0, -2.0, 0.5, 3.0])
    for size in (0.0, 1.0, 1e8):
        by_row = size * np.random.default_rng(4).normal(size=(ROWS, 1))
        start = LinearParams(size * np.ones((CLASSES, FEATURES)), size * by_class)
        found = minimize(inputs, labels, offsets=size * by_class + by_row, init=start, **settings)
        # gaps of 1e-10 on both sides; offsets are rounded to 1e-8 where they are 1e8
        assert found.objective == pytest.approx(plain.objective, rel=2e-8 if size > 1 else 3e-10)
        assert found.status == Status.CONVERGED
        own = found.params.bias[:3] + size * by_class[:3]
        # gaps of 1e-10 of curvatures about 0.1 leave a bias within 1e-4
        off = own - own.mean() - plain.params.bias[:3] + plain.params.bias[:3].mean()
        assert np.abs(off).max() < 1e-4


def test_offsets_far_beyond_what_weights_make_are_fitted_and_proved():
    """Where the bias bends nothing at the start: all rows are far on one side or the other."""
    inputs, labels, offsets = data(5)
    settings = dict(strength=1e-4, tolerance=1e-4, classes=CLASSES)
    found = minimize(inputs, labels, offsets=30 * offsets, **settings)
    assert found.status == Status.CONVERGED
    found = minimize(inputs, labels, offsets=1e150 * offsets, **settings)
    assert np.isfinite(found.objective)
    assert found.status != Status.CONVERGED


def test_offsets_in_the_hundreds_are_fitted_and_proved():
    """Nearly nothing bends at first, and Newton's steps are too long by a factor of thousands."""
    settings = dict(strength=1e-4, tolerance=1e-4, classes=CLASSES)
    for seed in (5, 6):
        inputs, labels, offsets = data(seed)
        for size in (300, 400):
            found = minimize(inputs, labels, offsets=size * offsets, **settings)
            assert found.status == Status.CONVERGED


def test_one_class_costs_nothing():
    inputs, _, offsets = data(6)
    labels = np.zeros(ROWS, int)
    found = minimize(inputs, labels, strength=STRENGTH, offsets=offsets, classes=CLASSES)
    assert (found.objective, found.gap, found.status) == (0.0, 0.0, Status.CONVERGED)
    assert ((found.params.bias + offsets).argmax(1) == 0).all()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"loss": "hinge"}, "a smooth loss, got 'hinge', .* one of \"softmax\""),
        ({"l1_strength": 0.1}, "Leave `l1_strength` out"),
        ({"strength": 0}, "a positive `strength`"),
        ({"mesh": object()}, "Leave `mesh` out"),
        ({"carried": ()}, "Leave `carried` out"),
        ({"offsets": np.zeros((ROWS, 2))}, r"one entry per row and class, \(60, 3\), got \(60, 2"),
        ({"sample_weight": np.zeros(ROWS)}, "zero everywhere"),
        ({"init": (np.zeros((2, 2)), np.zeros(2))}, "`init` must hold"),
    ],
)
def test_what_offsets_do_not_go_with_is_refused(settings, sentence):
    inputs, labels, offsets = data()
    asked = {"strength": STRENGTH, "offsets": offsets[:, :3]} | settings
    with pytest.raises(ValueError, match=sentence):
        minimize(inputs, labels, **asked)


def test_rows_that_are_not_in_memory_are_refused(tmp_path):
    inputs, labels, offsets = data()
    np.save(tmp_path / "inputs.npy", inputs)
    settings = dict(strength=STRENGTH, offsets=offsets[:, :3])
    with pytest.raises(TypeError, match=r"inputs.toarray\(\)"):
        minimize(scipy.sparse.csr_array(inputs), labels, **settings)
    with pytest.raises(TypeError, match=r"np.array\(inputs\) of a memory map"):
        minimize(np.load(tmp_path / "inputs.npy", mmap_mode="r"), labels, **settings)
    offsets[7, 1] = np.nan
    with pytest.raises(DataError, match="got nan at row 7, class 1"):
        minimize(inputs, labels, **settings)
