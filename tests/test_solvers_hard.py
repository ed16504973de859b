"""Data that are hard: separable, ill-scaled, wide, sparse, of one class or of very many."""

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
from sklearn.datasets import load_digits, load_iris, load_wine
from sklearn.linear_model import LogisticRegression

from jaxlin import losses
from jaxlin.core import LinearParams
from jaxlin.solvers import Status, certify, describe, minimize, minimize_compiled
from jaxlin.solvers.dual_losses import FORMS
from jaxlin.solvers.problem import open_problem


@pytest.mark.parametrize("name", list(FORMS))
def test_separable_data_without_regularizer_are_said_to_be_so(name):
    inputs = np.array([[-2.0], [-1.0], [1.0], [2.0]])
    solution = minimize(inputs, np.array([0, 0, 1, 1]), loss=name, strength=0.0)
    assert solution.status == Status.SEPARABLE
    assert "no optimum" in describe(solution.status)


def test_overlapping_data_without_regularizer_stop_without_a_proof(blobs):
    inputs, labels = blobs(8, spread=0.3)
    solution = minimize(inputs, labels, strength=0.0)
    model = LogisticRegression(C=1e12, tol=1e-10, max_iter=10_000).fit(inputs, labels)
    assert solution.status == Status.NO_PROOF
    assert solution.lower_bound == 0
    scores = inputs @ model.coef_.T + model.intercept_
    theirs = losses.softmax_cross_entropy(scores, labels).mean()
    np.testing.assert_allclose(solution.objective, float(theirs), rtol=1e-6)


def linear_program(inputs, labels, *, slack_per_row):
    """The least mean hinge by HiGHS: Crammer-Singer with a slack per row, else Weston-Watkins."""
    size, features = inputs.shape
    classes = labels.max() + 1
    pairs = [(i, j) for i in range(size) for j in range(classes) if j != labels[i]]
    slacks = [i for i, _ in pairs] if slack_per_row else range(len(pairs))
    unknowns = classes * (features + 1)
    leads = np.zeros((len(pairs), unknowns + max(slacks) + 1))
    for row, ((i, j), slack) in enumerate(zip(pairs, slacks, strict=True)):
        for k, sign in ((j, 1), (labels[i], -1)):
            leads[row, k * (features + 1) : (k + 1) * (features + 1)] = sign * np.append(
                inputs[i], 1
            )
        leads[row, unknowns + slack] = -1
    costs = np.zeros(leads.shape[1])
    costs[unknowns:] = 1 / size
    free = [(None, None)] * unknowns + [(0, None)] * (len(costs) - unknowns)
    return scipy.optimize.linprog(costs, leads, -np.ones(len(pairs)), bounds=free).fun


@pytest.mark.parametrize("name", ["hinge", "crammer-singer"])
@pytest.mark.parametrize("scales", [1.0, [1e-2, 1.0, 10.0, 1e3]])
def test_a_hinge_without_regularizer_is_the_linear_programs(name, scales):
    """Iris, of which one class is apart: the optimum is attained all the same."""
    inputs, labels = load_iris(return_X_y=True)
    solution = minimize(inputs * scales, labels, loss=name, strength=0.0)
    assert solution.status == Status.NO_PROOF
    expected = linear_program(inputs, labels, slack_per_row=name == "crammer-singer")
    # the gap of the last penalty, and the penalty itself: a tolerance each
    assert expected * (1 - 1e-9) <= solution.objective <= expected * (1 + 2.1e-4)


@pytest.mark.parametrize("name", ["hinge", "crammer-singer", "one-vs-rest"])
def test_separable_features_of_different_scales_are_said_to_be_so(name):
    """Wine's span five orders of magnitude, and its classes are separable."""
    solution = minimize(*load_wine(return_X_y=True), loss=name, strength=0.0)
    assert solution.status == Status.SEPARABLE
    assert solution.objective == 0


def test_a_class_apart_leaves_softmax_without_an_optimum():
    """Iris: setosa is apart, the others overlap."""
    inputs, labels = load_iris(return_X_y=True)
    solution = minimize(inputs, labels, strength=0.0)
    assert solution.status == Status.SEPARABLE
    assert solution.objective > 0.03
    overlapping = minimize(inputs[50:], labels[50:] - 1, strength=0.0)
    assert overlapping.status == Status.NO_PROOF
    # setosa's part of the loss is near 0, its infimum
    np.testing.assert_allclose(solution.objective, overlapping.objective * 2 / 3, rtol=1e-6)


