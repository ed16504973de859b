"""Memory told in advance, and batches in parts: against arrays whose sizes are known."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxlin import losses, memory, scores, train
from jaxlin.core import Batch, LinearParams
from jaxlin.objectives import compose, gradient_in_parts

PARAMS = LinearParams(jnp.zeros((3, 5)), jnp.zeros(3))


def batch(rows=7, weights=True):
    rng = np.random.default_rng(0)
    return Batch(
        rng.normal(size=(rows, 5)),
        rng.integers(0, 3, rows),
        rng.integers(0, 3, rows).astype(float) if weights else None,
    )


@pytest.mark.parametrize("parts", [2, 3, 7, 9])
@pytest.mark.parametrize("weights", [True, False])
def test_parts_of_a_batch_give_its_value_and_gradient(parts, weights):
    def objective(params, examples):
        return compose(scores.linear, losses.softmax_cross_entropy)(params, examples, strength=0.3)

    params = jax.tree.map(lambda leaf: leaf + 0.1, PARAMS)
    whole = jax.value_and_grad(objective)(params, batch(weights=weights))
    cut = gradient_in_parts(objective, parts)(params, batch(weights=weights))
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(cut), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-15)  # float64, seven terms


def test_a_trainer_takes_the_same_steps_in_parts():
    objective = compose(scores.linear, losses.softmax_cross_entropy)
    whole, cut = (train.trainer(objective, optax.sgd(0.1), parts=parts) for parts in (1, 3))
    one, other = (t.step(t.init(PARAMS), batch()) for t in (whole, cut))
    np.testing.assert_allclose(one[0].params.weights, other[0].params.weights, atol=1e-15)


def test_parts_halve_until_the_peak_fits():
    def rows(count):
        # (count, 1000) float32 twice: 8,000 bytes a row at the peak.
        return (lambda x: jnp.sin(x) + jnp.cos(x)), (
            jax.ShapeDtypeStruct((count, 1000), jnp.float32),
        )

    assert memory.parts_within(rows, 64, 64 * 12_000) == 1
    assert memory.parts_within(rows, 64, 64 * 12_000 - 1) == 2
    assert memory.parts_within(rows, 64, 12_000) == 64
    assert memory.parts_within(rows, 64, 100) == 0


def test_a_run_that_cannot_fit_is_refused_and_one_that_can_in_parts_is_cut(monkeypatch):
    from jaxlin.runs import batch_memory as fitting

    objective = compose(scores.linear, losses.softmax_cross_entropy)
    wide = LinearParams(jnp.zeros((100, 50), jnp.float32), jnp.zeros(100, jnp.float32))
    data = Batch(np.zeros((1000, 50), np.float32), np.zeros(1000, np.int32))

    def parts(free):
        monkeypatch.setattr(fitting, "available_bytes", lambda device: free)
        return fitting.batch_parts(
            objective, optax.adam(0.1), wide, data, batch_size=512, mesh=None
        )

    assert parts(1 << 30) == 1
    # Scores of 512 rows and 100 classes in float32 are 205 kB, of which several are alive.
    assert 2 <= parts(1_000_000) <= 64
    with pytest.raises(ValueError, match=r"needs more than 0\.00 GiB .* Use more --devices"):
        parts(1000)
