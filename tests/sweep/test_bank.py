"""A bank of heads against single runs of `jaxlin.train`: the same numbers, side by side."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlin import losses, models, preprocess, regularizers, train
from jaxlin.core import Batch, LinearParams
from jaxlin.objectives import compose
from jaxlin.sweep import Descent, Subset, descend, grid
from jaxlin.sweep.bank import measure, start
from jaxlin.sweep.minibatch import bank_size

KEY = jax.random.key(5)


@pytest.fixture(scope="module")
def digits():
    from jaxlin.data import load

    data = load("digits")
    order = np.random.default_rng(0).permutation(len(data.labels))
    train_rows, held_rows = order[:500], order[500:700]
    parts = [
        Batch(data.inputs[r], data.labels[r].astype(np.int32)) for r in (train_rows, held_rows)
    ]
    return (*parts, preprocess.fit(parts[0].inputs, "standardize"))


def single_run(head, data, validation, statistics, descent, *, dtype, patience=None):
    """The same head by the training loop of `jaxlin train`."""
    loss = losses.named(head.loss, margin=descent.margin)
    score = models.score_function(
        jax.tree.map(jnp.asarray, statistics._replace(kind=None))._replace(kind=statistics.kind)
    )
    strength, decay = (0.0, 2 * head.strength) if descent.decoupled else (head.strength, 0.0)
    objective = compose(score, loss, getattr(regularizers, descent.regularizer))
    law = train.schedule(descent.schedule, head.step_size, descent.steps)

    def validate(params):
        model = models.Model(params, statistics, tuple("0123456789"), None, head.loss)
        scores = models.scores(model, validation.inputs)
        values = loss(jnp.asarray(scores), jnp.asarray(validation.labels))
        return float(values.mean()), float(np.mean(scores.argmax(1) == validation.labels))

    return train.run(
        train.trainer(
            partial(objective, strength=strength),
            train.optimizer(descent.optimizer, law, decay=decay),
        ),
        LinearParams(jnp.zeros((10, 64), dtype), jnp.zeros(10, dtype)),
        data, key=KEY, steps=descent.steps, batch_size=64,
        validate=None if validation is None else validate, patience=patience,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_32_heads_are_32_single_runs(digits, dtype):
    data, validation, statistics = digits
    heads = grid([0.0, 1e-4, 1e-3, 1e-2], step_sizes=[1e-3, 1e-2], losses=["softmax", "hinge"],
                 seeds=[0, 1])  # fmt: skip
    descent = Descent("adam", "cosine", steps=40)
    fitted = descend(
        heads, data, validation, classes=10, statistics=statistics, descent=descent, key=KEY,
        batch_size=64, dtype=dtype,
    )  # fmt: skip
    assert len(fitted) == 32
    for found in (fitted[1], fitted[14], fitted[27], fitted[31]):
        run = single_run(found.head, data, validation, statistics, descent, dtype=dtype)
        # 40 steps of sums over 64 examples: rounding in another order, a few hundred eps. Adam
        # divides by the root of the second moment, which amplifies it where gradients vanish.
        tolerance = 1e-10 if dtype == np.float64 else 2e-5
        np.testing.assert_allclose(found.params.weights, run.params.weights, atol=tolerance)
        np.testing.assert_allclose(found.params.bias, run.params.bias, atol=tolerance)
        best = max(record.validation_accuracy for record in run.history)
        assert found.validation_accuracy == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("name", ["nesterov", "adamw", "lion", "lars"])  # adam is above
def test_optimizers_descend_as_in_a_single_run(digits, name):
    data, _, statistics = digits
    size = 0.3 if name == "lars" else 0.01
    heads = grid([1e-3, 1e-2], step_sizes=[size, size / 3])
    descent = Descent(name, "linear", steps=20, decoupled=name == "adamw")
    fitted = descend(
        heads, data, None, classes=10, statistics=statistics, descent=descent, key=KEY,
        batch_size=64, dtype=np.float64,
    )  # fmt: skip
    run = single_run(heads[1], data, None, statistics, descent, dtype=np.float64)
    # optax makes a Python number's schedule in float32: 6e-8 of each of 20 steps of 0.01.
    np.testing.assert_allclose(fitted[1].params.weights, run.params.weights, atol=3e-8)


def test_banks_split_for_memory_give_the_same_heads(digits):
    data, validation, statistics = digits
    heads = grid([1e-4, 1e-3, 1e-2], losses=["softmax", "hinge"])
    descent = Descent("momentum", "constant", steps=20)
    run = partial(
        descend, heads, data, validation, classes=10, statistics=statistics, descent=descent,
        key=KEY, batch_size=64, dtype=np.float64,
    )  # fmt: skip
    whole, split = run(), run(memory=200_000)
    sizes = dict(features=64, classes=10, batch_size=64, descent=descent, dtype=np.float64)
    assert 1 < bank_size(heads, memory=200_000, **sizes) < 6
    for a, b in zip(whole, split, strict=True):
        np.testing.assert_allclose(a.params.weights, b.params.weights, atol=1e-12)
        assert a.head == b.head


def test_a_bank_that_cannot_fit_is_refused():
    with pytest.raises(ValueError, match="One head of 1,000 classes"):
        bank_size(grid([1.0]), features=10_000, classes=1000, batch_size=256,
                  descent=Descent(), dtype=np.float32, memory=1 << 20)  # fmt: skip


def test_early_stop_is_per_head_and_compaction_changes_nothing(digits):
    data, validation, statistics = digits
    heads = grid([1e-4], step_sizes=[1e-9, 2e-9, 3e-9, 1e-2])
    descent = Descent("sgd", "constant", steps=8 * 30)
    fitted = descend(
        heads, data, validation, classes=10, statistics=statistics, descent=descent, key=KEY,
        batch_size=64, dtype=np.float64, patience=4,
    )  # fmt: skip
    for found in fitted[2:]:
        run = single_run(
            found.head, data, validation, statistics, descent, dtype=np.float64, patience=4
        )
        assert found.status == run.status
        np.testing.assert_allclose(found.params.weights, run.params.weights, atol=1e-10)
        assert len(found.history) == len(run.history)


def test_a_diverging_head_is_noted_and_disturbs_no_other(digits):
    data, validation, statistics = digits
    descent = Descent("sgd", "constant", steps=40)
    run = partial(
        descend, data=data, validation=validation, classes=10, statistics=statistics,
        descent=descent, key=KEY, batch_size=64, dtype=np.float64,
    )  # fmt: skip
    heads = grid([1e-4], step_sizes=[0.01, 1e300], losses=["squared-hinge"])
    good, bad = run(heads)
    (alone,) = run(heads[:1])
    assert bad.status == "diverged"
    assert np.isfinite(bad.params.weights).all()
    assert good.status == "done"
    np.testing.assert_allclose(good.params.weights, alone.params.weights, atol=1e-12)


def test_a_head_on_a_subset_is_a_run_on_those_columns(digits):
    data, validation, statistics = digits
    columns = np.r_[10:20, 30:40]
    heads = grid(
        [1e-3], step_sizes=[0.01], subsets=[Subset("all"), Subset("some", ((10, 20), (30, 40)))]
    )
    descent = Descent("adam", "constant", steps=30)
    narrow = preprocess.Preprocessing("standardize", *(a[columns] for a in statistics[1:]))
    run = partial(descend, classes=10, descent=descent, key=KEY, batch_size=64, dtype=np.float64)
    _, found = run(heads, data, validation, statistics=statistics)
    (alone,) = run(
        heads[:1], data._replace(inputs=data.inputs[:, columns]),
        validation._replace(inputs=validation.inputs[:, columns]), statistics=narrow,
    )  # fmt: skip
    np.testing.assert_allclose(found.params.weights[:, columns], alone.params.weights, atol=1e-11)
    assert not np.delete(found.params.weights, columns, axis=1).any()
    assert found.validation_accuracy == alone.validation_accuracy


def test_seeds_draw_the_initial_weights_and_do_not_depend_on_the_bank(digits):
    data, _, statistics = digits
    run = partial(
        descend, data=data, classes=10, statistics=statistics, descent=Descent("sgd", steps=1),
        key=KEY, batch_size=64, init_scale=0.01, stop_after=0,
    )  # fmt: skip
    first, second, third = run(grid([0.0], seeds=[0, 1, 2]))
    (alone,) = run(grid([0.0], seeds=[1]))
    np.testing.assert_array_equal(second.params.weights, alone.params.weights)
    assert not np.array_equal(first.params.weights, third.params.weights)
    assert np.std(first.params.weights) == pytest.approx(0.01, rel=0.1)


def test_batch_norm_standardizes_every_batch(digits):
    data, _, statistics = digits
    heads = grid([0.0], step_sizes=[0.1])
    descent = Descent("sgd", "constant", steps=1, batch_norm=True)
    (found,) = descend(heads, data, classes=10, statistics=statistics, descent=descent, key=KEY,
                       batch_size=500, dtype=np.float64)  # fmt: skip
    x = data.inputs.astype(float)
    x = (x - statistics.shift) * statistics.scale
    x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-6)
    residuals = 0.1 - np.eye(10)[data.labels]
    np.testing.assert_allclose(found.params.weights, -0.1 * residuals.T @ x / 500, atol=1e-14)


@pytest.mark.parametrize(
    ("axes", "sentence"),
    [
        ({"strengths": []}, "`strengths` is empty"),
        ({"strengths": [-1.0]}, "must be 0 or more"),
        ({"strengths": [1.0, 2.0, 1.0]}, "holds 1.0 twice"),
        ({"strengths": [np.nan]}, "must be 0 or more"),
        ({"strengths": [1.0], "step_sizes": [0.0]}, "`step_sizes` must be positive"),
        ({"strengths": [1.0], "losses": ["l"]}, "`losses` must be among"),
        ({"strengths": [1.0], "seeds": [-1]}, "`seeds` must be in"),
        ({"strengths": [1.0], "shots": [0]}, "`shots` must be 1"),
    ],
)
def test_axes_that_cannot_be_meant_are_refused(axes, sentence):
    with pytest.raises(ValueError, match=sentence):
        grid(**axes)


def test_a_sweep_that_was_cut_anywhere_goes_on_bit_for_bit(digits):
    """Three banks, early stops; cut after every look, through NumPy and back."""
    from jaxlin.sweep.progress import Progress, blank

    data, validation, statistics = digits
    heads = grid([1e-4], step_sizes=[1e-9, 2e-9, 1e-2, 3e-9, 2e-2, 3e-2])
    descent = Descent("adam", "cosine", steps=8 * 5)
    common = dict(classes=10, statistics=statistics, descent=descent, dtype=np.float32)
    run = partial(descend, heads, data, validation, key=KEY, batch_size=64, patience=2,
                  memory=110_000, **common)  # fmt: skip
    seen = []

    def on_progress(step, progress):
        seen.append(
            (step, progress.sizes, [np.asarray(leaf) for leaf in jax.tree.leaves(progress)])
        )

    whole = run(on_progress=on_progress)
    assert seen[-1][0] == 3 * descent.steps  # three banks of two heads
    assert {sizes["active"] for _, sizes, _ in seen} >= {0, 2}
    for _, sizes, leaves in (seen[0], seen[3], seen[len(seen) // 2], seen[-1]):
        like = blank(heads, sizes, features=64, **common)
        shapes = [(np.shape(a), np.asarray(a).dtype) for a in jax.tree.leaves(like)]
        assert shapes == [(a.shape, a.dtype) for a in leaves]
        resumed = jax.tree.unflatten(jax.tree.structure(like), leaves)
        assert isinstance(resumed, Progress)
        for a, b in zip(whole, run(resumed=resumed), strict=True):
            np.testing.assert_array_equal(a.params.weights, b.params.weights)
            assert a._replace(params=None) == b._replace(params=None)


def test_rows_of_weight_0_are_not_there(digits):
    data, _, statistics = digits
    rows = np.arange(40)
    inputs = np.array(data.inputs[rows], np.float64)
    labels, weights = np.array(data.labels[rows]), np.ones(40)
    inputs[[3, 30]], labels[[3, 17]], weights[[3, 17, 30]] = np.nan, -1, 0
    heads = grid([1e-3], step_sizes=[0.1], losses=["softmax", "hinge"])
    descent = Descent("sgd", "constant", steps=3)

    def of(batch):
        return descend(
            heads, batch, batch, classes=10, statistics=statistics, descent=descent, key=KEY,
            batch_size=64, dtype=np.float64,
        )  # fmt: skip

    kept = np.flatnonzero(weights)
    expected = of(Batch(inputs[kept], labels[kept]))
    for found, alone in zip(of(Batch(inputs, labels, weights)), expected, strict=True):
        # full batches in another order
        np.testing.assert_allclose(found.params.weights, alone.params.weights, rtol=1e-9)
        assert found.validation_accuracy == pytest.approx(alone.validation_accuracy)
        assert found.validation_loss == pytest.approx(alone.validation_loss)


def test_a_head_without_numbers_is_never_right(digits):
    data, _, statistics = digits
    heads = grid([0.0], step_sizes=[0.1], seeds=[0, 1])
    params = start(heads, 10, 64)
    params = params._replace(bias=params.bias.at[1].set(jnp.nan))
    accuracies, _ = measure(heads, params, Descent("sgd", "constant", steps=1), statistics, data)
    # zero scores name class 0, NaN names none
    np.testing.assert_allclose(accuracies, [np.mean(data.labels == 0), 0.0])


def test_bfloat16_rounds_operands_and_not_sums():
    """One step of size 1 from zero weights: minus the gradient, whose terms are known on paper."""
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(64, 20)).astype(np.float32)
    labels = np.arange(64, dtype=np.int32) % 4
    descent = Descent("sgd", "constant", 1, precision="bf16")
    (fit,) = descend(
        grid([0.0], step_sizes=[1.0]), Batch(inputs, labels), classes=4, descent=descent, key=KEY,
        statistics=preprocess.Preprocessing("none", np.zeros(20), np.ones(20)), batch_size=64,
    )  # fmt: skip
    # residuals (1/4 - [k = y]) / 64 are numbers of bfloat16, inputs are rounded to it
    residuals = (0.25 - np.eye(4)[labels]) / 64
    expected = -residuals.T @ inputs.astype(jnp.bfloat16).astype(np.float64)
    weights = np.asarray(fit.params.weights)
    # 64 products, exact in float32, and as many sums: each rounded to 6e-8 of at most 0.2
    np.testing.assert_allclose(weights, expected, rtol=0, atol=64 * 6e-8 * 0.2)
    assert (weights != weights.astype(jnp.bfloat16).astype(np.float32)).mean() > 0.9
