"""Preprocessing against scikit-learn and NumPy, fitted on training rows, folded into parameters."""

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from jaxlin import preprocess
from jaxlin.core import LinearParams
from jaxlin.scores import linear

each_kind = pytest.mark.parametrize("kind", preprocess.KINDS)


@pytest.fixture
def features():
    rng = np.random.default_rng(4)
    return rng.normal(3, [1, 10, 0.1, 1000], (50, 4))


@pytest.fixture
def pixels():
    return np.random.default_rng(4).integers(0, 256, (50, 12), dtype=np.uint8)


def test_standardize_is_scikit_learns(features):
    fitted = preprocess.fit(features, "standardize")
    theirs = StandardScaler().fit_transform(features)
    np.testing.assert_allclose(preprocess.apply(fitted, features), theirs, rtol=1e-11, atol=1e-12)


def test_scale_brings_every_feature_to_minus_one_and_one(features):
    fitted = preprocess.fit(features, "scale")
    theirs = MinMaxScaler((-1, 1)).fit_transform(features)
    np.testing.assert_allclose(preprocess.apply(fitted, features), theirs, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("top", [255, 16])
def test_scale_brings_all_pixels_by_one_range(pixels, top):
    shown = (pixels.astype(int) % (top + 1)).astype(np.uint8)
    shown[0, 0] = top
    scaled = preprocess.apply(preprocess.fit(shown, "scale"), shown)
    np.testing.assert_allclose(scaled, shown / (top / 2) - 1, rtol=1e-6, atol=1e-6)


def test_center_subtracts_the_mean_image(pixels):
    fitted = preprocess.fit(pixels, "center")
    np.testing.assert_allclose(fitted.shift, pixels.mean(axis=0, dtype=np.float64), rtol=1e-14)
    centered = np.asarray(preprocess.apply(fitted, pixels), np.float64)
    # uint8 images are preprocessed in float32: 255 * 6e-8 a pixel.
    np.testing.assert_allclose(centered.mean(axis=0), 0, atol=2e-5)


def test_statistics_are_those_of_the_training_rows_alone(features):
    fitted = preprocess.fit(features[:30], "center")
    np.testing.assert_allclose(fitted.shift, features[:30].mean(axis=0))


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6, 255])
def test_constant_features_keep_scale_one(value):
    constant = np.full((1000, 3), value)
    fitted = preprocess.fit(constant, "standardize")
    np.testing.assert_array_equal(fitted.scale, 1.0)
    np.testing.assert_allclose(preprocess.apply(fitted, constant), 0, atol=1e-9 * max(1, value))


def test_blocks_do_not_change_the_statistics(features, monkeypatch):
    whole = preprocess.fit(features, "standardize")
    monkeypatch.setattr(preprocess, "_BLOCK_BYTES", 8 * 4 * 7)  # 7 rows at a time
    for ours, theirs in zip(preprocess.fit(features, "standardize")[1:], whole[1:], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-13)


def test_spread_survives_a_mean_a_million_times_larger():
    values = 1e6 + np.random.default_rng(0).normal(0, 1, (1000, 1))
    spread = 1 / preprocess.fit(values, "standardize").scale[0]
    assert spread == pytest.approx(values.std(), rel=1e-9)


@each_kind
def test_folded_parameters_score_raw_inputs_alike(kind, pixels):
    rng = np.random.default_rng(1)
    params = LinearParams(jnp.array(rng.normal(size=(3, 12))), jnp.array(rng.normal(size=3)))
    fitted = preprocess.fit(pixels, kind)
    preprocessed = (pixels - np.asarray(fitted.shift)) * np.asarray(fitted.scale)
    np.testing.assert_allclose(
        linear(preprocess.fold(fitted, params), pixels), linear(params, preprocessed), rtol=1e-9
    )


def test_a_kind_that_does_not_exist_is_refused(features):
    with pytest.raises(ValueError, match="`kind` must be one of none, scale"):
        preprocess.fit(features, "whiten")


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, ml_dtypes.bfloat16, np.float64], ids=str)
def test_statistics_of_many_blocks_are_those_of_the_whole(monkeypatch, dtype):
    monkeypatch.setattr(preprocess, "_BLOCK_BYTES", 1300 * 3 * 8)  # 1,300 rows: chunks and a rest
    rng = np.random.default_rng(0)
    inputs = np.sort(rng.uniform(0, 200, (4000, 3)), axis=0).astype(dtype)  # blocks differ most
    inputs[:, 1] = 7
    fitted = preprocess.fit(inputs, "standardize")
    whole = inputs.astype(np.float64)
    # 4,000 additions in float64, in another order
    np.testing.assert_allclose(fitted.shift, whole.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(1 / fitted.scale[[0, 2]], whole.std(axis=0)[[0, 2]], rtol=1e-12)
    assert fitted.scale[1] == 1
