"""Fits that begin with rounded products, on a device that is said to have units for them.

A CPU has none, and computes what such units would: operands are rounded, products exact.
"""

import jax
import numpy as np
import pytest

from jaxlin.distributed.sharding import mesh
from jaxlin.passes import DeviceRows, chunks, open_rows, open_sharded
from jaxlin.platforms import arithmetic_of
from jaxlin.solvers import Status, minimize

STRENGTH, TOLERANCE = 1e-5, 1e-5


@pytest.fixture
def on_device(monkeypatch):
    """However small a problem is, its rows are on the device."""
    monkeypatch.setattr("jaxlin.passes.opening.SMALL_PROBLEM", 0)


def give_units(monkeypatch, *more):
    def said(device):
        return arithmetic_of(device)._replace(units=("highest", *more))

    monkeypatch.setattr("jaxlin.passes.device.arithmetic_of", said)


@pytest.fixture
def units(on_device, monkeypatch):
    give_units(monkeypatch, "tf32")


@pytest.fixture
def walks(monkeypatch):
    """The precision of every pass, in turn."""
    seen, walked = [], chunks.fused

    def spied(*arguments, precision, **settings):
        seen.append(precision if arguments[0].dtype == np.float32 else "float64")
        return walked(*arguments, precision=precision, **settings)

    monkeypatch.setattr(chunks, "fused", spied)
    return seen


@pytest.fixture(scope="module")
def problem():
    """1,500 rows of 40 features whose standard deviations fall from 1 to 0.03, and 4 classes."""
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(40, 40)) / np.sqrt(40)
    inputs = ((rng.normal(size=(1500, 40)) * np.logspace(0, -1.5, 40)) @ mix).astype(np.float32)
    scores = 6 * inputs @ rng.normal(size=(40, 4))
    return inputs, np.argmax(scores + rng.gumbel(size=scores.shape), 1)


def objective(inputs, labels, weights, bias):
    """The mean of softmax cross-entropy + strength |W|^2, in NumPy and float64."""
    scores = inputs.astype(np.float64) @ weights.T.astype(np.float64) + bias
    losses = np.log(np.exp(scores - scores.max(1, keepdims=True)).sum(1)) + scores.max(1)
    losses -= scores[np.arange(len(labels)), labels]
    return losses.mean() + STRENGTH * (weights.astype(np.float64) ** 2).sum()


def to_11_bits(values):
    """float32 rounded to 10 bits after the point, ties to even, by its bits."""
    bits = np.asarray(values, np.float32).view(np.uint32)
    return ((bits + 0xFFF + ((bits >> 13) & 1)) & np.uint32(0xFFFFE000)).view(np.float32)


def linear(xp, scores, labels, counts):
    return (counts[None, :] * scores).sum(), scores


def test_a_coarse_pass_rounds_what_it_multiplies_and_not_what_it_sums(units):
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(50, 8)).astype(np.float32)
    weights, bias = rng.normal(size=(3, 8)).astype(np.float32), np.ones(3)
    labels, counts = np.zeros(50, np.int32), np.ones(50)
    rows = open_rows(inputs, 3)
    value, products, sums = rows.coarse.fused(linear, weights, bias, labels, counts)
    scores = to_11_bits(weights).astype(np.float64) @ to_11_bits(inputs).T + 1
    # float32 sums of up to 58 terms: a unit of rounding each, of the sum of their sizes
    close = dict(rtol=0, atol=60 * 2.0**-24 * np.abs(scores).sum())
    np.testing.assert_allclose(value, scores.sum(), **close)
    np.testing.assert_allclose(sums, scores.sum(1), **close)
    # scores that differ in their last bit may be rounded apart: 2^-11 of a score, 2^-10 at most
    near = to_11_bits(scores) @ to_11_bits(inputs).astype(np.float64)
    np.testing.assert_allclose(products, near, atol=2.0**-10 * np.abs(scores).max() * 4)
    exact = rows.fused(linear, weights, bias, labels, counts)[1]
    assert not np.allclose(products, exact, rtol=1e-5)
    assert np.allclose(exact, (weights @ inputs.T + 1) @ inputs, rtol=1e-4, atol=1e-4)
    spread = open_sharded(inputs, 3, mesh(jax.devices()[:1])).coarse
    np.testing.assert_allclose(
        spread.fused(linear, weights, bias, labels, counts)[1], products, rtol=1e-6, atol=1e-5
    )


