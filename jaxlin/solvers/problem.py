"""The problem as every solver sees it: checked, weights summing to one, absent classes set aside.

    minimize over W, b   sum_i c_i loss(W x_i + b, y_i) + strength |W|^2 + l1_strength |W|_1,

with c = sample weights / their sum and x = (inputs - shift) * scale. Where the bias is free, it is
that of the rows less their center m, whatever solves or certifies the problem:

    W x + b = W (x - m) + b',     b' = b + W m.

The objectives are the same at W and b', and so is the optimum; but rows far from zero lose their
digits in scores and gradients, which x - m does not, a subtraction being rounded relative to what
is left. `start_of` takes parameters there, `handed_back` brings them back.
"""

__all__ = [
    "Problem",
    "beside",
    "examples_of",
    "handed_back",
    "keeps_vectors",
    "newton_suits",
    "norm_limit",
    "open_problem",
    "penalty",
    "reweighted",
    "rounded",
    "same_fit",
    "wide",
]

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import DTypeLike

from jaxlin._checks import check_labels
from jaxlin.core import DataError
from jaxlin.distributed.sharding import fetch
from jaxlin.passes import (
    DeviceRows,
    HostRows,
    ShardedRows,
    arithmetic,
    is_small,
    open_rows,
    open_sharded,
)
from jaxlin.platforms import arithmetic_of
from jaxlin.solvers.dual_losses import DualForm, form_of, module_of

NOT_FINITE = "`inputs` holds NaN or infinity. Impute or drop those entries before fitting."
NARROW = 300
"""Features up to which Newton's method factors the Gram matrix anew at every step."""
LEAST_WEIGHT = 1e-280
"""Largest weights below it, and above its inverse, are first scaled by a power of 2: exactly."""
NEWTON_SAVES = 10.0
"""Times the work up to which NumPy is at least as fast as XLA where Newton's method suits."""


class Problem(NamedTuple):
    """A checked problem over the classes that occur."""

    rows: Any
    """`jaxlin.passes.HostRows` or `DeviceRows`, or `ShardedRows`: the mapped inputs less
    `center`."""
    center: np.ndarray
    """(D,) m: 0 in features that lie near zero, and where the bias is fixed."""
    labels: Any
    """(N,) int32 in [0, classes), where the rows are computed."""
    counts: np.ndarray
    """(N,) float64, nonnegative, summing to one."""
    classes: int
    masses: np.ndarray
    """(classes,): the sum of the counts of each class."""
    form: DualForm
    margin: float
    strength: float
    l1_strength: float
    fit_intercept: bool
    tolerance: float
    max_iterations: int
    result_dtype: np.dtype
    """Of the parameters handed back; `dtype` is the arithmetic's."""
    set_aside: float = 0.0
    """A bound on the norms of the rows of weight 0 that are not among `rows`, where a class is
    absent."""

    @property
    def host_labels(self) -> np.ndarray:
        """The labels as a NumPy array, whole on every process."""
        return fetch(self.labels)

    @property
    def features(self) -> int:
        return self.rows.features

    @property
    def xp(self) -> Any:
        return self.rows.xp

    @property
    def dtype(self) -> np.dtype:
        return self.rows.dtype

    @property
    def on_host(self) -> bool:
        return isinstance(self.rows, HostRows)

    @property
    def vectors(self) -> Any:
        """The array module of a smooth fit's parameters, gradients and what is made of them: where
        the rows are, if that is an accelerator, so that none waits for the host; else NumPy."""
        near = type(self.rows) is DeviceRows and keeps_vectors(self.rows.device)
        return jnp if near and self.form.smooth and self.l1_strength == 0 else np


def keeps_vectors(device: Any) -> bool:
    """Whether vectors lie on this device: not on a CPU, whose BLAS they are next to, nor where sums
    in float64 are emulated."""
    return device.platform != "cpu" and arithmetic_of(device).float64 == "native"


def wide(problem: Problem) -> AbstractContextManager[None]:
    """A context in which vectors are in float64 wherever they lie."""
    return nullcontext() if problem.vectors is np else jax.enable_x64(True)


def penalty(problem: Problem, weights: Any) -> float:
    """strength |W|^2 + l1_strength |W|_1, in float64."""
    weights = module_of(weights).asarray(weights, np.float64)
    value = problem.strength * float((weights**2).sum())
    return value + (problem.l1_strength * float(abs(weights).sum()) if problem.l1_strength else 0)


