"""A lower bound is a proof: it must hold at every point, and be sharp at the optimum."""

import jax
import numpy as np
import pytest
import scipy.sparse
from scipy.optimize import minimize as scipy_minimize
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression

from jaxlin import losses
from jaxlin.distributed.sharding import mesh
from jaxlin.solvers import certify, minimize
from jaxlin.solvers.dual_losses import FORMS, form_of, own_of
from jaxlin.solvers.problem import open_problem

LOSSES = list(FORMS)


def blobs(seed, size=30, features=3, classes=3):
    generator = np.random.default_rng(seed)
    labels = np.arange(size) % classes
    centers = generator.normal(size=(classes, features)) * generator.uniform(0, 3)
    return centers[labels] + generator.normal(size=(size, features)), labels


def problem_of(inputs, labels, **settings):
    return open_problem(inputs, labels, **settings)[0]


def loss_by_loop(name, scores, label, margin):
    """The definitions, one example at a time."""
    rivals = [scores[j] - scores[label] + margin for j in range(len(scores)) if j != label]
    signs = [1 if k == label else -1 for k in range(len(scores))]
    sides = [margin - t * s for t, s in zip(signs, scores, strict=True)]
    return {
        "softmax": logsumexp(scores) - scores[label],
        "hinge": sum(max(0, z) for z in rivals),
        "crammer-singer": max(0, *rivals),
        "one-vs-rest": sum(max(0, z) for z in sides),
        "squared-hinge": sum(max(0, z) ** 2 for z in rivals),
        "squared-crammer-singer": max(0, *rivals) ** 2,
        "squared-one-vs-rest": sum(max(0, z) ** 2 for z in sides),
    }[name]


def objective_by_loop(name, inputs, labels, weights, bias, strength, counts=None, margin=1.0):
    counts = np.ones(len(labels)) if counts is None else counts
    values = [
        loss_by_loop(name, weights @ x + bias, y, margin)
        for x, y in zip(inputs, labels, strict=True)
    ]
    return np.average(values, weights=counts) + strength * np.sum(weights**2)


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_is_the_maximum_over_its_dual_variables(name):
    """loss(s) = r(a) . s + gain(a) at the maximizer, and no feasible a gives more."""
    generator = np.random.default_rng(0)
    form, scores = FORMS[name], generator.normal(size=(4, 50)) * 2
    labels = generator.integers(0, 4, 50)
    own = own_of(np, labels, 4)
    z = form.shortfalls(np, scores, own, 1.0)
    truth = np.array([loss_by_loop(name, s, y, 1.0) for s, y in zip(scores.T, labels, strict=True)])
    np.testing.assert_allclose(form.loss(np, z, own), truth, rtol=1e-12)
    # smoothing 1e-7 moves the maximum by at most smoothing / 2 * |a|^2, and |a| <= 30 here
    a = form.maximizer(np, z, 1e-7, 0.0)
    value = (form.residuals(np, a, own) * scores).sum(0) + form.gain(np, a, own, 1.0)
    np.testing.assert_allclose(value, truth, atol=1e-4)
    for anchor in generator.normal(size=(20, 4, 50)) * 3:
        a = form.maximizer(np, form.shortfalls(np, anchor, own, 1.0), 1.0, 0.0)
        value = (form.residuals(np, a, own) * scores).sum(0) + form.gain(np, a, own, 1.0)
        assert (value <= truth + 1e-12).all()


