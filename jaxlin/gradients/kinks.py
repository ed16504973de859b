"""Whether a claim that fits every entry of a kink also fits the lines between them.

At a kink each claimed value may lie between the one-sided slopes along its own axis, and yet all
of them together be the gradient of nothing: max(a, b) at a = b allows every value in [0, 1] for
either entry, but along (1, 1) its slope is 1, so that their sum must be 1. Along any line a
subgradient of a convex function lies between the one-sided slopes; the same holds for a concave
one. Where kinks of both kinds meet, as in relu(a) - relu(b) at a = b = 0, it does not, and a
disagreement along a line proves nothing.

Source: Rockafellar, Convex Analysis, theorem 23.2; Clarke, Optimization and Nonsmooth Analysis,
  chapter 2.3 (regular functions), for where convexity stops to matter.
"""

__all__ = ["MIXED", "along_kinks", "confirmed"]

import numpy as np
from scipy.optimize import nnls

from jaxlin.gradients.assemble import ladder_along
from jaxlin.gradients.lines import Group, Trial, random_signs, scales_of
from jaxlin.gradients.locality import unfounded
from jaxlin.gradients.report import Entry
from jaxlin.gradients.slopes import Slopes, resolve

NEARER = (1.0, 1 / 16, 1 / 256, 1 / 4096)
LINES = 6  # random ones, besides those that the claim itself suggests
MIXED = (
    "kinks that bend up and kinks that bend down meet at the point; along some lines the claim "
    "is not between the one-sided slopes, which there proves nothing."
)
HULL = 12  # kinked entries in whose subspace the hull of the subgradients is looked for
NAMES = 3  # entries of a line that are written out


def along_kinks(
    trial: Trial,
    rng: np.random.Generator,
    entries: np.ndarray,
    left: np.ndarray,
    right: np.ndarray,
    method: str,
) -> tuple[Entry | None, bool]:
    """Test lines through kinked entries.

    Args:
      trial: the case.
      rng: draws the signs of some lines.
      entries: flat indices of the kinked entries, each claimed value between its own slopes.
      left, right: the one-sided slopes of each.
      method: of the slopes.

    Returns:
      A line that proves the claim wrong, if there is one; and whether lines disagree that prove
      nothing, because kinks of both kinds meet.
    """
    convex = right > left
    for kind in (convex, ~convex):
        if kind.sum() < 2:
            continue
        lines = _lines(trial, rng, entries[kind], (left[kind] + right[kind]) / 2)
        found, away = _measured(trial, lines, method)
        sign = 1 if kind is convex else -1
        regular = sign * (found.right - found.left) >= -2 * found.side_error
        if (regular | ~found.kinked).all() and (away > 0).any():
            entry = confirmed(trial, lines[int(np.argmax(away))], method)
            if entry is not None:
                return entry, False
        elif (regular | ~found.kinked).all():
            center = (left[kind] + right[kind]) / 2
            proof, mixed = _separated(trial, rng, entries[kind], center, sign, method)
            if proof is not None or mixed:
                return proof, mixed
    if convex.any() and not convex.all():
        lines = _lines(trial, rng, entries, (left + right) / 2)
        return None, bool((_measured(trial, lines, method)[1] > 0).any())
    return None, False


def _separated(
    trial: Trial,
    rng: np.random.Generator,
    entries: np.ndarray,
    center: np.ndarray,
    sign: int,
    method: str,
) -> tuple[Entry | None, bool]:
    """Search for a line that separates the claim from all subgradients, and measure it.

    Gradients measured beside the point are subgradients at it, in the limit. The line from the
    nearest point of their hull to the claim is where the claim stands out the most; the gradient
    on that side is one more subgradient, until the claim lies in the hull or a line has it out.
    Of many kinked entries some are drawn: what is wrong among them is wrong among all.
    """
    if len(entries) > HULL:
        drawn = np.sort(rng.choice(len(entries), HULL, replace=False))
        entries, center = entries[drawn], center[drawn]
    scale = scales_of(trial.function)[entries]
    claim = sign * trial.claim.values[entries] * scale
    way = claim - sign * center * scale
    found: list[np.ndarray] = []
    ways: list[np.ndarray] = []
    full = np.zeros(len(trial.function.x))
    full[entries] = scale
    ladder = ladder_along(trial, Group(entries, np.abs(full)), full)
    for _ in range(2 * len(entries) + 8):
        size = np.abs(way).max()
        if not np.isfinite(size) or size == 0:
            return None, False
        way = way / size
        gradient = sign * _beside(trial, entries, way * scale, ladder.step / 16)
        if not np.isfinite(gradient).all():
            return None, False
        found.append(gradient)
        ways.append(way)
        sizes = np.abs(np.array(ways)) @ np.abs(np.array(found)).max(axis=0)
        if way @ (claim - gradient) > 1e-6 * sizes[-1]:
            line = full.copy()
            line[entries] = way * scale
            proof = confirmed(trial, line, method)
            # On every side the gradient there reaches farthest, or else f bends both ways.
            reach = np.array(ways) @ np.array(found).T
            mixed = (reach > np.diag(reach)[:, None] + 1e-3 * sizes[:, None]).any()
            return (None, True) if proof is not None and mixed else (proof, False)
        way = claim - _nearest(np.array(found), claim)
        if np.abs(way).max() <= 1e-6 * np.abs(claim).max():
            return None, False
    return None, False