def handed_back(
    problem: Problem, weights: np.ndarray, bias: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Parameters as users get them: of the rows with their center, in the dtype of the result."""
    weights = weights.astype(problem.result_dtype)
    bias = bias - weights.astype(np.float64) @ problem.center
    return weights, bias.astype(problem.result_dtype)


def rounded(
    problem: Problem, weights: np.ndarray, bias: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What is left, in float64, of parameters that are handed back."""
    weights, bias = (part.astype(np.float64) for part in handed_back(problem, weights, bias))
    return weights, bias + weights @ problem.center


def open_problem(
    inputs: Any,
    labels: Any,
    *,
    loss: Any = "softmax",
    strength: float,
    l1_strength: Any = 0.0,
    tolerance: float = 1e-4,
    max_iterations: int = 1000,
    margin: float = 1.0,
    sample_weight: Any = None,
    fit_intercept: bool = True,
    classes: int | None = None,
    dtype: DTypeLike | None = None,
    preprocessing: Any = None,
    mesh: Any = None,
) -> tuple[Problem, np.ndarray, int]:
    """Check everything that users can get wrong; arguments as `minimize` has them.

    Returns:
      The problem, the classes that occur (those it is about), and K.
    """
    strength = _scalar("strength", strength, allow_zero=True)
    l1_strength = _scalar("l1_strength", l1_strength, allow_zero=True)
    tolerance = _scalar("tolerance", tolerance, allow_zero=False)
    margin = _scalar("margin", margin, allow_zero=False)
    if tolerance < 1e-13:
        raise ValueError(
            f"`tolerance` must be at least 1e-13, got {tolerance:g}: the smallest relative gap "
            "that float64 can certify."
        )
    if int(max_iterations) != max_iterations or max_iterations < 0:
        raise ValueError(f"`max_iterations` must be a nonnegative integer, got {max_iterations}.")
    if not hasattr(inputs, "shape"):
        inputs = np.asarray(inputs)
    if len(inputs.shape) != 2 or 0 in inputs.shape:
        raise ValueError(
            f"`inputs` must be (N, D) with at least one row and one feature, got {inputs.shape}. "
            "Flatten images with `.reshape(len(images), -1)`."
        )
    labels = _labels(labels, inputs.shape[0])
    weights = _weights(sample_weight, inputs.shape[0])
    count = _class_count(classes, labels)
    kept = weights > 0
    occurring = np.unique(labels[kept])
    if not fit_intercept:  # only a free bias can push an absent class away
        occurring = np.arange(count)
    form = form_of(loss)
    if l1_strength > 0 and not form.smooth:
        raise ValueError(
            f'`l1_strength` needs a smooth loss, got {form.name!r}: use "softmax", '
            '"squared-hinge" or "squared-one-vs-rest".'
        )
    mapped = {name: getattr(preprocessing, name, None) for name in ("shift", "scale")}
    if mesh is None:
        size, features = inputs.shape
        newton = newton_suits(form, strength, l1_strength, size, features, len(occurring))
        host = True if newton else None
        rows: Any = open_rows(inputs, len(occurring), dtype=dtype, host=host, **mapped)
    else:
        rows = open_sharded(inputs, len(occurring), mesh, dtype=dtype, **mapped)
    result_dtype, set_aside = rows.dtype, 0.0
    if isinstance(rows, HostRows):
        rows.dtype = np.dtype(np.float64)  # small or sparse: the digits cost nothing
        _check_finite(rows.inputs)
        if not kept.all():
            set_aside = rows.radius() if len(occurring) < count else 0.0
            rows = open_rows(
                rows.inputs[kept],
                len(occurring),
                shift=rows.shift,
                scale=rows.scale,
                dtype=rows.dtype,
                host=True,
            )
            labels, weights = labels[kept], weights[kept]
    _check_range(rows)
    center = np.zeros(rows.features)
    if fit_intercept:
        rows, center = rows.centred()
        set_aside += float(np.linalg.norm(center)) if set_aside else 0.0
    renumbered = np.searchsorted(occurring, labels).astype(np.int32)
    renumbered = np.minimum(renumbered, len(occurring) - 1)  # rows of weight 0 only
    counts = weights / weights.sum()
    if mesh is not None:
        renumbered, counts = rows.fill(renumbered), rows.fill(counts)
    masses = np.bincount(renumbered, weights=counts, minlength=len(occurring))
    problem = Problem(
        rows,
        center,
        beside(rows, renumbered),
        counts,
        len(occurring),
        masses,
        form,
        margin,
        strength,
        l1_strength,
        bool(fit_intercept),
        tolerance,
        int(max_iterations),
        result_dtype,
        set_aside,
    )
    return problem, occurring, count


def newton_suits(
    form: DualForm, strength: float, l1_strength: float, size: int, features: int, classes: int
) -> bool:
    """Softmax with a penalty, of few rows and features: Newton's method in NumPy is the fastest."""
    small = features <= NARROW and is_small(size, features, classes, times=NEWTON_SAVES)
    return small and form.geometry == "softmax" and strength > 0 and l1_strength == 0


def reweighted(
    problem: Problem, occurring: np.ndarray, count: int, sample_weight: Any, labels: Any
) -> tuple[Problem, np.ndarray, int] | None:
    """The problem with other weights on the same rows; `None` if its rows or classes differ."""
    weights = _weights(sample_weight, len(labels))
    classes = np.arange(count) if not problem.fit_intercept else np.unique(labels[weights > 0])
    if problem.on_host or not np.array_equal(classes, occurring):
        return None
    counts = weights / weights.sum()
    if isinstance(problem.rows, ShardedRows):
        counts = problem.rows.fill(counts)
    masses = np.bincount(problem.host_labels, weights=counts, minlength=problem.classes)
    return problem._replace(counts=counts, masses=masses), occurring, count


def beside(rows: Any, values: Any) -> Any:
    """Values by row, (N,) or (K, N), where their rows are computed."""
    if isinstance(rows, HostRows):
        return values
    if isinstance(rows, ShardedRows):
        return rows.beside(rows.fill(values))
    with arithmetic(values.dtype):
        return jnp.asarray(values)


def examples_of(problem: Problem) -> int:
    """N, without the rows that fill up a mesh."""
    rows = problem.rows
    return rows.examples if isinstance(rows, ShardedRows) else rows.size


def same_fit(carried: Any, kind: type, problem: Problem) -> Any:
    """`carried` itself, if it is the state of a fit of this kind and size.

    Raises:
      ValueError: it is of another solver, or of other numbers of examples, features or classes.
    """
    wide = problem.classes, problem.features
    if isinstance(carried, kind):
        state = getattr(carried, "state", carried)
        same = np.size(getattr(state, "best", ())) == wide[0] * (wide[1] + 1)
        scores = getattr(state, "scores", None)
        if same and (scores is None or np.shape(scores)[1] == examples_of(problem)):
            return carried
    raise ValueError(
        f"`carried` is not of a fit of this kind and size ({type(carried).__name__}, for "
        f"{kind.__name__} of {wide[0]} classes and {wide[1]} features). Give what this very fit "
        "left, or leave it out."
    )


def _scalar(name: str, value: float, *, allow_zero: bool) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"`{name}` must be a number, got {value!r}.") from None
    if not np.isfinite(number) or number < 0 or (number == 0 and not allow_zero):
        kind = "nonnegative" if allow_zero else "positive"
        raise ValueError(f"`{name}` must be {kind} and finite, got {number:g}.")
    return number


