"""The compiled loop against the lecture's loop in NumPy, and its promises on bits and batches."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxlin import losses, train
from jaxlin.batches import epoch_order, epoch_plan
from jaxlin.core import Batch, LinearParams
from jaxlin.objectives import compose
from jaxlin.scores import linear

KEY = jax.random.key(3)
OBJECTIVE = partial(compose(linear, losses.weston_watkins_hinge), strength=0.01)
START = LinearParams(jnp.zeros((3, 5)), jnp.zeros(3))


@pytest.fixture
def data():
    rng = np.random.default_rng(2)
    return Batch(rng.normal(size=(21, 5)), rng.integers(0, 3, 21).astype(np.int32))


def last(iterator):
    *_, (state, _) = iterator
    return state


def assert_same_bits(first, second):
    jax.tree.map(np.testing.assert_array_equal, first, second)


def hand_written_sgd(data, *, steps, batch_size, step_size):
    """The lecture's minibatch loop with the hand-derived gradient of the SVM loss."""
    weights, bias = np.zeros((3, 5)), np.zeros(3)
    per_epoch = -(-21 // batch_size)
    for step in range(steps):
        order, first = epoch_order(KEY, step // per_epoch, 21), step % per_epoch * batch_size
        rows = order[first : first + batch_size]
        grad_w, grad_b = 0.02 * weights, np.zeros(3)
        for x, y in zip(data.inputs[rows], data.labels[rows], strict=True):
            scores = weights @ x + bias
            for j in range(3):
                if j != y and scores[j] - scores[y] + 1 > 0:
                    grad_w[j] += x / len(rows)
                    grad_w[y] -= x / len(rows)
                    grad_b[j] += 1 / len(rows)
                    grad_b[y] -= 1 / len(rows)
        weights = weights - step_size * grad_w
        bias = bias - step_size * grad_b
    return weights, bias


@pytest.mark.parametrize("batch_size", [1, 8, 21, 100])
def test_the_loop_is_the_lectures_for_every_batch_size(batch_size, data):
    descent = train.trainer(OBJECTIVE, optax.sgd(0.1))
    state = last(
        train.chunks(descent, descent.init(START), data, key=KEY, steps=30, batch_size=batch_size)
    )
    weights, bias = hand_written_sgd(data, steps=30, batch_size=min(batch_size, 21), step_size=0.1)
    # 30 steps of additions of numbers of size 1: a few hundred eps.
    np.testing.assert_allclose(state.params.weights, weights, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(state.params.bias, bias, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("chunk_steps", [1, 2, 3])
def test_chunks_of_any_length_give_the_same_bits(chunk_steps, data):
    descent = train.trainer(OBJECTIVE, optax.adam(0.1))
    run = partial(train.chunks, descent, descent.init(START), data, key=KEY, steps=11, batch_size=8)
    assert_same_bits(last(run()), last(run(chunk_steps=chunk_steps)))


def test_a_continued_run_gives_the_bits_of_an_unbroken_one(data):
    descent = train.trainer(OBJECTIVE, optax.adam(0.1))
    run = partial(train.chunks, descent, data=data, key=KEY, batch_size=8)
    broken = last(run(state=descent.init(START), steps=4))
    assert_same_bits(
        last(run(state=broken, steps=11)), last(run(state=descent.init(START), steps=11))
    )


def test_the_chunk_is_the_step_repeated(data):
    descent = train.trainer(OBJECTIVE, optax.sgd(0.1))
    state = descent.init(START)
    plan = epoch_plan(KEY, 0, 21, 8)
    for rows, weights in zip(*plan, strict=True):
        state, _ = descent.step(state, Batch(data.inputs[rows], data.labels[rows], weights))
    looped = last(train.chunks(descent, descent.init(START), data, key=KEY, steps=3, batch_size=8))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-13, atol=1e-15), looped, state)


def test_sample_weights_count(data):
    descent = train.trainer(OBJECTIVE, optax.sgd(0.1))
    counts = np.array([0.0, 1, 2] * 7)
    copies = Batch(
        np.repeat(data.inputs, counts.astype(int), axis=0),
        np.repeat(data.labels, counts.astype(int)),
    )
    states = [
        last(train.chunks(descent, descent.init(START), d, key=KEY, steps=5, batch_size=100))
        for d in (data._replace(weights=counts), copies)
    ]
    np.testing.assert_allclose(states[0].params.weights, states[1].params.weights, rtol=1e-12)


def test_one_compilation_serves_partial_batches_and_partial_epochs(data):
    traces = []

    def objective(params, batch):
        traces.append(1)
        return OBJECTIVE(params, batch)

    descent = train.trainer(objective, optax.sgd(0.1))
    train.run(descent, START, data, key=KEY, steps=7, batch_size=8)
    assert len(traces) == 1


def test_best_on_validation_is_returned_and_loss_breaks_ties(data):
    descent = train.trainer(OBJECTIVE, optax.sgd(0.1))
    measured = iter([(1.0, 0.5), (2.0, 0.9), (0.5, 0.7), (1.9, 0.9), (1.9, 0.9)])
    seen = []

    def validate(params):
        seen.append(params)
        return next(measured)

    fitted = train.run(descent, START, data, key=KEY, steps=15, batch_size=8, validate=validate)
    assert_same_bits(fitted.params, seen[3])
    assert [record.validation_accuracy for record in fitted.history] == [0.5, 0.9, 0.7, 0.9, 0.9]


def test_patience_stops_early(data):
    descent = train.trainer(OBJECTIVE, optax.sgd(0.1))
    fitted = train.run(
        *(descent, START, data), key=KEY, steps=300, batch_size=8,
        validate=lambda params: (1.0, 0.5), patience=2,
    )  # fmt: skip
    assert fitted.status == "stopped early"
    assert len(fitted.history) == 3


def test_a_loss_that_is_not_finite_ends_the_run_with_the_last_finite_model(data):
    descent = train.trainer(compose(linear, losses.squared_weston_watkins_hinge), optax.sgd(1e60))
    fitted = train.run(descent, START, data, key=KEY, steps=300, batch_size=8)
    assert fitted.status == "diverged"
    assert len(fitted.history) < 100
    assert np.isfinite(fitted.params.weights).all()


def test_all_optimizers_lower_the_loss(data):
    labels = (data.inputs @ np.arange(5.0) > 0).astype(np.int32)
    for name in train.OPTIMIZERS:
        size = 0.1 if name == "lars" else 0.01
        start = jax.tree.map(lambda leaf: leaf + 0.01, START)  # lars scales by the weights' norm
        fitted = train.run(
            train.trainer(OBJECTIVE, train.optimizer(name, size)),
            start, Batch(data.inputs, labels), key=KEY, steps=60, batch_size=8,
        )  # fmt: skip
        assert fitted.history[-1].loss < fitted.history[0].loss, name


def test_adamw_decays_the_weights_and_not_the_bias():
    zero = train.trainer(
        lambda params, batch: 0.0 * params.bias.sum(), train.optimizer("adamw", 0.5, decay=0.2)
    )
    state = zero.init(LinearParams(jnp.ones((2, 3)), jnp.ones(2)))
    state, _ = zero.step(state, Batch(jnp.zeros((1, 3)), jnp.zeros(1, int)))
    np.testing.assert_allclose(state.params.weights, 0.9)
    np.testing.assert_array_equal(state.params.bias, 1.0)


@pytest.mark.parametrize("name", train.SCHEDULES)
def test_schedules_start_at_the_step_size(name):
    law = train.schedule(name, 0.5, 100)
    last = {"constant": 0.5, "steps": 0.0005}.get(name, 0.0)
    assert max(float(law(step)) for step in range(100)) == pytest.approx(0.5)
    assert float(law(100)) == pytest.approx(last, abs=1e-9)


def test_published_laws_have_their_corners():
    steps = train.schedule("steps", 1.0, 28)  # VISSL: 28 epochs, divided after 8, 16 and 24
    found = [round(float(steps(epoch)), 6) for epoch in (0, 7, 9, 15, 17, 23, 25, 27)]
    assert found == [1, 1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    warm = train.schedule("warmup-cosine", 1.0, 90)  # MAE: 10 of 90 epochs
    assert [float(warm(epoch)) for epoch in (0, 5, 10, 50)] == pytest.approx([0, 0.5, 1, 0.5])


def test_lars_scales_the_weights_and_not_the_bias():
    law = train.optimizer("lars", 0.5)
    params = LinearParams(jnp.full((2, 2), 3.0), jnp.full(2, 7.0))
    gradient = LinearParams(jnp.full((2, 2), 2.0), jnp.full(2, 2.0))
    updates, _ = law.update(gradient, law.init(params), params)
    # trust: 0.001 * |W| / |gradient| = 0.001 * 6 / 4
    np.testing.assert_allclose(updates.weights, -0.5 * 2 * 0.0015)
    np.testing.assert_allclose(updates.bias, -0.5 * 2)


def test_names_that_are_unknown_are_refused():
    with pytest.raises(ValueError, match="`optimizer` must be one of sgd"):
        train.optimizer("sdg", 0.1)
    with pytest.raises(ValueError, match="`schedule` must be one of constant"):
        train.schedule("cosin", 0.1, 10)


def without_seconds(history):
    return [record._replace(seconds=0) for record in history]


@pytest.mark.parametrize(
    ("validated", "patience"), [(True, None), (True, 2), (False, None)], ids=str
)
def test_a_run_goes_on_from_any_progress_as_if_it_had_not_stopped(
    data, monkeypatch, validated, patience
):
    monkeypatch.setattr(train, "CHUNK_STEPS", 2)  # three steps an epoch: a record inside each
    descent = train.trainer(OBJECTIVE, optax.adam(0.1))

    def validate(params):
        return float(params.weights.sum()), round(float(params.weights[0, 0]), 1)

    go = partial(
        *(train.run, descent, START, data), key=KEY, steps=20, batch_size=8, patience=patience,
        validate=validate if validated else None,
    )  # fmt: skip
    whole, saved = go(), []

    def on_progress(progress):
        arrays, record = train.pack(progress)
        saved.append((*jax.tree.map(np.array, arrays), json.loads(json.dumps(record))))

    watched = go(on_progress=on_progress, next_due=lambda step: step + 1)
    assert [int(entry[0].step) for entry in saved] == list(range(int(whole.state.step) + 1))
    for fitted in [watched, *(go(start=train.unpack(s[:3], s[3])) for s in saved[::3])]:
        assert_same_bits((fitted.params, fitted.state), (whole.params, whole.state))
        assert without_seconds(fitted.history) == without_seconds(whole.history)
        assert fitted.status == whole.status


def test_chunks_lie_on_one_grid_wherever_a_run_was_cut(data):
    descent = train.trainer(OBJECTIVE, optax.sgd(0.1))
    run = partial(train.chunks, descent, data=data, key=KEY, steps=22, batch_size=2, chunk_steps=4)
    ends = [int(state.step) for state, _ in run(state=descent.init(START))]
    assert ends == [4, 8, 11, 15, 19, 22]
    cut = descent.init(START)._replace(step=jnp.array(5, jnp.int32))
    assert [int(state.step) for state, _ in run(state=cut)] == [8, 11, 15, 19, 22]
    looked = [int(state.step) for state, _ in run(state=cut, until=lambda step: step + 3)]
    assert looked == [8, 11, 14, 15, 18, 19, 22]


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_is_trained_with_losses_in_float32(dtype):
    # one class of two at W = 0: the loss is log 2, the gradient (-1/2, 1/2) for each parameter
    data = Batch(np.ones((3000, 4), np.uint8), np.zeros(3000, np.int32))
    params = LinearParams(jnp.zeros((2, 4), dtype), jnp.zeros(2, dtype))
    descent = train.trainer(compose(linear, losses.softmax_cross_entropy), optax.sgd(0.5))
    steps = train.chunks(descent, descent.init(params), data, key=KEY, steps=1, batch_size=3000)
    ((state, infos),) = list(steps)
    assert infos.loss.dtype == infos.gradient_norm.dtype == np.float32
    np.testing.assert_allclose(infos.loss, np.log(2), rtol=1e-5)  # 3,000 float32 terms
    np.testing.assert_allclose(infos.gradient_norm, np.sqrt(10 / 4), rtol=1e-6)
    assert state.params.weights.dtype == dtype
    np.testing.assert_array_equal(np.float32(state.params.bias), [0.25, -0.25])