def test_only_float32_on_a_device_with_units_is_coarse(on_device, monkeypatch):
    inputs = np.ones((50, 8), np.float32)
    assert open_rows(inputs, 3).coarse is None  # a CPU has none
    give_units(monkeypatch, "tf32")
    assert open_rows(inputs, 3).coarse is not None
    assert open_rows(inputs.astype(np.float64), 3).coarse is None
    assert open_rows(inputs, 3, host=True).coarse is None
    rows = open_rows(inputs, 3)
    assert np.all(rows.rescaled(2.0).coarse.scale == 2)
    give_units(monkeypatch, "bf16")
    assert open_rows(inputs, 3).coarse is None


@pytest.mark.parametrize("loss", ["softmax", "squared-hinge"])
def test_a_fit_begins_coarse_and_ends_exact(loss, problem, units, walks, monkeypatch):
    settings = dict(loss=loss, strength=STRENGTH, tolerance=TOLERANCE)
    found = minimize(*problem, **settings)
    kinds, coarse = list(walks), walks.count("tf32")
    assert found.status == Status.CONVERGED
    assert kinds[:coarse] == ["tf32"] * coarse
    assert "tf32" not in kinds[coarse:]
    give_units(monkeypatch)
    exact = minimize(*problem, **settings)
    assert "tf32" not in walks[len(kinds) :]
    # a rounded pass takes 21 ms of an exact one's 72 on an H100 (its compiler's kernels, counted)
    assert coarse * 21 / 72 + found.evaluations - coarse < exact.evaluations
    assert coarse > 0.5 * len(kinds)
    # of one problem: no bound is above what another fit has reached
    for one, other in ((found, exact), (exact, found)):
        assert one.lower_bound <= other.objective
        assert one.gap <= TOLERANCE * one.objective


def test_rounded_products_alone_do_not_arrive(problem, on_device, walks, monkeypatch):
    """What the change to exact products is for: the same fit, all of whose passes are rounded."""
    monkeypatch.setattr(DeviceRows, "precision", "tf32")
    settings = dict(strength=STRENGTH, tolerance=TOLERANCE, max_iterations=60)
    found = minimize(*problem, **settings)
    assert found.status == Status.MAX_ITERATIONS
    assert found.gap > 10 * TOLERANCE * found.objective


@pytest.mark.parametrize("steps", [0, 3])
def test_what_is_handed_back_early_is_exact(steps, problem, units, walks):
    settings = dict(strength=STRENGTH, tolerance=TOLERANCE, max_iterations=steps)
    found = minimize(*problem, **settings)
    assert found.status == Status.MAX_ITERATIONS
    assert walks[0] == "tf32"
    assert walks[-1] != "tf32"
    value = objective(*problem, *found.params)
    # the objective is proved in float64; parameters are handed back in float32
    np.testing.assert_allclose(found.objective, value, rtol=1e-6)
    assert found.lower_bound < value


def test_without_a_penalty_nothing_is_coarse(problem, units, walks):
    minimize(*problem, strength=0.0, tolerance=1e-3, max_iterations=0)
    assert "tf32" not in walks


@pytest.mark.parametrize("there", ["tf32", None])
def test_a_fit_left_while_coarse_goes_on(there, problem, units, walks, monkeypatch):
    """Where there are units, bit for bit; elsewhere from the same point with exact products."""
    left = []

    def keep(evaluations, make):
        if evaluations == 3:
            left.append(make())

    settings = dict(strength=STRENGTH, tolerance=TOLERANCE)
    whole = minimize(*problem, on_carried=keep, **settings)
    give_units(monkeypatch, *filter(None, [there]))
    walks.clear()
    found = minimize(*problem, carried=left[0], **settings)
    assert found.status == Status.CONVERGED
    assert ("tf32" in walks) == (there is not None)
    if there:
        jax.tree.map(np.testing.assert_array_equal, found.params, whole.params)
        assert found.objective == whole.objective