TIED = np.array([[-2.0], [-1.0], [0.0], [0.0], [1.0], [2.0]])
"""The rows at 0 are of either class; along the axis all others are parted, and these tie."""


@pytest.mark.parametrize("kind", [np.float64, np.float32, scipy.sparse.csr_matrix], ids=str)
def test_examples_apart_leave_softmax_without_an_optimum(kind):
    """The infimum, on paper: log 2 for the two rows that tie, 0 for the other four."""
    inputs = kind(TIED) if kind is scipy.sparse.csr_matrix else TIED.astype(kind)
    solution = minimize(inputs, np.array([0, 0, 0, 1, 1, 1]), strength=0.0)
    assert solution.status == Status.SEPARABLE
    np.testing.assert_allclose(solution.objective, np.log(2) / 3, rtol=1e-5)


@pytest.mark.parametrize("classes", [2, 3])
def test_an_indicator_of_some_rows_of_a_class_parts_them(classes, blobs):
    """Only rows of the last class have it: they cost nothing in the end, the others as alone."""
    inputs, labels = blobs(8, size=90, spread=0.3, classes=classes)
    flagged = np.flatnonzero(labels == classes - 1)[:7]
    indicator = np.zeros((90, 1))
    indicator[flagged] = 1e4
    solution = minimize(np.hstack([inputs, indicator]), labels, strength=0.0)
    assert solution.status == Status.SEPARABLE
    rest = np.setdiff1d(np.arange(90), flagged)
    alone = minimize(inputs[rest], labels[rest], strength=0.0)
    assert alone.status == Status.NO_PROOF
    np.testing.assert_allclose(solution.objective, alone.objective * 83 / 90, rtol=1e-5)
    indicator[[np.flatnonzero(labels == k)[0] for k in range(classes)]] = 1e4  # all classes have it
    shared = minimize(np.hstack([inputs, indicator]), labels, strength=0.0)
    assert shared.status == Status.NO_PROOF


def test_what_parts_examples_depends_on_the_intercept_and_on_the_rows_that_count():
    inputs, labels = np.array([[1.0], [2.0]]), np.array([0, 1])  # parted at 1.5, not at 0
    free = minimize(inputs, labels, strength=0.0, fit_intercept=False)
    assert free.status == Status.NO_PROOF
    assert minimize(inputs, labels, strength=0.0).status == Status.SEPARABLE
    stray = np.vstack([TIED, [[-3.0], [3.0]]]), np.array([0, 0, 0, 1, 1, 1, 1, 0])
    assert minimize(*stray, strength=0.0).status == Status.NO_PROOF
    left_out = minimize(*stray, strength=0.0, sample_weight=np.r_[np.ones(6), np.zeros(2)])
    assert left_out.status == Status.SEPARABLE


def test_rounding_parts_no_examples(blobs):
    """A constant that some rows of one class hold one unit in the last place higher."""
    inputs, labels = blobs(8, spread=0.3)
    constant = np.full((60, 1), 1e3)
    constant[np.flatnonzero(labels == 2)[:7]] = np.nextafter(1e3, 2e3)
    solution = minimize(np.hstack([inputs, constant]), labels, strength=0.0, max_iterations=50)
    assert solution.status != Status.SEPARABLE


@pytest.mark.parametrize("weight", [5e-324, 1e-300, 1e300, 1.7e308])
@pytest.mark.parametrize("name", ["softmax", "hinge"])
def test_weights_of_any_size_are_normalized(name, weight, blobs):
    """Alike for all rows they change nothing, also where their sum is no number of float64."""
    inputs, labels = blobs(8)
    plain = minimize(inputs, labels, loss=name, strength=0.01)
    weighted = minimize(inputs, labels, loss=name, strength=0.01, sample_weight=np.full(60, weight))
    # counts of 1 / 60, rounded once more or less
    np.testing.assert_allclose(weighted.params.weights, plain.params.weights, atol=1e-9)
    assert weighted.status == Status.CONVERGED


def test_an_absent_class_costs_nothing(blobs):
    inputs, labels = blobs(9)
    labels = np.where(labels == 2, 4, labels)
    for name in FORMS:
        full = minimize(inputs, labels, loss=name, strength=0.1, classes=6, tolerance=1e-6)
        few = minimize(inputs, np.minimum(labels, 2), loss=name, strength=0.1, tolerance=1e-6)
        np.testing.assert_allclose(full.objective, few.objective, rtol=1e-5)
        by_hand = certify(
            open_problem(
                inputs,
                labels,
                loss=name,
                strength=0.1,
                fit_intercept=False,  # keeps all six classes
                classes=6,
            )[0],
            *full.params,
        )
        np.testing.assert_allclose(by_hand.objective, full.objective, rtol=1e-6)


