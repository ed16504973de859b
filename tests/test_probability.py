"""Softmax and the information-theoretic identities, against paper and SciPy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from jaxlin import probability
from jaxlin.losses import softmax_cross_entropy

LARGE = np.array([123.0, 456.0, 789.0])


@pytest.fixture
def distributions():
    rng = np.random.default_rng(3)
    return rng.dirichlet(np.ones(5), 4), rng.dirichlet(np.ones(5), 4)


def test_softmax_is_the_one_of_scipy():
    scores = np.random.default_rng(0).normal(0, 5, (6, 10))
    np.testing.assert_allclose(
        probability.softmax(scores), scipy.special.softmax(scores, axis=1), rtol=1e-13
    )
    np.testing.assert_allclose(
        probability.log_softmax(scores), scipy.special.log_softmax(scores, axis=1), rtol=1e-12
    )


@pytest.mark.parametrize(
    ("scores", "printed"),
    [([1.0, -2.0, 0.0], [0.7, 0.04, 0.26]), ([0.5, -1.0, 0.0], [0.55, 0.12, 0.33])],
)
def test_course_examples_have_the_printed_probabilities(scores, printed):
    # Printed to two digits: half a unit of the last is 0.005, and 0.71 is printed as .7.
    np.testing.assert_allclose(probability.softmax(jnp.array(scores)), printed, atol=0.0059)


def test_large_scores_give_the_lecture_probabilities():
    # After the shift the scores are (-666, -333, 0), so p = exp of these up to 1e-145.
    expected = [math.exp(-666), math.exp(-333), 1.0]
    np.testing.assert_allclose(probability.softmax(LARGE), expected, rtol=1e-12)
    assert expected[0] == pytest.approx(5.7527e-290, rel=1e-4)
    assert expected[1] == pytest.approx(2.3985e-145, rel=1e-4)


def test_unstable_softmax_fails_as_the_lecture_says():
    np.testing.assert_array_equal(probability.softmax_unstable(LARGE), [0.0, 0.0, np.nan])
    narrow = LARGE.astype(np.float32)
    np.testing.assert_array_equal(probability.softmax_unstable(narrow), [np.nan] * 3)
    np.testing.assert_array_equal(probability.softmax(narrow), [0.0, 0.0, 1.0])


def test_unstable_softmax_is_right_where_nothing_overflows():
    scores = np.array([1.0, 2.0, 3.0])
    np.testing.assert_allclose(
        probability.softmax_unstable(scores), probability.softmax(scores), rtol=1e-14
    )


def test_a_common_shift_changes_nothing():
    scores = np.array([0.3, -1.0, 2.0])
    np.testing.assert_allclose(
        probability.softmax(scores + 50), probability.softmax(scores), rtol=1e-13
    )


def test_cross_entropy_is_entropy_plus_divergence(distributions):
    p, q = distributions
    right = probability.entropy(p) + probability.kl_divergence(p, q)
    np.testing.assert_allclose(probability.cross_entropy(p, q), right, rtol=1e-12)


def test_entropy_and_divergence_are_those_of_scipy(distributions):
    p, q = distributions
    np.testing.assert_allclose(probability.entropy(p), scipy.stats.entropy(p, axis=1), rtol=1e-12)
    np.testing.assert_allclose(
        probability.kl_divergence(p, q), scipy.stats.entropy(p, q, axis=1), rtol=1e-11
    )


def test_entropy_of_a_one_hot_distribution_is_zero():
    one_hot = np.eye(4)
    np.testing.assert_array_equal(probability.entropy(one_hot), np.zeros(4))


def test_loss_is_the_divergence_from_the_one_hot_truth():
    scores = np.random.default_rng(1).normal(size=(6, 4))
    labels = np.array([0, 1, 2, 3, 0, 1])
    divergence = probability.kl_divergence(np.eye(4)[labels], probability.softmax(scores))
    np.testing.assert_allclose(softmax_cross_entropy(scores, labels), divergence, rtol=1e-12)


def test_likelihood_of_softmax_is_the_loss():
    scores = np.random.default_rng(1).normal(size=(6, 4))
    labels = np.array([0, 1, 2, 3, 0, 1])
    likelihood = probability.negative_log_likelihood(probability.softmax(scores), labels)
    np.testing.assert_allclose(likelihood, softmax_cross_entropy(scores, labels), rtol=1e-12)


def test_likelihood_refuses_labels_of_another_shape():
    with pytest.raises(ValueError, match="`labels` must have shape"):
        probability.negative_log_likelihood(np.ones((3, 2)) / 2, np.zeros((3, 1), int))


def test_a_term_that_is_not_there_has_no_slope():
    # Calculus where it holds: d/dp of -p log q is -log q, d/dq is -p / q; where p = 0 the terms
    # are 0 for every q, so that d/dq is 0; 0 stands for the infinite d/dp of p log p at 0.
    p, q = jnp.array([0.0, 0.0, 0.25, 0.75]), jnp.array([0.0, 0.5, 0.25, 0.25])
    by_p, by_q = jax.grad(probability.cross_entropy, (0, 1))(p, q)
    np.testing.assert_allclose(by_p, [0, math.log(2), math.log(4), math.log(4)], rtol=1e-14)
    np.testing.assert_allclose(by_q, [0, 0, -1, -3], rtol=1e-14)
    slopes = jax.grad(probability.entropy)(p)
    np.testing.assert_allclose(slopes, [0, 0, math.log(4) - 1, math.log(4 / 3) - 1], rtol=1e-14)
    by_p, by_q = jax.grad(probability.kl_divergence, (0, 1))(p, q)
    np.testing.assert_allclose(by_p, [0, 0, 1, math.log(3) + 1], rtol=1e-14)
    np.testing.assert_allclose(by_q, [0, 0, -1, -3], rtol=1e-14)


@pytest.mark.parametrize(
    "of_scores",
    [
        lambda s: probability.entropy(probability.softmax(s)),
        lambda s: probability.cross_entropy(probability.softmax(s), probability.softmax(2 * s)),
        lambda s: probability.kl_divergence(probability.softmax(s), probability.softmax(2 * s)),
    ],
)
def test_a_probability_that_has_underflowed_moves_nothing(of_scores):
    # p = exp(-2000) is 0 in float64, and every slope is of the size p log p: 0 to any precision.
    np.testing.assert_array_equal(jax.grad(of_scores)(jnp.array([0.0, -2000.0])), [0.0, 0.0])


def test_a_certain_falsehood_costs_infinitely_much():
    p, q = jnp.array([0.5, 0.5]), jnp.array([0.0, 1.0])
    assert probability.cross_entropy(p, q) == probability.kl_divergence(p, q) == jnp.inf


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_is_summed_in_float32(dtype):
    even = jnp.full(1024, 1 / 1024, dtype)  # exact in both
    tolerance = {"rtol": 1e-6}  # sums of 1,024 float32 terms: a few units of 6e-8
    for found in (
        probability.entropy(even),
        probability.cross_entropy(even, even),
        probability.negative_log_likelihood(even, jnp.array(0)),
        -probability.log_softmax(jnp.zeros(1024, dtype))[0],
    ):
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, math.log(1024), **tolerance)
    np.testing.assert_allclose(
        probability.kl_divergence(jnp.ones(1, dtype), jnp.full(1, 0.25, dtype)), math.log(4)
    )
    many = probability.softmax(jnp.zeros(70_000, dtype))
    np.testing.assert_allclose(many, np.full(70_000, 1 / 70_000), **tolerance)
