"""The nouns of the house: what every other module takes and returns.

N examples, D features, K classes. All are `NamedTuple`s, hence pytrees: they pass through
`jax.jit`, `jax.vmap` and `jax.grad` as they are.
"""

__all__ = ["EXCLUDED", "Batch", "DataError", "LinearParams", "RowSource", "Solution"]

from typing import Any, NamedTuple, Protocol

import numpy as np
from jax import Array

EXCLUDED = -1e30
"""Score of a class that is not there: its probability and its hinges are 0, and so are their
gradients. No smoothed label has a share for it."""


class RowSource(Protocol):
    """Rows (N, D): a JAX or NumPy array, a memory map, or a source that reads them when asked.

    >>> rows: RowSource = np.ones((3, 2), np.uint8)
    >>> len(rows), rows[1:].shape
    (3, (2, 2))
    """

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def ndim(self) -> int: ...
    @property
    def dtype(self) -> Any: ...
    def __len__(self) -> int: ...
    def __getitem__(self, rows: Any, /) -> Any: ...


class LinearParams(NamedTuple):
    """The parameters of `scores = inputs @ weights.T + bias`.

    Shapes are the lecture's, W [K x D] and b [K], which are also scikit-learn's `coef_` and
    `intercept_`.

    >>> params = LinearParams(np.zeros((10, 64)), np.zeros(10))
    >>> params.weights.shape, params.bias.shape
    ((10, 64), (10,))
    """

    weights: Array | np.ndarray
    """(K, D), floating: row k is the template of class k."""
    bias: Array | np.ndarray
    """(K,), floating: the score of class k at the origin. Never regularized."""


class Batch(NamedTuple):
    """Examples, their classes, and how much each one counts.

    >>> padded = Batch(np.ones((3, 2)), np.array([0, 1, -1]), weights=np.array([1.0, 1.0, 0.0]))
    >>> padded.inputs.shape, padded.weights.sum().item()
    ((3, 2), 2.0)
    """

    inputs: RowSource
    """(N, D), floating or uint8 (raw pixels)."""
    labels: Array | np.ndarray
    """(N,), integer, in [0, K)."""
    weights: Array | np.ndarray | None = None
    """(N,), nonnegative; `None` counts every example once. An example of weight 0 is not there,
    whatever its inputs and label hold: that is how padding, gaps and unlabeled rows are masked."""


class Solution(NamedTuple):
    """Where a solver stopped, and a proof of how far from the optimum that is.

    The least objective that any parameters reach lies in [`lower_bound`, `objective`].

    >>> from jaxlin.solvers import minimize
    >>> found = minimize(np.array([[0.0], [1.0], [2.0]]), np.array([0, 1, 1]), strength=0.1)
    >>> found.lower_bound <= found.objective <= found.lower_bound * (1 + 2e-4)
    True
    """

    params: LinearParams
    objective: float
    """Weighted mean loss + penalty at `params`."""
    lower_bound: float
    """No parameters have a smaller objective: the value of a dual feasible point."""
    gap: float
    """`objective - lower_bound`, nonnegative."""
    gradient_norm: float
    """Euclidean norm of the (sub)gradient that the solver saw last, bias included."""
    iterations: int
    evaluations: float
    """Passes over the data: a value with its gradient counts 1, either product alone 1/2."""
    status: int
    """Why the solver stopped; `jaxlin.solvers.describe(status)` says it in words."""

    def __repr__(self) -> str:
        """Numbers and shapes on two lines, never the arrays.

        >>> params = LinearParams(np.zeros((10, 64)), np.zeros(10))
        >>> Solution(params, 0.5, 0.4995, 0.0005, 1e-3, 7, 9.5, 0)
        Solution(objective=0.5, lower_bound=0.4995, gap=0.0005, gradient_norm=0.001,
            iterations=7, evaluations=9.5, status=0, weights=(10, 64) float64, bias=(10,) float64)
        """
        first = {name: _short(value) for name, value in self._asdict().items() if name != "params"}
        words = [f"{name}={value}" for name, value in first.items()]
        params = self.params
        if isinstance(params, LinearParams):
            words += [f"weights={_short(params.weights)}", f"bias={_short(params.bias)}"]
        else:  # a pytree of something else, say of shardings
            words.append(f"params={params!r}")
        return f"Solution({', '.join(words[:4])},\n    {', '.join(words[4:])})"

    def _repr_html_(self) -> str:
        from html import escape

        rows = {name: _short(value) for name, value in self._asdict().items() if name != "params"}
        if isinstance(self.params, LinearParams):
            rows |= {name: _short(value) for name, value in self.params._asdict().items()}
        cells = (f"<tr><th>{n}</th><td>{escape(value)}</td></tr>" for n, value in rows.items())
        return f"<table>{''.join(cells)}</table>"


def _short(value: Any) -> str:
    """A number to seven digits, or an array's shape and dtype."""
    shape = getattr(value, "shape", ())
    if shape:
        return f"{tuple(shape)} {value.dtype}"
    try:
        return f"{float(value):.7g}"
    except (TypeError, ValueError):  # while tracing there is no number, and a pytree holds anything
        return repr(value)


class DataError(ValueError):
    """Data that cannot be used: the message names the file, what is wrong and what to do.

    >>> from jaxlin import data
    >>> data.load("no-such-file.npz")
    Traceback (most recent call last):
    jaxlin.core.DataError: ...no-such-file.npz...
    """