def test_a_single_class_is_learned_at_no_cost():
    for name in FORMS:
        solution = minimize(np.ones((3, 2)), np.zeros(3, int), loss=name, strength=0.1)
        assert solution.status == Status.CONVERGED
        assert solution.objective == 0


def test_features_of_any_scale_and_constant_ones_are_no_obstacle(blobs):
    inputs, labels = blobs(10, size=100, features=6)
    scales = 10.0 ** np.array([-3, -2, 0, 1, 3, 4])
    hard = np.hstack([inputs * scales, np.ones((100, 1)), np.zeros((100, 1)), inputs[:, :1]])
    solution = minimize(hard, labels, strength=1e-4, tolerance=1e-5)
    assert solution.status == Status.CONVERGED


@pytest.mark.parametrize("name", [name for name in FORMS if name != "softmax"])
def test_hinges_of_features_of_any_scale_are_certified(name):
    """Penalized alike, the largest features are all but free and the smallest all but absent."""
    inputs, labels = load_digits(return_X_y=True)
    scales = 10.0 ** np.random.default_rng(0).uniform(-4, 4, 64)
    hard = (inputs[:200] / 16 * scales, labels[:200])
    solution = minimize(*hard, loss=name, strength=1e-4, tolerance=1e-3, max_iterations=200)
    assert solution.status == Status.CONVERGED


@pytest.mark.parametrize("name", ["squared-hinge", "squared-one-vs-rest"])
def test_squared_hinges_of_separable_data_with_a_weak_penalty_are_certified(name):
    inputs, labels = load_digits(return_X_y=True)
    few, settings = (inputs[:200] / 16, labels[:200]), dict(loss=name, max_iterations=300)
    weak = minimize(*few, strength=1e-6, **settings)
    assert weak.status == Status.CONVERGED
    free = minimize(*few, strength=0, **settings)
    assert free.status == Status.SEPARABLE
    assert free.objective == 0


def test_what_a_second_method_reports_is_no_worse_than_the_first():
    inputs, labels = load_digits(return_X_y=True)
    seen = []
    solution = minimize(
        inputs[:200] / 16,
        labels[:200],
        loss="squared-hinge",
        strength=1e-6,
        callback=lambda *found: seen.append(found),
    )
    evaluations, objectives, bounds = np.transpose(seen)
    for rising in (evaluations, -objectives, bounds):
        assert np.all(np.diff(rising) >= 0)
    # the last report is of parameters not yet rounded to float64's neighbors on the way back
    np.testing.assert_allclose(objectives[-1], solution.objective, rtol=1e-9)


def test_fewer_rows_than_features():
    generator = np.random.default_rng(11)
    inputs, labels = generator.normal(size=(20, 300)), np.arange(20) % 3
    for name in ("softmax", "hinge"):
        solution = minimize(inputs, labels, loss=name, strength=0.01, tolerance=1e-5)
        assert solution.status == Status.CONVERGED


def test_sparse_inputs_reach_the_dense_optimum():
    generator = np.random.default_rng(12)
    dense = generator.normal(size=(80, 30)) * (generator.uniform(size=(80, 30)) < 0.2)
    labels = np.arange(80) % 4
    for kind in (scipy.sparse.csr_matrix, scipy.sparse.csc_array):
        sparse = minimize(kind(dense), labels, strength=0.01, tolerance=1e-8)
        whole = minimize(dense, labels, strength=0.01, tolerance=1e-8)
        np.testing.assert_allclose(sparse.objective, whole.objective, rtol=1e-8)


def test_many_classes(blobs):
    inputs, labels = blobs(13, size=400, features=8, classes=100, spread=3.0)
    solution = minimize(inputs, labels, strength=1e-3)
    assert solution.status == Status.CONVERGED


