"""The lecture's figures, drawn from numbers that were measured."""

__all__ = [
    "bias_trick",
    "channel_weights",
    "curves",
    "image_to_scores",
    "picture_to_probabilities",
    "probability_bars",
    "row_of_pictures",
    "to_pixels",
    "zero_lines",
]

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator

from jaxlin.plots.style import COLORS, GRID, INK, new_figure, tidy


def to_pixels(
    values: np.ndarray, *, low: float | None = None, high: float | None = None
) -> np.ndarray:
    """`values` as uint8: `low` (the minimum) becomes 0, `high` (the maximum) 255.

    >>> to_pixels(np.array([-1.0, 0.0, 1.0])).tolist()
    [0, 127, 255]
    """
    values = np.asarray(values, float)
    low = values.min() if low is None else low
    high = values.max() if high is None else high
    scaled = 255 * (values - low) / max(high - low, np.finfo(float).tiny)
    return np.clip(scaled, 0, 255).astype(np.uint8)


def picture_to_probabilities(
    picture: np.ndarray, probabilities: np.ndarray, class_names: Sequence[str], *, answer: int
) -> Figure:
    """A picture, the numbers it is for a computer, and the probability of every class."""
    figure, axes = new_figure(8.2, 3.1, columns=3, width_ratios=(1, 1.05, 1.25))
    picture_axes, numbers, bars = axes[0]
    _show(picture_axes, picture)
    picture_axes.set_title("what we see")
    size = min(8, picture.shape[0])
    top, left = (picture.shape[0] - size) // 2, (picture.shape[1] - size) // 2
    crop = picture[top : top + size, left : left + size]
    channel = crop if crop.ndim == 2 else crop[..., 0]
    numbers.imshow(channel, cmap="gray", vmin=0, vmax=255 if picture.max() > 16 else 16)
    middle = channel.max() / 2
    for (i, j), value in np.ndenumerate(channel):
        color = "white" if value < middle else "black"
        numbers.text(j, i, int(value), ha="center", va="center", fontsize=6.5, color=color)
    numbers.set(xticks=[], yticks=[])
    numbers.set_title("what the computer sees")
    if crop.ndim == 3:
        numbers.set_xlabel("the framed part, red channel", fontsize=9)
    if crop.shape[0] < picture.shape[0]:
        frame = Rectangle((left - 0.5, top - 0.5), size, size, fill=False, color=COLORS[1], lw=1.5)
        picture_axes.add_patch(frame)
    order = np.argsort(probabilities)[-4:]
    colors = [COLORS[2] if k == answer else COLORS[0] for k in order]
    bars.barh([class_names[k] for k in order], 100 * probabilities[order], color=colors)
    for position, k in enumerate(order):
        bars.text(
            100 * probabilities[k] + 2,
            position,
            f"{100 * probabilities[k]:.3g} %",
            va="center",
            fontsize=9,
        )
    tidy(bars, title="what it should say: one label", x="probability (%)", grid=False)
    bars.set_xlim(0, 125)
    bars.set_xticks([0, 50, 100])
    return figure


def image_to_scores(
    pixels: np.ndarray,
    weights: np.ndarray,
    bias: np.ndarray,
    scores: np.ndarray,
    class_names: Sequence[str],
) -> Figure:
    """A four-pixel picture stretched into a column, times W, plus b: one score per class."""
    figure, axes = new_figure(9.2, 3.0)
    board = axes[0, 0]
    classes, features = weights.shape
    side = int(np.sqrt(features))
    _cells(board, pixels.reshape(side, side), (0, 1), fills=_greys(pixels.reshape(side, side)))
    board.text(1, -1.55, "input picture", ha="center", fontsize=9)
    _arrow(board, (2.2, 0), (3.6, 0), "stretch into\na column")
    row_colors = [[color] * features for color in COLORS[:classes]]
    _cells(board, weights, (4.0, classes / 2), fills=row_colors)
    board.text(6, -classes / 2 - 0.55, "$W$", ha="center", fontsize=12)
    board.text(8.35, 0, "$\\times$", ha="center", va="center", fontsize=14)
    _cells(board, pixels[:, None], (8.7, features / 2), fills=_greys(pixels[:, None]))
    board.text(9.2, -features / 2 - 0.55, "$x$", ha="center", fontsize=12)
    board.text(10.1, 0, "+", ha="center", va="center", fontsize=14)
    _cells(board, bias[:, None], (10.5, classes / 2), fills=[[c] for c in COLORS[:classes]])
    board.text(11, -classes / 2 - 0.55, "$b$", ha="center", fontsize=12)
    _arrow(board, (11.7, 0), (12.6, 0), "")
    width = 1.6
    _cells(
        board,
        scores[:, None],
        (12.8, classes / 2),
        fills=[[c] for c in COLORS[:classes]],
        width=width,
    )
    board.text(12.8 + width / 2, -classes / 2 - 0.55, "$f(x, W, b)$", ha="center", fontsize=12)
    best = int(np.argmax(scores))
    for k, name in enumerate(class_names):
        weight = "bold" if k == best else "normal"
        y = classes / 2 - k - 0.5
        board.text(14.6, y, f"{name} score", va="center", fontsize=10, fontweight=weight)
    _blank(board, (-0.2, 17), (-2.8, 2.2))
    return figure