@pytest.mark.parametrize("name", LOSSES)
def test_the_smoothed_second_derivative_is_that_of_finite_differences(name):
    generator = np.random.default_rng(1)
    form, labels = FORMS[name], generator.integers(0, 4, 40)
    own = own_of(np, labels, 4)
    anchor = form.maximizer(
        np, form.shortfalls(np, generator.normal(size=(4, 40)), own, 1.0), 1.0, 0.0
    )
    scores, direction = generator.normal(size=(2, 4, 40))

    def derivative(s):
        a = form.maximizer(np, form.shortfalls(np, s, own, 1.0), 0.7, anchor)
        return form.residuals(np, a, own), a

    h = 1e-6
    numeric = (derivative(scores + h * direction)[0] - derivative(scores - h * direction)[0]) / (
        2 * h
    )
    found = form.curve(np, form.bend(np, derivative(scores)[1], 0.7), own, direction)
    close = np.isclose(found, numeric, atol=1e-6).all(0)
    assert close.mean() > 0.99  # the rest lie within h of a kink


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("weighted", [False, True])
def test_no_bound_exceeds_the_optimum(name, weighted):
    """Hundreds of bounds: random problems, random points, random smoothing and anchors."""
    for seed in range(8):
        generator = np.random.default_rng(seed)
        inputs, labels = blobs(seed, size=24, classes=2 + seed % 3)
        counts = generator.integers(0, 4, len(labels)) * 1.0 if weighted else None
        if weighted:
            counts[: labels.max() + 1] = 1.0
        strength = 10 ** generator.uniform(-4, 0)
        settings = dict(loss=name, strength=strength, sample_weight=counts)
        best = minimize(inputs, labels, tolerance=1e-9, **settings)
        truth = objective_by_loop(name, inputs, labels, *best.params, strength, counts)
        np.testing.assert_allclose(best.objective, truth, rtol=1e-12)
        problem = problem_of(inputs, labels, **settings)
        zeros = np.zeros((problem.classes, problem.rows.size))
        for spread in (0.0, 1e-3, 0.1, 1.0, 5.0, 50.0):
            weights, bias = best.params
            found = certify(
                problem,
                weights + spread * generator.normal(size=weights.shape),
                bias + spread * generator.normal(size=bias.shape),
                smoothing=10 ** generator.uniform(-3, 1),
                anchor=0.0 if problem.form.smooth else zeros,
            )
            assert found.lower_bound <= truth
            assert found.objective >= best.lower_bound
            assert found.lower_bound >= 0


KINDS = {
    "dense on the host": (True, np.float64, lambda x: x),
    "sparse": (True, np.float64, scipy.sparse.csr_matrix),
    "dense on a device": (False, np.float64, lambda x: x),
    "integers": (False, np.float64, lambda x: x.astype(np.int64)),
    "on a mesh": (False, np.float64, lambda x: x),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["softmax", "hinge"])
def test_where_the_rows_lie_changes_neither_the_fit_nor_its_proof(name, kind, monkeypatch):
    """With a free bias the optimum does not depend on it: W (x + m) + b = W x + (b + W m).

    Whole numbers plus 2^26, about 7e7, are exact, so that both problems have one optimum to the
    last digit. Parameters of 1 and rows of 1e8 round the scores that are handed back by 1e-8 or so,
    far below the tolerance; from rows as they are the proof would be off by
    (60 * 2^-53 * 1e8)^2 / (4 strength), which is more than the objective.
    """
    host, dtype, made = KINDS[kind]
    monkeypatch.setattr("jaxlin.passes.opening.is_small", lambda *_, **__: host)
    monkeypatch.setattr("jaxlin.solvers.problem.newton_suits", lambda *_: host)
    inputs, labels = blobs(7, size=61, features=3)
    inputs = np.round(inputs * 8)
    settings = dict(loss=name, strength=1e-12, tolerance=1e-5, dtype=dtype)
    if kind == "on a mesh":
        settings["mesh"] = mesh()
    near = minimize(made(inputs), labels, **settings)
    far = minimize(made(inputs + 2.0**26), labels, **settings)
    assert far.gap <= 1e-5 * far.objective
    assert far.objective == pytest.approx(near.objective, rel=1e-5)
    scores = inputs @ far.params.weights.T
    scores = scores + far.params.bias + far.params.weights @ np.full(3, 2.0**26)
    own = own_of(np, labels, 3)
    z = form_of(name).shortfalls(np, scores.T, own, 1.0)
    loss = form_of(name).loss(np, z, own).mean()
    assert loss == pytest.approx(far.objective, rel=1e-5)  # and of the parameters handed back


