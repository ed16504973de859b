"""What the modes of a check share: ladders, closer looks at single entries, the final report."""

__all__ = [
    "assemble",
    "badness",
    "coarse_note",
    "entry_of",
    "ladder_along",
    "look_closely",
    "order_of",
    "structured_scale",
    "too_coarse",
    "unflat",
    "verdict_of",
]

from collections.abc import Mapping, Sequence, Sized

import jax
import jax.numpy as jnp
import numpy as np

from jaxlin.gradients.evaluate import Function
from jaxlin.gradients.finite_differences import NumericGradient
from jaxlin.gradients.ladder import RUNG, TOP, Calibration, calibrate, entry_step, measured_order
from jaxlin.gradients.leaves import Tree
from jaxlin.gradients.linear import (
    LinearObjective,
    margins_near_zero,
    scores_of,
    unwrap,
    weights_of,
)
from jaxlin.gradients.lines import EPS, Group, Trial
from jaxlin.gradients.locality import demoted
from jaxlin.gradients.patterns import describe
from jaxlin.gradients.report import Entry, GradientReport
from jaxlin.gradients.slopes import Slopes, resolve
from jaxlin.gradients.structured import structured_step
from jaxlin.transfer import device_of

CHUNK = 256  # entries searched together for a value that is not finite


def ladder_along(trial: Trial, group: Group, line: np.ndarray) -> Calibration:
    changes = trial.along(line[None])
    function = trial.function
    ladder = calibrate(
        lambda t: changes(t[None])[0], trial.value, function.eps, stair=function.stair
    )
    if ladder is None:
        raise ValueError(_where_not_finite(trial, group))
    return ladder