def _labels(labels: Any, size: int) -> np.ndarray:
    labels = np.asarray(labels)
    check_labels(labels, size)
    if labels.min() < 0:
        row = int(labels.argmin())
        raise ValueError(
            f"`labels` must be integers in [0, K), got {labels[row]} at row {row}. "
            "Number the classes from 0."
        )
    return labels.astype(np.int64)


def _weights(sample_weight: Any, size: int) -> np.ndarray:
    if sample_weight is None:
        return np.ones(size)
    weights = np.asarray(sample_weight, np.float64)
    if weights.shape != (size,):
        raise ValueError(
            f"`sample_weight` must have one entry per row, ({size},), got {weights.shape}."
        )
    if not np.isfinite(weights).all() or weights.min() < 0:
        row = int(np.argmax(~(weights >= 0) | ~np.isfinite(weights)))
        raise ValueError(
            f"`sample_weight` must be nonnegative and finite, got {weights[row]} at row {row}."
        )
    if not weights.any():
        raise ValueError("`sample_weight` is zero everywhere: no example counts. Raise some.")
    most = weights.max()
    if not LEAST_WEIGHT < most < 1 / LEAST_WEIGHT:  # their sum and its inverse would be no numbers
        return np.ldexp(weights, -np.frexp(most)[1])
    return weights


def _class_count(classes: int | None, labels: Any) -> int:
    largest = int(labels.max())
    count = largest + 1 if classes is None else int(classes)
    if largest >= count:
        row = int(labels.argmax())
        raise ValueError(
            f"`labels` must be integers in [0, {count}), got {largest} at row {row}. "
            "Raise `classes`, or number the classes from 0."
        )
    return max(count, 1)


def _check_finite(inputs: Any) -> None:
    values = getattr(inputs, "data", inputs) if not isinstance(inputs, np.ndarray) else inputs
    if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
        raise DataError(NOT_FINITE)


def norm_limit(dtype: DTypeLike) -> float:
    """What norms of rows must stay below, so that their squares and sums of these are numbers.

    >>> f"{norm_limit(np.float64):.0e}"
    '1e+153'
    """
    return float(np.sqrt(np.finfo(dtype).max)) / 10


def _check_range(rows: Any) -> None:
    """The certificate needs the largest norm of a row, and preconditioners the squares of norms."""
    limit = norm_limit(rows.dtype)
    if np.issubdtype(rows.inputs.dtype, np.integer):
        most = float(np.iinfo(rows.inputs.dtype).max) + 1
        if np.linalg.norm(most * rows.scale) + np.linalg.norm(rows.shift * rows.scale) < limit:
            return  # whatever the rows hold: no pass over them
    largest = rows.radius()
    if np.isnan(largest):
        raise DataError(NOT_FINITE)
    if not largest < limit:
        raise DataError(
            f"`inputs` holds infinity, or numbers whose squares overflow in {rows.dtype}. Scale "
            "the features, for example with `jaxlin.preprocess`, or give float64 as `dtype`."
        )
