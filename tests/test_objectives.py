"""The objective: a weighted mean plus the penalty, and its gradients, against NumPy loops."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlin import losses, regularizers
from jaxlin.core import Batch, LinearParams
from jaxlin.gradients.linear import linear_objective
from jaxlin.objectives import compose, gradient_in_parts, weighted_mean
from jaxlin.scores import linear


@pytest.fixture
def problem():
    rng = np.random.default_rng(5)
    params = LinearParams(jnp.array(rng.normal(size=(3, 4))), jnp.array(rng.normal(size=3)))
    return params, Batch(jnp.array(rng.normal(size=(8, 4))), jnp.array(rng.integers(0, 3, 8)))


def hinge_objective(params, batch, strength):
    """The lecture's definition, as loops."""
    total = 0.0
    for x, y in zip(np.asarray(batch.inputs), np.asarray(batch.labels), strict=True):
        s = np.asarray(params.weights) @ x + np.asarray(params.bias)
        total += sum(max(0.0, s[j] - s[y] + 1) for j in range(3) if j != y)
    return total / len(batch.labels) + strength * (np.asarray(params.weights) ** 2).sum()


def test_objective_is_the_mean_loss_plus_the_penalty(problem):
    objective = compose(linear, losses.weston_watkins_hinge, regularizers.l2)
    np.testing.assert_allclose(
        objective(*problem, strength=0.3), hinge_objective(*problem, 0.3), rtol=1e-13
    )


def test_default_strength_is_no_penalty(problem):
    objective = compose(linear, losses.weston_watkins_hinge)
    np.testing.assert_allclose(objective(*problem), hinge_objective(*problem, 0), rtol=1e-13)


def test_weight_k_counts_as_k_copies(problem):
    params, batch = problem
    objective = compose(linear, losses.softmax_cross_entropy)
    counts = np.array([0, 1, 2, 3, 0, 1, 1, 4])
    copies = Batch(np.repeat(batch.inputs, counts, axis=0), np.repeat(batch.labels, counts))
    weighted = batch._replace(weights=counts.astype(float))
    np.testing.assert_allclose(objective(params, weighted), objective(params, copies), rtol=1e-13)


def test_duplicates_change_neither_loss_nor_gradient(problem):
    # The lecture's argument: 1,200 copies of 1,000 images have the mean of the 1,000.
    params, batch = problem
    objective = compose(linear, losses.softmax_cross_entropy)
    copies = Batch(np.tile(batch.inputs, (12, 1)), np.tile(batch.labels, 12))
    once, often = (jax.value_and_grad(objective)(params, b) for b in (batch, copies))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15), once, often)


def test_bias_is_not_penalized(problem):
    params, batch = problem
    objective = compose(linear, losses.softmax_cross_entropy)
    slopes = [jax.grad(objective)(params, batch, strength=s) for s in (0.0, 5.0)]
    np.testing.assert_array_equal(slopes[0].bias, slopes[1].bias)
    np.testing.assert_allclose(
        slopes[1].weights - slopes[0].weights, 10 * params.weights, rtol=1e-12
    )


def test_gradient_on_the_data_moves_examples_down_the_loss(problem):
    params, batch = problem
    objective = compose(linear, losses.softmax_cross_entropy)

    def of_inputs(inputs):
        return objective(params, batch._replace(inputs=inputs))

    gradient = jax.grad(of_inputs)(batch.inputs)
    # (p - onehot) W / N, written out.
    shares = np.asarray(jax.nn.softmax(linear(params, batch.inputs)))
    shares = shares - np.eye(3)[np.asarray(batch.labels)]
    np.testing.assert_allclose(gradient, shares @ np.asarray(params.weights) / 8, rtol=1e-12)


def test_strength_may_be_traced(problem):
    objective = compose(linear, losses.softmax_cross_entropy)
    values = jax.vmap(lambda s: objective(*problem, strength=s))(jnp.array([0.0, 1.0]))
    penalty = np.sum(np.asarray(problem[0].weights) ** 2)
    np.testing.assert_allclose(values[1] - values[0], penalty, rtol=1e-12)


def test_l1_and_none_are_what_they_say(problem):
    params, batch = problem
    base = compose(linear, losses.softmax_cross_entropy, regularizers.none)
    l1 = compose(linear, losses.softmax_cross_entropy, regularizers.l1)
    assert base(params, batch, strength=3.0) == base(params, batch)
    np.testing.assert_allclose(
        l1(params, batch, strength=3.0) - base(params, batch),
        3 * np.abs(np.asarray(params.weights)).sum(),
        rtol=1e-12,
    )


def test_prior_variance_is_scikit_learns_c():
    # C = 1 / (2 N strength): scikit-learn minimizes sum of losses + |W|^2 / (2 C).
    assert regularizers.prior_variance(5e-4, examples=50_000) == pytest.approx(0.02)


def test_weights_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"one entry per example, \(8,\), got \(7,\)"):
        weighted_mean(jnp.zeros(8), jnp.ones(7))


def test_a_batch_with_weights_of_another_shape_is_refused(problem):
    objective = compose(linear, losses.softmax_cross_entropy)
    with pytest.raises(ValueError, match=r"one entry per example, \(8,\), got \(7,\)"):
        objective(problem[0], problem[1]._replace(weights=jnp.ones(7)))


def test_the_mean_of_counts_is_not_a_count():
    # integers are averaged as floats: (1 * 0.5 + 4 * 0.25) / 0.75
    assert weighted_mean(jnp.array([1, 4]), [0.5, 0.25]) == 2.0


