"""The quick mode: slopes along random directions, and group testing where they disagree."""

__all__ = ["by_directions"]

from collections.abc import Callable, Collection, Sequence

import numpy as np

from jaxlin.gradients.assemble import (
    assemble,
    coarse_note,
    ladder_along,
    look_closely,
    order_of,
    too_coarse,
    verdict_of,
)
from jaxlin.gradients.kinks import MIXED, along_kinks, confirmed
from jaxlin.gradients.ladder import Calibration, entry_step, measured_order
from jaxlin.gradients.lines import Group, Trial, groups_of, norm, random_signs
from jaxlin.gradients.locality import unfounded
from jaxlin.gradients.report import Entry, GradientReport, relative_error
from jaxlin.gradients.search import find_entries
from jaxlin.gradients.slopes import NODES, Slopes, resolve, slopes

NEARER = (1.0, 1 / 16, 1 / 256, 1 / 4096)  # scales on which a suspicious direction is repeated
SEARCH_BUDGET = 220  # blocks tested by the group testing, at 4 evaluations each
NAMED = 8  # wrong entries to name before the search rests
KINKS_LISTED = 10
LOOKED_AT = 3  # lines that agree whose values are compared all across the step, if they are coarse


def by_directions(
    trial: Trial, rng: np.random.Generator, *, directions: int, limit: int, method: str
) -> GradientReport:
    """Compare slopes along random directions, and name entries where they disagree."""
    groups = groups_of(trial.function, most=2)
    entries: dict[int, Entry] = _not_finite(trial, limit)
    kinks: dict[int, Entry] = {}
    proofs: dict[int, Entry] = {}  # lines along which the claim is wrong, where no entry is
    ladders = []
    notes = list(trial.claim.notes)
    steps: dict[str, float] = {}
    smallest: dict[str, float] = {}
    worst, order, kinked_lines, blind, unnamed, compared = 0.0, None, 0, False, False, 0
    for group in groups:
        signs = random_signs(rng, (directions, len(trial.function.x)))
        lines = signs * group.scale
        ladder = ladder_along(trial, group, lines[0])
        ladders.append(ladder)
        claim, rounding = trial.claim_along(lines)
        found, used = _measure(trial, lines, ladder, claim, rounding, method)
        compared += directions
        away = found.outside(claim, rounding)
        if order is None and not found.kinked.any():
            order = measured_order(ladder, claim[0], rounding[0])
        scale = float(norm(trial.claim.values[group.entries] * group.scale[group.entries]))
        bars = found.bars() + rounding
        measured = np.where(found.kinked, found.side_error, found.error)
        widths = measured + rounding
        magnitude = max(scale, float(np.abs(found.numeric).max())) if np.isfinite(scale) else 0.0
        size = trial.size_of_claim(group.scale)
        blind |= too_coarse(trial, ladder, magnitude, size, measured.min(), widths.min())
        blind |= not bool(np.isfinite(widths).all())
        if not (away > 0).any() and not trial.structured:
            blind |= bool(unfounded(
                trial, _along(trial, lines), used, np.ones(directions), found, ladder.noise, claim,
                rounding, agreed=LOOKED_AT,
            ).any())  # fmt: skip
        sharp = np.sort(bars)[directions - directions // 6 - 1]  # a line that met kinks sees less
        worst = max(worst, _relative(claim, found, magnitude, np.where(bars > sharp, 0, widths)))
        _record(trial, group, ladder, 2 * float(sharp), steps, smallest)
        if (away > 0).any():
            named, left = _name(trial, rng, group, ladder, lines, found, limit, method)
            entries.update(named)
            if not named and not entries:
                unnamed = True
                j = int(np.argmax(away))
                kinks.update(_name_kinks(trial, rng, group, lines[j], used[j], ladder, method))
                proof = None if kinks else confirmed(trial, lines[j], method)
                if proof is not None:
                    proofs[-1 - len(proofs)] = proof
            if left:
                notes.append("more entries are wrong than were named; mode='full' lists all.")
        elif found.kinked.any():
            kinked_lines += int(found.kinked.sum())
            j = int(np.flatnonzero(found.kinked)[0])
            kinks.update(_name_kinks(trial, rng, group, lines[j], used[j], ladder, method))
    if kinks and all(e.inside for e in (entries | kinks).values()):
        kinks.update(_more_kinks(trial, rng, groups, ladders, kinks, method))
    wrong = {i: e for i, e in (entries | kinks).items() if not e.inside}
    if kinks and not wrong:
        left, right = np.transpose([(e.left, e.right) for e in kinks.values()])
        proof, mixed = along_kinks(trial, rng, np.array(list(kinks)), left, right, method)
        if proof is not None:
            proofs[-1 - len(proofs)] = proof
        elif mixed or unnamed:
            unnamed = True
            notes.append(MIXED)
    wrong = wrong or proofs
    listed = wrong or kinks
    verdict = verdict_of(wrong, kinks, blind or unnamed)
    if verdict == "inconclusive" and blind:
        notes.append(coarse_note(ladders, smallest, steps))
    elif verdict == "inconclusive" and not kinks:
        notes.append(
            "a random direction disagrees, but no single entry could be shown wrong: too little to "
            "decide."
        )
    if kinked_lines and not kinks and not wrong:
        notes.append("random lines cross kinks near the point; no entry has one at the point.")
    return assemble(
        trial,
        verdict,
        listed,
        limit=limit,
        mode="quick",
        order=order_of(trial, groups, verdict, listed, order),
        max_relative_error=max([worst, *(_relative_of(e) for e in wrong.values())]),
        steps=steps,
        smallest=smallest,
        miss=2.0 ** -(directions - directions // 6),
        directions=compared,
        checked=len(entries | kinks),
        kinked=kinked_lines,
        notes=notes,
    )


def _along(trial: Trial, lines: np.ndarray) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """rows (r,), offsets (r, q) -> f(x + offset along line i) - f(x), (r, q)."""
    return lambda rows, offsets: trial.along(lines[rows])(offsets)


def _measure(
    trial: Trial,
    lines: np.ndarray,
    ladder: Calibration,
    claim: np.ndarray,
    rounding: np.ndarray,
    method: str,
) -> tuple[Slopes, np.ndarray]:
    """Slopes along the lines; those that disagree or show a kink are measured on more scales."""
    step = np.full(len(lines), ladder.step)
    noise = np.full(len(lines), ladder.noise)
    found = slopes(trial.along(lines)(np.outer(step, NODES)), step, noise, method=method)
    away = found.outside(claim, rounding) > 0
    disputed, kinked = np.flatnonzero(away), np.flatnonzero(found.kinked & ~away)
    rounds = [np.concatenate([disputed[:3], kinked[:3]]), np.concatenate([disputed[3:]])]
    fields = [np.array(field) for field in found]
    for i, rows in enumerate(rounds):
        if len(rows) == 0:
            continue
        if i and (Slopes(*fields).outside(claim, rounding)[disputed[:3]] > 0).any():
            break  # the first few are confirmed: the gradient is wrong
        again, at = resolve(
            trial.along(lines[rows]), step[rows], noise[rows], scales=NEARER, method=method
        )
        step[rows] = at
        for field, new in zip(fields, again, strict=True):
            field[rows] = new
    if (fields[4][kinked[:3]]).sum() == 0:  # the looked-at kinks were not at the point
        fields[4][kinked] = False
    return Slopes(*fields), step


def _block_tester(
    trial: Trial, group: Group, step: float, noise: float, method: str, *, kinks: bool = False
) -> Callable[[list[np.ndarray], np.ndarray], np.ndarray]:
    """blocks, signs -> excess: how far each block's slope is off, or how large its kink."""
    count = len(group.entries)

    def test(blocks: list[np.ndarray], signs: np.ndarray) -> np.ndarray:
        lines = np.zeros((len(blocks), len(trial.function.x)))
        for line, block in zip(lines, blocks, strict=True):
            line[block] = signs[block] * group.scale[block]
        sizes = [len(block) for block in blocks]
        steps = 2.0 ** np.round(np.log2([entry_step(step, count / size) for size in sizes]))
        found = slopes(trial.along(lines)(np.outer(steps, NODES)), steps, noise, method=method)
        if kinks:
            return np.where(found.kinked, np.abs(found.right - found.left), 0.0)
        away = found.outside(*trial.claim_along(lines))
        return np.where(np.isfinite(away), away, 0.0)

    return test


def _name(
    trial: Trial,
    rng: np.random.Generator,
    group: Group,
    ladder: Calibration,
    lines: np.ndarray,
    found: Slopes,
    limit: int,
    method: str,
) -> tuple[dict[int, Entry], bool]:
    """Wrong entries by group testing; afterwards, whether the directions still disagree."""
    claim = trial.claim
    patched = claim.values.copy()
    named: dict[int, Entry] = {}
    budget = SEARCH_BUDGET
    for _ in range(3):
        case = trial._replace(claim=claim._replace(values=patched))
        away = found.outside(*case.claim_along(lines))
        away = np.where(np.isfinite(away), away, 0.0)
        if not (away > 0).any() or len(named) >= min(NAMED, limit) or budget <= 0:
            break
        j = int(np.argmax(away))
        tester = _block_tester(case, group, ladder.step, ladder.noise, method)
        signs = np.sign(lines[j]) + (lines[j] == 0)
        suspects = find_entries(tester, group.entries, signs, budget=budget, rng=rng)
        budget -= SEARCH_BUDGET // 2
        suspects = [i for i in suspects if i not in named]
        looked = look_closely(trial, suspects, ladder, group, method)
        new = {i: e for i, e in looked.items() if not e.inside}
        if not new:
            break
        named.update(new)
        for i, entry in new.items():
            patched[i] = entry.numeric
    if not named:  # perhaps many small errors: look at some entries one by one
        some = rng.permutation(group.entries)[:16].tolist()
        looked = look_closely(trial, some, ladder, group, method)
        named = {i: e for i, e in looked.items() if not e.inside}
        for i, entry in named.items():
            patched[i] = entry.numeric
    case = trial._replace(claim=claim._replace(values=patched))
    away = found.outside(*case.claim_along(lines))
    return named, bool(named) and bool((away > 0).any())


def _name_kinks(
    trial: Trial,
    rng: np.random.Generator,
    group: Group,
    line: np.ndarray,
    step: float,
    ladder: Calibration,
    method: str,
) -> dict[int, Entry]:
    """Some entries with a kink at the point, by group testing on the size of the kink."""
    tester = _block_tester(trial, group, step, ladder.noise, method, kinks=True)
    signs = np.sign(line) + (line == 0)
    suspects = find_entries(tester, group.entries, signs, budget=80, rng=rng, width=2)
    looked = look_closely(trial, suspects, ladder, group, method)
    kinks = {i: e for i, e in looked.items() if e.kinked}
    if not kinks:
        some = rng.permutation(group.entries)[:16].tolist()
        looked = look_closely(trial, some, ladder, group, method)
        kinks = {i: e for i, e in looked.items() if e.kinked}
    return dict(list(kinks.items())[:KINKS_LISTED])


def _more_kinks(
    trial: Trial,
    rng: np.random.Generator,
    groups: Sequence[Group],
    ladders: Sequence[Calibration],
    known: Collection[int],
    method: str,
) -> dict[int, Entry]:
    """Further kinked entries: the more there are, the more their lines can tell of a claim."""
    kinks: dict[int, Entry] = {}
    for group, ladder in zip(groups, ladders, strict=True):
        others = [i for i in rng.permutation(group.entries).tolist() if i not in known]
        looked = look_closely(trial, others[:KINKS_LISTED], ladder, group, method)
        kinks.update({i: e for i, e in looked.items() if e.kinked})
    return kinks


def _not_finite(trial: Trial, limit: int) -> dict[int, Entry]:
    """Claimed entries that are not numbers are wrong wherever `f` has a slope."""
    bad = np.flatnonzero(~np.isfinite(trial.claim.values))[: min(limit, NAMED)]
    if not len(bad):
        return {}
    (group,) = groups_of(trial.function, most=0)
    ladder = ladder_along(trial, group, group.scale)
    return look_closely(trial, bad, ladder, group, "richardson")


def _relative(claim: np.ndarray, found: Slopes, magnitude: float, widths: np.ndarray) -> float:
    """Of directions: relative to the gradient's own size, as slopes of random signs cancel."""
    away = np.where(found.kinked, found.outside(claim, 0.0), np.abs(claim - found.numeric))
    blurred = (away <= widths) & (widths > 0.1 * magnitude)
    away = np.where(blurred | ((widths == 0) & (found.outside(claim, 0.0) == 0)), 0.0, away)
    worst = float(np.max(away, initial=0.0))
    return 0.0 if worst == 0 else worst / magnitude if magnitude > 0 else np.inf


def _relative_of(entry: Entry) -> float:
    return float(relative_error(entry.analytic, entry.numeric, entry.error_bar))


def _record(
    trial: Trial,
    group: Group,
    ladder: Calibration,
    bar: float,
    steps: dict[str, float],
    smallest: dict[str, float],
) -> None:
    for leaf in trial.function.leaves:
        if leaf.start < leaf.stop and group.scale[leaf.start]:
            scale = group.scale[leaf.start : leaf.stop].min()
            steps[leaf.path] = float(ladder.step * scale)
            smallest[leaf.path] = float(bar / scale)