def test_a_hessian_of_too_few_rows_takes_more(monkeypatch, blobs):
    """100 sampled rows miss curvature of 903 unknowns: a step that shows it asks for more."""
    from jaxlin.solvers import newton, proximal_point

    monkeypatch.setattr(newton, "BENDING_ROWS", 100)
    monkeypatch.setattr(proximal_point, "suits_interior", lambda problem: False)
    inputs, labels = blobs(3, size=4000, features=300, classes=3, spread=0.2)
    settings = dict(loss="hinge", strength=1e-3, tolerance=1e-3, max_iterations=40)
    assert minimize(inputs.astype(np.float32), labels, **settings).status == Status.CONVERGED
    monkeypatch.setattr(newton, "MISSED", np.inf)  # never learns
    assert minimize(inputs.astype(np.float32), labels, **settings).status != Status.CONVERGED


def test_quasi_newton_steps_save_passes_where_most_rows_bend(monkeypatch, blobs):
    """Noise: every row stays near a kink, so that a Newton system is over all of them."""
    from jaxlin.solvers import proximal_point

    inputs, labels = blobs(5, size=2500, features=300, classes=4, spread=0.05)
    settings = dict(loss="hinge", strength=1e-2, tolerance=1e-3)
    mixed = minimize(inputs.astype(np.float32), labels, **settings)
    monkeypatch.setattr(proximal_point, "DEAR", np.inf)  # Newton throughout
    newton = minimize(inputs.astype(np.float32), labels, **settings)
    assert mixed.status == newton.status == Status.CONVERGED
    assert mixed.lower_bound <= newton.objective
    assert newton.lower_bound <= mixed.objective
    assert mixed.evaluations < 0.8 * newton.evaluations


def test_samples_of_any_number_of_rows_share_few_programs(monkeypatch, blobs):
    """Ever fewer rows bend as a hinge is solved, and every size would be compiled anew."""
    from jaxlin.solvers import curvature, preconditioner

    monkeypatch.setattr("jaxlin.passes.opening.SMALL_PROBLEM", 0)
    sizes, real = [], preconditioner.two_level_preconditioner

    def counted(problem, spectrum, sample, bends):
        sizes.append((len(sample.weights), np.count_nonzero(sample.weights)))
        return real(problem, spectrum, sample, bends)

    monkeypatch.setattr("jaxlin.solvers.newton.two_level_preconditioner", counted)
    before = curvature._dense_blocks_compiled._cache_size()
    inputs, labels = blobs(6, size=1500, features=9, classes=3)
    solution = minimize(inputs.astype(np.float32), labels, loss="hinge", strength=1e-3)
    assert solution.status == Status.CONVERGED
    filled, bending = (len(set(found)) for found in zip(*sizes, strict=True))
    assert bending >= 5
    assert filled <= 3  # 512, 768 (1.5^16.4), 1,478: sizes that grow by a half, up to 1,500
    assert curvature._dense_blocks_compiled._cache_size() - before <= filled


def overlapping(kind):
    """Three classes that overlap, and what stands beside them: columns that are one number."""
    rng = np.random.default_rng(5)
    labels = np.arange(150) % 3
    plain = rng.normal(size=(150, 4)) + rng.normal(size=(3, 4))[labels]
    if kind == "uint8":
        plain = np.clip(plain * 20 + 128, 0, 255).astype(np.uint8)
        return plain, np.hstack([plain, np.full((150, 1), 255, np.uint8)]), labels
    # 0.1 and 1/3 are rounded, so that their means are off in the last digits
    constant = np.ones((150, 1)) * [[1.0, 0.1, 1e6 / 3]]
    dtype = np.float32 if kind == "float32" else np.float64
    wide = np.hstack([plain, constant]).astype(dtype)
    plain = plain.astype(dtype)
    if kind == "sparse":
        return scipy.sparse.csr_matrix(plain), scipy.sparse.csr_matrix(wide), labels
    return plain, wide, labels


@pytest.mark.parametrize("kind", ["float64", "float32", "uint8", "sparse"])
@pytest.mark.parametrize("strength", [0.0, 1e-30, 1e-4])
@pytest.mark.parametrize("name", ["softmax", "squared-hinge", "squared-one-vs-rest"])
def test_a_constant_column_beside_a_free_bias_changes_nothing(name, strength, kind):
    """w c + b is one number: with a penalty or without one, the best has w = 0, or may have it."""
    plain, wide, labels = overlapping(kind)
    settings = dict(loss=name, strength=strength, max_iterations=300)
    without, found = (minimize(rows, labels, **settings) for rows in (plain, wide))
    # both stop at the same optimum, as near as a gap of 1e-4 or a gradient of 1e-6 tells
    assert found.objective == pytest.approx(without.objective, rel=1e-4 if strength > 0 else 1e-6)
    assert found.status == without.status != Status.MAX_ITERATIONS
    assert found.iterations <= 2 * without.iterations + 20
    more = wide.shape[1] - plain.shape[1]
    shares = np.abs(found.params.weights[:, -more:]) * abs(wide[[0]][:, -more:]).max()
    assert shares.max() <= 1e-6 * np.abs(found.params.bias).max() + 1e-6


