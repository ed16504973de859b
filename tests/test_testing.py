"""`assert_gradient` and its siblings: a test's one line about a derivative."""

import numpy as np
import pytest

from jaxlin.testing import (
    assert_gradient,
    assert_hessian,
    assert_hvp,
    assert_jacobian,
    assert_jvp,
    assert_vjp,
)


def cubes(x):
    return float(np.sum(x**3))


def test_a_right_gradient_returns_the_report():
    x = np.array([1.0, 2.0])
    assert assert_gradient(cubes, x, lambda x: 3 * x**2).verdict == "pass"


def test_the_message_names_the_entry_and_both_values():
    with pytest.raises(AssertionError) as caught:
        assert_gradient(cubes, np.array([1.0, 2.0]), np.array([3.0, -12.0]), mode="full")
    for piece in ("FAIL, 1 wrong entry", "[1]", "-12", "12", "opposite sign"):
        assert piece in str(caught.value)


def test_a_valid_subgradient_passes_unless_strict():
    x, f = np.zeros(2), lambda x: float(np.sum(np.abs(x)))
    assert assert_gradient(f, x, np.array([0.0, 1.0])).verdict == "kink"
    with pytest.raises(AssertionError, match="KINK"):
        assert_gradient(f, x, np.array([0.0, 1.0]), strict=True)


def products(x):
    return np.array([x[0] * x[1], x[1] ** 2])


POINT, ONE_OFF = np.array([2.0, 3.0]), np.array([[0.0, 0.0], [1.0, 0.0]])
JACOBIAN, HESSIAN = np.array([[3.0, 2.0], [0.0, 6.0]]), np.diag([12.0, 18.0])
RIGHT_CLAIMS = {
    "jacobian": (assert_jacobian, products, JACOBIAN),
    "jvp": (assert_jvp, products, lambda x, v: JACOBIAN @ v),
    "vjp": (assert_vjp, products, lambda x, u: u @ JACOBIAN),
    "hessian": (assert_hessian, cubes, HESSIAN),
    "hvp": (assert_hvp, cubes, lambda x, v: HESSIAN @ v),
}
WRONG_CLAIMS = {
    "jacobian": JACOBIAN + ONE_OFF,
    "jvp": lambda x, v: (JACOBIAN + ONE_OFF) @ v,
    "vjp": lambda x, u: u @ (JACOBIAN + ONE_OFF),
    "hessian": HESSIAN + ONE_OFF,
    "hvp": lambda x, v: (HESSIAN + ONE_OFF) @ v,
}


@pytest.mark.parametrize("kind", RIGHT_CLAIMS)
def test_each_kind_of_derivative_has_its_assertion(kind):
    check, f, right = RIGHT_CLAIMS[kind]
    settings = {"gradient": lambda x: 3 * x**2} if f is cubes else {}
    assert check(f, POINT, right, **settings).verdict == "pass"
    name = r"d\(df/dx\[1\]\)/dx\[0\]" if f is cubes else r"df\[1\]/dx\[0\]"
    with pytest.raises(AssertionError, match=rf"{kind} check: FAIL[\s\S]*{name} .* 1 "):
        check(f, POINT, WRONG_CLAIMS[kind], **settings)
