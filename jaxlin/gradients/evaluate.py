"""A scalar function of any pytree, seen as a function of one flat vector and run in batches.

`Function` is what the numeric gradients are made with. It decides once how `f` can be run (as a
JAX function in float64, as one in the dtype of its input, or as a plain Python function, one
point at a time), fits the number of points per device call into a memory budget, pins the
precision of matrix products to the highest, and counts the evaluations that were asked for.
"""

__all__ = ["GIB", "Function"]

from collections.abc import Callable, Hashable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import PyTreeDef
from jax.typing import DTypeLike

from jaxlin.gradients.leaves import Leaf, Tree, flatten, unflatten
from jaxlin.gradients.rounding import Program, largest_term, rounding_of
from jaxlin.precision import float64, jit

GIB = 2**30
FLOAT64 = float(np.finfo(np.float64).eps)
MOST_LANES = 1024  # points in one device call: beyond this nothing is gained


class Function:
    """`f` as a function of a flat vector, evaluated at many points at once.

    Args:
      f: `x -> scalar`, or to an array where `scalar` is false.
      x: the point, a pytree.
      dtype: what to evaluate in: float64 by default, "own" for that of each leaf.
      memory: bytes that one device call may take.

    Attributes:
      x: (n,), float64: the point, flat.
      leaves, treedef: how the vector is cut into the tree.
      evaluations: how many values of `f` were asked for so far.
      kind: "jax" or "python", known after the first evaluation.
      dtype: what `f` is evaluated in, "float64" unless `f` cannot be.
      eps: the spacing of floating-point numbers at 1 in the narrowest dtype on the way from the
        point to the values of `f`.
      reason: why it is not evaluated in float64, if something is to be said about it.
      opaque: whether that is not known, as of plain Python and of callbacks to it.
      mapped: whether a device call takes many points; not if `f` calls back to the host without
        a rule for batches, for one.
    """

    lanes: int  # points in one device call, and what evaluates them: known once `f` is traced
    _kernel: Callable[[Array], Array]

    def __init__(
        self,
        f: Callable,
        x: Tree,
        *,
        dtype: DTypeLike | None = None,
        memory: int = GIB,
        scalar: bool = True,
    ):
        self.f, self.memory, self.scalar = f, memory, scalar
        self.x, self.leaves, self.treedef = flatten(x)
        self.shared = _is_tree(f)
        self.jax_input = any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(x))
        self.evaluations = 0
        self.kind: str | None = None
        self.mapped = True
        self._first: tuple[np.ndarray, np.ndarray | None] | None = None
        self.out_shape: tuple[int, ...] = ()
        self.eps = float(np.finfo(np.float64).eps)
        self.opaque, self.reason = True, ""
        self._terms: float | None = None
        self._ambient = dtype is not None and jax.config.jax_enable_x64
        if dtype == "own":
            self._set_dtype(None)
        else:
            self._set_dtype(np.dtype(np.float64) if dtype is None else jnp.dtype(dtype))

    def _set_dtype(self, dtype: np.dtype | None) -> None:
        """`dtype` None means: every leaf in its own."""
        own = [leaf.dtype for leaf in self.leaves]
        self.dtypes = own if dtype is None else [dtype] * len(own)
        widest = max(self.dtypes, key=lambda d: jnp.finfo(d).bits)
        self.dtype = str(widest)
        self._flat_dtype = np.float64 if widest == np.float64 else np.float32

    def context(self) -> ExitStack:
        """Evaluate inside this: float64 switched on if it is used, exact matrix products."""
        stack = ExitStack()
        wide = self._flat_dtype == np.float64 or self._ambient
        stack.enter_context(float64() if wide else jax.enable_x64(False))
        stack.enter_context(jax.default_matmul_precision("highest"))
        return stack

    def tree(self, flat: Array | np.ndarray) -> Tree:
        """The pytree of a flat vector (NumPy or traced), leaves in the working dtype."""
        return unflatten(flat, self.leaves, self.treedef, dtypes=self.dtypes)

    def stair(self, size: float) -> tuple[float, float, float]:
        """How rounding may show in values of `f` up to `size` large that stand still nearby.

        Returns:
          The rounding of the terms that `f` is made of; the highest step between values that
          rounding makes; the highest one that it might. What plain Python does on the way is
          unknown: it may cancel terms of the size of 1 or x, or round to bfloat16, and a step
          may then belong to `f` as well.
        """
        terms = self.eps * self.terms(size)
        if not self.opaque:
            return terms, 4 * terms, 4 * terms
        if self.eps > 2 * FLOAT64:
            return np.inf, 4 * terms, np.inf
        return terms, 4 * terms, max(2.0**-8 * size, 64 * terms)

    def terms(self, size: float) -> float:
        """How large the terms are that values of `f`, up to `size` large, are made of."""
        if self.opaque:
            return max(1.0, float(np.abs(self.x).max()), size)
        if self._terms is None:
            with self.context():
                point = jnp.asarray(self.x, self._flat_dtype)
                self._terms = largest_term(lambda flat: self.f(self.tree(flat)), point)
        return max(self._terms, size)

    def place(self, index: int | np.integer) -> tuple[str, tuple[int, ...]]:
        """Path and index of an entry of the flat vector."""
        leaf = next(leaf for leaf in self.leaves if leaf.start <= index < leaf.stop)
        inside = np.unravel_index(int(index) - leaf.start, leaf.shape) if leaf.shape else ()
        return leaf.path, tuple(int(i) for i in inside)

    def once(self, flat: np.ndarray | None = None) -> Any:
        """f at one point, as plain eager Python: what the author of `f` would see."""
        self.evaluations += 1
        return self._eager(self.x if flat is None else flat)

    def exact_steps(self, indices: Sequence[int] | np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """The displacements (x + h) - x that floating-point numbers really make of `offsets`."""
        x = self.x[np.asarray(indices)].astype(self._flat_dtype)
        return ((x + np.asarray(offsets, self._flat_dtype)) - x).astype(np.float64)

    def along_axes(
        self, indices: Sequence[int] | np.ndarray, offsets: Sequence[float] | np.ndarray
    ) -> np.ndarray:
        """f(x + offsets[i] e_indices[i]) for every i, (m, *out_shape)."""
        indices, offsets = np.asarray(indices), np.asarray(offsets, np.float64)

        def points(part: slice) -> np.ndarray:
            rows = np.repeat(self.x[None], len(indices[part]), axis=0)
            rows[np.arange(len(rows)), indices[part]] += offsets[part]
            return rows

        return self._values(len(indices), points)

    def along(
        self, directions: np.ndarray, offsets: np.ndarray, rows: np.ndarray | None = None
    ) -> np.ndarray:
        """f(x + offsets[i] * directions[rows[i]]) for every i; `rows` defaults to all in order."""
        offsets = np.asarray(offsets, np.float64)
        rows = np.arange(len(offsets)) if rows is None else np.asarray(rows)
        return self._values(
            len(offsets), lambda part: self.x + offsets[part, None] * directions[rows[part]]
        )

    def prepare(self, index: int = 0, offset: float = 0.0) -> None:
        """Find out how `f` can be run, at the point that will be evaluated first."""
        if self.kind is None:
            point = self.x.copy()
            point[index] += offset
            self._first = (point, self._decide(point))

    def _values(self, count: int, points: Callable[[slice], np.ndarray]) -> np.ndarray:
        point = points(slice(0, 1))[0]
        first = self._decide(point) if self.kind is None else None
        if self._first is not None and np.array_equal(self._first[0], point):
            first = self._first[1]  # a plain function is not called twice for it
        self._first = None
        self.evaluations += count
        if self.kind == "python":
            start = 0 if first is None else 1
            single = [] if first is None else [first]
            for i in range(start, count):
                single.append(self._plain(points(slice(i, i + 1))[0]))
            return np.array(single, np.float64).reshape(count, *self.out_shape)
        values = np.empty((count, *self.out_shape))
        with self.context():
            for start in range(0, count, self.lanes):
                size = min(self.lanes, count - start)
                padded = min(self.lanes, 1 << (size - 1).bit_length())
                block = np.repeat(self.x[None], padded, axis=0)  # padding evaluates x again
                block[:size] = points(slice(start, start + size))
                out = self._kernel(jnp.asarray(block, self._flat_dtype))
                values[start : start + size] = np.asarray(out[:size]).astype(np.float64)
        return values

    def _plain(self, flat: np.ndarray) -> np.ndarray:
        with self.context():
            return np.asarray(self.f(self.tree(np.array(flat)))).astype(np.float64)

    def _decide(self, point: np.ndarray) -> np.ndarray | None:
        """Find out how `f` can be run; the value at `point` if it is a plain Python function.

        A function that returns anything but a JAX array when called with NumPy arrays cannot be
        traced. A few JAX functions cannot be run in float64 (a loop whose carry is float32 by
        name): they are run in the dtypes of their input.
        """
        error: Exception | None = None
        native = [np.dtype(leaf.dtype) for leaf in self.leaves]
        for again in (False, True):
            if again:
                if native == self.dtypes:
                    break
                self._set_dtype(None)
            value: Any = None
            traceable = hasattr(self.f, "lower") or self.shared
            if not traceable:
                try:
                    value = self._eager(point)
                    traceable = isinstance(value, jax.Array)
                except Exception as e:  # judged by the trace below
                    error, traceable = error or e, True
            if traceable:
                try:
                    result = self._trace()
                except _UNTRACEABLE as e:
                    error = error or e
                    if value is None:
                        continue
                except (TypeError, ValueError) as e:
                    error = error or e
                    continue
                else:
                    self._check_output(result)
                    self.kind = "jax"
                    return None
            if value is not None or not traceable:
                self.kind = "python"
                if type(value) is int:  # a branch's constant, as of max(0, x), has no dtype yet
                    value = float(value)
                value = np.asarray(value)
                self._check_output(value)
                return value.astype(np.float64)
        assert error is not None  # of the ways to run it each was left with one
        raise error

    def _eager(self, point: np.ndarray) -> Any:
        """f called as its author would, with arrays of the kind that `x` is made of."""
        with self.context():
            tree = self.tree(np.array(point, self._flat_dtype))
            if not self.jax_input:
                return self.f(tree)
            try:
                return self.f(jax.tree.map(jnp.asarray, tree))
            except (TypeError, ValueError):  # perhaps a NumPy function that writes into copies
                return self.f(tree)

    def differentiable(self) -> bool:
        """Whether `jax.grad` applies: `f` is traced already, or can be after all.

        A function made of operators only returns NumPy values for NumPy points, and is run as
        a plain function, but can be traced all the same.
        """
        if self.kind == "python":
            try:
                self._check_output(self._trace())
                self.kind = "jax"
            except Exception:
                return False
        return True

    def _trace(self) -> Any:
        """Find the shape of the result, which is returned, and how many points fit into a call."""
        spec = _Spec(tuple(self.leaves), self.treedef, tuple(map(np.dtype, self.dtypes)))
        carried = self.f if self.shared else ()
        function = None if self.shared else self.f
        with self.context():
            if self.shared:  # with its own data at hand, which the program below only traces
                jax.eval_shape(self.f, self.tree(np.zeros(len(self.x), self._flat_dtype)))
            key = (spec, self._flat_dtype, jax.tree.structure(carried), *_shapes(carried))
            traced = _TRACED.get(key) if self.shared else None
            if traced is None:
                traced = _measure(carried, spec, function, self._flat_dtype)
                if self.shared:
                    _TRACED[key] = traced
        result, per_lane, self.mapped, narrowest, self.opaque = traced
        self.eps = max(self.eps, narrowest)
        most = MOST_LANES if self.mapped else 1
        self.lanes = int(np.clip(self.memory // per_lane, 1, most))
        settings: dict[str, Any] = {"spec": spec, "mapped": self.mapped}
        if self.shared:
            self._kernel = partial(_shared_values, carried, **settings)
        else:
            self._kernel = jit(partial(_values_of, (), function=function, **settings))
        return result

    def gradient(self, tree: Tree) -> Tree:
        """`jax.grad(f)` at a tree; one program for all shared functions of the same shapes."""
        if self.shared:
            return _shared_gradient(self.f, tree)
        return jit(jax.grad(lambda t: self.f(t)))(tree)

    def _check_output(self, result: Any) -> None:
        if not hasattr(result, "dtype"):
            raise TypeError(f"`f` must return a single array, got {type(result).__name__}.")
        if self.scalar and result.shape != ():
            raise ValueError(
                f"`f` must return a scalar, got shape {tuple(result.shape)}. Sum or average its "
                "result, or check all of it with `check_jacobian`."
            )
        if jnp.issubdtype(result.dtype, jnp.complexfloating):
            raise TypeError(
                f"`f` must return a real number, got {result.dtype}. Take its real part, or check "
                "its real and imaginary parts as two outputs of `check_jacobian`."
            )
        if not jnp.issubdtype(result.dtype, jnp.floating):
            raise TypeError(f"`f` must return a floating-point number, got {result.dtype}.")
        self.out_shape = tuple(result.shape)
        self.eps = max(self.eps, *(float(jnp.finfo(d).eps) for d in (result.dtype, *self.dtypes)))


class _Spec(NamedTuple):
    """How a flat vector becomes a tree: hashable, so that it can select a compiled program."""

    leaves: tuple[Leaf, ...]
    treedef: PyTreeDef
    dtypes: tuple[np.dtype, ...]


def _values_of(
    carried: Tree,
    points: Array,
    *,
    spec: _Spec,
    function: Callable | None = None,
    mapped: bool = True,
) -> Any:
    """f at every row of `points`; f is `function`, or else `carried` itself, a callable tree."""
    call = carried if function is None else function
    leaves, treedef, dtypes = spec

    def of_one(flat: Array) -> Any:
        return call(unflatten(flat, leaves, treedef, dtypes=dtypes))

    if mapped:
        return jax.vmap(of_one)(points)
    return jax.tree.map(lambda a: jnp.asarray(a)[None], of_one(points[0]))


_shared_values = jit(_values_of, static_argnames=("spec", "function", "mapped"))
_TRACED: dict[Hashable, "_Traced"] = {}  # of shared functions, by what selects the program


@jit
def _shared_gradient(f: Tree, tree: Tree) -> Tree:
    return jax.grad(lambda t: f(t))(tree)


def _is_tree(f: Callable) -> bool:
    """Whether `f` is a callable pytree of arrays (a `LinearObjective`, a module of layers).

    One that carries functions or names among its leaves cannot be handed to a compiled program.
    """
    leaves = jax.tree.leaves(f)
    if jax.tree_util.treedef_is_leaf(jax.tree.structure(f)):
        return False
    return all(isinstance(a, jax.Array | np.ndarray | np.generic | int | float) for a in leaves)


def _shapes(tree: Tree) -> list[tuple[tuple[int, ...], str]]:
    return [(np.shape(a), str(getattr(a, "dtype", type(a)))) for a in jax.tree.leaves(tree)]


class _Traced(NamedTuple):
    """What tracing tells of a function."""

    result: Any
    """The shape of its value, a `jax.ShapeDtypeStruct`."""
    per_lane: int
    """Bytes that a device call needs per point."""
    mapped: bool
    eps: float
    opaque: bool
    """As of `Function`, the last three."""


def _measure(carried: Tree, spec: _Spec, function: Callable | None, dtype: DTypeLike) -> _Traced:
    """Trace a function: nothing is evaluated."""
    n = spec.leaves[-1].stop

    def values(points: Array, mapped: bool = True) -> Any:
        return _values_of(carried, points, spec=spec, function=function, mapped=mapped)

    one = jax.ShapeDtypeStruct((1, n), dtype)
    try:
        single, mapped = jax.eval_shape(values, one), True
    except Exception:  # without a map over points this raises what `f` itself has to say
        single, mapped = jax.eval_shape(partial(values, mapped=False), one), False
    shape = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), single)
    if not mapped:
        program = jax.make_jaxpr(partial(values, mapped=False))(one)
        return _Traced(shape, 8 * n, False, *rounding_of(program))
    programs = [jax.make_jaxpr(values)(jax.ShapeDtypeStruct((b, n), dtype)) for b in (2, 4)]
    sizes = [_bytes(program) for program in programs]
    per_lane = max((sizes[1] - sizes[0]) // 2, 8 * n) + 8 * n
    return _Traced(shape, per_lane, True, *rounding_of(programs[0]))


_UNTRACEABLE = (
    jax.errors.TracerArrayConversionError,
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerBoolConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.UnexpectedTracerError,
)


def _bytes(jaxpr: Program) -> int:
    """Bytes of all intermediate results: an upper bound of what one call needs."""
    total = 0
    inside: Program = getattr(jaxpr, "jaxpr", jaxpr)
    for equation in inside.eqns:
        total += sum(_size(variable.aval) for variable in equation.outvars)
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                    total += _bytes(inner)
    return total


def _size(aval: Any) -> int:
    if not hasattr(aval, "shape") or not hasattr(aval.dtype, "itemsize"):
        return 0
    return int(np.prod(aval.shape, dtype=np.int64)) * aval.dtype.itemsize
