"""Pictures of a trained classifier: its curves, its templates, its confusion matrix."""

__all__ = ["bounds", "confusion", "curves", "templates"]

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxlin.plots.style import COLORS, INK, literal, new_figure, tidy


def curves(records: Sequence[dict]) -> Figure:
    """Loss and validation accuracy against the epoch.

    Args:
      records: dicts with `epoch`, `loss`, `validation_loss`, `validation_accuracy`, as in
        `metrics.jsonl`.
    """
    validated = [r for r in records if r["validation_accuracy"] is not None]
    figure, axes = new_figure(9 if validated else 6, 3.4, columns=2 if validated else 1)
    loss = axes[0, 0]
    style = {"linewidth": 1.6, "markersize": 3.5, "marker": "o" if len(records) < 25 else ""}
    loss.plot([r["epoch"] for r in records], [r["loss"] for r in records],
              color=COLORS[0], label="training objective", **style)  # fmt: skip
    tidy(loss, title="Loss", x="epoch", y="mean loss")
    loss.xaxis.set_major_locator(MaxNLocator(integer=True))
    if validated:
        epochs = [r["epoch"] for r in validated]
        loss.plot(epochs, [r["validation_loss"] for r in validated],
                  color=COLORS[1], label="validation loss", **style)  # fmt: skip
        right = axes[0, 1]
        right.plot(epochs, [r["validation_accuracy"] for r in validated], color=COLORS[1], **style)
        best = max(validated, key=lambda r: r["validation_accuracy"])
        right.plot(best["epoch"], best["validation_accuracy"], "o", color=INK, markersize=6)
        highest = f"{best['validation_accuracy']:.3f} at epoch {best['epoch']:g}"
        tidy(
            right,
            title=f"Validation accuracy, best {highest}",
            x="epoch",
            y="share classified right",
        )
        right.xaxis.set_major_locator(MaxNLocator(integer=True))
    loss.legend(frameon=False, fontsize=9)
    return figure


def bounds(records: Sequence[dict]) -> Figure:
    """The best objective and the best lower bound of a full-batch solver, closing on each other.

    Args:
      records: dicts with `evaluations`, `objective`, `lower_bound` (or `None`).
    """
    figure, axes = new_figure(9, 3.4, columns=2)
    left, right = axes[0]
    passes = [r["evaluations"] for r in records]
    best = np.minimum.accumulate([r["objective"] for r in records])
    proved = np.maximum.accumulate(
        [-np.inf if r["lower_bound"] is None else r["lower_bound"] for r in records]
    )
    left.plot(passes, best, color=COLORS[0], label="objective")
    shown = np.isfinite(proved)
    left.plot(np.array(passes)[shown], proved[shown], color=COLORS[1], label="lower bound")
    spread = best[0] - best[-1] or abs(best[-1])
    left.set_ylim(best[-1] - 0.15 * spread, best[-1] + 0.35 * spread)
    if best[0] > 50 * best[-1] > 0:  # on a linear axis both would lie on it
        left.set_yscale("log")
        left.set_ylim(0.5 * best[-1], best[0])
    left.legend(frameon=False, fontsize=9)
    tidy(left, title="Both bounds of the optimum", x="passes over the data", y="objective")
    gap = (best - proved) / np.maximum(np.abs(best), np.finfo(float).tiny)
    usable = shown & (gap > 0)
    right.semilogy(np.array(passes)[usable], gap[usable], color=COLORS[2], marker="o", markersize=3)
    tidy(right, title="Certified relative gap", x="passes over the data", y="gap / objective")
    return figure


def templates(pictures: np.ndarray, names: Sequence[str], *, columns: int = 10) -> Figure:
    """The weights of every class as a picture, in a row, named.

    The rescaling rule, printed below: one linear map for all classes takes the smallest weight
    to black and the largest to white, as the course does, so that classes can be compared.

    Args:
      pictures: (K, H, W) or (K, H, W, 3), the weights of the preprocessed pixels.
      names: K names.
    """
    low, high = float(pictures.min()), float(pictures.max())
    shown = (pictures - low) / (high - low if high > low else 1.0)
    columns = min(columns, len(names))
    rows = math.ceil(len(names) / columns)
    figure, axes = new_figure(1.08 * columns + 0.3, 1.27 * rows + 0.2, rows=rows, columns=columns)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, picture, name in zip(axes.flat, shown, names, strict=False):
        axis.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axis.set_title(literal(name), fontsize=9, fontweight="normal", pad=3)
    figure.supxlabel(
        f"One scale for all classes: weight {low:.3g} is 0, weight {high:.3g} is full intensity.",
        fontsize=8, color=INK,
    )  # fmt: skip
    return figure


def confusion(matrix: np.ndarray, names: Sequence[str], *, title: str = "") -> Figure:
    """The confusion matrix: rows are true classes, shares of a row as color, counts as text.

    Args:
      matrix: (K, K) counts.
      names: K names.
    """
    matrix = np.asarray(matrix)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    classes = len(names)
    side = min(12.0, 2.2 + 0.46 * classes)
    figure, axes = new_figure(side + 0.6, side)
    axis = axes[0, 0]
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if classes <= 25:
        for i, j in np.ndindex(classes, classes):
            if matrix[i, j]:
                color = "white" if shares[i, j] > 0.55 else INK
                axis.text(j, i, f"{matrix[i, j]}", ha="center", va="center",
                          fontsize=8, color=color)  # fmt: skip
    if classes <= 60:
        names = [literal(name) for name in names]
        axis.set_xticks(range(classes), names, rotation=45, ha="right", fontsize=8.5)
        axis.set_yticks(range(classes), names, fontsize=8.5)
    axis.set(xlabel="predicted class", ylabel="true class", title=title)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axis, shrink=0.75, label="share of the true class")
    bar.outline.set_visible(False)
    return figure