def test_bounds_hold_wherever_the_rows_lie():
    inputs, labels = blobs(7, size=60, features=3)
    inputs, generator = np.round(inputs * 2.0**16) / 2.0**16, np.random.default_rng(0)
    near = minimize(inputs, labels, strength=1e-9, tolerance=1e-8)
    problem = problem_of(inputs + 2.0**26, labels, strength=1e-9)
    for spread in (1e-3, 0.1, 5.0):
        weights = near.params.weights + spread * generator.normal(size=(3, 3))
        assert certify(problem, weights, near.params.bias).lower_bound <= near.objective


@pytest.mark.parametrize("name", LOSSES)
def test_a_corrupted_solution_gets_a_large_gap(name):
    inputs, labels = blobs(3)
    problem = problem_of(inputs, labels, loss=name, strength=0.01)
    best = minimize(inputs, labels, loss=name, strength=0.01, tolerance=1e-8)
    weights = best.params.weights.copy()
    weights[0, 0] += 1.0
    found = certify(problem, weights, best.params.bias)
    rise = objective_by_loop(name, inputs, labels, weights, found.bias, 0.01) - best.objective
    assert rise > 1e-3
    assert found.objective - found.lower_bound >= 0.999 * rise


def test_the_softmax_optimum_is_scipys():
    inputs, labels = blobs(5, size=24, features=2, classes=3)

    def objective(flat):
        weights, bias = flat[:6].reshape(3, 2), flat[6:]
        return objective_by_loop("softmax", inputs, labels, weights, bias, 0.01)

    found = scipy_minimize(objective, np.zeros(9), method="BFGS", options={"gtol": 1e-6})
    solution = minimize(inputs, labels, strength=0.01, tolerance=1e-10)
    np.testing.assert_allclose(solution.objective, found.fun, rtol=1e-8)
    assert solution.lower_bound <= found.fun


