"""Correct gradients of nasty functions are never called wrong, wrong ones never right.

Every function is known on paper: the right value stands beside it, or is its derivative by the
rules of calculus. `want` says which verdicts are right: p(ass), i(nconclusive), k(ink), f(ail).
INCONCLUSIVE is demanded where the values of the function hide the slope, KINK where no gradient
exists but subgradients do.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlin.gradients import check_gradient

RNG = np.random.default_rng(0)
A = RNG.normal(size=(30, 5))
TARGET = A @ np.ones(5)  # fitted without a residual at x = 1
KEY = jax.random.key(3)
PI = "pi"


def half(x, dtype=np.float16):
    return np.asarray(x).astype(dtype).astype(np.float64)


def softmax(x):
    p = np.exp(x - np.max(x))
    return p / p.sum()


def bfloat16(f):
    return lambda x: f(x.astype(jnp.bfloat16)).astype(jnp.float32)


@jax.custom_jvp
def straight_through(x):
    return jnp.round(x)


straight_through.defjvp(lambda p, t: (jnp.round(p[0]), t[0]))

ONE, TWO, THREE = np.array(1.0), np.array([1.0, 2.0]), np.array([1.0, 2.0, 3.0])
TIE = np.array([1.0, 1.0, 0.0])
ONES32 = np.ones(4, np.float32)
ROOT = np.array([0.0, 1.0, -2.0])
SHAPE = np.sign(ROOT) * np.sqrt(np.abs(ROOT)) * np.sum(np.abs(ROOT) ** 1.5) ** (-1 / 3)
SOFT = softmax(THREE)
COS1 = np.cos(1.0)
SMALL = np.array([1e-3, 1.0, 1.5, 2.0])
BENDS = 0.02 * np.cos(np.arange(20.0))  # none at 0
PLANES = np.array([[1.0, 0], [0, 1], [-1, 0], [0, -1]])

# (f, x, right, verdicts of the right one, wrong, verdicts of the wrong one)
CASES = {
    # values whose rounding hides the slope, or part of it
    "float32 of 1e4 + sin": (lambda x: np.float32(1e4 + np.sin(x)), ONE, COS1, PI, 1.3 * COS1, "f"),
    "float32 of 1e7 + sin": (lambda x: np.float32(1e7 + np.sin(x)), ONE, COS1, "i", 3.0, "i"),
    "1e12 + sin": (lambda x: 1e12 + np.sin(x), ONE, COS1, "p", 0.6, "f"),
    "1e16 + sin": (lambda x: 1e16 + np.sin(x), ONE, COS1, "i", -1.0, "i"),
    "1e12 + sin at 1e-6": (lambda x: 1e12 + np.sin(x), np.array(1e-6), 1.0, PI, 2.0, "fi"),
    "float32 of 1e4 + sin at 1e-3": (
        lambda x: np.float32(1e4 + np.sin(x)), np.array(1e-3), np.cos(1e-3), PI, 1.5, "fi",
    ),
    "float16 of 10 + sin": (lambda x: np.float16(np.sin(x) + 10), ONE, COS1, PI, -COS1, "fi"),
    "a mean of float16 values": (
        lambda x: np.mean(half(np.sin(half(x)))), TWO, np.cos(TWO) / 2, PI, -np.cos(TWO), "fi",
    ),
    "a product in float16": (
        lambda x: float(np.sum(half(half(x) * half(x)))), TWO, 2 * TWO, PI, 0 * TWO, "fi",
    ),
    "float32 hidden in float64": (
        lambda x: float(np.sum(np.exp(x.astype(np.float32)))) - 10, TWO, np.exp(TWO), PI,
        1.05 * np.exp(TWO), "fi",
    ),
    "sin in float16": (
        lambda x: jnp.sum(jnp.sin(x.astype(jnp.float16))), TWO, np.cos(TWO), PI, -np.cos(TWO), "fi",
    ),
    "exp in bfloat16": (
        lambda x: jnp.sum(jnp.exp(x.astype(jnp.bfloat16))), TWO, np.exp(TWO), PI, 0 * TWO, "fi",
    ),
    "exp in bfloat16 less 10": (
        bfloat16(lambda x: jnp.sum(jnp.exp(x)) - 10), TWO, np.exp(TWO), PI, -np.exp(TWO), "fi",
    ),
    "bfloat16 that does not move": (
        bfloat16(lambda x: 100 + jnp.sin(x) - 100), ONE, COS1, "i", 0.0, "i",
    ),
    "half precision beside a penalty": (
        lambda x: jnp.sum(x.astype(jnp.float16) * 3).astype(x.dtype) + jnp.sum(x**2), TWO,
        3 + 2 * TWO, PI, -TWO, "fi",
    ),
    "exp in float32": (
        lambda x: jnp.sum(jnp.exp(x.astype(jnp.float32))), TWO, np.exp(TWO), "p",
        1.02 * np.exp(TWO), "f",
    ),
    "sin in float16, a period in 1/16 of x": (
        lambda x: np.float16(30 * np.sum(np.sin(100 * x))), ONE, 3000 * np.cos(100.0), PI,
        -3000 * np.cos(100.0), "fi",
    ),
    "sines beside 1e4 in float16": (
        lambda x: np.float16(1e4 + 20 * np.sum(np.sin(1000 * x))), TWO, 2e4 * np.cos(1e3 * TWO),
        PI, -2e4 * np.cos(1e3 * TWO), "fi",
    ),
    "|x|^1.5 in float32, beside its singularity": (
        lambda x: np.float32(1 + np.sum(np.abs(x) ** 1.5)), SMALL, 1.5 * np.sqrt(SMALL), PI,
        -1.5 * np.sqrt(SMALL), "fi",
    ),
    "relus beside 1e4 in float32": (
        lambda x: np.float32(1e4 + np.sum(np.maximum(x - BENDS, 0))), 0 * ONE,
        float(np.sum(BENDS < 0)), PI, -float(np.sum(BENDS < 0)), "fi",
    ),
    "a staircase in float16": (
        lambda x: np.float16(1 + 0.015 * np.floor(50 * x + 0.37)), ONE, 0.0, PI, 0.2, "fi",
    ),
    "a staircase beside 1e4 in float32": (
        lambda x: np.float32(1e4 + 0.001 * np.sum(np.floor(50 * x + 0.37))), TWO, 0.0, "i",
        -1.0, "fi",
    ),
    "a kink beside 1e12": (
        lambda x: 1e12 + 0.01 * float(np.abs(x - 1.001)), ONE, -0.01, PI, 0.01, "fi",
    ),
    "exp(-x^2) that underflows in float32": (
        lambda x: np.float32(np.sum(np.exp(-(x**2)))), 15 * TWO, -30 * TWO * np.exp(-225 * TWO**2),
        PI, 1.0, "fi",
    ),
    "exp(2^20 (x - 1)) in float32, which overflows on steps of the size of x": (
        lambda x: np.float32(np.exp(min(2.0**20 * (float(x) - 1), 80.0))), ONE, 2.0**20,
        PI, 2.0**20, "fi",
    ),
    # constant: the right gradient is 0, up to its rounding
    "|x / |x||^2": (
        lambda x: np.sum((x / np.linalg.norm(x)) ** 2), THREE, 0 * THREE, "p", 0.1, "f",
    ),
    "sum of softmax": (lambda x: np.sum(softmax(x)), THREE, 0 * THREE, "p", SOFT, "f"),
    "sum of softmax, by JAX": (
        lambda x: jnp.sum(jax.nn.softmax(x)), THREE, None, "p", SOFT, "f",
    ),
    "sum of softmax less 1": (
        lambda x: jnp.sum(jax.nn.softmax(x)) - 1, THREE, 0 * THREE, PI, SOFT, "f",
    ),
    "1e6 sums of softmax less 1e6": (
        lambda x: 1e6 * np.sum(softmax(x)) - 1e6, THREE, 0 * THREE, PI, 1e6 * SOFT, "f",
    ),
    "sin^2 + cos^2": (lambda x: np.sum(np.sin(x) ** 2 + np.cos(x) ** 2), TWO, 0 * TWO, "p", 1, "f"),
    "a constant": (lambda x: 3.5 + 0 * np.sum(x), TWO, 0 * TWO, "p", 1e-3, "f"),
    # flat near the point: the right gradient is 0
    "floor": (jnp.floor, np.array(100.7), 0.0, "p", 1.0, "f"),
    "floor, NumPy": (lambda x: float(np.floor(x)), np.array(100.7), 0.0, "p", 1.0, "f"),
    "floor of 1000.7, NumPy": (lambda x: float(np.floor(x)), np.array(1000.7), 0.0, PI, 1.0, "fi"),
    "round": (lambda x: jnp.sum(jnp.round(x)), np.array([3.3, 100.7]), 0.0, "p", 1.0, "f"),
    "straight through": (
        lambda x: jnp.sum(straight_through(x)), np.array([0.3, 100.7]), 0.0, "p", None, "f",
    ),
    "sign": (lambda x: jnp.sum(jnp.sign(x) * x.size), TWO, 0.0, "p", 1.0, "f"),
    "relu beside its kink": (lambda x: jax.nn.relu(x - 1), np.array(0.95), 0.0, "p", 1.0, "f"),
    "100 + relu beside its kink": (
        lambda x: 100 + max(0.0, float(x) - 1), np.array(0.95), 0.0, "p", 1.0, "f",
    ),
    "a clipped product": (
        lambda x: float(np.clip(x[0] * x[1], 0, 1)), TWO, np.zeros(2), "p", TWO[::-1], "f",
    ),
    "a dead zone and a slope": (
        lambda x: float(np.floor(x[0]) + x[1] ** 2), np.array([2.5, 3.0]), np.array([0.0, 6.0]),
        "p", np.array([1.0, 6.0]), "f",
    ),
    "a step at the point": (lambda x: float(np.floor(x)), np.array(2.0), 0.0, "i", 1.0, "fi"),
    # kinks: the claim must hold along lines, too
    "max at a tie": (np.max, TIE, TIE / 2, "k", TIE, "f"),
    "max at a tie, one side": (np.max, TIE, np.array([1.0, 0, 0]), "k", np.zeros(3), "f"),
    "min at a tie": (np.min, 1 - TIE, TIE / 2, "k", TIE, "f"),
    "infinity norm at a tie": (
        lambda x: np.max(np.abs(x)), TIE * [1, -1, 0], TIE * [0.3, -0.7, 0], "k",
        TIE * [1, -1, 0], "f",
    ),
    "norm at 0": (np.linalg.norm, np.zeros(3), np.full(3, 0.5), "k", np.full(3, 0.9), "f"),
    "norm at 0, skew": (
        np.linalg.norm, np.zeros(3), np.array([0.6, 0.8, 0]), "k", np.array([0.8, 0.8, 0]), "f",
    ),
    "Crammer-Singer, all tied": (
        lambda w: np.mean(np.max(1.0 * (np.arange(3) != 0) + w - w[0])), np.zeros(3),
        np.array([-1.0, 0.5, 0.5]), "k", np.array([-2.0, 1.0, 1.0]), "f",
    ),
    # subgradients of the largest of four planes are the mixtures of their slopes
    "max of planes": (
        lambda x: np.max(PLANES @ x), np.zeros(2), np.array([0.5, 0.2]), "k",
        np.array([0.9, 0.9]), "f",
    ),
    "max of planes, one more variable": (
        lambda x: np.max(PLANES @ x[:2]) + x[2] ** 2, np.array([0, 0, 2.0]),
        np.array([0.5, -0.4, 4.0]), "k", np.array([-0.55, 0.5, 4.0]), "f",
    ),
    "norm beside a slope": (
        lambda x: np.hypot(x[0], x[1]) + np.sin(x[2]), np.array([0, 0, 1.0]),
        np.array([0.3, 0.4, COS1]), "k", np.array([0.9, 0.9, COS1]), "f",
    ),
    "kinks of both kinds": (
        lambda x: max(0.0, x[0]) - max(0.0, x[1]), np.zeros(2), np.zeros(2), "ki",
        np.array([2.0, 0.0]), "f",
    ),
    # differentiable, though the slopes of both sides differ at every step
    "1.5-norm at a zero": (
        lambda x: np.sum(np.abs(x) ** 1.5) ** (2 / 3), ROOT, SHAPE, "p", 1.0, "f",
    ),
    "|x|^1.5": (lambda x: np.sum(np.abs(x) ** 1.5), np.zeros(2), 0.0, PI, 0.1, "f"),
    "|x|^1.2": (lambda x: np.sum(np.abs(x) ** 1.2), np.zeros(2), 0.0, PI, 0.5, "f"),
    "x^2 log |x|": (
        lambda x: float(x**2 * np.log(abs(x))) if x else 0.0, np.array(0.0), 0.0, "p", 0.1, "f",
    ),
    "root of |x|": (lambda x: float(np.sqrt(np.abs(x))), np.array(0.0), 0.0, "i", 1.0, "fi"),
    "a kink 1e-9 away": (lambda x: float(np.abs(x - 1e-9)), np.array(0.0), -1.0, "p", 1.0, "f"),
    # small values of large terms
    "least squares at its solution": (
        lambda x: jnp.sum((A @ x - TARGET) ** 2), np.ones(5), None, "p", 1e-3, "f",
    ),
    "the same at 1e6": (
        lambda x: float(np.sum((A @ x - 1e6 * TARGET) ** 2)), np.full(5, 1e6),
        2 * A.T @ (A @ np.full(5, 1e6) - 1e6 * TARGET), "p", 1.0, "f",
    ),
    "the same, multiplied out": (
        lambda x: float(x @ (A.T @ A) @ x - 2 * x @ (A.T @ TARGET) + TARGET @ TARGET),
        np.ones(5), 2 * A.T @ (A @ np.ones(5) - TARGET), "p", 1e-3, "f",
    ),
    "a difference of squares": (
        lambda x: (1e8 + x[0]) ** 2 - (1e8 - x[1]) ** 2 - 2e8 * jnp.sum(x), TWO,
        np.array([2.0, -4.0]), PI, np.array([-2.0, 4.0]), "fi",
    ),
    # numbers whose squares are out of range
    "log at 1e-300": (
        lambda x: np.sum(np.log(x)), 1e-300 * THREE, 1e300 / THREE, PI,
        1e300 * np.array([1, 1, 1 / 3]), "fi",
    ),
    "1e200 x": (lambda x: 1e200 * np.sum(x), TWO, 1e200, "p", np.array([1e200, 2e200]), "f"),
    "1e-200 x^2": (lambda x: np.sum(1e-200 * x**2), TWO, 2e-200 * TWO, "p", 3e-200 * TWO, "f"),
    "x^2 at 1e-170": (lambda x: 1e170 * np.sum(x**2), 1e-170 * TWO, 2 * TWO, PI, -2 * TWO, "fi"),
    # another function in another dtype
    "a factor by dtype": (
        lambda x: jnp.sum(x) * (2 if x.dtype == jnp.float32 else 3), ONES32, 2.0, "p", 3.0, "f",
    ),
    "a factor by dtype, NumPy, at 0": (
        lambda x: np.sum(x * (2 if x.dtype == np.float32 else 3)), 0 * ONES32, 2.0, "p", 3.0, "f",
    ),
    "a factor by dtype, least squares": (
        lambda x: np.sum((x - 1) ** 2) * (2 if x.dtype == np.float32 else 3), 2 * ONES32, 4.0, "p",
        6.0, "f",
    ),
}  # fmt: skip

LETTER = {"p": "pass", "i": "inconclusive", "k": "kink", "f": "fail"}


def claim_of(value, x):
    return value if value is None else np.broadcast_to(np.asarray(value, x.dtype), x.shape)


@pytest.mark.parametrize("mode", ["quick", "full"])
@pytest.mark.parametrize("name", CASES)
def test_right_and_wrong_gradients_of_nasty_functions(name, mode):
    f, x, right, want, wrong, wrong_want = CASES[name]
    for value, letters in ((right, want), (wrong, wrong_want)):
        report = check_gradient(f, x, claim_of(value, x), mode=mode)
        assert report.verdict in [LETTER[letter] for letter in letters], str(report)
        if report.verdict == "inconclusive":
            assert any("to decide" in note or "proves nothing" in note for note in report.notes)
        if report.verdict == "kink":
            assert all(entry.inside for entry in report.entries)


def test_random_numbers_of_the_own_dtype_are_those_of_the_claim():
    f = lambda x: jnp.sum(jnp.sin(x) * jax.random.normal(KEY, x.shape, x.dtype))  # noqa: E731
    right = jax.random.normal(KEY, (4,), jnp.float32)  # times cos(0)
    report = check_gradient(f, 0 * ONES32, right)
    assert report.verdict == "pass"
    assert report.precision.startswith("float32")
    assert any("another function" in note for note in report.notes)
    assert check_gradient(f, 0 * ONES32, 1.5 * right).verdict == "fail"


def test_the_dtype_can_be_chosen():
    f = lambda x: np.sum(x) * (2 if x.dtype == np.float32 else 3)  # noqa: E731
    for dtype, slope in (("float32", 2), ("float64", 3)):
        report = check_gradient(f, ONES32, np.full(4, slope), dtype=dtype)
        assert report.verdict == "pass"
        assert report.precision.startswith(dtype)


def test_least_squares_at_its_solution_is_deterministic():
    # Compiled and eager sums of squares of rounding errors differ by all their digits.
    x = np.full(5, 1e3)
    target = A @ x
    f = lambda x: jnp.sum((A @ x - target) ** 2)  # noqa: E731
    assert check_gradient(f, jnp.asarray(x)).verdict == "pass"


def test_inconclusive_says_which_errors_could_have_been_seen():
    f = lambda x: (1e7 + jnp.sin(x)).astype(jnp.float32)  # noqa: E731
    report = check_gradient(f, ONE, np.asarray(COS1))
    assert report.verdict == "inconclusive"
    assert not report.passed
    assert max(report.smallest_error.values()) > 1  # the values are multiples of 1
    (note,) = report.notes
    assert "too coarse" in note
    assert f"{max(report.smallest_error.values()):.1e}" in note


def test_a_line_that_proves_a_claim_wrong_is_named():
    report = check_gradient(np.max, TIE, TIE, mode="full")
    (entry,) = report.entries
    assert "[0]" in entry.name
    assert "[1]" in entry.name
    assert (entry.analytic, entry.left, entry.right) == pytest.approx((2, 1, 1))
    assert not entry.inside
