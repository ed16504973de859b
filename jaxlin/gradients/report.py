"""What a gradient check says: a verdict, the entries that it rests on, and how sure it is."""

__all__ = ["Entry", "GradientError", "GradientReport", "band", "distinct_digits", "relative_error"]

import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jaxlin.gradients.finite_differences import NumericGradient
from jaxlin.gradients.leaves import Tree
from jaxlin.gradients.linear import MarginCount


class GradientError(AssertionError):
    """A gradient that did not pass; the message is the report.

    >>> import numpy as np
    >>> from jaxlin.gradients import check_gradient
    >>> wrong = np.array([2.0, 3.0])
    >>> check_gradient(lambda x: (x**2).sum(), np.ones(2), wrong).raise_unless_passed()
    Traceback (most recent call last):
    jaxlin.gradients.report.GradientError: ...
    """


class Entry(NamedTuple):
    """One entry of the gradient, as claimed and as measured.

    >>> entry = Entry("['w']", (3, 1), 2.0, 2.5, 0.25, left=2.5, right=2.5, kinked=False)
    >>> entry.name, entry.interval, entry.inside
    ("['w'][3, 1]", (2.25, 2.75), False)
    """

    path: str
    """The leaf, as `jax.tree_util.keystr` writes it; `""` for a bare array."""
    index: tuple[int, ...]  # type: ignore[assignment]  # hides `tuple.index`; users have it
    analytic: float
    numeric: float
    error_bar: float
    """Half-width of the interval around `numeric` that the analytic value must lie in: the
    measurement's own error and the rounding of the claimed value."""
    left: float
    right: float
    """One-sided slopes. Where they differ, all between them are subgradients."""
    kinked: bool
    """Whether they differ beyond their error bars."""
    output: str = ""
    """Of a Jacobian: whose derivative it is, such as `f[2]`; of a Hessian, `(df/dx[2])`."""
    output_index: tuple[int, ...] = ()
    """Of a Jacobian or Hessian: the index in the leaf of the output."""

    @property
    def name(self) -> str:
        """`['w'][3, 1000]`, as one would write it; of a Jacobian `df[2]/dx['w'][3, 1000]`."""
        name = self.path + (f"[{', '.join(map(str, self.index))}]" if self.index else "")
        return f"d{self.output}/dx{name}" if self.output else name

    @property
    def interval(self) -> tuple[float, float]:
        """Where the analytic value may lie: the subgradients, or the slope and its error."""
        if self.kinked:
            return min(self.left, self.right), max(self.left, self.right)
        return self.numeric - self.error_bar, self.numeric + self.error_bar

    @property
    def inside(self) -> bool:
        """Whether it does (on a kink: whether it is a valid subgradient)."""
        low, high = self.interval
        slack = self.error_bar if self.kinked else 0.0
        return bool(low - slack <= self.analytic <= high + slack)


