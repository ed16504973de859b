"""The verdict on a Jacobian, from the verdicts on scalar combinations of the outputs.

A combination u . f(x) is a scalar function, and u^T J is the gradient that it is claimed to have.
With few outputs each one is judged by itself; with more of them, quick mode draws random signs u.
Let one entry J[i, j] be wrong by more than its error bar. Along a random line x + t v the error
of output i exceeds that bar with probability at least 1/2 (see `check`), and where it does, so
does the error of u . f for at least half of all u. Lines are shared by all combinations, so m
lines and k combinations miss the entry with a probability of at most 2^-(2m/3) + 2^-(k/2): at
most a sixth of all error bars, those of lines that meet kinks, are wider than the stated ones, so
that at least two thirds of the lines are sharp for at least half of the combinations.

A combination that disagrees is followed to its outputs by group testing. The last word has the
check of a single output: none is called wrong before its own slopes say so.
"""

__all__ = ["Rows", "check_settings", "judge"]

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxlin.gradients.assemble import badness
from jaxlin.gradients.check import MODES
from jaxlin.gradients.claim import claimed
from jaxlin.gradients.directions import by_directions
from jaxlin.gradients.entries import by_entries
from jaxlin.gradients.finite_differences import METHODS, NumericGradient
from jaxlin.gradients.leaves import Leaf, Tree
from jaxlin.gradients.lines import EPS, Key, Trial, generator, scales_of
from jaxlin.gradients.outputs import Combination, Outputs
from jaxlin.gradients.report import Entry, GradientReport
from jaxlin.gradients.search import find_entries

SEARCH_BUDGET = 400  # blocks of outputs tested by the group testing, a product of the claim each
FOLLOWED = 3  # combinations that disagree which are followed to their outputs
SUSPECTS = 4  # outputs looked at by themselves, of each
MOST_APART = 1000  # outputs that are judged one by one where their kinks overlap


class Rows(NamedTuple):
    """A claimed Jacobian by its action from the left."""

    of: Callable[[np.ndarray], np.ndarray]
    """U (k, M) -> U @ J, (k, n), float64."""
    rounding: Callable[[np.ndarray], np.ndarray] | None = None
    """U -> what the dtype of the claim may put U @ J off by, (k, n)."""
    transposed: bool = False
    """Whether the claim is the transpose, as products H v with a symmetric H are: a wrong entry
    (i, j) of what was compared is the entry (j, i) of the claim."""


class Case(NamedTuple):
    """What is on trial, and how it is looked at."""

    base: Outputs
    rows: Rows
    settings: dict[str, Any]
    seed: int
    name: Callable[[int], str]

    def combination(self, weights: np.ndarray) -> Trial:
        """The scalar trial of one combination of the outputs."""
        function = Combination(self.base, weights)
        values = self.rows.of(weights[None])[0]
        claim = claimed(function, _tree(self.base, values), scales_of(function))
        # Terms of u^T J that cancel, and values that do, leave the rounding of their sizes behind.
        rounding = claim.rounding + 128 * EPS * function.size / scales_of(function)
        if self.rows.rounding is not None:
            rounding = rounding + self.rows.rounding(weights[None])[0]
        claim = claim._replace(rounding=rounding)
        return Trial(function, claim, function.size, False, function.memory)

    def quick(self, weights: np.ndarray, directions: int) -> GradientReport:
        rng = np.random.default_rng(self.seed)  # the same lines for every combination
        return by_directions(self.combination(weights), rng, directions=directions, **self.settings)

    def alone(self, output: int) -> np.ndarray:
        weights = np.zeros(len(self.base.at))
        weights[output] = 1.0
        return weights


def judge(
    base: Outputs, rows: Rows, *, subject: str, name: Callable[[int], str] | None = None,
    mode: str = "quick", key: Key = None,
    method: str = "richardson", directions: int = 18, combinations: int = 24, samples: int = 64,
    limit: int = 1000,
) -> GradientReport:  # fmt: skip
    """The report on `rows` as the Jacobian of `base` at its x.

    Args:
      base: opened.
      rows: what is claimed.
      subject: for the report: "jacobian", "jvp" and so on.
      name: output number -> what it is called in an entry, `f[2]` by default.
      mode, key, method, directions, combinations, samples, limit: see `check_jacobian`.
    """
    rng = generator(key)
    settings = {"limit": limit, "method": method}
    case = Case(base, rows, settings, int(rng.integers(2**62)), name or base.output_name)
    outputs = len(base.at)
    if mode == "quick" and outputs > combinations:
        report = _by_combinations(case, rng, combinations, directions)
    elif mode == "quick":
        report = _one_by_one(case, directions)
    else:
        report = _by_entries(case, rng, None if mode == "full" else samples)
    notes = tuple(dict.fromkeys(report.notes))
    return report._replace(
        subject=subject,
        parameters=outputs * len(base.x),
        evaluations=base.evaluations,
        notes=notes,
    )


SETTINGS = ("mode", "key", "method", "directions", "combinations", "samples", "limit")


