"""The verdict: what is wrong is found and named, what is right never fails."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlin import Batch, LinearParams
from jaxlin.gradients import GradientError, check_gradient, closed_form, linear_objective
from jaxlin.gradients.linear import margins_near_zero
from jaxlin.losses import LOSSES, named
from jaxlin.testing import assert_gradient

MODES = ("quick", "sampled", "full")
each_mode = pytest.mark.parametrize("mode", MODES)
BY_HAND = {
    "softmax": closed_form.softmax,
    "hinge": closed_form.weston_watkins,
    "crammer-singer": closed_form.crammer_singer,
    "one-vs-rest": closed_form.one_vs_rest,
}


def plain_problem(seed, *, scale=1.0, at="random", loss="softmax", strength=0.0, margin=1.0):
    """A NumPy objective of one matrix and its hand-derived gradient: nothing to compile."""
    rng = np.random.default_rng(seed)
    classes, features, rows = rng.integers(2, 6), rng.integers(1, 9), rng.integers(1, 30)
    inputs, labels = scale * rng.normal(size=(rows, features)), rng.integers(0, classes, rows)
    weights = rng.normal(size=(classes, features)) / scale * (at != "zero")
    options = {"strength": strength} | ({} if loss == "softmax" else {"margin": margin})

    def f(w):
        return BY_HAND[loss](w, None, inputs, labels, **options).value

    def gradient(w):
        return BY_HAND[loss](w, None, inputs, labels, **options).weights

    return f, weights, gradient


@pytest.mark.parametrize("seed", range(200))
def test_no_false_alarm_on_random_correct_problems(seed):
    rng = np.random.default_rng([7, seed])
    f, x, gradient = plain_problem(
        seed,
        scale=10.0 ** rng.integers(-4, 5),
        at=rng.choice(["random", "zero"]),
        loss=rng.choice(list(BY_HAND)),
        strength=float(rng.choice([0.0, 0.1])),
        margin=float(rng.choice([0.0, 1.0])),
    )
    mode = MODES[seed % 3]
    claim = gradient(x)
    if seed % 4 == 0:
        claim = claim.astype(np.float32)
    report = check_gradient(f, x, claim, mode=mode, key=seed)
    assert report.passed, str(report)
    assert all(entry.inside for entry in report.entries)
    assert (report.verdict == "kink") == bool(report.entries)


def flip(g, i):
    g[i] = -g[i]


def zero(g, i):
    g[i] = 0


def double(g, i):
    g[i] *= 2


def neighbour(g, i):
    g[i] = g[(i[0], i[1] - 1)]


@each_mode
@pytest.mark.parametrize("damage", [flip, zero, double, neighbour])
def test_one_wrong_entry_is_named(damage, mode):
    for seed in range(6):
        f, x, gradient = plain_problem(seed + 50)
        claim = gradient(x)
        index = np.unravel_index(np.abs(claim).argmax(), claim.shape)
        damage(claim, index)
        if np.isclose(claim[index], gradient(x)[index]):  # a lone column is its own neighbour
            continue
        report = check_gradient(f, x, claim, mode=mode)
        assert report.verdict == "fail"
        assert [entry.index for entry in report.entries] == [tuple(map(int, index))]
        (entry,) = report.entries
        assert entry.path == ""
        assert entry.analytic == claim[index]
        assert abs(entry.numeric - gradient(x)[index]) <= entry.error_bar
        assert report.order == pytest.approx(1, abs=0.05)


def test_one_wrong_entry_of_thirty_thousand_is_named_in_few_evaluations():
    rng = np.random.default_rng(0)
    inputs, labels = rng.normal(size=(20, 3073)), rng.integers(0, 10, 20)
    x = rng.random((10, 3073)) * 1e-3
    objective = linear_objective(LOSSES["softmax"], Batch(inputs, labels))
    claim = closed_form.softmax(x, None, inputs, labels).weights
    passed = check_gradient(objective, x, claim)
    assert passed.verdict == "pass"
    assert passed.evaluations < 200
    assert passed.miss_probability < 1e-3
    assert max(passed.smallest_error.values()) < 1e-3 * np.abs(claim).max()
    assert passed.order == pytest.approx(2, abs=0.05)
    claim[4, 1000] *= -1
    failed = check_gradient(objective, x, claim)
    assert [entry.index for entry in failed.entries] == [(4, 1000)]
    assert failed.evaluations < 1200


@each_mode
@pytest.mark.parametrize(
    ("block", "wrong"),
    [
        (lambda g, x: g - 0.2 * x, slice(None)),  # the regularizer
        (lambda g, x: g * 9, slice(None)),  # 1 / N
        (lambda g, x: g[[1, 0, *range(2, len(g))]], slice(0, 2)),  # rows
    ],
)
def test_wrong_blocks_are_found_and_only_wrong_entries_named(block, wrong, mode):
    f, x, gradient = plain_problem(3, strength=0.1)
    inside = np.zeros(x.shape, bool)
    inside[wrong] = True
    report = check_gradient(f, x, block(gradient(x), x), mode=mode)
    assert report.verdict == "fail"
    assert report.entries
    assert all(inside[entry.index] for entry in report.entries)
    if mode == "full":
        assert {entry.index for entry in report.entries} == {
            tuple(map(int, i)) for i in np.argwhere(inside)
        }


def test_a_missing_regularizer_is_recognized():
    f, x, gradient = plain_problem(3, strength=0.1)
    report = check_gradient(f, x, gradient(x) - 0.2 * x, mode="full")
    assert any("0.2 times x" in note for note in report.notes)


@each_mode
def test_a_forgotten_bias_is_named_by_its_path(mode):
    rng = np.random.default_rng(1)
    inputs, labels = rng.normal(size=(12, 4)), rng.integers(0, 3, 12)
    x = LinearParams(rng.normal(size=(3, 4)), rng.normal(size=3))
    f = lambda p: closed_form.softmax(*p, inputs, labels).value  # noqa: E731
    right = closed_form.softmax(*x, inputs, labels)
    claim = LinearParams(right.weights, 0 * right.bias)
    report = check_gradient(f, x, claim, mode=mode)
    assert report.verdict == "fail"
    assert {entry.path for entry in report.entries} == {".bias"}
    assert len(report.entries) == 3


@each_mode
@pytest.mark.parametrize("sign", [1, -1])
def test_a_kink_passes_with_a_subgradient_and_fails_without(sign, mode):
    f = lambda x: sign * float(np.abs(x[0]) + np.sum(x[1:] ** 2))  # noqa: E731
    x = np.array([0.0, 1.0, -2.0])
    for slope in (-1.0, 0.0, 0.5, 1.0):
        report = check_gradient(f, x, np.array([slope, sign * 2.0, sign * -4.0]), mode=mode)
        assert report.verdict == "kink"
        assert [entry.index for entry in report.entries] == [(0,)]
        entry = report.entries[0]
        assert (entry.left, entry.right) == pytest.approx((-sign, sign), abs=1e-6)
        assert entry.inside
        assert report.order is None
        report.raise_unless_passed()
        with pytest.raises(GradientError, match="KINK"):
            report.raise_unless_passed(strict=True)
    report = check_gradient(f, x, np.array([1.2, sign * 2.0, sign * -4.0]), mode=mode)
    assert report.verdict == "fail"
    assert [entry.index for entry in report.entries] == [(0,)]
    assert not report.entries[0].inside


@each_mode
@pytest.mark.parametrize("method", ["forward", "central", "richardson"])
def test_a_jump_of_the_second_derivative_is_no_error(method, mode):
    f = lambda x: float(np.sum(np.maximum(x, 0) ** 2 * np.arange(1, 5)))  # noqa: E731
    report = check_gradient(f, np.zeros(4), np.zeros(4), mode=mode, method=method)
    assert report.verdict == "pass", str(report)


@each_mode
def test_a_kink_beside_the_point_is_no_kink(mode):
    f = lambda x: float(np.sum(np.abs(x - 1e-7)))  # noqa: E731
    report = check_gradient(f, np.zeros(4), -np.ones(4), mode=mode)
    assert report.passed
    assert check_gradient(f, np.zeros(4), np.ones(4), mode=mode).verdict == "fail"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["softmax", "hinge", "crammer-singer", "one-vs-rest"])
def test_raw_pixels_at_zero_weights_raise_no_alarm(name, dtype):
    rng = np.random.default_rng(5)
    inputs, labels = rng.integers(0, 256, (30, 12)).astype(np.uint8), rng.integers(0, 5, 30)
    x = LinearParams(np.zeros((5, 12), dtype), np.zeros(5, dtype))
    for margin in (1,) if name == "softmax" else (0, 1):
        objective = linear_objective(named(name, margin=margin), Batch(inputs, labels))
        for mode in ("quick", "full"):
            report = check_gradient(objective, x, mode=mode)
            tied = name == "crammer-singer" or (margin == 0 and name != "softmax")
            assert report.verdict == ("kink" if tied else "pass"), str(report)


def test_margins_on_the_kink_are_counted():
    inputs, labels = np.ones((6, 3)), np.array([0, 1, 2, 0, 1, 2])
    tied = linear_objective(named("hinge", margin=0), Batch(inputs, labels))
    assert margins_near_zero(tied, np.zeros((3, 3)), 1e-9)[:2] == (12, 12)  # N (K - 1)
    apart = linear_objective(named("hinge"), Batch(inputs, labels))
    assert margins_near_zero(apart, np.zeros((3, 3)), 1e-9)[:2] == (0, 12)
    report = check_gradient(tied, np.zeros((3, 3)))
    assert (report.margins.near, report.margins.total) == (12, 12)
    assert "12 of 12" in str(report)


def test_custom_derivative_rules_are_judged():
    @jax.custom_jvp
    def f(x):
        return jnp.sum(x**2)

    f.defjvp(lambda p, t: (f(*p), jnp.sum(p[0] * t[0])))  # the factor 2 is missing
    report = check_gradient(f, jnp.array([1.0, -2.0]), mode="full")
    assert report.verdict == "fail"
    assert report.entries[0].analytic == pytest.approx(report.entries[0].numeric / 2)
    assert any("0.5 times the measured" in note for note in report.notes)


def test_a_gradient_that_is_not_a_number_is_named():
    f = lambda x: jnp.sum(jnp.where(x > 0, jnp.sqrt(jnp.where(x > -1, x, 1)), 0))  # noqa: E731
    report = check_gradient(f, jnp.array([1.0, -0.5]))
    assert report.verdict == "fail"
    assert [entry.index for entry in report.entries] == [(1,)]
    assert np.isnan(report.entries[0].analytic)
    json.loads(report.to_json())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_rounding_of_a_narrow_claim_is_no_error(dtype):
    x = jnp.linspace(0.1, 2, 9).astype(dtype)
    f = lambda x: jnp.mean(jnp.exp(x) * jnp.sin(3 * x))  # noqa: E731
    claim = jax.grad(f)(x)
    assert claim.dtype == dtype
    for mode in MODES:
        assert check_gradient(f, x, claim, mode=mode).verdict == "pass"
        assert check_gradient(f, x, claim.at[4].multiply(-1), mode=mode).verdict == "fail"


def test_the_gradient_of_a_gradient_is_checked_by_composition():
    f = lambda x: jnp.sum(jnp.sin(x) * x**2)  # noqa: E731
    x, v = jnp.linspace(0.5, 2, 5), jnp.linspace(-1, 1, 5)
    slope = lambda x: jax.grad(f)(x) @ v  # noqa: E731
    assert check_gradient(slope, x, lambda x: jax.hessian(f)(x) @ v).verdict == "pass"


def test_a_function_that_stays_in_float32_is_measured_with_its_noise():
    f = lambda x: jnp.sum(jnp.sin(x.astype(jnp.float32)))  # noqa: E731
    x = jnp.linspace(0, 1, 5)
    assert check_gradient(f, x, mode="full").verdict == "pass"
    assert check_gradient(f, x, 1.01 * jnp.cos(x), mode="full").verdict == "fail"


def test_noise_that_hides_the_slope_is_inconclusive():
    f = lambda x: float(1e6 + 1e-12 * x[0])  # noqa: E731
    noisy = lambda x: float(np.float32(1.0 + 1e-3 * np.sin(1e9 * x[0])) + 1e-9 * x[0])  # noqa: E731
    assert check_gradient(f, np.ones(1), np.array([1e-12])).verdict in ("pass", "inconclusive")
    report = check_gradient(noisy, np.ones(1), np.array([1e-9]))
    assert report.verdict != "pass" or max(report.smallest_error.values()) > 1e-9


def test_piecewise_linear_functions_have_no_taylor_rate():
    f = lambda x: float(np.sum(np.maximum(0, x)))  # noqa: E731
    report = check_gradient(f, np.array([1.0, -2.0, 3.0]), np.array([1.0, 0.0, 1.0]))
    assert report.verdict == "pass"
    assert report.order is None


def test_the_same_key_gives_the_same_report():
    f, x, gradient = plain_problem(1)
    a, b = (str(check_gradient(f, x, gradient, key=jax.random.key(3))) for _ in range(2))
    assert a == b


def test_sampled_mode_draws_from_every_leaf():
    x = {"bias": np.ones(2), "weights": np.ones((40, 50))}
    f = lambda x: float(np.sum(x["weights"] ** 2) + np.sum(x["bias"] ** 3))  # noqa: E731
    claim = {"bias": 3 * np.ones(2), "weights": 2 * np.ones((40, 50))}
    report = check_gradient(f, x, claim, mode="sampled", samples=10)
    assert report.checked == 12
    assert set(report.steps) == {"['bias']", "['weights']"}
    assert report.miss_probability == pytest.approx(1 - 12 / 2002)
    claim["bias"][1] = 0
    report = check_gradient(f, x, claim, mode="sampled", samples=10)
    assert [(entry.path, entry.index) for entry in report.entries] == [("['bias']", (1,))]


def test_the_report_as_json_has_what_a_reader_needs():
    f, x, gradient = plain_problem(2)
    report = check_gradient(f, x, -gradient(x), mode="full")
    value = json.loads(report.to_json())
    assert value["verdict"] == "fail"
    assert value["evaluations"] == report.evaluations > 4 * x.size
    keys = {"path", "index", "analytic", "numeric", "error_bar", "left", "right"}
    assert keys <= value["entries"][0].keys()
    sizes = [abs(e["analytic"] - e["numeric"]) for e in value["entries"]]
    assert sizes == sorted(sizes, reverse=True)
    assert report.max_relative_error == pytest.approx(2)


@pytest.mark.parametrize(
    ("f", "x", "gradient", "message"),
    [
        (lambda x: x, np.ones(3), None, "must return a scalar"),
        (jnp.sum, np.arange(3), None, "must be floating, got int64"),
        (jnp.sum, (), None, "holds no numbers"),
        (jnp.sum, np.ones(2) * 1j, None, "must return a real number, got complex128"),
        (jnp.sum, {"w": np.ones((2, 3))}, {"w": np.ones((3, 2))}, r"leaf \['w'\].*\(2, 3\)"),
        (jnp.sum, {"w": np.ones(2)}, {"v": np.ones(2), "w": np.ones(2)}, r"\['v'\]"),
        (lambda x: jnp.sum(jnp.log(x)), np.array([1.0, -1.0]), None, "is nan at the point"),
        (lambda x: jnp.sum(jnp.sqrt(x)), np.array([1.0, 0.0]), None, r"near it, where \[1\]"),
        (lambda x: float(np.sum(np.asarray(x))), np.ones(2), None, "pass the claimed gradient"),
    ],
)
def test_bad_input_is_one_sentence(f, x, gradient, message):
    if f is jnp.sum and isinstance(x, dict):
        f = lambda x: jnp.sum(x["w"])  # noqa: E731
    with pytest.raises((TypeError, ValueError), match=message):
        check_gradient(f, x, gradient)


def test_randomness_is_reported_as_such():
    rng = np.random.default_rng(0)
    f = lambda x: float(np.sum(x**2) + 1e-3 * rng.normal())  # noqa: E731
    with pytest.raises(ValueError, match="not deterministic: two evaluations"):
        check_gradient(f, np.ones(2), 2 * np.ones(2))


def test_x64_may_be_off():
    with jax.enable_x64(False):
        x = jnp.linspace(0, 1, 5, dtype=jnp.float32)
        report = check_gradient(lambda x: jnp.sum(jnp.sin(x)), x)
        assert report.verdict == "pass"
        assert report.precision.startswith("float64")
        assert jnp.ones(1).dtype == jnp.float32


def test_assert_gradient_says_what_is_wrong_and_where():
    f, x, gradient = plain_problem(2)
    assert assert_gradient(f, x, gradient).verdict == "pass"
    wrong = gradient(x)
    wrong[1, 0] += 1
    with pytest.raises(AssertionError, match=r"FAIL[\s\S]*\[1, 0\]"):
        assert_gradient(f, x, wrong, mode="full")
    kink = lambda x: float(np.sum(np.abs(x)))  # noqa: E731
    assert_gradient(kink, np.zeros(2), np.zeros(2))
    with pytest.raises(AssertionError):
        assert_gradient(kink, np.zeros(2), np.zeros(2), strict=True)
