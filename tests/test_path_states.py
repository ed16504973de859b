"""A path of strengths that is left after any fit and taken up from plain arrays: the same bits."""

import jax
import numpy as np
import pytest

from jaxlin.solvers import minimize_path
from jaxlin.solvers.states import blank, shapes_of

pytestmark = pytest.mark.usefixtures("as_if_large")

STRENGTHS = [0.3, 0.05, 0.03, 0.02]  # the second metric serves for the third, too
CLOSE = [1e-2 * 1.5**-t for t in range(7)]
WEAK = [1e-4, 7e-5, 5e-5]  # and here the first for the second; it follows the iterate


def problem(size, features, classes, noise=3):
    rng = np.random.default_rng(3)
    inputs = (rng.normal(size=(size, features)) * np.linspace(3, 0.1, features)).astype(np.float32)
    scores = inputs @ rng.normal(size=(features, classes))
    return inputs, (scores + noise * rng.normal(size=(size, classes))).argmax(1)


def walked(data, strengths, **settings):
    """Solutions, and what the path carried after how many, through a way like a file's."""
    found, kept = [], {}

    def note(make):
        made = make()
        empty = blank(shapes_of(made))
        same = jax.tree.map(lambda a, b: np.asarray(a).dtype == b.dtype, made, empty)
        assert all(jax.tree.leaves(same))
        kept[len(found) + 1] = jax.tree.map(np.array, made)

    def keep(t, solution):
        found.append(solution)

    minimize_path(*data, strengths=strengths, callback=keep, on_carried=note, **settings)
    return found, kept


@pytest.mark.parametrize(
    ("shape", "strengths", "settings"),
    [
        ((300, 20, 5), STRENGTHS, {"tolerance": 1e-6}),  # NumPy
        ((8000, 60, 6), STRENGTHS, {"tolerance": 1e-4, "loss": "squared-hinge"}),  # XLA
        ((9000, 80, 6, 1), WEAK, {"tolerance": 1e-5}),  # rows drawn for a metric at the iterate
        ((300, 20, 5), STRENGTHS, {"tolerance": 1e-3, "loss": "hinge"}),
        ((8000, 60, 6), CLOSE, {"tolerance": 1e-3}),  # every other one is filled in
    ],
)
def test_a_path_that_was_left_after_any_fit_goes_on_bit_for_bit(shape, strengths, settings):
    data = problem(*shape)
    whole, kept = walked(data, strengths, **settings)
    assert (len(kept) < len(strengths)) == (strengths is CLOSE)
    for t, carried in kept.items():
        if t == len(strengths):
            continue
        rest, _ = walked(data, strengths[t:], carried=carried, **settings)
        for one, other in zip(whole[t:], rest, strict=True):
            assert one[1:] == other[1:]
            assert all(map(np.array_equal, one.params, other.params))


def test_without_what_the_last_fit_has_learned_the_bits_would_differ():
    data = problem(9000, 80, 6, 1)
    whole, kept = walked(data, WEAK[:3], tolerance=1e-5)
    cold = kept[2]._replace(fit=None)
    rest, _ = walked(data, WEAK[2:3], carried=cold, tolerance=1e-5)
    assert not np.array_equal(rest[0].params.weights, whole[2].params.weights)


def test_paths_side_by_side_carry_nothing():
    inputs, labels = problem(300, 20, 5)
    with pytest.raises(ValueError, match="`carried` is of one path"):
        minimize_path(
            inputs, labels, strengths=[1.0], sample_weight=np.ones((2, 300)), on_carried=print
        )
