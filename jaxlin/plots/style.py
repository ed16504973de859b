"""One look for every picture: sizes, colours, a figure without pyplot, and saving."""

__all__ = [
    "COLORS",
    "GRID",
    "INK",
    "LOSS_MAP",
    "literal",
    "new_figure",
    "png_bytes",
    "save",
    "tidy",
]

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

INK = "#1f2430"
GRID = "#d9dde5"
# Ten hues that stay apart for colour-blind readers and in grey (after Paul Tol's schemes).
COLORS = (
    *("#2c5fa8", "#d1603d", "#2f8f6b", "#a23b72", "#b58b00"),
    *("#5aa6c9", "#6c4fa3", "#7f8c3a", "#8a5a44", "#6b7280"),
)
# The lecture's map: blue is a low loss, red a high one. A jet with even lightness steps.
LOSS_MAP = LinearSegmentedColormap.from_list(
    "loss", ["#16216a", "#2457b5", "#2f9fd0", "#67cfb0", "#d8e27a", "#f6b04a", "#e2582f", "#8f1024"]
)

_RC: Any = {
    "font.size": 10,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "semibold",
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.fonttype": "none",
    "svg.hashsalt": "jaxlin",
}


def new_figure(
    width: float = 6.4, height: float = 4.0, *, rows: int = 1, columns: int = 1, **keywords: Any
) -> tuple[Figure, np.ndarray]:
    """A figure and its axes (rows, columns) in the house style, `width` x `height` inches.

    `keywords` go to `Figure.subplots` (`sharex`, `width_ratios`, ...).
    """
    with rc_context(_RC):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(rows, columns, squeeze=False, **keywords)
    return figure, axes


def literal(text: str) -> str:
    """Text that came from outside, say the name of a class, which is no formula whatever it holds.

    >>> literal("$5 and $6")
    '\\\\$5 and \\\\$6'
    """
    return text.encode("utf-8", "backslashreplace").decode().replace("$", r"\$")


def tidy(axes: Axes, *, title: str = "", x: str = "", y: str = "", grid: bool = True) -> None:
    """Name the axes and drop what carries no information."""
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.spines[["top", "right"]].set_visible(False)
    if grid:
        axes.grid(color=GRID, linewidth=0.6)
        axes.set_axisbelow(True)


def save(figure: Figure, path: Path, *, formats: Sequence[str] = ("png",)) -> None:
    """Write `path` with each of `formats` as its ending; the same figure gives the same bytes."""
    for ending in formats:
        metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(ending)
        with rc_context(_RC):
            target = Path(path).with_suffix(f".{ending}")
            figure.savefig(target, dpi=160, metadata=metadata, facecolor="white")


def png_bytes(figure: Figure, *, dpi: int = 130) -> bytes:
    """The figure as PNG, for pages that carry their pictures inside."""
    buffer = io.BytesIO()
    with rc_context(_RC):
        figure.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    return buffer.getvalue()
