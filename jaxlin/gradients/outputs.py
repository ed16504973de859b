"""A function with many outputs, seen as scalar functions that share its evaluations.

`Outputs` runs `f` as `Function` does and lays its result, any tree of arrays, in one vector. Any
combination w . f(x) of the outputs is then a scalar function with the gradient w^T J, which the
check of scalar functions can judge: `Combination`. Values of `f` are kept by point, so that many
combinations cost little more than one.
"""

__all__ = ["Combination", "Outputs"]

import hashlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from jaxlin.gradients.evaluate import GIB, Function
from jaxlin.gradients.leaves import Leaf, Tree, unflatten
from jaxlin.gradients.lines import random_signs, scales_of
from jaxlin.precision import jit
from jaxlin.transfer import device_of

BLOCK = 1024  # points looked up together
NEARBY = 2.0**-7  # displacement, in natural units, that shows how much an output varies


class Outputs(Function):
    """`f` as a function from one flat vector to another.

    Attributes, beside those of `Function`:
      layout, result: how the vector of outputs is cut into the tree that `f` returns, known after
        the first evaluation.
      at: (M,), f(x).
      units: (M,), the natural unit of each output, a power of 2: as large as its value and as its
        change over a unit of x.
    """

    at: np.ndarray
    units: np.ndarray

    def __init__(self, f: Callable, x: Tree, *, dtype: DTypeLike | None = None, memory: int = GIB):
        self.layout: list[Leaf] = []
        self.result: Any = None
        self._kept: dict[bytes, np.ndarray] = {}
        self.of = f

        def flat(tree: Tree) -> Array | np.ndarray:
            return self._flattened(f(tree))

        run = jit(flat) if hasattr(f, "lower") else flat  # compiled by choice: trace it only
        super().__init__(run, x, dtype=dtype, memory=memory, scalar=False)

    def _flattened(self, value: Tree) -> Array | np.ndarray:
        pairs, self.result = jax.tree_util.tree_flatten_with_path(value)
        self.layout, arrays, start = [], [], 0
        for path, leaf in pairs:
            array = leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)
            if type(leaf) is int:
                array = array.astype(float)
            name = jax.tree_util.keystr(path)
            if not jnp.issubdtype(array.dtype, jnp.floating):
                raise TypeError(
                    f"`f` must return floating-point numbers, got {array.dtype} at f{name}. "
                    "Return the real and imaginary parts of complex outputs apart, and no integers."
                )
            stop = start + array.size
            self.layout.append(Leaf(name, array.shape, array.dtype, start, stop))
            arrays.append(array.reshape(-1))
            start = stop
        if start == 0:
            raise ValueError("`f` returns no numbers: there is nothing to differentiate.")
        xp = jnp if any(isinstance(a, jax.Array) for a in arrays) else np
        return xp.concatenate(arrays)

    def open(self, rng: np.random.Generator) -> None:
        """Evaluate at x, refuse what has no derivative there, and find the natural units.

        Raises:
          ValueError: an output is not finite at x, or not the same when asked again.
        """
        self.prepare()
        self.at = self.along_axes([0], [0.0])[0]
        bad = np.flatnonzero(~np.isfinite(self.at))
        if len(bad):
            raise ValueError(
                f"`f` is {self.at[bad[0]]} at the point `x` itself, at the output "
                f"{self.output_name(bad[0])}: it has no derivative there."
            )
        lines = random_signs(rng, (2, len(self.x))) * scales_of(self)
        near = self.along(np.repeat(lines, 2, axis=0), NEARBY * np.array([-1, 1, -1, 1]))
        with np.errstate(invalid="ignore", over="ignore"):
            secants = np.abs(near - self.at) / NEARBY
        secants = np.where(np.isfinite(secants), secants, 0.0).max(axis=0)
        units = np.maximum(np.abs(self.at), secants)
        self.units = 2.0 ** np.round(np.log2(np.where(units > 0, units, 1.0)))
        self._refuse_randomness()

    def _refuse_randomness(self) -> None:
        try:
            first, second = (np.asarray(self.once(), np.float64) for _ in range(2))
        except Exception:  # only a traced `f` may object to NumPy arrays; tracing already worked
            return
        # Eager evaluations round alike, except where an accelerator sums in any order; a compiled
        # one may round differently, and has the randomness of its tracing baked in.
        slack = 8 * self.eps if device_of().platform == "cpu" else 1e-5
        away = np.abs(first - second) > slack * self.units
        away |= np.abs(first - self.at) > 1e-3 * self.units
        if away.any():
            i = int(np.argmax(away))
            other = second[i] if first[i] == self.at[i] else first[i]
            raise ValueError(
                f"`f` is not deterministic: two evaluations of {self.output_name(i)} at the same "
                f"point differ, {self.at[i]:.17g} and {other:.17g}. Fix its random key or seed."
            )

    def output_name(self, i: int) -> str:
        """`f['mean'][3]`, as one would write it."""
        path, index = self.output_place(i)
        return f"f{path}" + (f"[{', '.join(map(str, index))}]" if index else "")

    def output_place(self, i: int) -> tuple[str, tuple[int, ...]]:
        leaf = next(leaf for leaf in self.layout if leaf.start <= i < leaf.stop)
        inside = np.unravel_index(int(i) - leaf.start, leaf.shape) if leaf.shape else ()
        return leaf.path, tuple(int(j) for j in inside)

    def output_tree(self) -> Tree:
        """f(x) as `f` returns it, in float64."""
        return unflatten(self.at, self.layout, self.result)

    def at_points(self, points: np.ndarray) -> np.ndarray:
        """f at every row of `points` (m, n), flat: (m, M)."""
        return self._values(len(points), lambda part: points[part])

    def _computed(self, rows: np.ndarray) -> np.ndarray:
        """f at every row, in calls of few different sizes: each size is a program to compile."""
        count = len(rows)
        if self.kind == "jax" and self.mapped:
            padded = min(8 ** -(-(count - 1).bit_length() // 3), max(count, self.lanes))
            rows = np.concatenate([rows, np.repeat(rows[:1], padded - count, axis=0)])
            self.evaluations -= padded - count
        return super()._values(len(rows), lambda part: rows[part])[:count]

    def _values(self, count: int, points: Callable[[slice], np.ndarray]) -> np.ndarray:
        results = []
        step = int(np.clip(self.memory // (64 * len(self.x)), 1, BLOCK))
        for start in range(0, count, step):
            block = points(slice(start, min(start + step, count)))
            keys = [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in block]
            missing = {key: row for row, key in enumerate(keys) if key not in self._kept}
            found = {key: self._kept[key] for key in keys if key in self._kept}
            if missing:
                values = self._computed(block[sorted(missing.values())])
                by_row = dict(zip(sorted(missing.values()), values, strict=True))
                found |= {key: by_row[row] for key, row in missing.items()}
                if 8 * (len(self._kept) + BLOCK) * len(values[0]) > self.memory:
                    self._kept.clear()
                self._kept |= found
            results.append(np.stack([found[key] for key in keys]))
        return np.concatenate(results)


class Combination(Function):
    """The scalar function w . (f(x) - f(x0)) + c of a `Function`'s x, evaluated by `Outputs`.

    The constant c, the size of the terms, tells whoever bounds the rounding of the sum how large
    they are, where they cancel.
    """

    base: Outputs

    def __init__(self, base: Outputs, weights: np.ndarray):
        state = {name: value for name, value in vars(base).items() if name != "evaluations"}
        vars(self).update(state, base=base, scalar=True, out_shape=())
        self.used = np.flatnonzero(weights)
        self.weights = weights[self.used]
        self.size = 2 * float(np.linalg.norm(self.weights * base.units[self.used]))

    @property
    def evaluations(self) -> int:
        return self.base.evaluations

    @evaluations.setter
    def evaluations(self, count: int) -> None:
        self.base.evaluations = count

    def stair(self, size: float) -> tuple[float, float, float]:
        """As of the outputs, which are weighted here."""
        largest = float(np.abs(self.weights).max())
        least, sure, most = self.base.stair(size / largest)
        return largest * least, largest * sure, largest * most

    def terms(self, size: float) -> float:
        largest = float(np.abs(self.weights).max())
        return largest * self.base.terms(size / largest)

    def _combined(self, values: np.ndarray) -> np.ndarray:
        return (values[..., self.used] - self.base.at[self.used]) @ self.weights + self.size

    def _values(self, count: int, points: Callable[[slice], np.ndarray]) -> np.ndarray:
        return self._combined(self.base._values(count, points))

    def _eager(self, point: np.ndarray) -> np.ndarray:
        return self._combined(np.asarray(self.base._eager(point), np.float64))
