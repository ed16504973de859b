"""Pictures of loss landscapes: lines with their kinks, planes in the lecture's colours."""

__all__ = [
    "draw_plane",
    "draw_ray",
    "panels_figure",
    "plane_figure",
    "ray_figure",
    "step_size_figure",
    "surface_figure",
]

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from jaxlin.plots.style import COLORS, INK, LOSS_MAP, new_figure, tidy

_TICKED_KINKS = 400  # more would be one grey band
_LEVELS = 28


def draw_ray(
    axes: Axes,
    steps: ArrayLike,
    values: ArrayLike,
    *,
    kinks: ArrayLike | None = None,
    kink_values: ArrayLike | None = None,
    minimum: tuple[float, float] | None = None,
    point: bool = True,
    x: str = "a",
    y: str = "loss",
    title: str = "",
) -> None:
    """A line of the loss; `kinks` are marked on it where few, below it where many."""
    steps, values = np.asarray(steps), np.asarray(values)
    axes.plot(steps, values, color=COLORS[0], linewidth=1.8, zorder=3)
    kinks = None if kinks is None else np.asarray(kinks)
    if kinks is not None and len(kinks) <= 60:
        axes.plot(kinks, np.asarray(kink_values), "o", color="white", markeredgecolor=COLORS[0],
                  markersize=4.5, zorder=4, label=f"{len(kinks)} kinks")  # fmt: skip
    elif kinks is not None:
        shown = kinks if len(kinks) <= _TICKED_KINKS else kinks[:: len(kinks) // _TICKED_KINKS]
        axes.plot(shown, np.full(len(shown), 0.012), "|", color=COLORS[9], markersize=6,
                  transform=axes.get_xaxis_transform(), label=f"{len(kinks):,} kinks")  # fmt: skip
    if minimum is not None and steps.min() <= minimum[0] <= steps.max():
        axes.plot(*minimum, "v", color=COLORS[1], markersize=8, zorder=5,
                  label=f"minimum {minimum[1]:.4g} at {minimum[0]:.4g}")  # fmt: skip
    if point and steps.min() <= 0 <= steps.max():
        axes.axvline(0, color=INK, linewidth=0.8, linestyle=":", zorder=1)
    for begin, end in _stretches(~np.isfinite(values)):
        axes.axvspan(steps[begin], steps[end], color="#bbbbbb", alpha=0.6)
    if kinks is not None or minimum is not None:
        axes.legend(frameon=False, fontsize=8.5)
    tidy(axes, title=title, x=x, y=y)


def _stretches(flags: np.ndarray) -> list[tuple[int, int]]:
    """(first, last) of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
    return [(begin, end - 1) for begin, end in edges.reshape(-1, 2)]


def draw_plane(
    axes: Axes,
    steps_1: ArrayLike,
    steps_2: ArrayLike,
    values: ArrayLike,
    *,
    path: ArrayLike | None = None,
    point: tuple[float, float] | None = (0.0, 0.0),
    x: str = "a",
    y: str = "b",
    title: str = "",
    limits: tuple[float, float] | None = None,
) -> QuadContourSet:
    """Filled contours, blue low and red high; the first axis of `values` runs to the right.

    Cells that are not finite stay grey and are counted in the title. Returns the contour set, for
    a colour bar.
    """
    values = np.ma.masked_invalid(np.asarray(values, float).T)
    low, high = limits or _limits(values)
    levels = np.linspace(low, high, _LEVELS)
    axes.set_facecolor("#bbbbbb")
    filled = axes.contourf(
        steps_1, steps_2, values, levels, cmap=LOSS_MAP, extend="both" if limits else "neither"
    )
    axes.contour(steps_1, steps_2, values, levels[3::3], colors="white", linewidths=0.4, alpha=0.55)
    if path is not None:
        path = np.asarray(path)
        axes.plot(*path.T, ".-", color="white", markersize=3.5, linewidth=1.1)
        axes.plot(*path[0], "o", color="white", markeredgecolor=INK, markersize=6)
        axes.plot(*path[-1], "*", color="white", markeredgecolor=INK, markersize=12)
    elif point is not None:
        axes.plot(*point, "o", color="white", markeredgecolor=INK, markersize=6)
    bad = int(np.sum(np.ma.getmaskarray(values)))
    if bad:
        title = f"{title} ({bad} cells not finite, grey)".strip()
    axes.set(title=title, xlabel=x, ylabel=y)
    return filled


def _limits(values: np.ma.MaskedArray) -> tuple[float, float]:
    if values.count() == 0:
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def ray_figure(steps: ArrayLike, values: ArrayLike, **keywords: Any) -> Figure:
    """One line; keywords are those of `draw_ray`."""
    figure, axes = new_figure(6.4, 3.9)
    draw_ray(axes[0, 0], steps, values, **keywords)
    return figure


def plane_figure(
    steps_1: ArrayLike,
    steps_2: ArrayLike,
    values: ArrayLike,
    *,
    label: str = "loss",
    **keywords: Any,
) -> Figure:
    """One plane with its colour bar; keywords are those of `draw_plane`."""
    figure, axes = new_figure(6.2, 4.9)
    filled = draw_plane(axes[0, 0], steps_1, steps_2, values, **keywords)
    figure.colorbar(filled, ax=axes[0, 0], label=label, format="%.4g")
    return figure


def surface_figure(
    steps_1: ArrayLike,
    steps_2: ArrayLike,
    values: ArrayLike,
    *,
    x: str = "a",
    y: str = "b",
    label: str = "loss",
    title: str = "",
) -> Figure:
    """The plane as a surface in space."""
    figure, axes = new_figure(6.4, 5.2, subplot_kw={"projection": "3d"})
    axes = axes[0, 0]
    mesh = np.meshgrid(steps_1, steps_2, indexing="ij")
    values = np.ma.masked_invalid(np.asarray(values, float))
    low, high = _limits(values)
    axes.plot_surface(*mesh, values.filled(np.nan), cmap=LOSS_MAP, vmin=low, vmax=high,
                      rcount=80, ccount=80, linewidth=0, antialiased=True)  # fmt: skip
    axes.set(xlabel=x, ylabel=y, zlabel=label, title=title)
    axes.view_init(elev=32, azim=-58)
    axes.set_box_aspect(None, zoom=0.88)
    return figure


def panels_figure(
    ray: tuple[ArrayLike, ArrayLike, ArrayLike | None, ArrayLike | None],
    single: tuple[ArrayLike, ArrayLike, ArrayLike],
    hundred: tuple[ArrayLike, ArrayLike, ArrayLike],
    *,
    names: tuple[str, str] = ("a", "b"),
) -> Figure:
    """The lecture's three panels: (steps, values, kinks, kink values), and two planes.

    Each plane is (steps_1, steps_2, values).
    """
    figure, axes = new_figure(12.4, 3.7, columns=3)
    steps, values, kinks, kink_values = ray
    draw_ray(
        axes[0, 0], steps, values, kinks=kinks, kink_values=kink_values, x=names[0],
        title="One example, along a ray",
    )  # fmt: skip
    titles = ("One example, on a plane", "A hundred examples, on a plane")
    for ax, (first, second, grid), title in zip(
        axes[0, 1:], (single, hundred), titles, strict=True
    ):
        filled = draw_plane(ax, first, second, grid, x=names[0], y=names[1], title=title)
        ax.set_aspect("equal")
        figure.colorbar(filled, ax=ax, format="%.3g", shrink=0.9)
    return figure


def step_size_figure(
    steps_1: ArrayLike,
    steps_2: ArrayLike,
    values: ArrayLike,
    *,
    arrow: float,
    candidates: Sequence[tuple[float, str]],
    x: str,
    y: str,
    title: str = "",
) -> Figure:
    """A point, the arrow of the negative gradient, and steps of several sizes along it.

    `arrow` is the arrow's length and `candidates` are (where, name) along the first axis.
    """
    figure, axes = new_figure(6.8, 4.7)
    ax = axes[0, 0]
    filled = draw_plane(ax, steps_1, steps_2, values, point=None, x=x, y=y, title=title)
    ax.plot([0, candidates[-1][0]], [0, 0], "--", color="white", linewidth=1.4)
    ax.annotate("", (arrow, 0), (0, 0), zorder=5,
                arrowprops={"arrowstyle": "-|>", "color": "white", "lw": 2.6,
                            "mutation_scale": 18})  # fmt: skip
    ax.plot(0, 0, "o", color="white", markeredgecolor=INK, markersize=9, zorder=6)
    ax.annotate("W", (0, 0), (-20, -4), textcoords="offset points", color="white", weight="bold")
    for i, (where, name) in enumerate(candidates):
        ax.plot(where, 0, "o", color=COLORS[1], markeredgecolor="white", markersize=7, zorder=6)
        ax.annotate(name, (where, 0), (0, 11 if i % 2 == 0 else -18), textcoords="offset points",
                    color="white", ha="center", fontsize=9)  # fmt: skip
    figure.colorbar(filled, ax=ax, label="loss", format="%.3g")
    return figure
