"""Parts of the scores that are given by row and not learned, in the shape that scores have."""

__all__ = ["by_class", "refuse_offsets", "with_offsets"]

from typing import Any

import numpy as np

from jaxlin.estimators.scoring import beside
from jaxlin.estimators.validation import is_device_array


def by_class(model: Any, offsets: Any, rows: int) -> np.ndarray | None:
    """Offsets as `decision_function` has scores, for each class, (N, K); `None` stays.

    For two classes they are of the rows of coefficients (-coef_, coef_), halved where they share
    one vector.
    """
    if offsets is None:
        return None
    offsets = _checked(offsets, rows, len(model.classes_)).astype(np.float64)
    if offsets.ndim == 2:
        return offsets
    share = 1.0 if model._separate() else 0.5
    return share * np.stack([-offsets, offsets], axis=1)


def with_offsets(model: Any, scores: Any, offsets: Any) -> Any:
    """The scores (N, K) or (N,) plus the offsets, which a model that was fitted with them needs."""
    if offsets is None:
        if getattr(model, "takes_offsets_", False):
            raise ValueError(
                f"This {type(model).__name__} was fitted with `offsets`: its scores lack those of "
                "these rows. Give them as `offsets`, or zeros for none."
            )
        return scores
    offsets = _checked(offsets, len(scores), len(model.classes_)).astype(scores.dtype)
    return scores + (beside(scores, offsets) if is_device_array(scores) else offsets)


def refuse_offsets(model: Any, what: str) -> None:
    """Raise where the model was fitted with offsets, of which `what` knows nothing."""
    if getattr(model, "takes_offsets_", False):
        raise ValueError(
            f"This {type(model).__name__} was fitted with `offsets`, of which {what} knows "
            "nothing. Clone it and fit it without them."
        )


def _checked(offsets: Any, rows: int, classes: int) -> np.ndarray:
    offsets = np.asarray(offsets)
    shape = (rows,) if classes == 2 else (rows, classes)
    if offsets.shape != shape:
        what = "the lead of classes_[1]" if classes == 2 else "one for each of classes_"
        raise ValueError(
            f"`offsets` must be of the shape of the scores, {shape}, {what}, got {offsets.shape}."
        )
    if offsets.dtype.kind not in "fiub":
        raise TypeError(f"`offsets` must be numbers, got {offsets.dtype}.")
    if not np.isfinite(offsets).all():
        row = int(np.argwhere(~np.isfinite(offsets))[0][0])
        raise ValueError(f"`offsets` must be finite, got {offsets[row]} at row {row}.")
    return offsets
