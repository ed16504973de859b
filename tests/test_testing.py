"""`assert_gradient`: a test's one line about a gradient."""

import numpy as np
import pytest

from jaxlin.testing import assert_gradient


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
