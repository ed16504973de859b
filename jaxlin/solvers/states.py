"""The states of fits and paths as files hold them: their shapes in JSON, blanks of these, and the
space they take at most."""

__all__ = ["blank", "largest", "shapes_of"]

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from jaxlin.solvers.dual_losses import form_of
from jaxlin.solvers.history import SCALED_BY, History, history_size
from jaxlin.solvers.lbfgs import State
from jaxlin.solvers.owlqn import L1Fit
from jaxlin.solvers.path import PathState
from jaxlin.solvers.proximal_point import HingeFit, HingeState
from jaxlin.solvers.refresh import SAMPLED_ROWS, WINDOW

_KINDS = {kind.__name__: kind for kind in (History, State, HingeState, HingeFit, L1Fit, PathState)}


def shapes_of(state: Any) -> dict[str, Any]:
    """Kind, shapes and dtypes in JSON: what `blank` needs."""
    fields = {name: _shape_of(part) for name, part in state._asdict().items()}
    return {"kind": type(state).__name__, "fields": fields}


def _shape_of(part: Any) -> Any:
    if part is None or hasattr(part, "_asdict"):
        return None if part is None else shapes_of(part)
    return [list(np.shape(part)), np.asarray(part).dtype.name]


def blank(shapes: dict[str, Any]) -> Any:
    """Zeros of these shapes, to be filled from a file.

    >>> fit = PathState(np.ones((2, 3)), np.ones(2), np.ones(0), None)
    >>> blank(shapes_of(fit)).bias
    array([0., 0.])
    """
    return _KINDS[shapes["kind"]](**{name: _blank(p) for name, p in shapes["fields"].items()})


def _blank(part: Any) -> Any:
    if part is None or isinstance(part, dict):
        return None if part is None else blank(part)
    return np.zeros(*part)


def largest(
    loss: Any, *, l1: bool, examples: int, features: int, classes: int, dtype: DTypeLike
) -> Any:
    """A state of the shapes that a fit leaves at most; its arrays take no memory.

    >>> largest("softmax", l1=False, examples=9, features=2, classes=3, dtype="float32").point.shape
    (9,)
    """
    size = classes * (features + 1)

    def of(*shape: Any, dtype: DTypeLike = np.float64) -> np.ndarray:
        return np.broadcast_to(np.zeros((), dtype), shape)

    def history(most: int) -> History:
        pairs = of(history_size(size, most), size)
        return History(pairs, pairs, 0, 0, of(SCALED_BY))

    one = of(size)
    if l1:
        arrays: dict[str, Any] = dict.fromkeys(("point", "gradient", "best", "built"), one)
        arrays |= {"history": history(30), "free": of(classes * features)}
        return L1Fit(**dict.fromkeys(L1Fit._fields, 0.0) | arrays)
    if form_of(loss).smooth:
        arrays = {name: one for name in ("point", "gradient", "step", "best", "velocity", "built")}
        arrays |= {"history": history(30), "decrements": of(WINDOW), "recipe": of(7)}
        numbers: dict[str, Any] = dict.fromkeys(State._fields, 0.0)
        return State(**numbers | arrays)
    scores, drawn = of(classes, examples, dtype=dtype), min(examples, SAMPLED_ROWS)
    rows, columns = of(2, drawn), of(2, classes, drawn, dtype=dtype)
    arrays = {"weights": of(classes, features), "bias": of(classes), "best": one}
    arrays |= {"scores": scores, "anchor": scores}
    state = HingeState(**dict.fromkeys(HingeState._fields, 0.0) | arrays)
    by_newton, by_quasi = (rows, columns, of(5)), (of(2, size), rows, columns, of(2))
    return HingeFit(state, *by_newton, history(20), *by_quasi)
