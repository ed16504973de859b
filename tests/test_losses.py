"""Each loss against loops in plain Python, values worked out on paper, and its stated facts."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.metrics import hinge_loss, log_loss

from jaxlin import losses
from jaxlin.core import EXCLUDED

SCORES, CAT = [-96.8, 437.9, 60.75], 0  # the course's cat, dog and ship; the picture is a cat


def wrong(row, y, margin):
    return [max(0.0, s - row[y] + margin) for j, s in enumerate(row) if j != y]


def every(row, y, margin):
    return [max(0.0, margin - s if j == y else margin + s) for j, s in enumerate(row)]


def squared(values):
    return [value**2 for value in values]


ORACLES = {
    "softmax": lambda row, y, _: -math.log(math.exp(row[y]) / sum(map(math.exp, row))),
    "hinge": lambda *a: sum(wrong(*a)),
    "crammer-singer": lambda *a: max(wrong(*a)),
    "one-vs-rest": lambda *a: sum(every(*a)),
    "squared-hinge": lambda *a: sum(squared(wrong(*a))),
    "squared-crammer-singer": lambda *a: max(squared(wrong(*a))),
    "squared-one-vs-rest": lambda *a: sum(squared(every(*a))),
}
each_loss = pytest.mark.parametrize("name", ORACLES)
each_hinge = pytest.mark.parametrize("name", [name for name in ORACLES if name != "softmax"])


@pytest.fixture
def batch():
    rng = np.random.default_rng(231)
    return jnp.array(rng.normal(0, 3, (7, 10))), jnp.array(rng.integers(0, 10, 7))


def test_every_loss_has_an_oracle():
    assert ORACLES.keys() == losses.LOSSES.keys()


@each_loss
@pytest.mark.parametrize("margin", [0.0, 1.0, 2.5])
def test_value_is_the_one_of_the_loop(name, margin, batch):
    scores, labels = map(np.asarray, batch)
    looped = [ORACLES[name](row.tolist(), y, margin) for row, y in zip(scores, labels, strict=True)]
    # A handful of float64 operations on numbers of size 10: 1e-12 is hundreds of roundings.
    np.testing.assert_allclose(losses.named(name, margin=margin)(*batch), looped, rtol=1e-12)


@each_loss
def test_gradient_is_the_slope_of_the_loop(name, batch):
    scores, labels = batch
    gradient = jax.grad(lambda s: losses.named(name)(s, labels).sum())(scores)
    for (i, j), slope in np.ndenumerate(gradient):
        y, h = int(labels[i]), 1e-6  # kinks are further than h away: the scores are generic
        up, down = np.array(scores[i]), np.array(scores[i])
        up[j] += h
        down[j] -= h
        numeric = (
            (ORACLES[name](up.tolist(), y, 1.0) - ORACLES[name](down.tolist(), y, 1.0)) / 2 / h
        )
        # Rounding: eps * (squared values up to 200) / h = 4e-8.
        assert slope == pytest.approx(numeric, rel=1e-7, abs=1e-7)


@each_loss
def test_leading_axes_batch(name, batch):
    scores, labels = batch
    stacked = losses.named(name)(jnp.stack([scores, -scores]), jnp.stack([labels, labels]))
    assert stacked.shape == (2, 7)
    np.testing.assert_array_equal(stacked[0], losses.named(name)(scores, labels))


@each_loss
def test_labels_of_another_shape_are_refused(name, batch):
    with pytest.raises(ValueError, match=r"scores.shape\[:-1\] = \(7,\), got \(7, 1\)"):
        losses.named(name)(batch[0], batch[1][:, None])


@each_loss
def test_labels_that_are_not_integers_are_refused(name, batch):
    with pytest.raises(TypeError, match="`labels` must be integer classes, got float64"):
        losses.named(name)(batch[0], batch[1].astype(float))


@each_loss
def test_integer_scores_are_refused(name, batch):
    with pytest.raises(TypeError, match="`scores` must be floating, got int"):
        losses.named(name)(batch[0].astype(int), batch[1])


def test_lecture_example_has_the_hinge_and_the_cross_entropy_worked_out_on_paper():
    # hinge: (437.9 + 96.8 + 1) + (60.75 + 96.8 + 1) = 694.25; cross-entropy: 437.9 + 96.8.
    scores, label = jnp.array(SCORES), jnp.array(CAT)
    assert losses.weston_watkins_hinge(scores, label).item() == pytest.approx(694.25, rel=1e-14)
    assert losses.softmax_cross_entropy(scores, label).item() == pytest.approx(534.7, rel=1e-14)


def test_printed_ship_score_gives_the_hinge_without_the_bias():
    printed = jnp.array([-96.8, 437.9, 61.95])
    assert losses.weston_watkins_hinge(printed, jnp.array(0)).item() == pytest.approx(695.45)


def test_course_example_with_margin_10_has_hinge_8():
    scores, label = jnp.array([13.0, -7.0, 11.0]), jnp.array(0)
    assert losses.weston_watkins_hinge(scores, label, margin=10).item() == 8.0


def test_cross_entropy_is_the_one_of_scikit_learn(batch):
    scores, labels = batch
    theirs = log_loss(labels, jax.nn.softmax(scores), labels=range(10))
    ours = losses.softmax_cross_entropy(scores, labels).mean()
    np.testing.assert_allclose(ours, theirs, rtol=1e-10)  # theirs clips and renormalizes


def test_crammer_singer_is_the_hinge_of_scikit_learn(batch):
    scores, labels = batch
    theirs = hinge_loss(labels, np.asarray(scores), labels=range(10))
    np.testing.assert_allclose(losses.crammer_singer_hinge(scores, labels).mean(), theirs)


@each_hinge
def test_gradient_on_the_kink_leaves_the_tied_class_out(name):
    # s_y - s_j = margin for j = 1 and, for one-vs-rest, s_y = margin and s_j = -margin.
    scores = jnp.array([1.0, -1.0, -1.0] if "rest" in name else [2.0, 1.0, 0.0])
    gradient = jax.grad(losses.named(name))(scores, jnp.array(0))
    np.testing.assert_array_equal(gradient, [0.0, 0.0, 0.0])


def test_ties_between_rivals_go_to_the_first():
    gradient = jax.grad(losses.crammer_singer_hinge)(jnp.zeros(3), jnp.array(0))
    np.testing.assert_array_equal(gradient, [-1.0, 1.0, 0.0])


@each_hinge
def test_margin_may_be_traced(name, batch):
    margins = jnp.array([0.5, 1.0])
    both = jax.vmap(lambda m: losses.named(name, margin=m)(*batch))(margins)
    np.testing.assert_allclose(both[1], losses.named(name)(*batch), rtol=1e-14)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@each_loss
def test_dtype_of_the_scores_is_kept(name, dtype, batch):
    assert losses.named(name)(batch[0].astype(dtype), batch[1]).dtype == dtype


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float8_e5m2])
@each_loss
def test_half_precision_is_read_as_float32(name, dtype, batch):
    loss, scores = losses.named(name), batch[0].astype(dtype)
    found = loss(scores, batch[1])
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, loss(scores.astype(jnp.float32), batch[1]))
    assert jax.grad(lambda s: loss(s, batch[1]).sum())(scores).dtype == dtype


@pytest.mark.parametrize(
    ("name", "on_paper"),
    [("softmax", math.log(70_000)), ("hinge", 69_999), ("one-vs-rest", 70_000)],
)
def test_more_classes_than_half_precision_can_count(name, on_paper):
    # float16 ends at 65,504. logsumexp of 70,000 terms in float32: a few units of 6e-8 in log(n).
    found = losses.named(name)(jnp.zeros(70_000, jnp.float16), jnp.array(0))
    np.testing.assert_allclose(found, on_paper, rtol=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.75, 1.0])
def test_label_smoothing_spreads_a_share_over_all_classes(share, batch):
    found = losses.softmax_cross_entropy(*batch, label_smoothing=share)
    for value, row, y in zip(found, *map(np.asarray, batch), strict=True):
        costs = [math.log(sum(map(math.exp, row))) - s for s in row]  # -log p_k
        truth = [share / 10 + (1 - share) * (k == y) for k in range(10)]
        on_paper = sum(q * cost for q, cost in zip(truth, costs, strict=True))
        # a few roundings of numbers of size 10 on both sides
        np.testing.assert_allclose(value, on_paper, rtol=1e-13, atol=1e-14)
    smooth = optax.smooth_labels(jax.nn.one_hot(batch[1], 10), share)
    theirs = optax.softmax_cross_entropy(batch[0], smooth)
    np.testing.assert_allclose(found, theirs, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float16])
def test_classes_that_are_masked_have_no_share_of_a_smoothed_label(batch, dtype):
    """Value and gradient are those of the scores without them, of which the masked have none."""
    scores, labels = batch[0].astype(dtype), batch[1]

    def mean(scores):
        return losses.softmax_cross_entropy(scores, labels, label_smoothing=0.3).mean()

    value, gradient = jax.value_and_grad(mean)(scores)
    for mask in (EXCLUDED, -jnp.inf):  # in half precision both are infinite
        padded = jnp.pad(scores, ((0, 0), (0, 2)), constant_values=mask)
        found, its_gradient = jax.value_and_grad(mean)(padded)
        np.testing.assert_allclose(found, value, rtol=1e-6)
        expected = np.pad(gradient, ((0, 0), (0, 2)))
        np.testing.assert_allclose(its_gradient, expected, atol=float(jnp.finfo(dtype).eps))


def test_label_smoothing_may_be_traced_and_stays_in_its_range(batch):
    def loss(share):
        return losses.softmax_cross_entropy(*batch, label_smoothing=share)

    both = jax.vmap(loss)(jnp.array([0.0, 0.25]))
    np.testing.assert_allclose(both, [loss(0), loss(0.25)], rtol=1e-13)
    with pytest.raises(ValueError, match=r"`label_smoothing` must be in \[0, 1\], got 1.5"):
        loss(1.5)


@pytest.mark.parametrize("share", [0.0, 0.1])
@pytest.mark.parametrize("nothing", [-100, -1, 10, 3])
def test_an_ignored_label_costs_nothing_and_moves_nothing(nothing, share, batch):
    scores, labels = batch
    ignored = np.array([1, 4])
    labels = jnp.where(labels == nothing, 0, labels).at[ignored].set(nothing)
    scores = scores.at[ignored[0]].set(jnp.nan)

    def loss(scores, labels):
        values = losses.softmax_cross_entropy(
            scores, labels, label_smoothing=share, ignore_index=nothing
        )
        return values.sum(), values

    gradient, values = jax.grad(loss, has_aux=True)(scores, labels)
    np.testing.assert_array_equal(values[ignored], 0)
    np.testing.assert_array_equal(gradient[ignored], 0)
    rest = np.delete(np.arange(7), ignored)
    alone = losses.softmax_cross_entropy(scores[rest], labels[rest], label_smoothing=share)
    np.testing.assert_array_equal(values[rest], alone)
    assert np.all(np.any(gradient[rest] != 0, axis=1))


def test_cross_entropy_of_huge_equal_scores_is_log_classes():
    loss = losses.softmax_cross_entropy(jnp.full((4, 10), 1e4), jnp.arange(4))
    np.testing.assert_allclose(loss, math.log(10), rtol=1e-11)  # 1e4 * eps / log 10 = 1e-12


def test_shift_of_all_scores_changes_softmax_and_margins_by_rounding_only(batch):
    scores, labels = batch
    for name in ("softmax", "hinge", "crammer-singer"):
        loss = losses.named(name)
        np.testing.assert_allclose(loss(scores + 100, labels), loss(scores, labels), rtol=1e-11)


def test_a_name_that_is_no_loss_is_refused():
    with pytest.raises(ValueError, match="`loss` must be one of softmax, hinge"):
        losses.named("logistic")
