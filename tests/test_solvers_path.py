"""Paths of strengths, of one weighting or of several: every solution as good as it says."""

import numpy as np
import pytest

from jaxlin.solvers import Status, minimize, minimize_path


def test_a_path_is_its_single_fits(blobs):
    """Each solution is as good as it says, whatever it was started from."""
    inputs, labels = blobs(0, size=600, features=20, classes=7)
    strengths = [1e-3, 1.0, 1e-2, 1e-1]
    path = minimize_path(inputs, labels, strengths=strengths, tolerance=1e-6)
    for strength, solution in zip(strengths, path, strict=True):
        alone = minimize(inputs, labels, strength=strength, tolerance=1e-9)
        assert alone.lower_bound <= solution.objective <= alone.objective * (1 + 1e-6)
        assert solution.lower_bound <= alone.objective
        assert solution.status == Status.CONVERGED


def test_folds_side_by_side_are_fits_of_their_rows(blobs):
    """Weights 0 and 1 on shared rows give what the rows alone give; one fold lacks a class."""
    inputs, labels = blobs(1, size=900, features=300, classes=10)  # on the device
    weights = (np.arange(900)[None, :] % 3 != np.arange(3)[:, None]) * 1.0
    weights[2, labels == 4] = 0
    told = []
    paths = minimize_path(
        inputs.astype(np.float32),
        labels,
        strengths=[1e-1, 1e-2],
        sample_weight=weights,
        tolerance=1e-5,
        callback=lambda f, t, solution: told.append((f, t)),
    )
    assert sorted(told) == [(f, t) for f in range(3) for t in range(2)]
    for fold, path in zip(weights, paths, strict=True):
        rows = fold > 0
        for strength, solution in zip([1e-1, 1e-2], path, strict=True):
            alone = minimize(
                inputs[rows], labels[rows], strength=strength, tolerance=1e-9, classes=10
            )
            # both within 1e-5 of the same optimum, and float32 pixels move it by some 1e-7
            np.testing.assert_allclose(solution.objective, alone.objective, rtol=1.1e-5)
            assert solution.lower_bound <= alone.objective * (1 + 1e-6)


def test_folds_share_passes(monkeypatch, blobs):
    """Three folds ask for hardly more passes than one."""
    from jaxlin.passes import DeviceRows

    inputs, labels = blobs(2, size=2000, features=200, classes=8)
    passes, fused = [], DeviceRows.fused
    monkeypatch.setattr(
        DeviceRows, "fused", lambda self, *a, **k: passes.append(1) or fused(self, *a, **k)
    )
    settings = dict(strengths=[1e-2], tolerance=1e-4)
    minimize_path(inputs.astype(np.float32), labels, **settings)
    one = len(passes)
    weights = np.random.default_rng(0).integers(0, 3, (3, 2000)) * 1.0
    minimize_path(inputs.astype(np.float32), labels, sample_weight=weights, **settings)
    assert len(passes) - one <= 1.5 * one + 4


@pytest.mark.parametrize(
    ("strengths", "weights", "sentence"),
    [
        ([], None, "must be"),
        ([1.0, -1.0], None, "got -1"),
        ([1.0, np.inf], None, "got inf"),
        ([[1.0], [2.0]], None, "weightings"),
    ],
)
def test_strengths_that_make_no_path_are_refused(strengths, weights, sentence, blobs):
    inputs, labels = blobs(0)
    with pytest.raises(ValueError, match=sentence):
        minimize_path(inputs, labels, strengths=strengths, sample_weight=weights)
