"""My own loss and its gradient, checked.

    python experiments/guides/gradient.py

You derived a gradient on paper, or wrote a rule for one. Is it right? A comparison with finite
differences needs a step, and every step is wrong somewhere: too large, and the curve bends; too
small, and rounding drowns the slope. `check_gradient` measures each slope at several steps and
knows how far off it may be, so that a verdict is one.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxlin.gradients import check_gradient
from jaxlin.testing import assert_gradient

inputs = jax.random.normal(jax.random.key(0), (200, 12))
labels = jnp.where(inputs[:, 0] + inputs[:, 1] > 0, 1.0, -1.0)


# A loss of one's own: the logistic loss with a Huber penalty on the weights.
def objective(weights):
    margins = labels * (inputs @ weights)
    return jnp.mean(jnp.log1p(jnp.exp(-margins))) + 0.01 * jnp.sum(jnp.sqrt(1 + weights**2) - 1)


# Its gradient, as derived on paper.
def gradient(weights):
    slopes = -labels / (1 + jnp.exp(labels * (inputs @ weights)))
    return inputs.T @ slopes / len(labels) + 0.01 * weights / jnp.sqrt(1 + weights**2)


weights = jax.random.normal(jax.random.key(1), (12,))
report = check_gradient(objective, weights, gradient)
print("mine        ", report.verdict, f"after {report.evaluations} evaluations")
assert report.verdict == "pass"


# A mistake as people make it: the penalty's slope in one entry has the wrong sign.
def mistaken(weights):
    return gradient(weights).at[7].add(-0.02 * weights[7] / jnp.sqrt(1 + weights[7] ** 2))


report = check_gradient(objective, weights, mistaken)
(entry,) = report.entries
print("mistaken    ", report.verdict, f"at {entry.name}:", end=" ")
print(f"claimed {entry.analytic:.5f}, measured {entry.numeric:.5f} +- {entry.error_bar:.1g}")
assert report.verdict == "fail"
assert entry.index == (7,)


# At a kink there is no slope, but an interval of subgradients. A claim inside is right.
def hinge(step):
    return jnp.sum(jnp.maximum(0.0, step))


report = check_gradient(hinge, np.zeros(1), np.array([0.3]))
print("at a kink   ", report.verdict, "between", report.entries[0].left, "and", end=" ")
print(report.entries[0].right)
assert report.verdict == "kink"
assert not check_gradient(hinge, np.zeros(1), np.array([1.3])).passed

# In a test suite one line does it; the failure's message is the report.
assert_gradient(objective, weights, gradient)

# From the command line, for a function in a file:
#     jaxlin gradcheck --function my_module:my_loss --input x.npz
