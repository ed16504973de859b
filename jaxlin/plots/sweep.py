"""Pictures of a sweep: accuracy against strength, accuracy against cost, few-shot curves."""

__all__ = ["few_shot", "pareto", "swept_axis", "validation_curves"]

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from jaxlin.plots.style import COLORS, GRID, INK, literal, new_figure, tidy

AXES = ("strength", "step_size", "loss", "subset", "seed", "shots")
_WORDS = {"step_size": "step size", "subset": "features", "shots": "examples a class"}


def swept_axis(heads: Sequence[Mapping]) -> str:
    """The numeric axis with the most values: what a curve of the sweep runs along.

    >>> swept_axis([{"strength": 1.0, "step_size": s} for s in (0.1, 0.2)])
    'step_size'
    """
    counts = {
        name: len({head[name] for head in heads} - {None}) for name in ("strength", "step_size")
    }
    return max(counts, key=lambda name: counts[name])


def validation_curves(heads: Sequence[Mapping], best: Mapping, *, metric: str) -> Figure:
    """Validation accuracy against the swept axis, one curve for each of the other settings.

    Args:
      heads: dicts of `sweep.json`, with `validation_accuracy` and `validation_interval`.
      best: the chosen one; its 95 % interval is drawn as a band.
      metric: what the accuracy is, for the label.
    """
    axis = swept_axis(heads)
    curves = _curves(heads, axis)
    wide = len(curves) > 1
    figure, axes = new_figure(8.4 if wide else 6.6, 4.2)
    plot = axes[0, 0]
    if best["validation_interval"] is not None and metric == "accuracy":
        low, high = best["validation_interval"]
        plot.axhspan(low, high, color=GRID, alpha=0.6, linewidth=0)
    told = _told_apart(curves)
    for points, (color, name) in zip(curves.values(), told, strict=True):
        points = [p for p in points if p["validation_accuracy"] is not None]
        positions = [p[axis] for p in points]
        shown = [p["validation_accuracy"] for p in points]
        plot.plot(
            positions, shown, color=color, linewidth=1.5, marker="o", markersize=3, label=name,
            alpha=0.9 if len(curves) <= len(COLORS) else 0.6,
        )  # fmt: skip
        failed = [p for p in points if p["status"] == "diverged"]
        plot.plot([p[axis] for p in failed], [p["validation_accuracy"] for p in failed], "x",
                  color=color, markersize=7)  # fmt: skip
    plot.plot(best[axis], best["validation_accuracy"], "o", color="none", markeredgecolor=INK,
              markersize=10, markeredgewidth=1.6)  # fmt: skip
    _scale(plot, [head[axis] for head in heads])
    where = f"{_WORDS.get(axis, axis)} {best[axis]:.3g}"
    title = f"Best on validation: {best['validation_accuracy']:.4f} at {where}"
    tidy(plot, title=title, x=_WORDS.get(axis, axis), y=f"validation {_metric(metric)}")
    if wide:
        count = f"{len(curves)} curves" if len(curves) > len(COLORS) else None
        figure.legend(loc="outside right center", frameon=False, fontsize=8.5, title=count)
    return figure


def pareto(heads: Sequence[Mapping], front: Sequence[int], best: Mapping, *, metric: str) -> Figure:
    """Validation accuracy against the norm of the weights; the line joins the undominated heads.

    Args:
      heads: dicts of `sweep.json`, with `weight_norm` and `validation_accuracy`.
      front: positions in `heads` of those that no other beats in both, by rising norm.
      best: the chosen one.
      metric: what the accuracy is, for the label.
    """
    figure, axes = new_figure(6.6, 4.2)
    plot = axes[0, 0]
    groups = _curves(heads, swept_axis(heads))
    told = _told_apart(groups)
    for points, (color, name) in zip(groups.values(), told, strict=True):
        known = [p for p in points if p["validation_accuracy"] is not None and p["weight_norm"] > 0]
        plot.plot([p["weight_norm"] for p in known], [p["validation_accuracy"] for p in known],
                  "o", color=color, markersize=4.5, alpha=0.75, markeredgewidth=0,
                  label=name if len(groups) > 1 else None)  # fmt: skip
    joined = [heads[i] for i in front if heads[i]["weight_norm"] > 0]
    plot.step([p["weight_norm"] for p in joined], [p["validation_accuracy"] for p in joined],
              where="post", color=INK, linewidth=1.2, label="not beaten in both",
              zorder=1)  # fmt: skip
    plot.plot(best["weight_norm"], best["validation_accuracy"], "o", color="none",
              markeredgecolor=INK, markersize=10, markeredgewidth=1.6)  # fmt: skip
    plot.set_xscale("log")
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    plot.xaxis.set_major_formatter(plain)
    low, high = plot.get_xlim()
    if high < 20 * low:  # hardly a decade has hardly a tick: name the ones between
        plot.xaxis.set_minor_formatter(plain)
    tidy(plot, title="Accuracy against the size of the weights",
         x="Euclidean norm of the weights", y=f"validation {_metric(metric)}")  # fmt: skip
    plot.legend(frameon=False, fontsize=8.5, loc="best")
    return figure


