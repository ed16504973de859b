"""Reading a loss landscape.

    python experiments/guides/landscape.py

A picture of the loss along two directions says something about the loss, and something about the
directions. For a linear classifier nothing has to be sampled: scores are affine along a line, so
that a plane costs three products, and a hinge along a ray is known exactly, kink by kink.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxlin import LinearParams, data, landscape, losses, preprocess
from jaxlin.solvers import minimize

train = data.load("digits")
seen = preprocess.fit(train.inputs, "standardize")
inputs = np.asarray(preprocess.apply(seen, train.inputs))
start = LinearParams(jnp.zeros((10, 64)), jnp.zeros(10))

# 1. Along a ray. The SVM loss of 1,442 pictures has a kink wherever one of 9 margins of a picture
# changes sign: 12,978 of them, so close together that the curve looks smooth.
direction = landscape.directions.random(jax.random.key(1), start)
profile = landscape.hinge_profile(start, direction, inputs, train.labels)
step, value = profile.minimum()
print(f"ray         {len(profile.breakpoints):,} kinks, least loss {value:.4f} at {step:.4f}")
left, right = profile.slopes(step)
assert left <= 0 <= right  # at a minimum of a convex function the slopes change sign
grid = np.linspace(-1, 1, 1001)
assert value <= profile(grid).min()  # no grid finds less
slopes, _ = profile.slopes(grid)
assert (np.diff(slopes) >= -1e-12).all()  # convex: slopes never fall

# 2. On a plane through the optimum. How wide is the valley? Directions of the same length can be
# compared, and the same distance is cheap one way and dear another.
found = minimize(inputs, train.labels, strength=1e-3, tolerance=1e-6)
optimum = LinearParams(*map(jnp.asarray, found.params))
keys = jax.random.split(jax.random.key(2))
first, second = (landscape.directions.random(key, start) for key in keys)
steps = np.linspace(-0.5, 0.5, 21)
plane = np.asarray(
    landscape.affine_plane(
        optimum, first, second, steps, steps, inputs, train.labels,
        loss=losses.softmax_cross_entropy, strength=1e-3,
    )
)  # fmt: skip
print(f"plane       from {plane.min():.4f} in the middle to {plane.max():.4f} at its corners")
assert np.unravel_index(plane.argmin(), plane.shape) == (10, 10)  # the optimum is the middle
assert plane.min() >= found.lower_bound * (1 - 1e-5)  # nothing lies below the proved bound

# 3. What a plane cannot say: how the loss looks elsewhere. A random direction in 650 dimensions is
# nearly orthogonal to everything of interest; the way from the start to the optimum is not.
path = jax.tree.map(lambda end, begin: end - begin, optimum, start)
length = np.sqrt(sum(float(jnp.sum(leaf**2)) for leaf in path))
across = [
    sum(float(jnp.sum(a * b)) for a, b in zip(path, one.tree, strict=True)) / length / one.norm
    for one in (first, second)
]
print(f"directions  cosines with the way to the optimum {across[0]:+.3f} and {across[1]:+.3f}")
assert max(map(abs, across)) < 0.2  # of size 1 / sqrt(650) = 0.04

# From the command line, with the picture:
#     jaxlin landscape --data digits --loss hinge --kind ray --points 41 --exact --out runs/ray
