"""What wrong entries have in common, in one sentence each: a hint at the cause."""

__all__ = ["describe"]

from collections.abc import Sequence

import numpy as np

from jaxlin.gradients.lines import Trial
from jaxlin.gradients.report import Entry, distinct_digits


def describe(entries: Sequence[Entry], trial: Trial) -> list[str]:
    """Patterns among at least two wrong entries: a factor, a missing term, a missing leaf.

    Args:
      entries: wrong entries, as reported.
      trial: the case they come from.

    Returns:
      Sentences; none if nothing stands out.
    """
    notes = []
    if not all(np.isfinite(e.analytic) for e in entries):
        return ["the claimed value is not a finite number at some of the entries."]
    entries = [e for e in entries if not e.kinked]
    if not entries:
        return []
    analytic = np.array([e.analytic for e in entries])
    numeric = np.array([e.numeric for e in entries])
    bars = np.array([e.error_bar for e in entries])
    if (analytic == 0).all():
        return ["the claimed value is 0 at every wrong entry found: a term or a leaf is missing."]
    imaginary = all(e.path.endswith(".imag") for e in entries)
    if imaginary and (np.abs(analytic + numeric) <= 3 * bars + 1e-6 * np.abs(numeric)).all():
        return [
            "the imaginary parts have the opposite sign: if the gradient follows torch's "
            "convention, pass its `jnp.conj`."
        ]
    if len(entries) == 1:
        if abs(analytic[0] + numeric[0]) <= 3 * bars[0]:
            notes.append("the claimed value is the measured one with the opposite sign.")
        return notes
    solid = np.abs(numeric) > 100 * bars
    if solid.sum() >= 2 and np.ptp(numeric[solid]) > 0:
        ratio = analytic[solid] / numeric[solid]
        if np.ptp(ratio) <= 1e-3 * np.abs(ratio - 1).max():
            factor = float(ratio.mean())
            shown = f"{factor:.{max(6, distinct_digits(factor, 1.0))}g}"
            notes.append(f"every wrong entry found is {shown} times the measured value.")
            return notes
    at = np.array([_value(trial, e) for e in entries])
    if (at != 0).all() and len(set(at.tolist())) > 1:
        share = (numeric - analytic) / at
        if np.ptp(share) <= 1e-2 * np.abs(share).max():
            notes.append(
                f"the measured values exceed the claimed ones by {share.mean():.4g} times x: a "
                "quadratic regularizer may be missing or doubled."
            )
    return notes


def _value(trial: Trial, entry: Entry) -> float:
    function = trial.function
    leaf = next(leaf for leaf in function.leaves if leaf.path == entry.path)
    inside = int(np.ravel_multi_index(entry.index, leaf.shape)) if leaf.shape else 0
    return float(function.x[leaf.start + inside])