def _beside(trial: Trial, entries: np.ndarray, way: np.ndarray, step: float) -> np.ndarray:
    """The gradient at x + step * way by the kinked entries, in units of their scale."""
    lines = np.zeros((2 * len(entries), len(trial.function.x)))
    lines[:, entries] = step * way
    aside = step / 64 * scales_of(trial.function)[entries]
    for i, entry in enumerate(entries):
        lines[2 * i, entry] += aside[i]
        lines[2 * i + 1, entry] -= aside[i]
    values = trial.along(lines)(np.ones((len(lines), 1)))[:, 0]
    return (values[::2] - values[1::2]) / (2 * step / 64)


def _nearest(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The point of the hull of some (k, n) that is nearest to another one, (n,)."""
    unit = max(np.abs(points).max(), np.abs(target).max())
    if unit == 0:
        return target
    heavy = 1e3  # the shares sum to 1
    matrix = np.concatenate([points.T / unit, np.full((1, len(points)), heavy)])
    try:
        shares, _ = nnls(matrix, np.append(target / unit, heavy))
    except RuntimeError:  # it found no end: the search ends here
        return target
    return shares @ points / shares.sum()


def confirmed(trial: Trial, line: np.ndarray, method: str) -> Entry | None:
    """The slope along a line, measured with its own step, if the claim lies outside of it."""
    line = line * np.sign(line[np.argmax(line != 0)])
    group = Group(np.flatnonzero(line), np.abs(line))
    ladder = ladder_along(trial, group, line)
    claim, rounding = trial.claim_along(line[None])
    step, noise = np.array([ladder.step]), np.array([ladder.noise])
    changes = trial.along(line[None])
    found, at = resolve(changes, step, noise, scales=NEARER, method=method)
    if unfounded(
        trial, lambda _, t: changes(t), at, np.ones(1), found, noise, claim, rounding,
    )[0]:  # fmt: skip
        return None
    if not (found.outside(claim, rounding) > 0)[0] or not np.isfinite(found.numeric[0]):
        return None
    kinked = bool(found.kinked[0])
    bar = float((found.side_error if kinked else found.error)[0] + rounding[0])
    left, right = float(found.left[0]), float(found.right[0])
    name = _name(trial, line)
    return Entry(name, (), float(claim[0]), float(found.numeric[0]), bar, left, right, kinked)


def _lines(
    trial: Trial, rng: np.random.Generator, entries: np.ndarray, center: np.ndarray
) -> np.ndarray:
    """Displacements through the kinked entries: equal ones, random signs, along the claim."""
    scale = scales_of(trial.function)[entries]
    claim = trial.claim.values[entries]
    inside = [scale, *(random_signs(rng, (LINES, len(entries))) * scale)]
    for way in (claim, claim - center):
        size = np.abs(way / scale).max()
        if np.isfinite(size) and size > 0:
            inside.append(way / np.abs(way / scale).max())
    lines = np.zeros((len(inside), len(trial.function.x)))
    lines[:, entries] = inside
    return lines


def _measured(trial: Trial, lines: np.ndarray, method: str) -> tuple[Slopes, np.ndarray]:
    group = Group(np.flatnonzero(lines[0]), np.abs(lines[0]))
    ladder = ladder_along(trial, group, lines[0])
    step, noise = np.full(len(lines), ladder.step), np.full(len(lines), ladder.noise)
    found, _ = resolve(trial.along(lines), step, noise, scales=NEARER, method=method)
    return found, found.outside(*trial.claim_along(lines))


def _name(trial: Trial, line: np.ndarray) -> str:
    entries = np.flatnonzero(line)
    if len(entries) > NAMES:
        return f"a line of {len(entries):,} entries"
    parts = []
    for i in entries:
        path, index = trial.function.place(i)
        name = path + (f"[{', '.join(map(str, index))}]" if index else "")
        parts.append(f"{line[i]:+.3g} {name or 'x'}")
    return "along " + " ".join(parts)
