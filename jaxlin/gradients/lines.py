"""A function, its claimed gradient and everything needed to measure slopes of one along lines."""

__all__ = ["Group", "Key", "Trial", "generator", "groups_of", "norm", "random_signs", "scales_of"]

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlin.gradients.claim import Claim
from jaxlin.gradients.evaluate import Function
from jaxlin.gradients.linear import LinearObjective
from jaxlin.gradients.structured import differences_at

Key = jax.Array | int | np.integer | None
"""A JAX random key, an integer or `None`: what `generator` takes."""

EPS = float(np.finfo(np.float64).eps)
SPREAD = 1e4  # a leaf whose magnitudes spread wider than this is stepped relative to each entry


class Group(NamedTuple):
    """Entries that are displaced together: a leaf, or all leaves where there are many."""

    entries: np.ndarray
    """(m,), into the flat vector."""
    scale: np.ndarray
    """(n,): the unit of displacement of each entry, a power of 2, and 0 outside of the group."""


class Trial(NamedTuple):
    """The case: `f` at x, and the gradient that it is claimed to have there."""

    function: Function
    claim: Claim
    value: float
    """f(x)."""
    structured: bool
    """Whether differences along axes have a fast path."""
    memory: int

    @property
    def objective(self) -> LinearObjective:
        """`f`, where it has structure."""
        assert isinstance(self.function.f, LinearObjective)  # `has_structure` said so
        return self.function.f

    def along(self, directions: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """offsets (m, q) -> f(x + offset * direction) - f(x), for directions (m, n)."""

        def changes(offsets: np.ndarray) -> np.ndarray:
            rows = np.repeat(np.arange(len(offsets)), offsets.shape[1])
            values = self.function.along(directions, offsets.ravel(), rows)
            return values.reshape(offsets.shape) - self.value

        return changes

    def along_axes(self, entries: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """The same along coordinate axes."""

        def changes(offsets: np.ndarray) -> np.ndarray:
            function = self.function
            if self.structured:
                function.evaluations += offsets.size
                x = function.tree(function.x)
                return differences_at(self.objective, x, entries, offsets, memory=self.memory)
            rows = np.repeat(entries, offsets.shape[1])
            values = function.along_axes(rows, offsets.ravel())
            return values.reshape(offsets.shape) - self.value

        return changes

    def claim_along(self, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The claimed slopes along directions, and what rounding may put them off by.

        The rounding errors of the entries are summed with the signs of the direction, which know
        nothing of them: by Hoeffding's inequality their sum exceeds 8 times its standard
        deviation with probability below 3e-14.
        """
        values = np.where(np.isfinite(self.claim.values), self.claim.values, 0.0)
        slopes = directions @ values
        absolute = np.abs(directions)
        rounding = self.claim.rounding
        spread = norm(absolute * rounding)
        bars = np.minimum(8 * spread, absolute @ rounding) + 8 * EPS * norm(absolute * values)
        return slopes, bars

    def size_of_claim(self, scale: np.ndarray) -> float:
        """Norm of what the claimed values are beyond their own rounding, in units of `scale`."""
        values = np.where(np.isfinite(self.claim.values), np.abs(self.claim.values), 0.0)
        return float(norm(np.maximum(values - self.claim.rounding, 0.0) * scale))


def norm(rows: np.ndarray) -> np.ndarray:
    """Euclidean norm of the last axis, for numbers whose squares are out of range.

    >>> float(norm(np.array([3e-300, 4e-300]))), float(norm(np.array([3e300, 4e300])))
    (5e-300, 5e+300)
    """
    largest = np.abs(rows).max(axis=-1, initial=0.0)
    unit = np.where((largest > 0) & np.isfinite(largest), largest, 1.0)
    return unit * np.sqrt(np.sum(np.square(rows / unit[..., None]), axis=-1))


def scales_of(function: Function) -> np.ndarray:
    """The natural unit of each entry, (n,): powers of 2 near the magnitude of its leaf."""
    return np.concatenate([_scale(function.x[a.start : a.stop]) for a in function.leaves])


def groups_of(function: Function, most: int) -> list[Group]:
    """The leaves one by one if there are at most `most` of them, else all together."""
    scale = scales_of(function)
    spans = [np.arange(a.start, a.stop) for a in function.leaves if a.stop > a.start]
    if len(spans) > most:
        spans = [np.concatenate(spans)]
    groups = []
    for span in spans:
        inside = np.zeros(len(scale))
        inside[span] = scale[span]
        groups.append(Group(span, inside))
    return groups


def generator(key: Key) -> np.random.Generator:
    """Random numbers from a JAX random key, an integer or `None`, which counts as 0."""
    if key is None or isinstance(key, int | np.integer):
        return np.random.default_rng(0 if key is None else int(key))
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    data = jax.random.key_data(key) if typed else key
    return np.random.default_rng(np.asarray(data).ravel().tolist())


def random_signs(rng: np.random.Generator, shape: int | tuple[int, ...]) -> np.ndarray:
    return rng.choice(np.array([-1.0, 1.0]), shape)


def _scale(values: np.ndarray) -> np.ndarray:
    size = np.abs(values)
    positive = size[size > 0]
    if len(positive) == 0:
        return np.ones_like(size)
    if positive.max() <= SPREAD * np.quantile(positive, 0.05):
        typical = np.full_like(size, norm(size) / np.sqrt(len(size)))
    else:
        typical = np.where(size > 0, size, positive.min())
    return 2.0 ** np.round(np.log2(np.maximum(typical, np.finfo(float).tiny)))
