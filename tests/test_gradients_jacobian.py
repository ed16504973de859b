"""Jacobians and the rules of both modes: right ones pass, wrong ones are named, by output."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlin.gradients import check_jacobian, check_jvp, check_vjp

each_mode = pytest.mark.parametrize("mode", ["quick", "sampled", "full"])


def problem(seed, outputs, inputs):
    """scale_i * tanh(A x)_i as a NumPy function, x, and the Jacobian by the chain rule."""
    rng = np.random.default_rng(seed)
    matrix, scale = rng.normal(size=(outputs, inputs)), 10.0 ** rng.uniform(-6, 6, outputs)
    x = rng.normal(size=inputs) / np.sqrt(inputs)
    f = lambda x: scale * np.tanh(matrix @ x)  # noqa: E731
    return f, x, (scale / np.cosh(matrix @ x) ** 2)[:, None] * matrix


@each_mode
@pytest.mark.parametrize("outputs", [1, 5, 40])
def test_right_jacobians_pass_and_a_flipped_entry_is_named(outputs, mode):
    for seed in range(2):
        f, x, right = problem(seed, outputs, 6)
        for claim in (right, right.astype(np.float32)):
            report = check_jacobian(f, x, claim, mode=mode, samples=10**6, key=seed)
            assert report.verdict == "pass", str(report)
            assert report.parameters == right.size
        i = int(np.argmin(np.abs(right).max(axis=1)))  # the output of the smallest scale
        j = int(np.argmax(np.abs(right[i])))
        wrong = right.copy()
        wrong[i, j] *= -1
        report = check_jacobian(f, x, wrong, mode=mode, samples=10**6, key=seed)
        assert report.verdict == "fail"
        (entry,) = report.entries
        assert entry.name == f"df[{i}]/dx[{j}]"
        assert (entry.output_index, entry.index, entry.analytic) == ((i,), (j,), wrong[i, j])
        assert abs(entry.numeric - right[i, j]) <= entry.error_bar


def test_many_outputs_cost_few_evaluations_and_miss_as_rarely_as_stated():
    f, x, right = problem(7, 300, 8)
    report = check_jacobian(f, x, right)
    assert report.verdict == "pass"
    assert report.combinations == 24
    assert report.miss_probability == 2.0**-11  # 2^-(2/3 of 18 lines) + 2^-(half of 24)
    assert report.evaluations < 400
    rng, found, tries = np.random.default_rng(0), 0, 40
    f, x, right = problem(8, 30, 3)
    for seed in range(tries):
        wrong = right.copy()
        wrong[rng.integers(30), rng.integers(3)] *= -1
        few = check_jacobian(f, x, wrong, directions=6, combinations=6, key=seed)
        assert few.verdict in ("pass", "fail")
        found += few.verdict == "fail"
    # Stated: missed at most 2^-4 + 2^-3 = 0.1875. More than 17 misses of 40 have probability 1e-4.
    assert found >= tries - 17


def test_outputs_that_cancel_or_repeat_raise_no_alarm():
    x = np.array([0.7, -0.3])
    one = lambda x: float(np.exp(x[0] * x[1]))  # noqa: E731
    slope = one(x) * x[::-1]
    for count in (2, 30):
        f = lambda x, count=count: np.full(count, one(x))  # noqa: E731
        for dtype in (np.float64, np.float32):
            claim = np.tile(slope, (count, 1)).astype(dtype)
            assert check_jacobian(f, x, claim).verdict == "pass"
    assert check_jacobian(lambda x: np.ones(30), x, np.zeros((30, 2))).verdict == "pass"
    assert check_jacobian(lambda x: np.ones(3), x, np.eye(3)[:, :2]).verdict == "fail"


@each_mode
def test_a_claim_that_is_not_a_number_is_named(mode):
    f, x, right = problem(3, 30, 4)
    right[17, 2] = np.nan
    report = check_jacobian(f, x, right, mode=mode, samples=10**6)
    assert [entry.name for entry in report.entries] == ["df[17]/dx[2]"]


def test_x64_may_be_off():
    with jax.enable_x64(False):
        x = jnp.linspace(0.1, 1, 4, dtype=jnp.float32)
        f = lambda x: jnp.tile(jnp.sin(x), 8) * x[0]  # noqa: E731
        claim = jax.jacobian(f)(x)
        assert claim.dtype == jnp.float32
        for report in (check_jacobian(f, x), check_jacobian(f, x, claim), check_jvp(f, x)):
            assert report.verdict == "pass"
            assert report.precision.startswith("float64")
        wrong = claim.at[31, 3].multiply(-1)
        assert check_jacobian(f, x, wrong).entries[0].name == "df[31]/dx[3]"


@pytest.mark.parametrize("check", [check_jacobian, check_jvp])
def test_a_rule_that_runs_in_float32_is_judged_by_its_rounding(check):
    matrix = jnp.asarray(np.random.default_rng(0).normal(size=(30, 4)), jnp.float32)
    f = lambda x: jnp.sin(matrix @ x.astype(jnp.float32))  # noqa: E731
    x = jnp.linspace(0.1, 1, 4)
    assert check(f, x).verdict == "pass"
    half = lambda x: f(x) + 0.5 * (jax.lax.stop_gradient(f(x)) - f(x))  # noqa: E731
    assert check(half, x).verdict == "fail"  # claims half of each slope


def test_a_claim_in_float32_may_be_off_by_some_of_its_digits():
    f = lambda x: np.float32(x)  # noqa: E731
    rule = lambda ulps: lambda x, u: np.float32(u * (1 + ulps * 2.0**-23))  # noqa: E731
    x = np.array([1.0, 2.0])
    assert check_vjp(f, x, rule(90), mode="full").verdict == "pass"
    assert check_vjp(f, x, rule(10**5), mode="full").verdict == "fail"  # 1 %


def test_evaluations_are_counted_alike_one_by_one_and_in_batches():
    matrix = np.arange(40.0).reshape(20, 2) - 17  # exact in both
    one = check_jacobian(lambda x: matrix @ x, np.array([1.0, 2.0]), matrix)
    many = check_jacobian(lambda x: jnp.asarray(matrix) @ x, np.array([1.0, 2.0]), matrix)
    assert ("Python" in one.precision, "Python" in many.precision) == (True, False)
    assert one.evaluations == many.evaluations


@pytest.mark.parametrize("seed", [219, 363])
def test_claims_that_cancel_leave_their_rounding_behind(seed):
    """Rows that are equal up to their last digit; some combinations of them are that digit."""
    rng = np.random.default_rng(seed)
    outputs, inputs = int(rng.integers(25, 60)), int(rng.integers(1, 3))
    row = np.abs(rng.normal(size=(outputs, inputs))[:1] / 3)
    matrix = row * (1 + 1e-16 * rng.integers(-2, 3, size=(outputs, 1)))
    report = check_jacobian(
        lambda x: matrix @ x, np.zeros(inputs), matrix, key=seed, directions=4, combinations=12
    )
    assert report.verdict == "pass"


def test_trees_of_outputs_and_inputs_are_laid_out_as_jax_does():
    x = {"v": np.array([1.0, 2.0]), "w": np.arange(6.0).reshape(3, 2)}
    f = lambda p: {"sum": jnp.sum(p["w"] ** 2), "scores": p["w"] @ p["v"]}  # noqa: E731
    claim = jax.jacobian(f)(x)
    for given in (None, claim):
        assert check_jacobian(f, x, given).verdict == "pass"
    claim["scores"]["w"] = claim["scores"]["w"].at[2, 2, 1].set(0)
    report = check_jacobian(f, x, claim, mode="full")
    (entry,) = report.entries
    assert entry.name == "df['scores'][2]/dx['w'][2, 1]"
    assert entry.numeric == pytest.approx(2)  # v_1
    for got, wanted in zip(
        jax.tree.leaves(report.numeric.value), jax.tree.leaves(jax.jacobian(f)(x)), strict=True
    ):
        np.testing.assert_allclose(got, wanted, atol=1e-6)
    del claim["sum"]
    with pytest.raises(ValueError, match="`jacobian` must hold 4 arrays"):
        check_jacobian(f, x, claim)


def twice_wrong(x):
    return x**2


forward = jax.custom_jvp(twice_wrong)
forward.defjvp(lambda p, t: (forward(*p), p[0] * t[0]))  # a factor 2 is missing
reverse = jax.custom_vjp(twice_wrong)
reverse.defvjp(lambda x: (reverse(x), x), lambda x, g: (3 * x * g,))  # 3 for 2
X = np.array([1.0, -2.0])


def test_rules_of_both_modes_are_judged_each_by_itself():
    diagonal = {"df[0]/dx[0]", "df[1]/dx[1]"}
    for report, factor in ((check_jvp(forward, X), 0.5), (check_vjp(reverse, X), 1.5)):
        assert report.verdict == "fail"
        assert {entry.name for entry in report.entries} == diagonal
        for entry in report.entries:
            assert entry.analytic == pytest.approx(factor * entry.numeric)
    assert {entry.name for entry in check_jacobian(reverse, X).entries} == diagonal
    assert check_jvp(twice_wrong, X).verdict == check_vjp(twice_wrong, X).verdict == "pass"


def test_rules_of_one_function_that_contradict_each_other_are_found():
    """`custom_linear_solve` is told how to solve and how to solve the transpose, apart."""
    matrix = jnp.array([[2.0, 1.0], [0.0, 3.0]])

    def solve(b):
        return jax.lax.custom_linear_solve(
            lambda v: matrix @ v,
            b,
            lambda _, c: jnp.linalg.solve(matrix, c),
            lambda _, c: jnp.linalg.solve(matrix, c),  # it should be matrix.T
        )

    assert check_jvp(solve, X).verdict == "pass"
    report = check_vjp(solve, X)
    assert report.verdict == "fail"
    # The inverse is [[1/2, -1/6], [0, 1/3]]; of the transpose the two entries off the diagonal.
    assert {entry.name for entry in report.entries} == {"df[0]/dx[1]", "df[1]/dx[0]"}


def test_a_rule_that_is_not_linear_fails_though_it_is_right_along_every_axis():
    jvp = lambda x, v: 2 * x * np.abs(v)  # noqa: E731
    report = check_jvp(lambda x: x**2, X, jvp)
    assert report.verdict == "fail"
    assert any("not linear" in note for note in report.notes)
    vjp = lambda x, u: 2 * x * np.abs(u)  # noqa: E731
    assert check_vjp(lambda x: x**2, X, vjp).verdict == "fail"


def test_kinks_of_many_outputs_are_no_error_and_hide_none():
    matrix = jnp.asarray(np.random.default_rng(0).normal(size=(30, 4)))
    layer = lambda x: jax.nn.relu(matrix @ x)  # noqa: E731
    assert check_jacobian(layer, np.zeros(4)).verdict == "kink"  # slopes between 0 and A
    assert check_jacobian(layer, np.zeros(4), np.asarray(matrix) / 2).verdict == "kink"
    report = check_jacobian(layer, np.zeros(4), 2 * np.asarray(matrix))
    assert report.verdict == "fail"
    for entry in report.entries:
        slope = float(matrix[entry.output_index + entry.index])
        assert (entry.left, entry.right) == pytest.approx((min(slope, 0), max(slope, 0)), abs=1e-6)


@pytest.mark.parametrize(
    ("check", "f", "claim", "message"),
    [
        (check_jacobian, lambda x: np.asarray(x) * float(x[0]), None, "pass what is claimed as"),
        (check_jacobian, lambda x: x, np.eye(3), r"must have shape \(2, 2\), outputs first"),
        (check_jacobian, lambda x: x, np.eye(2) * 1j, "must be floating, got complex128"),
        (check_jacobian, lambda x: x * 1j, np.eye(2), "must return floating-point numbers"),
        (check_jacobian, lambda x: np.log(-x), np.eye(2), r"is nan at the point.*f\[0\]"),
        (check_jvp, reverse, None, "forward mode.*raised TypeError: can't apply forward-mode"),
        (check_jvp, lambda x: x, lambda x, v: v[:1], r"`jvp` must return a tree like f\(x\)"),
        (check_vjp, lambda x: x, lambda x, u: 1 / 0, "`vjp` raised ZeroDivisionError"),
        (check_vjp, lambda x: (), None, "returns no numbers"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_bad_input_is_one_sentence(check, f, claim, message):
    with pytest.raises((TypeError, ValueError), match=message):
        check(f, X, claim)


def test_settings_are_checked_before_anything_is_evaluated():
    with pytest.raises(ValueError, match="`mode` must be one of quick, sampled, full"):
        check_jacobian(lambda x: 1 / 0, X, mode="fast")
    with pytest.raises(TypeError, match="`modes` is no setting of a check: choose from mode"):
        check_jacobian(lambda x: 1 / 0, X, modes="full")
    with pytest.raises(ValueError, match="`combinations` must be at least 1, got 0"):
        check_jacobian(lambda x: 1 / 0, X, combinations=0)


def test_randomness_is_named_by_its_output():
    rng = np.random.default_rng(0)
    f = lambda x: np.array([x[0], rng.normal()])  # noqa: E731
    with pytest.raises(ValueError, match=r"not deterministic: two evaluations of f\[1\]"):
        check_jacobian(f, X, np.array([[1.0, 0.0], [0.0, 0.0]]))