def bias_trick(weights: np.ndarray, bias: np.ndarray, pixels: np.ndarray) -> Figure:
    """W x + b beside the same numbers as one product with a longer x."""
    figure, axes = new_figure(9.2, 2.9)
    board = axes[0, 0]
    classes, features = weights.shape
    blue, orange, grey = "#dbe6f5", "#f8dccf", "#eceff3"
    _cells(board, weights, (0, classes / 2), fills=blue)
    board.text(features / 2, -classes / 2 - 0.55, f"$W$  [{classes} × {features}]", ha="center")
    _cells(board, pixels[:, None], (4.3, features / 2), fills=grey)
    board.text(4.8, -features / 2 - 0.55, f"$x$  [{features} × 1]", ha="center")
    board.text(5.65, 0, "+", ha="center", va="center", fontsize=14)
    _cells(board, bias[:, None], (6.0, classes / 2), fills=orange)
    board.text(6.5, -classes / 2 - 0.55, "$b$", ha="center")
    board.text(7.6, 0, "=", ha="center", va="center", fontsize=15)
    _cells(board, weights, (8.2, classes / 2), fills=blue)
    _cells(board, bias[:, None], (8.2 + features, classes / 2), fills=orange)
    board.text(
        8.2 + (features + 1) / 2,
        -classes / 2 - 0.55,
        f"$W$ with $b$ as its last column  [{classes} × {features + 1}]",
        ha="center",
    )
    longer = np.append(pixels, 1)[:, None]
    top = (features + 1) / 2
    fills = [[grey]] * features + [[orange]]
    _cells(board, longer, (13.6, top), fills=fills)
    board.text(14.1, -top - 0.55, f"$x$ and a 1  [{features + 1} × 1]", ha="center")
    _blank(board, (-0.2, 15.4), (-3.3, 2.7))
    return figure


def zero_lines(
    points: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    bias: np.ndarray,
    class_names: Sequence[str],
    *,
    x: str,
    y: str,
) -> Figure:
    """Points of a plane, the line where each class scores 0, and the arrow of higher scores."""
    figure, axes = new_figure(6.6, 5.2)
    board = axes[0, 0]
    for k, name in enumerate(class_names):
        mine = points[labels == k]
        board.scatter(*mine.T, s=9, color=COLORS[k], alpha=0.45, linewidths=0, label=name)
    low, high = np.percentile(points, 0.5, axis=0), np.percentile(points, 99.5, axis=0)
    reach = float(np.max(high - low))
    for k, row in enumerate(weights):
        normal = row / np.linalg.norm(row)
        center = (low + high) / 2
        foot = center - (row @ center + bias[k]) / np.linalg.norm(row) * normal
        along = np.array([-normal[1], normal[0]])
        ends = foot + np.outer([-2 * reach, 2 * reach], along)
        board.plot(*ends.T, color=COLORS[k], linewidth=2.2)
        tip = foot + 0.14 * reach * normal
        board.annotate(
            "",
            tip,
            foot,
            arrowprops={"arrowstyle": "-|>", "color": COLORS[k], "lw": 2.2, "mutation_scale": 16},
        )
        label = tip + 0.02 * reach * normal
        board.text(
            *label,
            f"{class_names[k]} classifier",
            color=COLORS[k],
            fontweight="bold",
            ha="left" if normal[0] > 0.4 else "right" if normal[0] < -0.4 else "center",
            va="bottom" if normal[1] > 0.4 else "top" if normal[1] < -0.4 else "center",
            clip_on=True,
            bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.2},
        )
    tidy(board, x=x, y=y)
    margin = 0.04 * (high - low)
    board.set(xlim=(low[0] - margin[0], high[0] + margin[0]))
    board.set(ylim=(low[1] - margin[1], high[1] + margin[1]))
    board.set_aspect("equal")
    return figure


def row_of_pictures(
    pictures: Sequence[np.ndarray], names: Sequence[str], *, title: str = ""
) -> Figure:
    """Pictures side by side, each with its name below."""
    figure, axes = new_figure(max(3.0, 0.95 * len(pictures)), 1.45, columns=len(pictures))
    for board, picture, name in zip(axes[0], pictures, names, strict=True):
        _show(board, picture)
        board.set_xlabel(name, fontsize=9)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def channel_weights(channels: Mapping[str, np.ndarray], *, title: str) -> Figure:
    """The weights of one class, a picture a channel: blue above zero, red below."""
    figure, axes = new_figure(1.2 + 2.3 * len(channels), 2.7, columns=len(channels))
    limit = max(float(np.abs(values).max()) for values in channels.values())
    for board, (name, values) in zip(axes[0], channels.items(), strict=True):
        drawn = board.imshow(values, cmap="RdBu", vmin=-limit, vmax=limit)
        board.set(xticks=[], yticks=[], xlabel=f"mean {values.mean():+.2g}".replace("-", "−"))
        board.set_title(name)
    figure.colorbar(drawn, ax=axes[0].tolist(), shrink=0.8, label="weight")
    figure.suptitle(title, fontsize=10)
    return figure