@pytest.mark.parametrize(
    ("name", "kind"),
    [("softmax", "float64"), ("softmax", "float32"), ("squared-hinge", "float32")],
)
def test_a_compiled_fit_does_not_see_a_constant_column_either(name, kind):
    plain, wide, labels = overlapping(kind)
    settings = dict(loss=name, classes=3, strength=1e-30)
    without, found = (minimize_compiled(rows, labels, **settings) for rows in (plain, wide))
    assert float(found.objective) == pytest.approx(float(without.objective), rel=1e-5)
    assert np.abs(found.params.weights[:, -3:]).max() <= 1e-5


@pytest.mark.parametrize("strength", [0.1, 1.7, 10.0])
def test_a_bias_that_no_row_bends_is_no_obstacle(strength):
    # With a strong penalty all margins are violated: the hinge is linear, and flat in the bias.
    generator = np.random.default_rng(0)
    inputs, labels = generator.normal(size=(3000, 300)), generator.integers(0, 4, 3000)
    fit = minimize(inputs, labels, loss="hinge", strength=strength)
    assert fit.status == Status.CONVERGED
    # No weights at all cost a margin for each of the three wrong classes.
    assert fit.lower_bound <= fit.objective <= min(fit.lower_bound * (1 + 1e-4), 3.0)


@pytest.mark.parametrize("free", [True, False])
@pytest.mark.parametrize("loss", ["hinge", "one-vs-rest", "squared-crammer-singer"])
def test_next_to_no_penalty_of_a_loss_with_kinks_still_ends_at_the_optimum(loss, free):
    """Where rounding hides any proof the status says so, and a wider penalty finds nothing better.

    With weights W of another strength s the objective at 1e-30 is theirs less s |W|^2, but for
    1e-30 |W|^2; their own is within 1e-6 of what their penalty leaves.
    """
    rng = np.random.default_rng(3)
    labels = np.arange(60) % 3
    inputs = rng.normal(size=(3, 2))[labels] + 2 * rng.normal(size=(60, 2))
    inputs = np.hstack([inputs, inputs[:, :1]])  # of features that are alike only a sum is known
    settings = dict(loss=loss, fit_intercept=free)
    faint = minimize(inputs, labels, strength=1e-30, **settings)
    other = minimize(inputs, labels, strength=1e-8, tolerance=1e-7, **settings)
    assert faint.status == Status.PRECISION
    least = other.objective - 1e-8 * np.sum(other.params.weights**2)
    assert faint.objective == pytest.approx(least, rel=1e-6)


def test_a_feature_that_varies_in_its_last_digits_is_fitted_as_what_varies():
    """Its values less 7 are exact, and without a penalty their scale changes nothing."""
    inputs, labels = load_iris(return_X_y=True)
    inputs, labels = inputs[50:], labels[50:] - 1
    noise = np.random.default_rng(0).normal(size=(100, 1))
    far = 7 * (1 + 1e-13 * noise)
    near = minimize(np.hstack([inputs, 2.0**40 * (far - 7)]), labels, strength=0.0)
    found = minimize(np.hstack([inputs, far]), labels, strength=0.0)
    # weights of 1e12 are handed back with a bias of 1e13, whose rounding is 1e-3 of a score: its
    # square, of a share of the rows, is what the objective is off
    assert found.objective == pytest.approx(near.objective, rel=1e-4)
    assert found.iterations < 200


@pytest.mark.parametrize("far", [1.0, 1e8])
def test_a_start_far_out_ends_at_the_same_optimum(far):
    """Where all rows are far on one side or the other nothing bends, and no Newton step is near."""
    inputs, labels = load_iris(return_X_y=True)
    settings = dict(strength=1e-4, tolerance=1e-6)
    right = minimize(inputs, labels, **settings)
    start = LinearParams(far * np.outer([1.0, -1.0, 0.3], np.ones(4)), far * np.array([3.0, 0, 1]))
    found = minimize(inputs, labels, init=start, **settings)
    assert found.status == Status.CONVERGED
    assert found.objective == pytest.approx(right.objective, rel=2e-6)
