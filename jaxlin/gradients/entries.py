"""The sampled and the full mode: one entry after the other, all in a few device calls."""

__all__ = ["by_entries"]

from collections.abc import Sequence

import numpy as np

from jaxlin.gradients.assemble import (
    assemble,
    coarse_note,
    entry_of,
    ladder_along,
    order_of,
    structured_scale,
    too_coarse,
    unflat,
    verdict_of,
)
from jaxlin.gradients.evaluate import Function
from jaxlin.gradients.finite_differences import NumericGradient
from jaxlin.gradients.kinks import MIXED, along_kinks
from jaxlin.gradients.ladder import Calibration, entry_step, measured_order
from jaxlin.gradients.lines import EPS, Trial, groups_of, norm, random_signs, scales_of
from jaxlin.gradients.locality import demoted
from jaxlin.gradients.report import GradientReport, relative_error
from jaxlin.gradients.slopes import NODES, Slopes, resolve, slopes
from jaxlin.gradients.structured import column_steps, differences_along_axes

CHUNK = 256  # suspects that are looked at again together


def by_entries(
    trial: Trial, rng: np.random.Generator, *, samples: int | None, limit: int, method: str
) -> GradientReport:
    """Compare every entry, or `samples` of them drawn from every leaf."""
    function = trial.function
    n = len(function.x)
    groups = groups_of(function, most=8)
    chosen = np.arange(n) if samples is None else _drawn(function, rng, samples)
    step, noise, order = np.empty(n), np.empty(n), None
    steps: dict[str, float] = {}
    smallest: dict[str, float] = {}
    ladders = []
    for group in groups[:1] if trial.structured else groups:
        line = random_signs(rng, n) * group.scale
        ladder = ladder_along(trial, group, line)
        ladders.append(ladder)
        if order is None:
            claim, rounding = trial.claim_along(line[None])
            order = measured_order(ladder, claim[0], rounding[0])
        h = entry_step(ladder.step, len(group.entries)) * group.scale[group.entries]
        step[group.entries] = 2.0 ** np.round(np.log2(h))
        noise[group.entries] = ladder.noise
    if trial.structured:
        step[:], noise[:] = structured_scale(trial)
    else:
        values = np.where(np.isfinite(trial.claim.values), trial.claim.values, 0)
        noise += EPS * np.abs(values) * np.abs(function.x)  # x + h is rounded, too
    found, step = _all_entries(trial, chosen, step, noise, method)
    claim, rounding = trial.claim.values[chosen], trial.claim.rounding[chosen]
    doubtful = np.zeros(len(chosen), bool)
    if not trial.structured:
        found, doubtful = demoted(
            trial,
            lambda rows, offsets: trial.along_axes(chosen[rows])(offsets),
            step, scales_of(function)[chosen], found, noise[chosen], claim, rounding,
        )  # fmt: skip
    away = found.outside(claim, rounding)
    wrong = np.flatnonzero(away > 0)
    kinked = np.flatnonzero(found.kinked)
    blind = bool(doubtful.any()) or _blind(trial, chosen, found, claim, rounding, ladders)
    notes, mixed = list(trial.claim.notes), False
    _record_entries(trial, chosen, step, found.bars() + rounding, steps, smallest)
    size = np.abs(claim - found.numeric)
    gap = np.abs(found.right - found.left)
    ranked = wrong[np.argsort(-np.nan_to_num(size[wrong], nan=np.inf), kind="stable")]
    if not len(wrong):
        ranked = kinked[np.argsort(-gap[kinked], kind="stable")]
    listed = {
        int(chosen[i]): entry_of(trial, int(chosen[i]), found.take(slice(i, i + 1)))
        for i in ranked[:limit]
    }
    if len(kinked) and not len(wrong):
        proof, mixed = along_kinks(
            trial, rng, chosen[kinked], found.left[kinked], found.right[kinked], method
        )
        if proof is not None:
            listed, wrong = {-1: proof}, np.array([-1])
    relative = relative_error(claim, found.numeric, found.error + rounding)
    relative = np.where(found.kinked & (away == 0), 0.0, relative)
    verdict = verdict_of(wrong, kinked, blind or mixed)
    if verdict == "inconclusive":
        notes.append(coarse_note(ladders, smallest, steps) if blind else MIXED)
    whole = samples is None
    if len(kinked):
        order = None
    return assemble(
        trial,
        verdict,
        listed,
        limit=limit,
        mode="full" if whole else "sampled",
        order=order_of(trial, groups, verdict, listed, order),
        max_relative_error=float(relative.max(initial=0.0)),
        steps=steps,
        smallest=smallest,
        miss=0.0 if whole else 1 - len(chosen) / n,
        directions=0,
        checked=len(chosen),
        kinked=len(kinked),
        wrong=len(wrong),
        notes=notes,
        numeric=_tree_of(trial, found, rounding) if whole else None,
        analytic=unflat(function, trial.claim.values) if whole else None,
    )