def probability_bars(stages: Mapping[str, np.ndarray], class_names: Sequence[str]) -> Figure:
    """One bar chart a stage (scores, exponentials, probabilities), the same classes in each."""
    figure, axes = new_figure(2.6 * len(stages), 2.5, columns=len(stages))
    for board, (name, values) in zip(axes[0], stages.items(), strict=True):
        bars = board.bar(class_names, values, color=COLORS[: len(values)], width=0.65)
        board.bar_label(
            bars, labels=[f"{v:.3g}".replace("-", "−") for v in values], padding=2, fontsize=9
        )
        tidy(board, title=name, grid=False)
        board.axhline(0, color=INK, linewidth=0.8)
        board.margins(y=0.2)
        board.set_yticks([])
        board.spines["left"].set_visible(False)
    return figure


def curves(
    lines: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    x: str,
    y: str,
    title: str = "",
    log: str = "",
    marks: bool = False,
) -> Figure:
    """Named lines over one pair of axes; `log` is "", "x", "y" or "xy"."""
    figure, axes = new_figure(6.4, 3.6)
    board = axes[0, 0]
    for color, (name, (across, up)) in zip(COLORS, lines.items(), strict=False):
        board.plot(
            across, up, color=color, linewidth=1.9, marker="o" if marks else "", ms=4.5, label=name
        )
    tidy(board, title=title, x=x, y=y)
    for name, axis in (("x", board.xaxis), ("y", board.yaxis)):
        if name in log:
            _logarithmic(board, axis, name)
    if len(lines) > 1:
        board.legend(frameon=False, fontsize=9)
    return figure


def _logarithmic(board: Axes, axis: Axis, name: str) -> None:
    """A logarithmic axis; over few decades its ticks are plain numbers 1, 2, 5, 10, ..."""
    (board.set_xscale if name == "x" else board.set_yscale)("log")
    low, high = axis.get_view_interval()
    if high < 1000 * low:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FormatStrFormatter("%g"))
        axis.set_minor_locator(NullLocator())


def _show(board: Axes, picture: np.ndarray) -> None:
    if picture.ndim == 2:
        board.imshow(picture, cmap="gray", interpolation="nearest")
    else:
        board.imshow(picture, interpolation="nearest")
    board.set(xticks=[], yticks=[])
    board.spines[:].set_color(GRID)


def _cells(
    board: Axes,
    values: np.ndarray,
    corner: tuple[float, float],
    *,
    fills: str | Sequence[Sequence[str]],
    width: float = 1.0,
) -> None:
    """A matrix as boxes of height 1 with its numbers in them; `corner` is the upper left."""
    left, top = corner
    for (i, j), value in np.ndenumerate(values):
        fill = fills if isinstance(fills, str) else fills[i][j]
        alpha = 0.32 if fill in COLORS else 1.0
        place = (left + j * width, top - i - 1)
        board.add_patch(Rectangle(place, width, 1, facecolor=fill, alpha=alpha, edgecolor="none"))
        board.add_patch(Rectangle(place, width, 1, fill=False, edgecolor=INK, linewidth=0.9))
        dark = fill.startswith("#") and fill not in COLORS and _luminance(fill) < 0.5
        board.text(
            place[0] + width / 2,
            place[1] + 0.5,
            f"{value:g}".replace("-", "−"),
            ha="center",
            va="center",
            fontsize=10,
            color="white" if dark else INK,
        )


def _luminance(color: str) -> float:
    red, green, blue = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return 0.3 * red + 0.6 * green + 0.1 * blue


def _greys(pixels: np.ndarray) -> list[list[str]]:
    levels = np.clip(pixels, 0, 255).astype(int)
    return [[f"#{v:02x}{v:02x}{v:02x}" for v in row] for row in levels]


def _arrow(board: Axes, start: tuple[float, float], end: tuple[float, float], text: str) -> None:
    board.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": INK, "lw": 1.4})
    board.text((start[0] + end[0]) / 2, 0.25, text, ha="center", va="bottom", fontsize=8.5)


def _blank(board: Axes, across: tuple[float, float], up: tuple[float, float]) -> None:
    board.set(xlim=across, ylim=up, xticks=[], yticks=[])
    board.set_aspect("equal")
    board.spines[:].set_visible(False)
