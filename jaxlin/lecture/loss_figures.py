"""The lecture's figures of the loss: its landscape, a step over it, the flow of information."""

__all__ = ["information_flow", "landscape_panels", "step_sizes"]

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import MaxNLocator

from jaxlin.plots.style import COLORS, INK, LOSS_MAP, new_figure, tidy


def landscape_panels(
    steps: np.ndarray, ray: np.ndarray, planes: Sequence[np.ndarray], bends: np.ndarray
) -> Figure:
    """A ray and planes of the loss; the planes' rows belong to a, their columns to b."""
    figure, axes = new_figure(9.6, 3.2, columns=1 + len(planes))
    line, *boards = axes[0]
    line.plot(steps, ray, color=COLORS[0], linewidth=2)
    inside = bends[(bends > steps[0]) & (bends < steps[-1])]
    line.plot(inside, np.interp(inside, steps, ray), "|", color=COLORS[1], ms=11, mew=1.6)
    tidy(line, title="one example, a ray", x="$a$", y="loss")
    line.set_ylim(bottom=0)
    titles = ("one example, a plane", "100 examples, that plane")
    for board, values, title in zip(boards, planes, titles, strict=True):
        _surface(figure, board, steps, steps, values)
        tidy(board, title=title, x="$a$", y="$b$", grid=False)
    return figure


def step_sizes(
    across: np.ndarray,
    up: np.ndarray,
    values: np.ndarray,
    *,
    marks: Mapping[str, float],
    losses: Mapping[str, tuple[Sequence[float], Sequence[float] | np.ndarray]],
) -> Figure:
    """Left, the bowl from above with the way the negative gradient points; right, the table.

    Args:
      across: (A,) steps along the unit negative gradient; the start is at 0.
      up: (B,) steps along a direction at right angles to it.
      values: (A, B) losses.
      marks: named places on the line, as steps along `across`.
      losses: named (step sizes, losses) to draw on logarithmic axes.
    """
    figure, axes = new_figure(9.6, 3.9, columns=2, width_ratios=(1.05, 1))
    board, chart = axes[0]
    _surface(figure, board, across, up, values)
    board.plot([0, across[-1]], [0, 0], "--", color="white", linewidth=1.3)
    short = sorted(marks.values())[1]
    board.annotate(
        "",
        (short, 0),
        (0, 0),
        arrowprops={"arrowstyle": "-|>", "color": "white", "lw": 2.2, "mutation_scale": 18},
    )
    board.plot(0, 0, "o", color="white", markeredgecolor=INK, ms=8)
    board.text(0, 0.07 * up[-1], "$W$", color="white", fontsize=12, ha="center", va="bottom")
    for name, place in marks.items():
        board.plot(place, 0, "|", color="white", ms=12, mew=1.8)
        board.text(place, -0.1 * up[-1], name, color="white", ha="center", va="top", fontsize=9)
    tidy(board, x="distance along the negative gradient", y="across it", grid=False)
    board.xaxis.set_major_locator(MaxNLocator(6))
    for color, marker, (name, (sizes, found)) in zip(COLORS, "os^", losses.items(), strict=False):
        chart.loglog(sizes, found, marker=marker, ms=5, color=color, linewidth=1.6, label=name)
    tidy(chart, x="step size", y="loss after the step")
    chart.legend(frameon=False, fontsize=9)
    return figure


def information_flow(sizes: Mapping[str, str]) -> Figure:
    """The forward pass in black, the gradients in red, with their shapes and norms on the arrows.

    Args:
      sizes: a short text for each of x, y, W, scores, data_loss, penalty, total, dscores, dW,
        dW_penalty, dx.
    """
    figure, axes = new_figure(9.4, 4.5)
    board = axes[0, 0]
    grey, blue, green = "#eceff3", "#dbe6f5", "#dcefe6"
    boxes = {
        "x": ((1.0, 3.9), f"pictures $x$\n{sizes['x']}\nfixed", grey),
        "y": ((4.5, 4.75), f"labels $y$\n{sizes['y']}\nfixed", grey),
        "W": ((1.0, 0.7), f"weights $W$\n{sizes['W']}\nstart random, change", blue),
        "f": ((4.5, 2.3), f"score function\n$f = W x$\n{sizes['scores']}", "white"),
        "data": ((7.5, 3.4), f"data loss\nmean of $L_i$\n{sizes['data_loss']}", green),
        "penalty": ((7.5, 0.7), f"regularization\n$\\lambda R(W)$\n{sizes['penalty']}", green),
        "total": ((10.1, 2.05), f"loss $L$\n{sizes['total']}", green),
    }
    for center, text, fill in boxes.values():
        _box(board, center, text, fill)
    forward = [("x", "f"), ("W", "f"), ("f", "data"), ("y", "data"), ("data", "total")]
    for start, end in [*forward, ("penalty", "total"), ("W", "penalty")]:
        _link(board, boxes[start][0], boxes[end][0], INK, 0.13)
    backward = [
        *(("total", "data", ""), ("total", "penalty", ""), ("data", "f", "dscores")),
        *(("f", "W", "dW"), ("penalty", "W", "dW_penalty"), ("f", "x", "dx")),
    ]
    spots = {
        "dscores": (6.55, 2.35),
        "dW": (3.95, 1.2),
        "dW_penalty": (4.3, 0.2),
        "dx": (2.1, 2.5),
    }
    for start, end, name in backward:
        _link(board, boxes[start][0], boxes[end][0], COLORS[1], 0.13, optional=name == "dx")
        if name:
            board.text(
                *spots[name], sizes[name], color=COLORS[1], fontsize=8, ha="center", va="center"
            )
    board.set(xlim=(0, 11.1), ylim=(-0.1, 5.5), xticks=[], yticks=[])
    board.spines[:].set_visible(False)
    return figure


def _surface(
    figure: Figure, board: Axes, across: np.ndarray, up: np.ndarray, values: np.ndarray
) -> None:
    drawn = board.contourf(across, up, values.T, levels=48, cmap=LOSS_MAP)
    board.contour(across, up, values.T, levels=12, colors="white", linewidths=0.35, alpha=0.7)
    figure.colorbar(drawn, ax=board, shrink=0.85, ticks=MaxNLocator(7))


def _box(board: Axes, center: tuple[float, float], text: str, fill: str) -> None:
    width, height = 1.75, 1.15
    corner = (center[0] - width / 2, center[1] - height / 2)
    shape = FancyBboxPatch(
        corner, width, height, boxstyle="round,pad=0.02,rounding_size=0.12", fc=fill, ec=INK, lw=1.1
    )
    board.add_patch(shape)
    board.text(center[0], center[1], text, ha="center", va="center", fontsize=8.5, linespacing=1.35)


def _link(
    board: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    color: str,
    aside: float,
    *,
    optional: bool = False,
) -> None:
    """An arrow between two boxes, moved to the side so that the way back can run beside it."""
    way = np.subtract(end, start)
    way = way / np.linalg.norm(way)
    shift = aside * np.array([-way[1], way[0]])
    a = start + _reach(way) * way + shift
    b = end - (_reach(way) + 0.06) * way + shift
    style = {"arrowstyle": "-|>", "color": color, "lw": 1.4, "linestyle": "--" if optional else "-"}
    board.annotate("", b, a, arrowprops=style)


def _reach(way: np.ndarray) -> float:
    """From the middle of a box to its edge, along `way`."""
    return min(0.92 / max(abs(way[0]), 1e-9), 0.64 / max(abs(way[1]), 1e-9))
