"""Solvers: how the objective and its lower bound close in on the optimum over time."""

__all__ = ["save_time_to_accuracy", "time_to_accuracy"]

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from jaxlin.plots.style import COLORS, INK, new_figure, save, tidy


def time_to_accuracy(curves: dict, best: float) -> Figure:
    """Relative distance to the optimum over seconds, one line a solver.

    Args:
      curves: name -> [(seconds, objective), ...]; entries of (seconds, objective, lower bound)
        also draw how far the bound is below, and the certified gap between the two.
      best: the least objective known.
    """
    figure, axes = new_figure(7.2, 4.4)
    axes = axes[0, 0]
    floor = 1e-8
    first = max(min(curve[min(1, len(curve) - 1)][0] for curve in curves.values()), 1e-6)
    for color, (name, curve) in zip(COLORS, curves.items(), strict=False):
        seconds = np.array([point[0] for point in curve])
        above = np.array([point[1] for point in curve]) / best - 1
        shown = np.maximum(np.minimum.accumulate(above), floor)
        main = len(curve[0]) == 3
        axes.plot(
            seconds,
            shown,
            color=color,
            linewidth=2.4 if main else 1.3,
            marker="o" if not main and len(curve) <= 100 else None,
            markersize=3,
            label=name,
            zorder=3 if main else 2,
        )
        if main:
            bounds = np.array([point[2] for point in curve])
            known = bounds > 0
            below = np.maximum(1 - np.maximum.accumulate(bounds[known]) / best, floor)
            gap = above[known] + below
            axes.step(
                seconds[known],
                below,
                where="post",
                color=color,
                linestyle=":",
                linewidth=1.8,
                label=f"{name}: lower bound below",
            )
            axes.step(
                seconds[known],
                np.maximum(gap, floor),
                where="post",
                color=INK,
                linestyle="--",
                linewidth=1.2,
                label=f"{name}: certified gap",
            )
    axes.set(xscale="log", yscale="log", ylim=(floor, 3), xlim=(0.8 * first, None))
    tidy(axes, x="seconds", y="relative distance to the optimum", title="Time to accuracy")
    axes.legend(frameon=False, fontsize=8, loc="lower left")
    return figure


def save_time_to_accuracy(curves: dict, best: float, path: Path) -> None:
    """`time_to_accuracy` as a PNG at `path`."""
    save(time_to_accuracy(curves, best), path)