class GradientReport(NamedTuple):
    """The result of `check_gradient` and its siblings.

    >>> import numpy as np
    >>> from jaxlin.gradients import check_gradient
    >>> report = check_gradient(lambda x: (x**2).sum(), np.ones(2), np.array([2.0, 3.0]))
    >>> report.verdict, report.wrong, report.entries[0].index
    ('fail', 1, (1,))
    """

    verdict: str
    """"pass": every claimed value lies within its error bar. "kink": the function has a kink at
    the point, and every claimed value is a subgradient there. "fail": a claimed value lies
    outside. "inconclusive": the error bars are too wide to tell, which a note explains: the values
    of the function are too coarse, or its slope changes too fast, or kinks of both kinds meet."""
    entries: tuple[Entry, ...]
    """The wrong entries ("fail") or kinked ones ("kink"), worst first; empty for a pass."""
    max_relative_error: float
    """Largest |analytic - numeric| / max(|analytic|, |numeric|) over what was compared, leaving
    out values that are within their error bar and too small to be resolved."""
    evaluations: int
    """Values of `f` that were asked for."""
    order: float | None
    """Measured rate of the Taylor remainder along a line: 2 if the gradient is right, 1 if it is
    wrong, `None` where no rate can be measured."""
    steps: dict[str, float]
    """The step used for the entries of each leaf, by path."""
    mode: str
    parameters: int
    checked: int
    """Entries compared one by one (in quick mode: those looked at by name)."""
    directions: int
    """Random directions compared, over all leaves."""
    miss_probability: float
    """At most this is the chance that a wrong entry with an error above `smallest_error` was
    missed."""
    smallest_error: dict[str, float]
    """Per leaf, the smallest error of one entry that would have been seen."""
    wrong: int
    """How many entries were found wrong (in quick mode at least so many are)."""
    kinked: int
    """How many of the compared lines have a kink at the point."""
    margins: MarginCount | None
    """For a `LinearObjective` with a hinge: how many margins lie within reach of zero."""
    precision: str
    """How `f` was evaluated: dtype, device, precision of matrix products."""
    notes: tuple[str, ...]
    numeric: NumericGradient | None
    """In full mode the whole measured gradient, shaped like `x`."""
    analytic: Tree
    """In full mode the claimed gradient, shaped like `x`."""
    subject: str = "gradient"
    """What was claimed: "gradient", "jacobian", "vjp", "jvp", "hessian" or "hvp"."""
    combinations: int = 0
    """Random combinations of the outputs that were compared, where they are too many to be
    compared one by one."""

    @property
    def passed(self) -> bool:
        """A pass, or a kink with a valid subgradient."""
        return self.verdict in ("pass", "kink")

    def raise_unless_passed(self, *, strict: bool = False) -> "GradientReport":
        """Raise `GradientError` with the report unless the gradient passed.

        Args:
          strict: do not let a kink pass either, even with a valid subgradient.
        """
        if self.verdict == "pass" or (self.verdict == "kink" and not strict):
            return self
        raise GradientError(str(self))

    def to_dict(self) -> dict:
        """Plain Python values, ready for JSON (the arrays of full mode are left out)."""
        result = self._asdict()
        del result["numeric"], result["analytic"]
        result["entries"] = [
            {**e._asdict(), "index": list(e.index), "name": e.name, "inside": e.inside}
            for e in self.entries
        ]
        result["margins"] = None if self.margins is None else self.margins._asdict()
        result["notes"] = list(self.notes)
        result["band"] = band(self.max_relative_error)
        return _finite(result)

    def to_json(self) -> str:
        """The report as JSON; numbers that are not finite become strings."""
        return json.dumps(self.to_dict(), indent=2)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(str(self))}</pre>"

    def __str__(self) -> str:
        lines = [f"{self.subject} check: {_headline(self)}"]
        if self.entries:
            lines += ["", *_table(self.entries)]
        lines.append("")
        relative = f"{self.max_relative_error:.2e}"
        lines.append(f"  largest relative error  {relative} ({band(self.max_relative_error)})")
        if self.order is not None:
            meaning = "right" if self.order > 1.5 else "wrong"
            lines.append(
                f"  Taylor rate             {self.order:.2f} (2 right, 1 wrong: {meaning})"
            )
        lines.append(f"  evaluations             {self.evaluations:,} for {_work(self)}")
        if self.verdict in ("pass", "kink"):
            seen = max(self.smallest_error.values(), default=0.0)
            lines.append(
                f"  could have missed       one wrong entry with probability "
                f"{_at_most(self.miss_probability)}, errors below {seen:.1e}"
            )
        if self.margins is not None:
            near, total, reach = self.margins
            lines.append(f"  margins near zero       {near:,} of {total:,} within {reach:.1e}")
        steps = ", ".join(f"{path or 'x'} {h:.1e}" for path, h in list(self.steps.items())[:4])
        lines.append(f"  steps                   {steps}{' ...' if len(self.steps) > 4 else ''}")
        lines.append(f"  evaluated in            {self.precision}")
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)


def _headline(report: GradientReport) -> str:
    if report.verdict == "kink":
        return "KINK at the point; the claimed values are valid subgradients"
    if report.verdict == "fail":
        more = "" if report.mode == "full" else "at least "
        return f"FAIL, {more}{report.wrong:,} wrong {'entry' if report.wrong == 1 else 'entries'}"
    return report.verdict.upper()