def _all_entries(
    trial: Trial, chosen: np.ndarray, step: np.ndarray, noise: np.ndarray, method: str
) -> tuple[Slopes, np.ndarray]:
    """Slopes of the chosen entries; the suspicious ones are looked at again on other scales."""
    function = trial.function
    whole = len(chosen) == len(function.x)
    h = step[chosen]
    columns = column_steps(function.tree(function.x), step) if trial.structured else None
    if whole and columns is not None:
        function.evaluations += len(NODES) * len(chosen)
        x = function.tree(function.x)
        changes = differences_along_axes(trial.objective, x, np.outer(NODES, columns)).T
    elif trial.structured:
        changes = trial.along_axes(chosen)(np.outer(h, NODES))
    else:
        changes = np.stack(
            [function.along_axes(chosen, node * h) - trial.value for node in NODES], axis=1
        )
    found = slopes(changes, h, noise[chosen], method=method)
    claim, rounding = trial.claim.values[chosen], trial.claim.rounding[chosen]
    away = found.outside(claim, rounding)
    size = float(norm(np.nan_to_num(found.numeric, posinf=0, neginf=0))) / np.sqrt(len(chosen))
    # Far wider bars than those of most entries are a sign of a kink within the step.
    typical = np.median(found.error) + 1e-7 * size
    blurred = ~(found.error <= 100 * typical)
    # So are bars far beyond the noise, all of them perhaps, that would hide a wrong entry.
    visible = 0.01 * np.maximum(np.abs(found.numeric), size)
    blurred |= found.error > visible + 400 * noise[chosen] / h
    suspects = np.flatnonzero((away > 0) | found.kinked | blurred)
    suspects = suspects[np.argsort(-np.where(np.isfinite(claim), away, 0)[suspects])]
    fields, h = [np.array(field) for field in found], h.copy()
    done, coarse = 0, True
    while done < len(suspects):
        rows = suspects[done : done + CHUNK]
        done += len(rows)
        again, at = resolve(
            trial.along_axes(chosen[rows]), h[rows], noise[chosen[rows]], method=method
        )
        bad = np.flatnonzero(~np.isfinite(again.numeric))
        if len(bad):
            path, index = function.place(chosen[rows[bad[0]]])
            raise ValueError(
                f"`f` is finite at `x` but not near it, where {path}{list(index)} is displaced. "
                "Check at a point inside the domain of `f`."
            )
        unchanged = (again.outside(claim[rows], rounding[rows]) > 0) == (away[rows] > 0)
        unchanged &= again.kinked == fields[4][rows]
        finer = 2.0 ** np.round(np.log2(np.median(at / h[rows])))
        h[rows] = at
        for field, new in zip(fields, again, strict=True):
            field[rows] = new
        rest = suspects[done:]
        if not len(rest) or trial.structured:
            continue
        if coarse and finer < 1:  # the steps were too long for all: repeat the rest with others
            coarse = False
            h[rest] *= finer
            changes = trial.along_axes(chosen[rest])(np.outer(h[rest], NODES))
            second = slopes(changes, h[rest], noise[chosen[rest]], method=method)
            for field, new in zip(fields, second, strict=True):
                field[rest] = new
            away[rest] = second.outside(claim[rest], rounding[rest])
            suspects = rest[(away[rest] > 0) | second.kinked]
            suspects = suspects[np.argsort(-np.where(np.isfinite(claim), away, 0)[suspects])]
            done = 0
        elif unchanged.mean() > 0.95:
            break  # the first look was right about all of these: it is about the rest
    return Slopes(*fields), h


def _drawn(function: Function, rng: np.random.Generator, samples: int) -> np.ndarray:
    parts = [
        a.start + np.sort(rng.choice(a.stop - a.start, min(samples, a.stop - a.start), False))
        for a in function.leaves
        if a.stop > a.start
    ]
    return np.concatenate(parts)


def _blind(
    trial: Trial,
    chosen: np.ndarray,
    found: Slopes,
    claim: np.ndarray,
    rounding: np.ndarray,
    ladders: Sequence[Calibration],
) -> bool:
    """Whether the error bars are so wide that a pass would mean nothing."""
    measured = np.where(found.kinked, found.side_error, found.error)
    if not np.isfinite(measured + rounding).all():
        return True
    if trial.structured:
        return False
    scale = scales_of(trial.function)[chosen]
    finite = np.where(np.isfinite(claim), claim, 0.0)
    size = max(float(norm(values * scale)) for values in (finite, found.numeric))
    size, claim_size = size / np.sqrt(len(chosen)), trial.size_of_claim(scales_of(trial.function))
    bars = [float(np.median(bar * scale)) for bar in (measured, measured + rounding)]
    return all(too_coarse(trial, ladder, size, claim_size, *bars) for ladder in ladders)


def _record_entries(
    trial: Trial,
    chosen: np.ndarray,
    step: np.ndarray,
    bars: np.ndarray,
    steps: dict[str, float],
    smallest: dict[str, float],
) -> None:
    for leaf in trial.function.leaves:
        rows = np.flatnonzero((chosen >= leaf.start) & (chosen < leaf.stop))
        if len(rows):
            steps[leaf.path] = float(np.median(step[rows]))
            smallest[leaf.path] = float(2 * bars[rows].max())


def _tree_of(trial: Trial, found: Slopes, rounding: np.ndarray) -> NumericGradient:
    function = trial.function
    return NumericGradient(
        unflat(function, found.numeric),
        unflat(function, found.bars() + rounding),
        function.evaluations,
    )