def quadratic_program(name, inputs, labels, strength):
    """The hinges or their squares as a program with slacks, by a solver that knows none of this."""
    size, features = inputs.shape
    classes, power = labels.max() + 1, 2 if name.startswith("squared-") else 1
    name = name.removeprefix("squared-")
    unknowns = classes * (features + 1)
    rows, offsets, slack_of = [], [], []
    slack = 0
    for x, y in zip(inputs, labels, strict=True):
        ones = np.append(x, 1.0)
        for k in range(classes):
            row = np.zeros((classes, features + 1))
            if name == "one-vs-rest":
                row[k] = -ones if k == y else ones
            elif k == y:
                continue
            else:
                row[k], row[y] = ones, -ones
            rows.append(row.ravel())
            offsets.append(1.0)
            slack_of.append(slack)
            slack += name != "crammer-singer"
        slack += name == "crammer-singer"
    matrix, slack_of = np.array(rows), np.array(slack_of)
    spread = np.zeros((len(matrix), slack))
    spread[np.arange(len(matrix)), slack_of] = -1
    ridge = np.zeros((classes, features + 1))
    ridge[:, :-1] = strength

    def value(v):
        return (v[unknowns:] ** power).sum() / size + (ridge.ravel() * v[:unknowns] ** 2).sum()

    def slope(v):
        slacks = power * v[unknowns:] ** (power - 1) / size
        return np.concatenate([2 * ridge.ravel() * v[:unknowns], slacks])

    bounds = [(None, None)] * unknowns + [(0, None)] * slack
    constraint = {
        "type": "ineq",
        "fun": lambda v: -(matrix @ v[:unknowns] + spread @ v[unknowns:] + 1.0),
        "jac": lambda v: -np.hstack([matrix, spread]),
    }
    start = np.concatenate([np.zeros(unknowns), np.full(slack, 1.5)])
    return scipy_minimize(
        value,
        start,
        jac=slope,
        method="SLSQP",
        bounds=bounds,
        constraints=[constraint],
        options={"ftol": 1e-12, "maxiter": 500},
    ).fun


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "softmax"])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_hinges_optima_are_those_of_a_quadratic_program(name, seed):
    inputs, labels = blobs(seed, size=18, features=2)
    program = quadratic_program(name, inputs, labels, 0.02)
    solution = minimize(inputs, labels, loss=name, strength=0.02, tolerance=1e-8)
    np.testing.assert_allclose(solution.objective, program, rtol=1e-6)
    assert solution.lower_bound <= program * (1 + 1e-9)  # SLSQP stops at about 1e-10


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", ["softmax", "squared-hinge", "squared-one-vs-rest"])
def test_the_elastic_nets_optima_are_those_of_a_bounded_program(name, weighted):
    """W = P - M with P, M >= 0 makes the l1 penalty linear; by SciPy's L-BFGS-B."""
    inputs, labels = blobs(6, size=40, features=3)
    counts = np.random.default_rng(0).integers(1, 4, 40) if weighted else np.ones(40)
    loss, strength, l1 = losses.LOSSES[name], 0.01, 0.02

    @jax.jit
    @jax.value_and_grad
    def objective(v):
        plus, minus, bias = v[:9].reshape(3, 3), v[9:18].reshape(3, 3), v[18:]
        values = loss(inputs @ (plus - minus).T + bias[None], labels)
        mean = (counts * values).sum() / counts.sum()
        return mean + strength * ((plus - minus) ** 2).sum() + l1 * (plus + minus).sum()

    bounds = [(0, None)] * 18 + [(None, None)] * 3
    options = {"ftol": 1e-15, "gtol": 1e-9, "maxiter": 5000}
    found = scipy_minimize(
        objective, np.full(21, 0.1), jac=True, method="L-BFGS-B", bounds=bounds, options=options
    ).fun
    settings = dict(loss=name, strength=strength, l1_strength=l1, sample_weight=counts)
    solution = minimize(inputs, labels, tolerance=1e-7, **settings)
    # ours is within its tolerance, SciPy's within some 1e-9
    np.testing.assert_allclose(solution.objective, found, rtol=2e-7)
    for tolerance in (1e-7, 1e-4, 1e-2):
        solution = minimize(inputs, labels, tolerance=tolerance, **settings)
        assert solution.lower_bound <= found * (1 + 1e-12)


@pytest.mark.filterwarnings("ignore:Line search of Newton solver")  # L-BFGS ends it then
def test_of_a_thousand_random_problems_no_bound_exceeds_scikit_learns_objective():
    """What its Newton's method reaches is no less than the optimum, which it misses by 1e-10."""
    generator = np.random.default_rng(0)
    for seed in range(1000):
        classes = int(generator.integers(3, 6))
        size, features = int(generator.integers(2, 12)) * classes, int(generator.integers(1, 7))
        inputs, labels = blobs(seed, size, features, classes)
        counts = generator.uniform(0.1, 3, size)
        strength, tolerance = 10 ** generator.uniform(-5, 0), 10 ** generator.uniform(-8, -0.5)
        solution = minimize(
            inputs, labels, strength=strength, tolerance=tolerance, sample_weight=counts
        )
        model = LogisticRegression(
            C=1 / (2 * strength * counts.sum()), solver="newton-cholesky", tol=1e-10
        ).fit(inputs, labels, sample_weight=counts)
        scores = inputs @ model.coef_.T + model.intercept_
        values = logsumexp(scores, axis=1) - scores[np.arange(size), labels]
        theirs = np.average(values, weights=counts) + strength * np.sum(model.coef_**2)
        assert theirs * (1 - 1.01 * tolerance) - 1e-9 <= solution.lower_bound <= theirs


def test_a_function_of_losses_is_the_same_as_its_name():
    for function in (losses.weston_watkins_hinge, losses.squared_one_vs_rest_hinge):
        assert form_of(function) is form_of(form_of(function).name)
    with pytest.raises(ValueError, match="must be one of softmax"):
        form_of("huber")
