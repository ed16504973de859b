"""Heads: the linear classifiers of a sweep, each with the settings that tell it from the others."""

__all__ = ["FittedHead", "Head", "Subset", "grid", "parse_subset"]

import itertools
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxlin.core import LinearParams
from jaxlin.losses import LOSSES


class Subset(NamedTuple):
    """Which features a head sees; it is trained as if the others did not exist.

    >>> Subset("all").mask(3).tolist()
    [True, True, True]
    """

    name: str
    columns: tuple[tuple[int, int], ...] | None = None
    """Half-open ranges of columns; `None` is all of them."""

    def mask(self, features: int) -> np.ndarray:
        """(D,) bool: the columns that belong to it.

        >>> Subset("ends", ((0, 1), (3, 4))).mask(4).tolist()
        [True, False, False, True]
        """
        inside = np.full(features, self.columns is None)
        for start, stop in self.columns or ():
            inside[start:stop] = True
        return inside


class Head(NamedTuple):
    """One classifier of a sweep.

    >>> head = Head(strength=1e-4, subset=Subset("first half", ((0, 384),)))
    >>> head.loss, head.shots
    ('softmax', None)
    """

    strength: float
    """Of the regularizer in its objective."""
    step_size: float | None = None
    """Of the first step; `None` where a solver needs none."""
    loss: str = "softmax"
    """A short name of `jaxlin.losses`."""
    subset: Subset = Subset("all")
    seed: int = 0
    """Decides its initial weights and, with `shots`, its examples."""
    shots: int | None = None
    """Examples of each class that it is trained on; `None` is all of them."""


class FittedHead(NamedTuple):
    """What became of a head.

    >>> params = LinearParams(np.array([[3.0, 4.0]]), np.zeros(1))
    >>> FittedHead(Head(1e-4), params, "done").weight_norm
    5.0
    """

    head: Head
    params: LinearParams
    """NumPy, (K, D) and (K,): the best on validation where there is one, else the last. Weights
    outside the head's subset are 0."""
    status: str
    """"done", "stopped early", "diverged", or a solver's words."""
    validation_accuracy: float | None = None
    """The share that selects: plain, or the mean over classes."""
    validation_loss: float | None = None
    objective: float | None = None
    """On the training examples: a solver's at its solution; of descent, the mean over the steps
    of the last epoch."""
    relative_gap: float | None = None
    """What a solver certifies; `None` for descent."""
    epochs: float = 0.0
    """Passes over the training examples until `params` were reached."""
    history: tuple[tuple[float, Any, Any], ...] = ()
    """(epoch, validation accuracy or `None`, mean objective since the last) as it went on."""

    @property
    def weight_norm(self) -> float:
        """Euclidean norm of the weights."""
        return float(np.linalg.norm(np.asarray(self.params.weights, np.float64)))


def grid(
    strengths: Sequence[float],
    *,
    step_sizes: Sequence[float | None] = (None,),
    losses: Sequence[str] = ("softmax",),
    subsets: Sequence[Subset] = (Subset("all"),),
    seeds: Sequence[int] = (0,),
    shots: Sequence[int | None] = (None,),
) -> list[Head]:
    """Every combination, one head each; those of one loss lie side by side.

    Raises:
      ValueError: an axis is empty, repeats a value, or holds one that cannot be meant.

    >>> [(h.loss, h.strength) for h in grid([1e-4, 1e-2], losses=["softmax", "hinge"])]
    [('softmax', 0.0001), ('softmax', 0.01), ('hinge', 0.0001), ('hinge', 0.01)]
    """
    axes = {
        **{"strengths": strengths, "step_sizes": step_sizes, "losses": losses},
        **{"subsets": subsets, "seeds": seeds, "shots": shots},
    }
    for name, values in axes.items():
        _check_axis(name, list(values))
    return [
        Head(strength, step_size, loss, subset, seed, count)
        for loss, subset, count, seed, step_size, strength in itertools.product(
            losses, subsets, shots, seeds, step_sizes, strengths
        )
    ]


def _check_axis(name: str, values: list) -> None:
    if not values:
        raise ValueError(f"`{name}` is empty: a sweep needs at least one value.")
    for value in values:
        if values.count(value) > 1:
            shown = value.name if isinstance(value, Subset) else value
            raise ValueError(f"`{name}` holds {shown} twice. Give every value once.")
    if name == "subsets" and len({subset.name for subset in values}) < len(values):
        raise ValueError("`subsets` gives one name to two subsets. Name them apart.")
    for value in values:
        if name == "strengths" and not 0 <= value < np.inf:
            raise ValueError(f"`strengths` must be 0 or more and finite, got {value:g}.")
        if name == "step_sizes" and value is not None and not 0 < value < np.inf:
            raise ValueError(f"`step_sizes` must be positive and finite, got {value:g}.")
        if name == "losses" and value not in LOSSES:
            raise ValueError(f"`losses` must be among {', '.join(LOSSES)}, got {value!r}.")
        if name == "seeds" and not 0 <= value < 2**32:
            raise ValueError(f"`seeds` must be in [0, 2**32), got {value}.")
        if name == "shots" and value is not None and value < 1:
            raise ValueError(f"`shots` must be 1 or more examples a class, got {value}.")


def parse_subset(text: str, features: int) -> list[Subset]:
    """Subsets of the columns from words: `NAME=START:STOP[,START:STOP...]`, or a family.

    `dinov2:WIDTH` is the family of DINOv2's linear evaluation: the columns are the class tokens
    of the last four blocks, first to last, then the mean of the last block's patch tokens, each
    WIDTH wide; the heads see the last or all four class tokens, without or with the mean.

    Raises:
      ValueError: the words cannot be read, or a range lies outside of the `features` columns.

    >>> parse_subset("ends=0:2,6:8", 8)
    [Subset(name='ends', columns=((0, 2), (6, 8)))]
    >>> [subset.name for subset in parse_subset("dinov2:4", 20)]
    ['1 block', '1 block + mean', '4 blocks', '4 blocks + mean']
    """
    if text == "all":
        return [Subset("all")]
    if family := re.fullmatch(r"dinov2:(\d+)", text):
        return _dinov2_subsets(int(family[1]), features)
    named = re.fullmatch(r"(?:([^=]+)=)?(\d+:\d+(?:,\d+:\d+)*)", text)
    if not named:
        raise ValueError(
            f"`{text}` is no subset of the features. Write NAME=START:STOP, several ranges with "
            "commas between, or dinov2:WIDTH."
        )
    cuts = (part.split(":") for part in named[2].split(","))
    ranges = tuple((int(start), int(stop)) for start, stop in cuts)
    for start, stop in ranges:
        if not 0 <= start < stop <= features:
            raise ValueError(
                f"`{text}`: the range {start}:{stop} does not lie in the {features} features. "
                "Give a start below a stop within them."
            )
    return [Subset(named[1] or named[2], ranges)]


def _dinov2_subsets(width: int, features: int) -> list[Subset]:
    if width < 1 or features != 5 * width:
        raise ValueError(
            f"`dinov2:{width}` wants 5 * {width} = {5 * width} features (four class tokens and a "
            f"mean of patch tokens), and the data have {features}. Name the subsets yourself."
        )
    last, mean = (3 * width, 4 * width), (4 * width, 5 * width)
    return [
        Subset("1 block", (last,)),
        Subset("1 block + mean", (last, mean)),
        Subset("4 blocks", ((0, 4 * width),)),
        Subset("4 blocks + mean", ((0, 5 * width),)),
    ]