SHOWN = 10


def _work(report: GradientReport) -> str:
    named = f"{report.checked:,} of {report.parameters:,} entries"
    if report.mode != "quick":
        return named
    if report.combinations:
        return f"{report.combinations} combinations of outputs along random directions and {named}"
    return f"{report.directions} random directions and {named}"


def _at_most(p: float) -> str:
    return "0" if p == 0 else f"{p:.1e}" if p < 0.01 else f"{p:.2f}"


def _table(entries: Sequence[Entry]) -> list[str]:
    names = [entry.name or "x" for entry in entries[:SHOWN]]
    width = max(5, *map(len, names))
    digits = max(_digits(entry) for entry in entries[:SHOWN])
    wide = digits + 7  # sign, point and exponent
    head = f"  {'entry':<{width}}  {'analytic':>{wide}}  {'numeric':>{wide}}  {'+-':>8}"
    lines = [head + f"  {'left':>{wide}}  {'right':>{wide}}"]
    for name, e in zip(names, entries, strict=False):
        mark = "" if not e.kinked else "  subgradient" if e.inside else "  not a subgradient"
        analytic, numeric, left, right = (
            f"{value:>{wide}.{digits}g}" for value in (e.analytic, e.numeric, e.left, e.right)
        )
        lines.append(
            f"  {name:<{width}}  {analytic}  {numeric}  {e.error_bar:>8.1e}  {left}  {right}{mark}"
        )
    if len(entries) > SHOWN:
        lines.append(f"  ... and {len(entries) - SHOWN:,} more")
    return lines


def _digits(entry: Entry) -> int:
    """Significant digits, six at least, that tell apart the numbers which the verdict compares.

    One digit beyond the first that differs, so that the difference can be read off.
    """
    pairs = [(entry.left, entry.right)] if entry.kinked else []
    if not entry.inside and not entry.kinked:
        pairs.append((entry.analytic, entry.numeric))
    elif not entry.inside:
        low, high = entry.interval
        pairs.append((entry.analytic, low if entry.analytic < low else high))
    return max([6, *(distinct_digits(a, b) for a, b in pairs)])


def distinct_digits(a: float, b: float) -> int:
    """Significant digits at which two numbers differ by several units of the last one.

    >>> distinct_digits(1.0, 1.001), distinct_digits(1.0, 2.0)
    (6, 3)
    """
    difference = abs(a - b)
    if not math.isfinite(difference) or difference == 0:
        return 1
    return min(17, math.ceil(math.log10(max(abs(a), abs(b)) / difference)) + 2)


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become strings; NumPy scalars become Python's."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def relative_error(analytic: ArrayLike, numeric: ArrayLike, error_bar: ArrayLike) -> np.ndarray:
    """|a - n| / max(|a|, |n|), and 0 where both are too small to be told from each other.

    Source: the CS231n notes, "Gradient Checks": the larger of the two normalizes, both zero
      passes. A value inside its error bar and below ten of them has no relative error to speak
      of.
    """
    analytic, numeric = np.asarray(analytic, float), np.asarray(numeric, float)
    size = np.maximum(np.abs(analytic), np.abs(numeric))
    with np.errstate(invalid="ignore", divide="ignore"):
        difference = np.abs(analytic - numeric)
        unresolved = (difference <= error_bar) & (size <= 10 * np.asarray(error_bar))
        relative = np.where(unresolved | (size == 0), 0.0, difference / size)
    return np.where(np.isfinite(difference), relative, np.inf)


def band(relative: float) -> str:
    """The published reading of a relative error.

    Source: the CS231n notes, "Gradient Checks".

    >>> band(1e-8), band(0.5)
    ('happy', 'probably wrong')
    """
    if relative > 1e-2:
        return "probably wrong"
    if relative > 1e-4:
        return "uncomfortable"
    return "okay with kinks, too high for a smooth function" if relative > 1e-7 else "happy"
