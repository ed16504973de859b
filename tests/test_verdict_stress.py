"""No verdict is false where a ripple or a staircase hides near the rounding of the values.

The gradients are known on paper (a sine, a saw, stairs, a parabola). What rounding would do as
well, a ripple of one unit or one shorter than the rounding of x, is set apart: no value tells.
"""

import importlib.util
import warnings
from pathlib import Path

import numpy as np
import pytest

PATH = Path(__file__).parents[1] / "experiments" / "verdict_stress.py"


@pytest.fixture(scope="module")
def stress():
    spec = importlib.util.spec_from_file_location("verdict_stress", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("mode", ["quick", "full"])
def test_no_false_verdicts_beyond_what_rounding_hides(stress, mode):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # float16 overflows far from the point
        for seed in [*range(30), 34, 35, 36, 37, 53, 56, 64, 70, 75, 97, 355, 531, 532, 572]:
            case = stress.ripple(seed)
            if np.isfinite(case.f(case.x)):
                found = stress.check_ripple(case, mode, seed)
                assert found["false"] == found["hidden"], (seed, found)
        for seed in range(12):
            case = stress.rough(seed)
            found = stress.check_ripple(case, mode, seed)
            assert found["false"] == found["hidden"], (seed, found)