def few_shot(rows: Sequence[Mapping], *, metric: str) -> Figure:
    """Test accuracy against the examples of each class: every draw, their mean, its interval."""
    figure, axes = new_figure(6.4, 4.0)
    plot = axes[0, 0]
    shots = [row["shots"] for row in rows]
    for row in rows:
        plot.plot([row["shots"]] * len(row["test_accuracies"]), row["test_accuracies"], "o",
                  color=COLORS[5], markersize=4, alpha=0.6, markeredgewidth=0)  # fmt: skip
    means = [row["test_accuracy"] for row in rows]
    plot.plot(shots, means, color=COLORS[0], linewidth=2, marker="o", label="mean of the draws")
    known = [row for row in rows if row["test_interval"] is not None]
    if known:
        low, high = np.array([row["test_interval"] for row in known]).T
        plot.fill_between([row["shots"] for row in known], low, high, color=COLORS[0], alpha=0.2,
                          linewidth=0, label="95 % interval of the mean")  # fmt: skip
    plot.set_xscale("log", base=2)
    plot.set_xticks(shots, [str(count) for count in shots])
    plot.minorticks_off()
    tidy(plot, title="Few-shot accuracy", x="training examples of each class",
         y=f"test {_metric(metric)}")  # fmt: skip
    plot.legend(frameon=False, fontsize=8.5, loc="lower right")
    return figure


def _curves(heads: Sequence[Mapping], axis: str) -> dict[str, list[Mapping]]:
    """Heads by what else varies, each group by rising `axis`; draws of one setting are averaged."""
    varying = [
        name
        for name in AXES
        if name != axis and len({head[name] for head in heads}) > 1
        and not (name == "seed" and any(head["shots"] for head in heads))
    ]  # fmt: skip
    groups: dict[str, list[Mapping]] = {}
    for head in heads:
        words = [
_named(name, head[name]) for name in varying
        ]  # fmt: skip
        groups.setdefault(", ".join(words) or "all heads", []).append(head)
    return {name: _averaged(points, axis) for name, points in groups.items()}


def _averaged(points: Sequence[Mapping], axis: str) -> list[Mapping]:
    found: list[Mapping] = []
    for value in sorted({p[axis] for p in points}):
        same = [p for p in points if p[axis] == value]
        known = [p["validation_accuracy"] for p in same if p["validation_accuracy"] is not None]
        mean = float(np.mean(known)) if known else None
        norm = float(np.mean([p["weight_norm"] for p in same]))
        found.append(dict(same[0]) | {"validation_accuracy": mean, "weight_norm": norm})
    return found


def _told_apart(groups: Mapping[str, list[Mapping]]) -> list[tuple]:
    """A color and a name (or `None`) for each group.

    Where there are more groups than colors, the color tells what has the fewest values.
    """
    if len(groups) <= len(COLORS):
        return list(zip(COLORS, groups, strict=False))
    heads = [points[0] for points in groups.values()]
    values = {name: list(dict.fromkeys(head[name] for head in heads)) for name in AXES}
    varying = [name for name in AXES if len(values[name]) > 1]
    axis = min(varying, key=lambda name: (name == "seed", len(values[name])))
    ends = np.linspace(0.05, 0.92, len(values[axis]))
    colors = COLORS if len(ends) <= len(COLORS) else [colormaps["viridis"](x) for x in ends]
    told, seen = [], set()
    for head in heads:
        value = head[axis]
        name = None if value in seen else _named(axis, value)
        told.append((colors[values[axis].index(value)], name))
        seen.add(value)
    return told


def _named(axis: str, value: Any) -> str:
    """
    >>> _named("shots", 1), _named("step_size", 0.1), _named("loss", "hinge")
    ('1 example a class', 'step size 0.1', 'hinge')
    """
    if axis == "shots":
        return f"{value} example{'s' if value != 1 else ''} a class"
    return (
        literal(str(value))
        if axis in ("loss", "subset")
        else f"{_WORDS.get(axis, axis)} {value:.3g}"
    )


def _scale(plot: Axes, values: Sequence[float]) -> None:
    """Logarithmic, with a linear stretch around a zero if there is one."""
    positive = [value for value in values if value > 0]
    if not positive:
        return
    if len(positive) == len(values):
        plot.set_xscale("log")
    else:
        plot.set_xscale("symlog", linthresh=min(positive))


def _metric(metric: str) -> str:
    return "accuracy" if metric == "accuracy" else "mean accuracy of the classes"
