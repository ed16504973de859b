"""Loss landscapes: the values of an objective along lines and planes in parameter space.

Three ways, from general to exact:

    ray, plane, grid, interpolate   any objective, any parameters; points side by side
    affine_ray, affine_plane        linear scores: three products, then element-wise work only
    hinge_profile                   a hinge along a ray: every kink, slope and the minimum

`directions` says along what; `trajectory` draws the path of a training run over a plane; `files`
keeps a plane that takes long as it grows.

>>> import jax, jax.numpy as jnp, numpy as np
>>> from jaxlin import LinearParams, landscape
>>> from jaxlin.losses import weston_watkins_hinge
>>> params = LinearParams(jnp.zeros((3, 4)), jnp.zeros(3))
>>> first, second = (landscape.random(jax.random.key(i), params) for i in range(2))
>>> X, y = np.arange(20, dtype=np.uint8).reshape(5, 4), np.array([0, 1, 2, 1, 0])
>>> steps = np.linspace(-1, 1, 21)
>>> values = landscape.affine_plane(
...     params, first, second, steps, steps, X, y, loss=weston_watkins_hinge
... )
>>> values.shape, values[10, 10].item()  # at W = 0 each of the two wrong classes costs 1
((21, 21), 2.0)
"""

__all__ = [
    "Direction",
    "HingeProfile",
    "Projection",
    "affine_plane",
    "affine_ray",
    "between",
    "directions",
    "files",
    "grid",
    "hessian_eigenvectors",
    "hinge_profile",
    "interpolate",
    "normalize",
    "orthogonalize",
    "plane",
    "principal_components",
    "project",
    "random",
    "ray",
    "trajectory",
]

from jaxlin.landscape import directions, files, trajectory
from jaxlin.landscape.affine import affine_plane, affine_ray
from jaxlin.landscape.directions import (
    Direction,
    between,
    hessian_eigenvectors,
    normalize,
    orthogonalize,
    principal_components,
    random,
)
from jaxlin.landscape.hinge_profile import HingeProfile, hinge_profile
from jaxlin.landscape.slices import grid, interpolate, plane, ray
from jaxlin.landscape.trajectory import Projection, project