def _where_not_finite(trial: Trial, group: Group) -> str:
    function = trial.function
    for start in range(0, len(group.entries), CHUNK):
        entries = group.entries[start : start + CHUNK]
        offsets = group.scale[entries] * 2.0**-30
        values = function.along_axes(np.repeat(entries, 2), np.outer(offsets, [-1, 1]).ravel())
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            path, index = function.place(entries[bad[0] // 2])
            name = path + (f"[{', '.join(map(str, index))}]" if index else "") or "x"
            side = "below" if bad[0] % 2 == 0 else "above"
            return (
                f"`f` is finite at `x` but {values[bad[0]]} near it, where {name} is slightly "
                f"{side} its value. Check at a point inside the domain of `f`."
            )
    path, _ = function.place(group.entries[0])
    return (
        f"`f` is finite at `x` but not near it along {path or 'x'}. Check at a point inside the "
        "domain of `f`."
    )


def look_closely(
    trial: Trial,
    suspects: Sequence[int] | np.ndarray,
    ladder: Calibration,
    group: Group,
    method: str,
) -> dict[int, Entry]:
    """Measure single entries on many scales."""
    if not len(suspects):
        return {}
    entries = np.array(suspects, int)
    h = entry_step(ladder.step, len(group.entries)) * group.scale[entries]
    h = 2.0 ** np.round(np.log2(h))
    if trial.structured:
        structured, noise = structured_scale(trial)
        h, noise = structured[entries], noise[entries]
    else:
        values = np.nan_to_num(trial.claim.values[entries], posinf=0.0, neginf=0.0)
        noise = ladder.noise + EPS * np.abs(values * trial.function.x[entries])
    found, at = resolve(trial.along_axes(entries), h, noise, method=method)
    claim, rounding = trial.claim.values[entries], trial.claim.rounding[entries]
    noise = np.broadcast_to(noise, h.shape)
    if not trial.structured:
        found, _ = demoted(
            trial,
            lambda rows, offsets: trial.along_axes(entries[rows])(offsets),
            at, group.scale[entries], found, noise, claim, rounding,
        )  # fmt: skip
    return {
        int(i): entry_of(trial, int(i), found.take(slice(row, row + 1)))
        for row, i in enumerate(entries)
    }


def structured_scale(trial: Trial) -> tuple[np.ndarray, np.ndarray]:
    """Step and noise per entry on the fast path, whose differences do not cancel.

    What remains is the rounding of a sum over examples of |x_d| times the loss's slope, and
    that of the scores, relative.
    """
    function = trial.function
    objective = trial.objective
    x = function.tree(function.x)
    step = np.full(len(function.x), structured_step(objective))
    with function.context():
        mean = np.zeros(objective.inputs.shape[1])
        top = 0.0
        for i in range(0, objective.examples, 4096):
            block = objective.inputs[i : i + 4096]
            mean += np.asarray(np.abs(block).sum(axis=0, dtype=np.float64))
            top = max(
                top,
                float(
                    np.abs(
                        np.asarray(scores_of(jax.tree.map(lambda a: jnp.asarray(a), x), block))
                    ).max()
                ),
            )
    mean /= objective.examples
    if objective.weights is not None:
        w = np.asarray(objective.weights, np.float64)
        mean *= w.max() / w.mean()
    classes = weights_of(x).shape[0]
    loss, margin = unwrap(objective.loss)
    slope = classes * (2 * (2 * top + margin) if "squared" in loss.__name__ else 1)
    unit = EPS * slope * (64 + 4 * top)
    per_entry = np.tile(mean * unit, classes)
    if len(function.leaves) > 1:
        per_entry = np.concatenate([per_entry, np.full(classes, unit)])
    matrix = np.abs(function.x) * 2 * objective.strength * EPS * 4
    return step, (per_entry + matrix) * step


def entry_of(trial: Trial, i: int, found: Slopes) -> Entry:
    path, index = trial.function.place(i)
    kinked = bool(found.kinked[0])
    bar = float((found.side_error if kinked else found.error)[0] + trial.claim.rounding[i])
    return Entry(
        path,
        index,
        float(trial.claim.values[i]),
        float(found.numeric[0]),
        bar,
        float(found.left[0]),
        float(found.right[0]),
        kinked,
    )


def too_coarse(
    trial: Trial,
    ladder: Calibration,
    magnitude: float,
    claim_size: float,
    measured: float,
    total: float,
) -> bool:
    """Whether error bars are so wide, next to the slopes, that a pass would mean nothing.

    Bars that are not finite always are. Narrow ones are sharp whatever the gradient is: far below
    the steepest secant of f at steps that are not lost in noise; and, where the claimed gradient
    is 0, below 1e-8 of the terms of f.

    Args:
      magnitude: of the slopes, claimed and measured.
      claim_size: of the claimed slopes beyond their rounding.
      measured: error bar of the measured slopes.
      total: the same and the rounding of the claim.
    """
    if not np.isfinite(total):
        return True
    if measured <= 0.1 * magnitude and total <= 0.3 * magnitude:
        return False
    with np.errstate(invalid="ignore", over="ignore"):
        secants = np.abs(np.stack([ladder.plus, ladder.minus])) - 8 * ladder.noise
        secants = np.where(np.isfinite(secants), secants, 0.0).max(axis=0) / ladder.steps
    beyond = ladder.steps >= ladder.step
    for share, reach in ((1e-3, RUNG * ladder.step), (1e-5, TOP)):
        near = beyond & (ladder.steps <= reach)
        if total <= share * secants[near].max(initial=0.0):
            return False
    return claim_size > 0 or total > 1e-8 * trial.function.terms(abs(trial.value))


def coarse_note(
    ladders: Sequence[Calibration], smallest: Mapping[str, float], steps: Mapping[str, float]
) -> str:
    """Why error bars are too wide, and what they still let see."""
    seen = max(smallest.values(), default=np.inf)
    noise = max(ladder.noise for ladder in ladders)
    unseen = f"no error of an entry below {seen:.1e} could be seen."
    if np.isinf(noise):
        return "the values of `f` are too coarse to decide: no error of an entry could be seen."
    if all(8 * noise / steps[path] < 0.1 * smallest[path] for path in steps):
        return f"the slope of `f` changes too fast near the point to decide: {unseen}"
    return f"the values of `f` are too coarse to decide, only good to {noise:.1e}: {unseen}"


def verdict_of(wrong: Sized, kinks: Sized, unclear: bool) -> str:
    if len(wrong):
        return "fail"
    if unclear:
        return "inconclusive"
    return "kink" if len(kinks) else "pass"


def order_of(
    trial: Trial,
    groups: Sequence[Group],
    verdict: str,
    listed: Mapping[int, Entry],
    order: float | None,
) -> float | None:
    """Of a failing gradient the rate along its worst entry, where the error is not diluted."""
    if verdict in ("kink", "inconclusive"):
        return None
    if verdict == "pass" or not listed:
        return order
    i = next(iter(listed))
    if i < 0:  # a line of several entries
        return None
    if not np.isfinite(trial.claim.values[i]) or listed[i].kinked:
        return None
    line = np.zeros((1, len(trial.function.x)))
    line[0, i] = next(g.scale[i] for g in groups if g.scale[i])
    ladder = ladder_along(trial, groups[0], line[0])
    claim, rounding = trial.claim_along(line)
    return measured_order(ladder, claim[0], rounding[0])


def unflat(function: Function, values: np.ndarray) -> Tree:
    parts = [values[a.start : a.stop].reshape(a.shape) for a in function.leaves]
    return jax.tree_util.tree_unflatten(function.treedef, parts)


def assemble(
    trial: Trial,
    verdict: str,
    listed: Mapping[int, Entry],
    *,
    limit: int,
    mode: str,
    order: float | None,
    max_relative_error: float,
    steps: dict[str, float],
    smallest: dict[str, float],
    miss: float,
    directions: int,
    checked: int,
    kinked: int,
    notes: list[str],
    wrong: int | None = None,
    numeric: NumericGradient | None = None,
    analytic: Tree | None = None,
) -> GradientReport:
    function = trial.function
    entries = list(listed.values())
    entries.sort(key=badness, reverse=True)
    if verdict == "fail":
        notes += describe([e for i, e in listed.items() if i >= 0], trial)
    if function.kind == "jax" and function.dtype != "float64":
        notes.append(
            function.reason
            or f"`f` does not run in float64; evaluated in {function.dtype}, with wider steps."
        )
    if not function.mapped:
        notes.append(
            "`f` cannot be mapped over points (a host callback without `vmap_method`, perhaps): "
            "it was evaluated one point at a time."
        )
    with function.context():
        device = device_of()
    how = "one point at a time by Python" if function.kind == "python" else device.device_kind
    margins = None
    if isinstance(function.f, LinearObjective):
        x = function.tree(function.x)
        margins = margins_near_zero(function.f, x, min(steps.values()))
    return GradientReport(
        verdict=verdict,
        entries=tuple(entries[:limit]),
        max_relative_error=float(max_relative_error),
        evaluations=function.evaluations,
        order=order,
        steps=steps,
        mode=mode,
        parameters=len(function.x),
        checked=checked,
        directions=directions,
        miss_probability=miss,
        smallest_error=smallest,
        wrong=len(listed) if wrong is None and verdict == "fail" else wrong or 0,
        kinked=kinked,
        margins=margins,
        precision=f"{function.dtype} on {device.platform} ({how}), matrix products at highest",
        notes=tuple(notes),
        numeric=numeric,
        analytic=analytic,
    )


def badness(entry: Entry) -> float:
    """What entries are sorted by: the worst first."""
    if not np.isfinite(entry.analytic):
        return np.inf
    if entry.kinked and entry.inside:
        return abs(entry.right - entry.left)
    return abs(entry.analytic - entry.numeric)
