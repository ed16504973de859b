"""The affine path: equal to the loss evaluated at every point, whatever the loss and the scale."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from jaxlin import losses
from jaxlin.core import Batch, LinearParams
from jaxlin.landscape import affine_plane, affine_ray, plane, random, ray
from jaxlin.objectives import compose
from jaxlin.preprocess import apply, fit
from jaxlin.scores import linear

N, D, K = 57, 6, 5
STEPS_1, STEPS_2 = np.linspace(-1, 1, 4), np.array([0.5, -2.0, 0.0, 1.0, 0.25, 3.0])
LOSSES = [
    losses.softmax_cross_entropy,
    *(losses.weston_watkins_hinge, losses.squared_weston_watkins_hinge),
    *(losses.crammer_singer_hinge, losses.squared_crammer_singer_hinge),
    *(losses.one_vs_rest_hinge, losses.squared_one_vs_rest_hinge),
    partial(losses.weston_watkins_hinge, margin=3.0),
    lambda scores, labels: jax.nn.softplus(scores[:, 0]),
]


def draw(seed, scale=1.0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    weights, bias = rng.normal(0, scale, (K, D)), rng.normal(size=K)
    return LinearParams(jnp.array(weights, dtype), jnp.array(bias, dtype))


@pytest.fixture
def data():
    rng = np.random.default_rng(3)
    return rng.integers(0, 256, (N, D), dtype=np.uint8), rng.integers(0, K, N)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_affine_plane_and_ray_equal_the_generic_ones(loss, data):
    inputs, labels = data
    objective = compose(linear, loss)
    points = [draw(i, 0.02) for i in range(3)]

    def value(params):
        return objective(params, Batch(inputs, labels), strength=0.1)

    keywords = {"loss": loss, "strength": 0.1}
    found = affine_plane(*points, STEPS_1, STEPS_2, *data, **keywords)
    np.testing.assert_allclose(found, plane(value, *points, STEPS_1, STEPS_2), rtol=1e-12)
    found = affine_ray(*points[:2], STEPS_1, *data, **keywords)
    np.testing.assert_allclose(found, ray(value, *points[:2], STEPS_1), rtol=1e-12)


def scores_on_paper(points, inputs, a, b):
    s0, s1, s2 = (np.float64(inputs) @ np.float64(w).T + np.float64(c) for w, c in points)
    return s0 + a * s1 + b * s2


@pytest.mark.parametrize("scale", [1e-3, 0.3, 3.0, 1e4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_separated_softmax_neither_overflows_nor_loses_terms(scale, dtype, data):
    inputs, labels = data
    points = [draw(i, scale, dtype) for i in range(3)]
    steps = np.linspace(-1, 1, 17)  # more than the pieces of the second axis
    loss = losses.softmax_cross_entropy
    found = affine_plane(*points, STEPS_1, steps, inputs, labels, loss=loss)
    expected = np.empty(found.shape)
    for i, a in enumerate(STEPS_1):
        for j, b in enumerate(steps):
            s = scores_on_paper(points, inputs, a, b)
            expected[i, j] = np.mean(logsumexp(s, axis=1) - s[np.arange(N), labels])
    # scores carry the rounding of D products; a mean of N halves it at least
    np.testing.assert_allclose(found, expected, rtol=20 * np.finfo(dtype).eps)


@pytest.mark.parametrize("classes", [1, 40])
def test_few_and_many_classes_agree_with_the_generic_path(classes):
    rng = np.random.default_rng(5)
    inputs, labels = rng.normal(size=(9, 3)), rng.integers(0, classes, 9)
    points = [
        LinearParams(jnp.array(rng.normal(size=(classes, 3))), jnp.array(rng.normal(size=classes)))
        for _ in range(3)
    ]
    for loss in (losses.softmax_cross_entropy, losses.crammer_singer_hinge):
        objective = compose(linear, loss)
        found = affine_plane(*points, STEPS_1, STEPS_2, inputs, labels, loss=loss)
        expected = plane(
            lambda p, f=objective: f(p, Batch(inputs, labels)), *points, STEPS_1, STEPS_2
        )
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    accuracy = affine_plane(
        *points, STEPS_1, STEPS_2, inputs, labels, loss=losses.one_vs_rest_hinge,
        quantity="accuracy",
    )  # fmt: skip
    for i, a in enumerate(STEPS_1):
        for j, b in enumerate(STEPS_2):
            chosen = scores_on_paper(points, inputs, a, b).argmax(axis=1)
            assert accuracy[i, j] == pytest.approx(np.mean(chosen == labels))


def test_equal_scores_count_as_the_first_class(data):
    zero = LinearParams(jnp.zeros((K, D)), jnp.zeros(K))
    loss = losses.weston_watkins_hinge
    found = affine_ray(zero, draw(0), [0.0], *data, loss=loss, quantity="accuracy")
    np.testing.assert_allclose(found[0], np.mean(data[1] == 0), rtol=1e-15)


def test_the_mean_of_the_single_planes_is_the_plane(data):
    points = [draw(i, 0.02) for i in range(3)]
    loss = losses.weston_watkins_hinge
    single = affine_plane(*points, STEPS_1, STEPS_2, *data, loss=loss, quantity="losses")
    assert single.shape == (N, len(STEPS_1), len(STEPS_2))
    whole = affine_plane(*points, STEPS_1, STEPS_2, *data, loss=loss)
    np.testing.assert_allclose(whole, single.mean(axis=0), rtol=1e-13)


@pytest.mark.parametrize("loss", LOSSES[:7])
def test_convexity_holds_along_every_line_of_the_plane(loss, data):
    points = [draw(i, 0.01) for i in range(3)]
    rows, columns = np.linspace(-2, 2, 4), np.linspace(-2, 2, 6)
    values = np.asarray(affine_plane(*points, rows, columns, *data, loss=loss))
    bend = 1e-12 * values.max()
    lines = [*values, *values.T, np.diagonal(values), np.diagonal(values[::-1])]
    assert all(np.all(np.diff(line, 2) >= -bend) for line in lines)


@pytest.mark.parametrize("kind", ["standardize", "center", "scale"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_preprocessing_is_that_of_the_preprocessed_inputs(kind, dtype, data):
    inputs, labels = data[0].astype(dtype), data[1]
    fitted = fit(inputs, kind)
    points = [draw(i) for i in range(3)]
    keywords = {"loss": losses.weston_watkins_hinge}
    found = affine_plane(
        *points, STEPS_1, STEPS_2, inputs, labels, preprocessing=fitted, **keywords
    )
    ready = np.asarray(apply(fitted, jnp.asarray(inputs, jnp.float64)))
    expected = affine_plane(*points, STEPS_1, STEPS_2, ready, labels, **keywords)
    np.testing.assert_allclose(found, expected, rtol=1e-11)


def test_a_memory_map_is_read_in_chunks(tmp_path):
    rng = np.random.default_rng(8)
    inputs = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.uint8, (10_123, D))
    inputs[:] = rng.integers(0, 256, inputs.shape)
    labels = rng.integers(0, K, len(inputs))
    points = [draw(i, 0.01) for i in range(3)]
    loss = losses.weston_watkins_hinge
    found = affine_plane(
        *points, STEPS_1, STEPS_2, np.load(tmp_path / "x.npy", mmap_mode="r"), labels, loss=loss
    )
    expected = np.empty(found.shape)
    for i, a in enumerate(STEPS_1):
        for j, b in enumerate(STEPS_2):
            s = scores_on_paper(points, inputs, a, b)
            short = np.maximum(s - s[np.arange(len(s)), labels][:, None] + 1, 0)
            expected[i, j] = np.mean(short.sum(axis=1) - 1)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_several_devices_give_what_one_gives(data):
    one = jax.local_devices()[0]
    points = [draw(i, 0.01) for i in range(3)]
    found = [
        affine_plane(
            *points, STEPS_1, STEPS_2, *data, loss=losses.softmax_cross_entropy, devices=devices
        )
        for devices in ([one], [one, one, one])
    ]
    np.testing.assert_array_equal(*found)


def test_cells_that_are_not_finite_are_kept_and_counted(data):
    points = [draw(i) for i in range(3)]
    points[2] = points[2]._replace(bias=jnp.full(K, np.nan))
    for loss in (losses.softmax_cross_entropy, losses.weston_watkins_hinge):
        with pytest.warns(RuntimeWarning, match="24 of 24 cells"):
            found = affine_plane(*points, STEPS_1, STEPS_2, *data, loss=loss)
        assert not np.isfinite(found).any()


SOFTMAX = {"loss": losses.softmax_cross_entropy}
P, Q = draw(0), draw(1)
X, Y = np.ones((4, D)), np.array([0, 1, 2, 3])


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: affine_ray(P, Q, [0.0], X, np.array([0, 1, 2, K]), **SOFTMAX), ValueError,
         r"\[0, 5\), got 5 at row 3"),
        (lambda: affine_ray(P, Q, [0.0], X, np.eye(4), **SOFTMAX), TypeError, "argmax"),
        (lambda: affine_ray(P, Q, [0.0], X[:3], Y, **SOFTMAX), ValueError, "and `labels`"),
        (lambda: affine_ray(P, Q, [0.0], X[:, :3], Y, **SOFTMAX), ValueError, "D = 6"),
        (lambda: affine_ray(P, Q, [], X, Y, **SOFTMAX), ValueError, "is empty"),
        (lambda: affine_plane(P, Q, Q, [0.0], [0.0], X, Y, **SOFTMAX), ValueError, "parallel"),
        (lambda: affine_ray(jnp.ones(3), jnp.ones(3), [0.0], X, Y, **SOFTMAX), TypeError,
         "needs `LinearParams"),
        (lambda: affine_ray(P, Q, [0.0], X, Y, quantity="error", **SOFTMAX), ValueError,
         "loss, accuracy, losses"),
        (lambda: affine_ray(P, Q, np.zeros(1 << 22), np.ones((40_000, D)), np.zeros(40_000, int),
                            quantity="losses", **SOFTMAX), ValueError, "GiB"),
    ],
)  # fmt: skip
def test_bad_input_costs_one_sentence(call, error, words):
    with pytest.raises(error, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_single_precision_works_where_double_is_off(data):
    with jax.enable_x64(False):
        points = [draw(i, 0.01, np.float32) for i in range(3)]
        direction = random(jax.random.key(0), points[0])
        found = affine_ray(points[0], direction, STEPS_1, *data, **SOFTMAX)
        assert found.dtype == np.float32
        assert np.isfinite(found).all()


HALF = pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])


@HALF
def test_half_precision_is_read_as_float32(dtype, data):
    points = [draw(i, 0.02, dtype) for i in range(2)]
    wide = [jax.tree.map(lambda leaf: leaf.astype(jnp.float32), point) for point in points]
    for quantity in ("loss", "losses", "accuracy"):
        found, expected = (
            affine_ray(*along, [0.0, 0.1], *data, loss=losses.softmax_cross_entropy,
                       quantity=quantity)
            for along in (points, wide)
        )  # fmt: skip
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)


def steep(big):
    """Zero start, a direction and inputs: scores 1 and 2 after a step of 1 / big**2."""
    direction = LinearParams(jnp.diag(jnp.array([big, 2 * big], jnp.float32)), jnp.zeros(2, "f4"))
    return jax.tree.map(jnp.zeros_like, direction), direction, np.full((4, 2), big, np.float32)


@pytest.mark.parametrize("name", losses.LOSSES)
def test_a_direction_whose_scores_overflow_leaves_the_short_steps_alone(name):
    start, direction, inputs = steep(1e23)  # scores of 1e46: infinite in float32
    labels, loss = np.array([0, 1, 0, 1]), losses.named(name)
    on_paper = [loss(jnp.array([s] * 4), labels) for s in ([0.0, 0.0], [1.0, 2.0])]
    found = affine_ray(start, direction, [0.0, 1e-46], inputs, labels, loss=loss)
    # a few float32 roundings; powers of 10 are not exact
    np.testing.assert_allclose(found, np.mean(on_paper, axis=1), rtol=1e-6)


def test_every_quantity_of_a_plane_survives_the_overflow_of_a_direction():
    start, direction, inputs = steep(1e23)
    across = jax.tree.map(lambda leaf: leaf[::-1], direction)  # scores 2 and 1
    labels, loss = np.array([0, 1, 0, 1]), losses.softmax_cross_entropy
    scores = np.array([[[0.0, 0.0], [2.0, 1.0]], [[1.0, 2.0], [3.0, 3.0]]])
    each = np.stack([logsumexp(scores, axis=-1) - scores[..., y] for y in labels])
    steps = [0.0, 1e-46]
    along = partial(affine_plane, start, direction, across, steps, steps, inputs, labels, loss=loss)
    np.testing.assert_allclose(along(), each.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(along(quantity="losses"), each, rtol=1e-6)
    # 3.0 and 3.0 are not quite equal after rounding; half of the labels are each class
    np.testing.assert_array_equal(along(quantity="accuracy"), np.full((2, 2), 0.5))


@pytest.mark.parametrize("loss", LOSSES[:5:2])
def test_the_start_is_there_however_far_the_direction_goes(loss):
    # even in units of its own the direction's scores are beyond float32
    inputs, labels = np.full((3, 40), 3e37, np.float32), np.array([0, 1, 1])
    start = LinearParams(jnp.zeros((2, 40), jnp.float32), jnp.zeros(2, jnp.float32))
    direction = start._replace(weights=start.weights.at[0].set(1.0))
    expected = np.mean(loss(jnp.zeros((3, 2)), labels))
    with pytest.warns(RuntimeWarning, match="1 of 2 cells"):
        found = affine_ray(start, direction, [0.0, 1.0], inputs, labels, loss=loss)
    np.testing.assert_allclose(found[0], expected, rtol=1e-6)  # one float32 rounding in each loss
    assert not np.isfinite(found[1])
    with pytest.warns(RuntimeWarning, match="3 of 6 cells"):
        found = affine_ray(start, direction, [0.0, 1.0], inputs, labels, loss=loss,
                           quantity="losses")  # fmt: skip
    np.testing.assert_allclose(found[:, 0].mean(), expected, rtol=1e-6)


@pytest.mark.parametrize("classes", [1, 3, 40])
def test_scores_that_are_not_numbers_are_never_right(classes):
    # at W = 0 with a bias of NaN for the label's class, or beside it: no row has a prediction
    rng = np.random.default_rng(0)
    zero = LinearParams(jnp.zeros((classes, 2)), jnp.zeros(classes))
    along = zero._replace(weights=jnp.ones((classes, 2)))
    for lost in {0, classes - 1}:
        start = zero._replace(bias=zero.bias.at[lost].set(jnp.nan))
        found = affine_ray(
            start, along, [0.0, 1.0], rng.normal(size=(5, 2)), np.zeros(5, int),
            loss=losses.softmax_cross_entropy, quantity="accuracy",
        )  # fmt: skip
        np.testing.assert_array_equal(found, [0.0, 0.0])


def test_softmax_where_a_device_has_no_bits_of_float64(monkeypatch):
    """As on a TPU, with plain logarithms."""
    taken = []

    def on_a_tpu(*arguments, tpu, default):
        taken.append(tpu)
        return tpu(*arguments)

    monkeypatch.setattr(jax.lax, "platform_dependent", on_a_tpu)
    rng = np.random.default_rng(0)
    inputs, labels = rng.normal(size=(130, 3)), np.arange(130) % 4
    maps = [LinearParams(rng.normal(size=(4, 3)), rng.normal(size=4)) for _ in range(3)]
    steps = np.linspace(-2, 2, 9), np.linspace(-1, 1, 6)
    found = affine_plane(*maps, *steps, inputs, labels, loss=losses.softmax_cross_entropy)
    s0, s1, s2 = (inputs @ m.weights.T + m.bias for m in maps)
    a, b = (
        np.reshape(each, shape)
        for each, shape in zip(steps, [(9, 1, 1, 1), (6, 1, 1)], strict=True)
    )
    scores = s0 + a * s1 + b * s2
    expected = logsumexp(scores, axis=-1) - scores[..., np.arange(130), labels]
    np.testing.assert_allclose(found, expected.mean(-1), rtol=1e-12)
    assert taken