def check_settings(
    *, mode: str = "quick", key: Key = None, method: str = "richardson", directions: int = 1,
    combinations: int = 1, samples: int = 1, limit: int = 1, **unknown: Any,
) -> None:  # fmt: skip
    """Raise unless the settings make sense; before anything is evaluated."""
    for name in unknown:
        raise TypeError(f"`{name}` is no setting of a check: choose from {', '.join(SETTINGS)}.")
    for name, choice, allowed in (("mode", mode, MODES), ("method", method, METHODS)):
        if choice not in allowed:
            raise ValueError(f"`{name}` must be one of {', '.join(allowed)}, got {choice!r}.")
    counts = {"directions": directions, "combinations": combinations}
    for name, value in (counts | {"samples": samples, "limit": limit}).items():
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value}.")


def _one_by_one(case: Case, directions: int) -> GradientReport:
    """Every output by itself, along the same lines."""
    outputs = range(len(case.base.at))
    return _merged(case, [(i, case.quick(case.alone(i), directions)) for i in outputs])


def _by_combinations(
    case: Case, rng: np.random.Generator, combinations: int, directions: int
) -> GradientReport:
    """Random combinations, each followed to its outputs where it does not simply pass."""
    base = case.base
    signs = rng.choice(np.array([-1.0, 1.0]), (combinations, len(base.at)))
    seen: list[GradientReport] = []
    looked: dict[int, GradientReport] = {}
    unclear, followed = 0, 0
    for row in signs:
        report = case.quick(row / base.units, directions)
        seen.append(report)
        if report.verdict == "pass" or _sees_nothing(report):
            continue
        unclear += report.verdict != "kink"
        followed += 1
        if followed <= FOLLOWED:
            for i in _suspects(case, row, report, rng):
                if i not in looked:
                    looked[i] = case.quick(case.alone(i), directions)
        if unclear == FOLLOWED or any(r.verdict == "fail" for r in looked.values()):
            break
    failed = [(i, r) for i, r in looked.items() if r.verdict == "fail"]
    if failed:
        result = _merged(case, failed)
        note = "other outputs may be wrong, too: mode='full' compares all entries."
        return result._replace(combinations=len(seen), notes=(*result.notes, note))
    kinked = [(i, r) for i, r in looked.items() if r.verdict == "kink"]
    if unclear and kinked and len(base.at) <= MOST_APART:
        # Kinks of several outputs do not combine into one interval, but each has its own.
        return _one_by_one(case, directions)
    unclear += not _sharp_enough(seen)
    verdict, notes = "pass", [n for r in seen if r.verdict in ("pass", "kink") for n in r.notes]
    if unclear:
        verdict = "inconclusive"
        notes.append(
            "a random combination of outputs is unclear, but no single output could be shown "
            "wrong: mode='full' looks at each by itself."
        )
    elif any(report.verdict == "kink" for report in seen):
        verdict = "kink"
    result = _merged(case, kinked) if kinked else seen[0]._replace(entries=(), checked=0)
    largest = float(base.units.max())  # bars of a combination are relative to each output's unit
    return result._replace(
        verdict=verdict,
        max_relative_error=max(r.max_relative_error for r in seen),
        smallest_error={
            path: largest * max(r.smallest_error[path] for r in seen)
            for path in seen[0].smallest_error
        },
        miss_probability=min(1.0, 2.0 ** -(2 * directions // 3) + 2.0 ** -(combinations // 2)),
        directions=sum(r.directions for r in seen),
        kinked=sum(r.kinked for r in seen),
        combinations=len(seen),
        notes=tuple(notes),
    )


def _sees_nothing(report: GradientReport) -> bool:
    """Whether all slopes of a combination are lost in their error bars, as where outputs cancel."""
    return report.verdict == "inconclusive" and report.max_relative_error == 0


def _sharp_enough(seen: list[GradientReport]) -> bool:
    """Whether combinations that see no slope would have seen errors like the others, at least."""
    bars = {True: [0.0], False: [0.0]}
    for report in seen:
        bars[_sees_nothing(report)].append(max(report.smallest_error.values()))
    return max(bars[True]) <= 4 * max(bars[False])


def _suspects(
    case: Case, row: np.ndarray, report: GradientReport, rng: np.random.Generator
) -> list[int]:
    """Outputs that are the likeliest cause of what a combination showed."""
    base = case.base
    scale = scales_of(base)
    line = scale * rng.choice(np.array([-1.0, 1.0]), len(scale))
    step = min(report.steps[leaf.path] for leaf in base.leaves if leaf.path in report.steps)
    step /= float(scale.min())
    named = [entry for entry in report.entries if _is_entry(base, entry)]
    if named:  # along the worst of them
        j = _flat_index(base, named[0])
        line = np.where(np.arange(len(scale)) == j, scale, 0.0)
        step = report.steps[named[0].path] / scale[j]
    minus, plus = base.along(np.stack([line, line]), step * np.array([-1.0, 1.0])) - base.at
    if report.verdict == "kink":
        gaps = np.abs(plus + minus) / base.units
        return np.argsort(-gaps)[:SUSPECTS].tolist()
    slopes = (plus - minus) / (2 * step)

    def excess(blocks: list[np.ndarray], signs: np.ndarray) -> np.ndarray:
        weights = np.zeros((len(blocks), len(row)))
        for one, block in zip(weights, blocks, strict=True):
            one[block] = signs[block] / base.units[block]
        with np.errstate(invalid="ignore"):
            away = np.abs(case.rows.of(weights) @ line - weights @ slopes)
        return np.nan_to_num(away, nan=np.inf, posinf=np.inf)

    found = find_entries(excess, np.arange(len(row)), row, budget=SEARCH_BUDGET, rng=rng)
    return found[:SUSPECTS]


def _by_entries(case: Case, rng: np.random.Generator, samples: int | None) -> GradientReport:
    """Every output, or some of them, entry by entry."""
    base = case.base
    outputs, per_leaf = np.arange(len(base.at)), None
    if samples is not None:
        few = min(len(outputs), max(1, round(np.sqrt(samples))))
        outputs, per_leaf = np.sort(rng.choice(outputs, few, False)), -(-samples // few)
    found = []
    for i in outputs.tolist():
        inner = np.random.default_rng(case.seed if samples is None else [case.seed, i])
        trial = case.combination(case.alone(i))
        found.append((i, by_entries(trial, inner, samples=per_leaf, **case.settings)))
    report = _merged(case, found)
    if samples is not None:
        share = report.checked / (len(base.at) * len(base.x))
        return report._replace(miss_probability=1 - share)

    def whole(part: Callable[[GradientReport], Tree]) -> Tree:
        return _jacobian_tree(case, np.stack([_flat(part(report)) for _, report in found]))

    def numeric(report: GradientReport) -> NumericGradient:
        assert report.numeric is not None  # all entries were measured
        return report.numeric

    value, error = whole(lambda r: numeric(r).value), whole(lambda r: numeric(r).error)
    return report._replace(
        numeric=NumericGradient(value, error, base.evaluations),
        analytic=whole(lambda r: r.analytic),
    )


def _merged(case: Case, found: list[tuple[int, GradientReport]]) -> GradientReport:
    """One report from those of single outputs; the worst verdict counts."""
    reports = [report for _, report in found]
    order = ("fail", "inconclusive", "kink", "pass")
    verdict = min((report.verdict for report in reports), key=order.index)
    first = next(report for report in reports if report.verdict == verdict)
    entries = [
        _named(case, i, entry)
        for i, report in found
        for entry in report.entries
        if report.verdict == verdict
    ]
    entries.sort(key=badness, reverse=True)
    return first._replace(
        entries=tuple(entries[: case.settings["limit"]]),
        max_relative_error=max(report.max_relative_error for report in reports),
        checked=sum(report.checked for report in reports),
        directions=sum(report.directions for report in reports),
        smallest_error={
            path: max(report.smallest_error.get(path, 0.0) for report in reports)
            for path in first.smallest_error
        },
        wrong=sum(report.wrong for report in reports),
        kinked=sum(report.kinked for report in reports),
        notes=tuple(note for report in reports for note in report.notes),
    )


def _named(case: Case, output: int, entry: Entry) -> Entry:
    """The entry with the output that it belongs to."""
    if not _is_entry(case.base, entry):  # what was measured along a line says so itself
        entry = entry._replace(path=f" {entry.path}")
    elif case.rows.transposed:
        path, index = case.base.place(output)
        output = _flat_index(case.base, entry)
        entry = entry._replace(path=path, index=index)
    return entry._replace(output=case.name(output), output_index=case.base.output_place(output)[1])


def _is_entry(base: Outputs, entry: Entry) -> bool:
    return any(leaf.path == entry.path for leaf in base.leaves)


def _flat_index(base: Outputs, entry: Entry) -> int:
    leaf = next(leaf for leaf in base.leaves if leaf.path == entry.path)
    return leaf.start + (int(np.ravel_multi_index(entry.index, leaf.shape)) if leaf.shape else 0)


def _tree(base: Outputs, flat: np.ndarray) -> Tree:
    parts = [flat[leaf.start : leaf.stop].reshape(leaf.shape) for leaf in base.leaves]
    return jax.tree_util.tree_unflatten(base.treedef, parts)


def _flat(tree: Tree) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def _jacobian_tree(case: Case, matrix: np.ndarray) -> Tree:
    """(M, n) as `jax.jacobian` lays it out: the outputs' tree of trees like x."""
    base = case.base
    matrix = matrix.T if case.rows.transposed else matrix

    def of_output(out: Leaf) -> Tree:
        parts = [
            matrix[out.start : out.stop, leaf.start : leaf.stop].reshape(out.shape + leaf.shape)
            for leaf in base.leaves
        ]
        return jax.tree_util.tree_unflatten(base.treedef, parts)

    return jax.tree_util.tree_unflatten(base.result, [of_output(out) for out in base.layout])