LOST = [1, 4, 7]  # rows whose weight is 0 in `with_lost_rows`


def with_lost_rows(batch):
    """NaN, infinite and unlabeled rows of weight 0, the others of weights 1, 2, ..."""
    inputs = batch.inputs.at[1].set(jnp.nan).at[4, 0].set(jnp.inf)
    labels = batch.labels.at[1].set(-100).at[4].set(3).at[7].set(-1)
    return Batch(inputs, labels, jnp.arange(1.0, 9).at[jnp.array(LOST)].set(0))


def only_kept_rows(batch):
    kept = np.delete(np.arange(8), LOST)
    return Batch(*(leaf[kept] for leaf in batch))


@pytest.mark.parametrize("name", losses.LOSSES)
def test_weight_0_means_not_there_whatever_the_row_holds(name, problem):
    params, batch = problem
    batch, objective = with_lost_rows(batch), compose(linear, losses.named(name))
    both = jax.jit(jax.value_and_grad(partial(objective, strength=0.1)))
    value, gradient = both(params, batch)
    expected, slope = both(params, only_kept_rows(batch))
    close = partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-14)  # sums in another order
    close(value, expected)
    jax.tree.map(close, gradient, slope)
    # on paper: a lost row moves nothing, the others what they move without it
    of_inputs = jax.jit(jax.grad(lambda x: objective(params, batch._replace(inputs=x))))
    by_inputs = of_inputs(batch.inputs)
    np.testing.assert_array_equal(by_inputs[jnp.array(LOST)], 0)
    assert np.isfinite(by_inputs).all()
    assert np.any(by_inputs != 0)
    for found in (
        gradient_in_parts(partial(objective, strength=0.1), 4)(params, batch),  # one part is lost
        jax.value_and_grad(linear_objective(losses.named(name), batch, strength=0.1))(params),
    ):
        close(found[0], expected)
        jax.tree.map(close, found[1], slope)


def test_a_batch_of_nothing_is_refused_where_it_is_known(problem):
    lost = problem[1]._replace(weights=np.zeros(8))
    with pytest.raises(ValueError, match="all its examples have weight 0"):
        linear_objective(losses.softmax_cross_entropy, lost)
    with pytest.raises(ValueError, match=r"one entry per example, \(8,\), got \(3,\)"):
        linear_objective(losses.softmax_cross_entropy, lost._replace(weights=np.ones(3)))


@pytest.mark.parametrize(("nothing", "weights"), [(-100, None), (0, np.arange(1.0, 9))])
def test_the_mean_leaves_out_the_label_that_the_loss_ignores(nothing, weights, problem):
    params, batch = problem
    batch = batch._replace(labels=jnp.maximum(batch.labels, 1))
    loss = partial(losses.softmax_cross_entropy, label_smoothing=0.1)
    kept = np.delete(np.arange(8), LOST)
    alone = Batch(
        batch.inputs[kept], batch.labels[kept], None if weights is None else weights[kept]
    )
    expected, slope = jax.value_and_grad(compose(linear, loss))(params, alone)
    batch = Batch(batch.inputs, batch.labels.at[jnp.array(LOST)].set(nothing), weights)
    ignoring = partial(loss, ignore_index=nothing)
    objective = compose(linear, ignoring)
    for found in (
        jax.value_and_grad(objective)(params, batch),
        gradient_in_parts(partial(objective, strength=0.0), 3)(params, batch),  # one all ignored
        jax.value_and_grad(linear_objective(ignoring, batch))(params),
    ):
        close = partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-14)
        close(found[0], expected)
        jax.tree.map(close, found[1], slope)


HALF = pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float8_e5m2])


@HALF
def test_half_precision_is_averaged_in_float32(dtype):
    ones = jnp.ones(70_000, dtype)  # more than float16 holds, and bfloat16 can count
    for weights in (None, ones, np.ones(70_000)):
        found = weighted_mean(ones, weights)
        assert (found, found.dtype) == (1.0, jnp.float32)
    assert (regularizers.l1(ones), regularizers.l2(2 * ones)) == (70_000.0, 280_000.0)
    assert regularizers.none(ones).dtype == jnp.float32


@HALF
def test_parameters_of_half_precision_have_an_objective_in_float32(dtype):
    # W = 0 and one class of two: the loss is log 2 and the bias gradient (p - 1, p) with p = 1/2,
    # a sum of 3,000 terms that bfloat16 cannot count; inputs of 1 give the weights the same.
    batch = Batch(np.ones((3000, 3), np.uint8), np.zeros(3000, np.int32))
    params = LinearParams(jnp.zeros((2, 3), dtype), jnp.zeros(2, dtype))
    objective = compose(linear, losses.softmax_cross_entropy)
    for value, gradient in (
        jax.value_and_grad(objective)(params, batch),
        gradient_in_parts(objective, 7)(params, batch),
        jax.value_and_grad(linear_objective(losses.softmax_cross_entropy, batch))(params),
    ):
        assert value.dtype == jnp.float32
        # a sum of 3,000 float32 terms errs by some 10 units of 6e-8, less than half a unit of dtype
        np.testing.assert_allclose(value, np.log(2), rtol=1e-5)
        assert gradient.bias.dtype == gradient.weights.dtype == dtype
        np.testing.assert_array_equal(np.float32(gradient.bias), [-0.5, 0.5])
        np.testing.assert_array_equal(np.float32(gradient.weights), [[-0.5] * 3, [0.5] * 3])
