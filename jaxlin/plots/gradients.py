"""Pictures of a gradient check: U curves, scatter, error map, Taylor remainders."""

__all__ = ["gradcheck"]

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxlin.plots.style import COLORS, GRID, INK, literal, new_figure, tidy

_STYLES = {
    "forward float64": (COLORS[0], "-", "o"),
    "central float64": (COLORS[1], "-", "s"),
    "forward float32": (COLORS[0], "--", "o"),
    "central float32": (COLORS[1], "--", "s"),
}


def gradcheck(
    step_curve: Any,
    taylor: Any,
    analytic: np.ndarray,
    numeric: np.ndarray,
    *,
    tiles: np.ndarray,
    title: str = "",
) -> Figure:
    """Four panels about one check.

    Args:
      step_curve: a `jaxlin.gradients.curves.StepCurve`.
      taylor: a `jaxlin.gradients.curves.TaylorCurve`.
      analytic: (n,), claimed values.
      numeric: (n,), measured values.
      tiles: (K, H, W), the relative error of every pixel's entries by class, or (1, K, D) where
        inputs are no pictures.
      title: of the figure.
    """
    figure, axes = new_figure(10.4, 7.6, rows=2, columns=2)
    if title:
        figure.suptitle(literal(title), fontsize=12, fontweight="bold", color=INK)
    _u_curve(axes[0, 0], step_curve)
    _scatter(axes[0, 1], analytic, numeric)
    _map(figure, axes[1, 0], tiles)
    _taylor(axes[1, 1], taylor)
    return figure


def _u_curve(axes: Axes, curve: Any) -> None:
    low, high = 1e-16, 1e4
    for name, errors in curve.errors.items():
        color, line, marker = _STYLES[name]
        shown = np.where((errors > low) & (errors < high), errors, np.nan)
        axes.loglog(curve.steps, shown, line, color=color, marker=marker, ms=3, lw=1.3, label=name)
    smooth = curve.errors["central float64"]
    if np.isfinite(smooth).any() and np.nanmin(smooth) > 0:
        _guides(axes, curve)
    axes.axvline(1e-5, color=INK, lw=0.8, ls=":")
    axes.annotate(
        "h = 1e-5", (1e-5, 1.0), xycoords=("data", "axes fraction"), xytext=(3, -11),
        textcoords="offset points", fontsize=8,
    )  # fmt: skip
    axes.set_ylim(1e-13, 1e2)
    tidy(
        axes,
        title="Error of the numeric gradient",
        x="step h",
        y=f"relative error (median of {curve.entries} entries)",
    )
    axes.legend(fontsize=8, frameon=False, loc="lower left")


def _guides(axes: Axes, curve: Any) -> None:
    """The slopes that theory predicts, through the data: h and h^2 up, 1/h down."""
    steps = curve.steps
    for name, power in (("forward float64", 1), ("central float64", 2)):
        errors = curve.errors[name]
        best = int(np.nanargmin(errors))
        start = max(best - 4, 0)
        if start < best and np.isfinite(errors[start]) and errors[start] > 0:
            guide = errors[start] * (steps / steps[start]) ** power
            part = slice(max(start - 5, 0), best + 1)
            axes.loglog(steps[part], 2.2 * guide[part], color=INK, lw=0.7, ls=(0, (1, 2)))
            middle = start
            axes.annotate(
                f"$h^{power}$" if power > 1 else "$h$", (steps[middle], 3.4 * guide[middle]),
                fontsize=9, ha="right",
            )  # fmt: skip
    errors = curve.errors["forward float64"]
    end = len(steps) - 4
    if np.isfinite(errors[end]) and errors[end] > 0:
        guide = errors[end] * steps[end] / steps
        axes.loglog(steps[end - 5 :], 3 * guide[end - 5 :], color=INK, lw=0.7, ls=(0, (1, 2)))
        axes.annotate(r"$\epsilon/h$", (steps[end], 5 * guide[end]), fontsize=9)


def _scatter(axes: Axes, analytic: np.ndarray, numeric: np.ndarray) -> None:
    reach = float(max(np.abs(analytic).max(initial=0), np.abs(numeric).max(initial=0))) or 1.0
    axes.plot([-reach, reach], [-reach, reach], color=GRID, lw=1.5, zorder=1)
    axes.plot(numeric, analytic, ".", ms=2.5, alpha=0.5, color=COLORS[0], rasterized=True, zorder=2)
    worst = float(np.abs(analytic - numeric).max(initial=0))
    axes.annotate(
        f"{len(analytic):,} entries\nlargest difference {worst:.1e}", (0.04, 0.96),
        xycoords="axes fraction", va="top", fontsize=9,
    )  # fmt: skip
    tidy(axes, title="Every entry", x="numeric", y="analytic")


def _map(figure: Figure, axes: Axes, tiles: np.ndarray) -> None:
    tiles = np.asarray(tiles, float)
    count, height, width = tiles.shape
    columns = math.ceil(math.sqrt(1.4 * count)) if count > 1 else 1  # the panel is wider than tall
    rows = -(-count // columns)
    gap = 1 if count > 1 else 0
    canvas = np.full((rows * (height + gap), columns * (width + gap)), np.nan)
    for i, tile in enumerate(tiles):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        canvas[top : top + height, left : left + width] = np.log10(np.maximum(tile, 1e-17))
    image = axes.imshow(
        canvas, cmap="cividis", interpolation="nearest", aspect="auto" if count == 1 else "equal"
    )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, orientation="horizontal", shrink=0.8, pad=0.02, aspect=40)
    bar.locator = MaxNLocator(5)
    bar.update_ticks()
    bar.set_label("log10 of |analytic - numeric| / largest entry", fontsize=8)
    what = "pixels by class" if count > 1 else "features by class"
    tidy(axes, title=f"Where the error lies: {what}", grid=False)


def _taylor(axes: Axes, taylor: Any) -> None:
    axes.loglog(taylor.steps, _positive(taylor.zeroth), "o-", ms=3, lw=1.2, color=COLORS[9],
                label="$|f(x+td) - f(x)|$: rate 1")  # fmt: skip
    axes.loglog(taylor.steps, _positive(taylor.first), "s-", ms=3, lw=1.2, color=COLORS[2],
                label=r"$|f(x+td) - f(x) - t\,\nabla f\cdot d|$: rate 2 if smooth")  # fmt: skip
    tidy(axes, title="Taylor remainders", x="t", y="remainder")
    axes.legend(fontsize=8, frameon=False, loc="upper left")


def _positive(values: np.ndarray) -> np.ndarray:
    return np.where(values > 0, values, np.nan)
