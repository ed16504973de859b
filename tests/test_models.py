"""Saved models come back as they were; broken files are refused with a sentence."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxlin import models, preprocess
from jaxlin.core import DataError, LinearParams

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 12), dtype=np.uint8)


@pytest.fixture
def model():
    rng = np.random.default_rng(1)
    weights = np.asfortranarray(rng.normal(size=(3, 12)).astype(np.float32))
    return models.Model(
        LinearParams(weights, rng.normal(size=3).astype(np.float32)),
        preprocess.fit(PIXELS, "standardize"),
        ("cat", "=dog", "<ship>"),
        (2, 2, 3),
        "hinge",
    )


def saved(tmp_path, model, **changes):
    """A model file whose metadata were changed."""
    path = tmp_path / "model.safetensors"
    models.save(path, model)
    tensors = load_file(path)
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    save_file(tensors, path, metadata=metadata | changes)
    return path


def test_a_saved_model_comes_back_as_it_was(tmp_path, model):
    path = tmp_path / "model.safetensors"
    models.save(path, model)  # the weights are not contiguous: plain safetensors would garble them
    again = models.load(path)
    assert again[2:] == model[2:]
    assert again.preprocessing.kind == "standardize"
    jax.tree.map(np.testing.assert_array_equal, again.params, model.params)
    np.testing.assert_array_equal(again.preprocessing.scale, model.preprocessing.scale)


def test_scores_are_those_of_the_preprocessed_pixels(model):
    pre = model.preprocessing
    looked = (PIXELS - np.asarray(pre.shift)) * np.asarray(pre.scale)
    on_paper = looked @ np.asarray(model.params.weights).T + model.params.bias
    # float32 sums of 12 products of pixels up to 255, folded: 255 * 12 * 6e-8 is the scale.
    np.testing.assert_allclose(models.scores(model, PIXELS), on_paper, atol=5e-4)


def test_a_rows_scores_do_not_depend_on_its_neighbors(model):
    whole = models.scores(model, PIXELS, rows=4)
    np.testing.assert_array_equal(models.scores(model, PIXELS[7:8], rows=4), whole[7:8])


def test_float_features_with_a_large_mean_keep_their_digits():
    rng = np.random.default_rng(0)
    far = (1e5 + rng.normal(0, 1, (64, 4))).astype(np.float32)
    pre = preprocess.fit(far, "standardize")
    params = LinearParams(jnp.ones((2, 4), jnp.float32), jnp.zeros(2, jnp.float32))
    scores = models.score_function(pre)(params, far)
    exact = ((far.astype(np.float64) - pre.shift) * pre.scale).sum(axis=1)
    # Folding would leave an error near 1e5 * 6e-8 * 4 = 0.02; shifting first is exact to 0.004
    # a feature (half a float32 unit of the mean, 1e5) and equal for all rows.
    np.testing.assert_allclose(scores[:, 0] - scores[0, 0], exact - exact[0], atol=2e-5)


@pytest.mark.parametrize(("precision", "bits"), [("bf16", 8), ("tf32", 11)])
def test_products_round_their_operands_and_not_their_sums(model, precision, bits):
    wide = models.score_function(model.preprocessing)(model.params, PIXELS)
    narrow = models.score_function(model.preprocessing, precision=precision)(model.params, PIXELS)
    assert narrow.dtype == jnp.float32
    size = float(jnp.abs(model.params.weights).sum(axis=1).max() * 8)
    np.testing.assert_allclose(narrow, wide, atol=2.0 ** (1 - bits) * size)
    assert not np.allclose(narrow, wide, atol=1e-6)


def test_inputs_of_another_width_are_refused(model):
    with pytest.raises(DataError, match="wants 12 features"):
        models.scores(model, PIXELS[:, :11])


def test_a_newer_format_is_refused(tmp_path, model):
    with pytest.raises(DataError, match=r"format version '3', and .* reads versions up to 2"):
        models.load(saved(tmp_path, model, format_version="3"))


def test_a_foreign_file_is_refused(tmp_path, model):
    with pytest.raises(DataError, match="not a jaxlin model"):
        models.load(saved(tmp_path, model, format="pt"))


def test_parts_that_do_not_fit_are_refused(tmp_path, model):
    with pytest.raises(DataError, match="2 classes and 12 features do not fit"):
        models.load(saved(tmp_path, model, classes=json.dumps(["a", "b"])))


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 64, b"{}" * 40])
def test_a_file_that_is_no_safetensors_is_refused(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"model\.safetensors: not a"):
        models.load(path)


def test_a_truncated_file_is_refused(tmp_path, model):
    path = tmp_path / "model.safetensors"
    models.save(path, model)
    whole = path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError):
            models.load(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="there is no such model file"):
        models.load(tmp_path / "model.safetensors")
