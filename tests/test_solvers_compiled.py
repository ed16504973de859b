"""`minimize_compiled` inside `jit` and `vmap`: the optimum of `minimize`, and a true gap."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize as scipy_minimize
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.linear_model import LogisticRegression

from jaxlin import losses
from jaxlin.core import LinearParams
from jaxlin.solvers import Status, certify, dual_gap, minimize, minimize_compiled, prove
from jaxlin.solvers.balance import mixing_that_balances
from jaxlin.solvers.certificate import dual_point
from jaxlin.solvers.dual_losses import Block, form_of, own_of
from jaxlin.solvers.krylov import conjugate_gradients, line_minimum
from jaxlin.solvers.problem import open_problem

IRIS = load_iris(return_X_y=True)
SMOOTH = ("softmax", "squared-hinge", "squared-one-vs-rest")


def blobs(seed=0, size=150, features=4, classes=3, spread=1.0):
    generator = np.random.default_rng(seed)
    labels = np.arange(size) % classes
    centers = generator.normal(size=(classes, features)) * spread
    return centers[labels] + generator.normal(size=(size, features)), labels


@pytest.fixture(scope="module")
def fits():
    """Of each loss and number of classes; what has the shapes of iris is compiled once."""
    return {
        (loss, classes): partial(minimize_compiled, classes=classes, loss=loss)
        for loss in SMOOTH
        for classes in (2, 3)
    }


@pytest.mark.parametrize("loss", SMOOTH)
@pytest.mark.parametrize("strength", [1.0, 1e-3, 1e-5])
def test_it_reaches_the_optimum_of_minimize(fits, loss, strength):
    solution = fits[loss, 3](*IRIS, strength=strength, tolerance=1e-9)
    reference = minimize(*IRIS, loss=loss, strength=strength, tolerance=1e-11)
    assert solution.status == Status.CONVERGED
    assert 0 <= solution.gap <= 1e-9 * solution.objective
    assert solution.lower_bound <= reference.objective
    assert reference.lower_bound <= solution.objective * (1 + 1e-13)  # its own rounding
    assert solution.iterations <= 40


def test_softmax_is_scikit_learns(fits):
    inputs, labels = IRIS
    solution = fits["softmax", 3](inputs, labels, strength=1 / 300, tolerance=1e-12)
    model = LogisticRegression(C=1.0, tol=1e-12, max_iter=10_000).fit(inputs, labels)
    # strength |dW|^2 <= gap of both: sqrt(2 * 1e-12 * 300)
    np.testing.assert_allclose(solution.params.weights, model.coef_, atol=3e-5)


def test_two_classes_are_scikit_learns_binary_problem(fits):
    inputs, labels = load_breast_cancer(return_X_y=True)
    inputs = (inputs - inputs.mean(0)) / inputs.std(0)
    # one w for two rows (w/2, -w/2) has half its penalty: strength = 1 / (C N)
    solution = fits["softmax", 2](inputs, labels, strength=1 / 569, tolerance=1e-12)
    model = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000).fit(inputs, labels)
    found = solution.params.weights[1] - solution.params.weights[0]
    np.testing.assert_allclose(found, model.coef_[0], atol=1e-4)


@pytest.mark.parametrize("loss", SMOOTH[:2])
def test_a_float32_gap_is_no_less_than_the_truth(fits, loss):
    """Thirty fits that stop at gaps from 1e-1 to the limit of float32, against a float64 proof."""
    fit = fits[loss, 3]
    for seed in range(6):
        inputs, labels = blobs(seed)
        inputs = inputs.astype(np.float32)
        strength = 10 ** np.random.default_rng(seed).uniform(-6, 0)
        best = minimize(inputs.astype(float), labels, loss=loss, strength=strength, tolerance=1e-11)
        for tolerance in (1e-1, 1e-2, 1e-3, 1e-4, 1e-7):
            solution = fit(inputs, labels, strength=strength, tolerance=tolerance)
            assert solution.gap.dtype == np.float32
            proved = prove(
                solution, inputs, labels, strength=strength, loss=loss, tolerance=tolerance
            )
            assert solution.gap >= proved.objective - best.objective
            assert proved.lower_bound <= best.objective
            # the objective it reports is off by rounding that its gap includes
            assert abs(float(solution.objective) - proved.objective) <= solution.gap
            if tolerance >= 1e-4:
                assert solution.status == proved.status == Status.CONVERGED
        assert solution.status == Status.PRECISION


@pytest.mark.parametrize("loss", SMOOTH)
def test_the_proof_is_that_of_certify(loss):
    """At arbitrary points: the bound of `certify` as far as both balance alike, and never above."""
    for seed in range(4):
        inputs, labels = blobs(seed)
        settings = dict(loss=loss, strength=0.01, sample_weight=None)
        best = minimize(inputs, labels, tolerance=1e-11, **settings)
        problem = open_problem(inputs, labels, **settings, classes=3)[0]
        generator = np.random.default_rng(seed)
        for spread in (0.0, 1e-4, 1e-2, 1.0, 20.0):
            weights = best.params.weights + spread * generator.normal(size=(3, 4))
            bias = best.params.bias + spread * generator.normal(size=3)
            solution = best._replace(params=LinearParams(weights, bias))
            found = prove(solution, inputs, labels, loss=loss, strength=0.01)
            theirs = certify(problem, weights, bias, exact=True)
            np.testing.assert_allclose(found.objective, theirs.objective, rtol=1e-13)
            assert found.lower_bound <= best.objective
            assert found.gap >= 0
            if theirs.lower_bound > 0 and spread < 1:
                np.testing.assert_allclose(found.lower_bound, theirs.lower_bound, rtol=1e-8)


def test_a_corrupted_solution_gets_a_large_gap(fits):
    solution = fits["softmax", 3](*IRIS, strength=1e-3, tolerance=1e-8)
    weights = np.array(solution.params.weights)
    weights[1, 2] += 1.0
    wrong = solution._replace(params=LinearParams(weights, solution.params.bias))
    proved = prove(wrong, *IRIS, strength=1e-3)
    assert proved.status == Status.PRECISION
    assert proved.gap >= 0.999 * (proved.objective - solution.objective) > 1e-3


def test_strengths_are_batched(fits):
    strengths = np.logspace(-4, 0, 5)
    fit = fits["softmax", 3]
    path = jax.jit(jax.vmap(lambda s: fit(*IRIS, strength=s, tolerance=1e-8)))(strengths)
    assert path.params.weights.shape == (5, 3, 4)
    assert (path.status == Status.CONVERGED).all()
    for i, strength in enumerate(strengths):
        alone = fit(*IRIS, strength=strength, tolerance=1e-8)
        np.testing.assert_allclose(path.objective[i], alone.objective, rtol=1e-8)


@pytest.mark.parametrize("loss", SMOOTH[:2])
def test_folds_are_weights(fits, loss):
    """Rows of weight 0 do not count, weight 2 is the row twice; one fold lacks a class."""
    inputs, labels = blobs(3, size=90)
    folds = np.ones((3, 90)) * (np.arange(90) % 3 != np.arange(3)[:, None])  # fold k lacks class k
    folds[1] = np.arange(90) % 2 + np.arange(90) % 3 % 2
    settings = dict(strength=1e-2, tolerance=1e-9)
    fit = fits[loss, 3]
    found = jax.jit(jax.vmap(lambda w: fit(inputs, labels, sample_weight=w, **settings)))(folds)
    for i, counts in enumerate(folds.astype(int)):
        rows = np.repeat(np.arange(90), counts)
        alone = minimize(inputs[rows], labels[rows], loss=loss, classes=3, **settings)
        assert found.status[i] == Status.CONVERGED
        np.testing.assert_allclose(found.objective[i], alone.objective, rtol=2e-9)
        # the absent class costs nothing where it is counted among the others
        params = jax.tree.map(lambda leaf, i=i: leaf[i], found.params)
        function = {"softmax": losses.softmax_cross_entropy,
                    "squared-hinge": losses.squared_weston_watkins_hinge}[loss]  # fmt: skip
        scores = inputs[rows] @ params.weights.T + params.bias[None, :]
        value = function(scores, jnp.asarray(labels[rows])).mean()
        value = value + 1e-2 * (params.weights**2).sum()
        np.testing.assert_allclose(value, found.objective[i], rtol=1e-9)
    if loss == "softmax":
        proved = prove(found, inputs, labels, strength=1e-2, sample_weight=folds, tolerance=1e-9)
        np.testing.assert_allclose(proved.objective, found.objective, rtol=1e-12)
        assert (proved.status == Status.CONVERGED).all()


def test_draws_are_batched_from_where_they_start(fits):
    """Inputs, labels and starts of equal shape; a start at the optimum takes no step."""
    draws = [blobs(seed, size=30, features=50, classes=3) for seed in range(4)]
    inputs, labels = (np.stack(part) for part in zip(*draws, strict=True))
    settings = dict(strength=1e-4, tolerance=1e-6)
    fit = fits["softmax", 3]
    bank = jax.jit(jax.vmap(lambda x, y, start: fit(x, y, init=start, **settings)))
    start = LinearParams(np.zeros((4, 3, 50)), np.zeros((4, 3)))
    cold = bank(inputs, labels, start)
    for i in range(4):
        alone = minimize(inputs[i], labels[i], strength=1e-4, tolerance=1e-9)
        assert alone.lower_bound <= cold.objective[i]
        assert cold.lower_bound[i] <= alone.objective
    warm = bank(inputs, labels, cold.params)
    assert (cold.iterations > 2).all()
    assert (warm.iterations == 0).all()
    assert (warm.evaluations < cold.evaluations).all()
    np.testing.assert_allclose(warm.objective, cold.objective, rtol=1e-12)


def test_fewer_rows_than_features_constant_ones_and_uneven_scales(fits):
    inputs, labels = blobs(10, size=100, features=6)
    scales = 10.0 ** np.array([-3, -2, 0, 1, 2, 3])
    hard = np.hstack([inputs * scales, np.ones((100, 1)), np.zeros((100, 1)), inputs[:, :1]])
    hard, labels = hard[:8], labels[:8]
    solution = fits["softmax", 3](hard, labels, strength=1e-4, tolerance=1e-6)
    reference = minimize(hard, labels, strength=1e-4, tolerance=1e-9)
    assert solution.status == Status.CONVERGED
    np.testing.assert_allclose(solution.objective, reference.objective, rtol=1e-6)


@pytest.mark.parametrize("loss", SMOOTH[2:])
def test_a_fixed_bias_stays_at_zero(loss):
    settings = dict(loss=loss, strength=0.01, fit_intercept=False, tolerance=1e-9)
    solution = minimize_compiled(*IRIS, classes=3, **settings)
    reference = minimize(*IRIS, **settings)
    assert not solution.params.bias.any()
    assert solution.status == Status.CONVERGED
    np.testing.assert_allclose(solution.objective, reference.objective, rtol=2e-9)
    proved = prove(solution, *IRIS, **settings)
    assert proved.status == Status.CONVERGED
    assert proved.lower_bound <= reference.objective


def test_why_it_stopped_is_said(fits):
    fit = fits["softmax", 3]
    limited = fit(*IRIS, strength=1e-4, max_iterations=2)
    assert (limited.status, limited.iterations) == (Status.MAX_ITERATIONS, 2)
    assert limited.gap > 1e-4 * limited.objective
    none = fit(*IRIS, strength=1e-4, max_iterations=0)
    np.testing.assert_allclose(none.objective, np.log(3), rtol=1e-12)
    assert fit(*IRIS, strength=0.0, max_iterations=5).status == Status.NO_PROOF
    broken = fit(np.where(IRIS[0] > 7, np.nan, IRIS[0]), IRIS[1], strength=0.1)
    assert broken.status != Status.CONVERGED


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (dict(loss="hinge"), ValueError, "`loss` must be smooth here, one of softmax"),
        (dict(strength=np.ones(2)), ValueError, "must be a scalar, got shape .2,.. Batch it"),
        (dict(sample_weight=np.ones(3)), ValueError, "one entry per row"),
        (dict(init=LinearParams(np.zeros((2, 4)), np.zeros(2))), ValueError, "`init` must hold"),
        (dict(classes=0), ValueError, "`classes` must be a positive integer"),
        (dict(labels=IRIS[1].astype(float)), TypeError, "integer classes"),
        (dict(labels=IRIS[1][:5]), ValueError, "one entry per row"),
        (dict(inputs=IRIS[0][0]), ValueError, "`inputs` must be"),
        (dict(inputs=IRIS[0].astype(complex)), TypeError, "floating or integer"),
    ],
)
def test_what_is_wrong_before_tracing_is_named(settings, error, message):
    everything = dict(inputs=IRIS[0], labels=IRIS[1], classes=3, strength=1.0) | settings
    inputs, labels = everything.pop("inputs"), everything.pop("labels")
    with pytest.raises(error, match=message):
        minimize_compiled(inputs, labels, **everything)


def test_what_must_be_static_is_named():
    with pytest.raises(TypeError, match="`classes` must be known while tracing"):
        jax.jit(lambda k: minimize_compiled(*IRIS, classes=k, strength=1.0))(3)


@pytest.mark.parametrize("xp", [np, jnp])
def test_conjugate_gradients_solve(xp):
    generator = np.random.default_rng(0)
    root = generator.normal(size=(12, 12))
    matrix, right = root @ root.T + np.eye(12), generator.normal(size=12)
    found, left, count, done = conjugate_gradients(
        xp,
        lambda v: matrix @ v,
        lambda v: v / np.diag(matrix),
        xp.asarray(right),
        lambda residual, square, start: square <= 1e-20 * start,
        40,
    )
    np.testing.assert_allclose(found, np.linalg.solve(matrix, right), rtol=1e-6)
    np.testing.assert_allclose(left, right - matrix @ found, atol=1e-9)
    assert 2 <= count <= 40
    assert done


@pytest.mark.parametrize("loss", SMOOTH)
def test_a_line_search_ends_lower_and_flat(loss):
    """Along steps a hundred times too short or too long, by differences."""
    generator = np.random.default_rng(0)
    form, labels = form_of(loss), generator.integers(0, 3, 40)
    own, counts = own_of(np, labels, 3), np.full(40, 1 / 40)
    scores, along = generator.normal(size=(2, 3, 40))
    linear, square = 0.1, 0.05

    def value(t):
        z = form.shortfalls(np, scores + t * along, own, 1.0)
        return (counts * form.loss(np, z, own)).sum() + linear * t + square * t**2

    slope = (value(1e-6) - value(-1e-6)) / 2e-6
    along, linear, slope = (-np.sign(slope) * part for part in (along, linear, slope))
    for scale in (0.01, 1.0, 100.0):
        step = scale * line_minimum(
            form, jnp.asarray(scores), scale * jnp.asarray(along), jnp.asarray(labels),
            jnp.asarray(counts), 1.0, scale * slope, scale * linear, scale**2 * square,
        )  # fmt: skip
        derivative = (value(step + 1e-6) - value(step - 1e-6)) / 2e-6
        assert abs(derivative) <= 0.1 * abs(slope) * 1.001
        assert value(step) < value(0.0)


def summed(form, block, f, *arguments):
    return f(jnp, form, block, *arguments)


@pytest.mark.parametrize("loss", SMOOTH)
def test_mass_is_moved_until_a_dual_point_balances(loss):
    """From maximizers at random scores, to rounding, without leaving the feasible set."""
    generator = np.random.default_rng(0)
    form, labels = form_of(loss), np.arange(60) % 3
    counts = generator.uniform(0.5, 1.5, 60)
    counts = jnp.asarray(counts / counts.sum())
    scores = jnp.asarray(generator.normal(size=(3, 60)) + np.array([[0.5], [0.0], [-0.5]]))
    block, nothing = Block(scores, jnp.asarray(labels), counts), jnp.zeros(3)
    a, own = dual_point(jnp, form, block, nothing, None)
    off = np.abs((form.residuals(jnp, a, own) * counts[None, :]).sum(1)).max()
    mixing = mixing_that_balances(jnp, form, partial(summed, form, block), nothing)
    a, _ = dual_point(jnp, form, block, nothing, mixing)
    left = np.abs((form.residuals(jnp, a, own) * counts[None, :]).sum(1)).max()
    assert left < 1e-14 < 1e-2 < off
    assert (a >= 0).all()
    if loss == "softmax":
        np.testing.assert_allclose(a.sum(0), 1, rtol=1e-14)


@pytest.mark.parametrize(("dtype", "most"), [(np.float64, 1e-14), (np.float32, 1e-6)])
def test_classes_that_fall_apart_balance_among_themselves(dtype, most):
    """Mass flows among classes 0 to 2 and, a thousand times less, 3 and 4; class 5 has no rows."""
    generator = np.random.default_rng(0)
    form, labels = form_of("squared-hinge"), np.arange(60) % 5
    own, group = own_of(jnp, labels, 6), np.array([0, 0, 0, 1, 1, 2])
    a = generator.uniform(0.5, 1.5, (6, 60)) * (group[:, None] == group[labels][None, :])
    a = np.where(own, 0, a * np.where(group == 1, 1e-3, 1)[:, None])
    # a = 2 max(0, z), z = s_k - s_y + 1, in pairs
    scores = jnp.asarray(np.where(own, 0, a / 2 - 1), dtype)
    counts = generator.uniform(0.5, 1.5, 60)
    counts = jnp.asarray(counts / counts.sum(), dtype)

    def off(a):
        of_class = np.abs((form.residuals(jnp, a, own) * counts[None, :]).sum(1))
        return of_class[:3].max(), of_class[3:].max()

    block, nothing = Block(scores, jnp.asarray(labels), counts), jnp.zeros(6, dtype)
    mixing = mixing_that_balances(jnp, form, partial(summed, form, block), nothing)
    before, after = (off(dual_point(jnp, form, block, nothing, m)[0]) for m in (None, mixing))
    assert min(before) > 4 * most
    assert max(after) < most


def test_a_dual_point_that_does_not_balance_proves_less(monkeypatch):
    """With nothing balanced, what is left times the farthest bias keeps the bound true."""
    monkeypatch.setattr(dual_gap, "balanced_bias", lambda *_, **__: jnp.zeros(3))
    monkeypatch.setattr(dual_gap, "mixing_that_balances", lambda *_: None)
    labels = jnp.asarray(np.repeat([0, 1, 2], [100, 30, 20]))
    masses = np.array([100, 30, 20]) / 150
    best = -(masses * np.log(masses)).sum()  # inputs that say nothing leave the bias alone
    counts, nothing = jnp.full(150, 1 / 150), jnp.zeros((150, 1))
    objective, gap = dual_gap.dual_gap(
        form_of("softmax"), nothing, labels, counts, jnp.ones(3, bool), jnp.zeros((3, 1)),
        jnp.zeros(3), 1e-3, 1.0, free=True,
    )  # fmt: skip
    assert objective - gap <= best < objective - 0.2


@pytest.mark.parametrize("loss", ["softmax", "squared-hinge", "squared-one-vs-rest"])
def test_offsets_are_parts_of_the_scores(loss):
    """A bound holds at the optimum that SciPy finds; what is constant by class moves the bias."""
    inputs, labels = blobs(4, size=60)
    offsets = np.random.default_rng(4).normal(size=(60, 3))
    settings = dict(classes=3, loss=loss, strength=1e-2, tolerance=1e-8)
    found = minimize_compiled(inputs, labels, offsets=offsets, **settings)
    function = {"softmax": losses.softmax_cross_entropy,
                "squared-hinge": losses.squared_weston_watkins_hinge,
                "squared-one-vs-rest": losses.squared_one_vs_rest_hinge}[loss]  # fmt: skip

    def objective(flat):
        weights, bias = flat[:12].reshape(3, 4), flat[12:]
        scores = jnp.asarray(inputs) @ weights.T + bias[None, :] + offsets
        return function(scores, jnp.asarray(labels)).mean() + 1e-2 * (weights**2).sum()

    least = scipy_minimize(
        jax.jit(jax.value_and_grad(objective)), np.zeros(15), jac=True, method="BFGS",
        options={"gtol": 1e-9},
    )  # fmt: skip
    at = jnp.concatenate([found.params.weights.ravel(), found.params.bias])
    assert float(found.objective) == pytest.approx(float(objective(at)), rel=1e-12)
    assert found.status == Status.CONVERGED
    # BFGS ends where rounding ends it, within 1e-12 or so of the optimum
    assert float(found.lower_bound) <= least.fun <= float(found.objective) * (1 + 1e-9)
    proved = prove(found, inputs, labels, strength=1e-2, loss=loss, offsets=offsets, tolerance=1e-6)
    assert proved.status == Status.CONVERGED
    assert proved.lower_bound <= least.fun
    by_class = np.array([3.0, -2.0, 0.5])
    moved = minimize_compiled(inputs, labels, offsets=offsets + by_class, **settings)
    np.testing.assert_allclose(moved.objective, found.objective, rtol=2e-8)
    # gaps of 1e-8 leave weights up to sqrt(1e-8 / strength) = 1e-3 apart
    np.testing.assert_allclose(moved.params.weights, found.params.weights, atol=2e-3)
    wide = np.pad(offsets, ((0, 0), (0, 1)), constant_values=9.0)  # of a class that no row has
    absent = minimize_compiled(inputs, labels, offsets=wide, **settings | {"classes": 4})
    scores = inputs @ np.asarray(absent.params.weights).T + np.asarray(absent.params.bias)
    scores[:, :3] += offsets
    assert (scores[:, 3] + 9.0 < scores[:, :3].max(1)).all()
    with pytest.raises(ValueError, match="`offsets` must have one entry per row and class"):
        minimize_compiled(inputs, labels, offsets=offsets[:, :2], **settings)
