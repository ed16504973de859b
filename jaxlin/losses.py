"""Losses: how wrong the scores of one example are, given its true class.

Every loss maps `scores` (..., K) and integer `labels` (...) to one value per example, shape
(...). None averages: weights and means belong to `jaxlin.objectives`. All are pure, so they
compose with `jax.jit`, `jax.vmap` and `jax.grad`.

A hinge is named after the margins it looks at; s_y is the score of the true class:

    weston_watkins_hinge   sum over j != y of max(0, s_j - s_y + margin)     (the lecture's SVM)
    crammer_singer_hinge   max over j != y of max(0, s_j - s_y + margin)
    one_vs_rest_hinge      max(0, margin - s_y) + sum over j != y of max(0, margin + s_j)

and each has a `squared_` form, in which every max(0, .) is squared. On a kink, where a max(0, .)
is exactly at 0, the gradient is the lecture's strict indicator 1(. > 0), hence 0: `jax.nn.relu`
has that subgradient, where `jnp.maximum` would split the tie and give 1/2.

Labels must lie in [0, K). Their values are unknown while tracing, so no loss can check them
(-1 would silently mean "last class"); `jaxlin.data` checks them once, on loading. Rows without a
label get weight 0 in the objective, or the `ignore_index` of `softmax_cross_entropy`.

Scores of half precision are read as float32, and their losses are float32.
"""

__all__ = [
    "LOSSES",
    "crammer_singer_hinge",
    "ignored_label",
    "named",
    "one_vs_rest_hinge",
    "softmax_cross_entropy",
    "squared_crammer_singer_hinge",
    "squared_one_vs_rest_hinge",
    "squared_weston_watkins_hinge",
    "weston_watkins_hinge",
]

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxlin._checks import check_scores_and_labels
from jaxlin._dtypes import widened
from jaxlin.core import EXCLUDED


def softmax_cross_entropy(
    scores: Array,
    labels: Array,
    *,
    label_smoothing: ArrayLike = 0.0,
    ignore_index: int | None = None,
) -> Array:
    r"""-log softmax(scores)[label] = logsumexp(s) - s_y, in nats.

    $$L = -\log \frac{e^{s_y}}{\sum_k e^{s_k}} = \log \sum_k e^{s_k} - s_y$$

    Args:
      scores: (..., K), floating.
      labels: (...), integer, in [0, K).
      label_smoothing: the share e in [0, 1] of the truth that is spread evenly over all K
        classes, the true one included: the loss is (1 - e) times that of the label + e times the
        mean of those of all classes. Classes that are masked, at a score of -1e30 or -infinity,
        are not among the K. May be traced.
      ignore_index: a label, say -100, that stands for "unknown": the loss of its rows is 0
        and so is their gradient, whatever the scores hold. Bound with `functools.partial`, the
        mean of `jaxlin.objectives.compose` leaves these rows out too.

    Returns:
      (...), nonnegative up to rounding; log K where all scores are equal. Finite for finite
      scores: logsumexp subtracts the largest before exponentiating.

    Raises:
      TypeError: `scores` are not floating, or `labels` not integer.
      ValueError: `labels.shape` differs from `scores.shape[:-1]`, or `label_smoothing` is not in
        [0, 1].

    Source: the CS231n notes, "Softmax classifier"; Bishop, PRML (2006), 4.3.4. Often called
      "softmax loss" for short, though softmax is only the squashing function. Smoothing: Szegedy
      et al. (2016), arXiv:1512.00567, section 7. The settings are named as in PyTorch's
      `cross_entropy`; one-hot labels smoothed by `optax.smooth_labels` give the same loss.

    >>> softmax_cross_entropy(jnp.zeros(10), jnp.array(3)).round(4).item()  # log 10
    2.3026...
    >>> softmax_cross_entropy(jnp.zeros((2, 10)), jnp.array([3, -100]), ignore_index=-100)[1].item()
    0.0
    """
    scores, labels = _checked(scores, labels)
    if ignore_index is None:
        return _cross_entropy(scores, labels, label_smoothing)
    ignored = labels == ignore_index
    # replaced before the loss, or a NaN among the scores would come back in the gradient
    scores = jnp.where(ignored[..., None], 0, scores)
    losses = _cross_entropy(scores, jnp.where(ignored, 0, labels), label_smoothing)
    return jnp.where(ignored, 0, losses)


def weston_watkins_hinge(scores: Array, labels: Array, *, margin: ArrayLike = 1) -> Array:
    r"""Sum over the wrong classes j of max(0, s_j - s_y + margin): the lecture's SVM loss.

    $$L = \sum_{j \ne y} \max(0, s_j - s_y + \Delta)$$

    Convex and piecewise linear in `scores`.

    Args:
      scores: (..., K), floating.
      labels: (...), integer, in [0, K).
      margin: the lead the true class must have over each other (the lecture's Delta); scalar,
        may be traced.

    Returns:
      (...), nonnegative; 0 exactly where the true class leads by at least `margin`.

    Raises:
      TypeError: `scores` are not floating, or `labels` not integer.
      ValueError: `labels.shape` differs from `scores.shape[:-1]`.

    Source: Weston and Watkins (1999); the CS231n notes, "Multiclass SVM". Not the max over j of
      Crammer and Singer, which `optax` offers as `multiclass_hinge_loss`.

    >>> weston_watkins_hinge(jnp.array([13.0, -7.0, 11.0]), jnp.array(0), margin=10).item()
    8.0
    """
    return jnp.sum(_shortfalls_of_wrong(scores, labels, margin), axis=-1)


def squared_weston_watkins_hinge(scores: Array, labels: Array, *, margin: ArrayLike = 1) -> Array:
    r"""Sum over the wrong classes j of max(0, s_j - s_y + margin)^2: smooth, no kinks.

    $$L = \sum_{j \ne y} \max(0, s_j - s_y + \Delta)^2$$

    Arguments and errors are those of `weston_watkins_hinge`.

    Source: the CS231n notes, "L2-SVM"; Tang (2013), arXiv:1306.0239.

    >>> squared_weston_watkins_hinge(jnp.array([0.0, 1.0, 0.5]), jnp.array(0)).item()
    6.25
    """
    return jnp.sum(_shortfalls_of_wrong(scores, labels, margin) ** 2, axis=-1)


def crammer_singer_hinge(scores: Array, labels: Array, *, margin: ArrayLike = 1) -> Array:
    r"""max(0, margin + max over j != y of s_j - s_y): only the strongest rival counts.

    $$L = \max(0, \Delta + \max_{j \ne y} (s_j - s_y))$$

    Where rivals tie for the maximum the gradient goes to the first of them, one subgradient
    among several. Arguments and errors are those of `weston_watkins_hinge`.

    Source: Crammer and Singer (2001), JMLR 2, 265-292; "Structured SVM" in the course's demo.

    >>> crammer_singer_hinge(jnp.array([1.0, 2.0, 3.0]), jnp.array(0)).item()
    3.0
    """
    return _largest_shortfall(scores, labels, margin)


def squared_crammer_singer_hinge(scores: Array, labels: Array, *, margin: ArrayLike = 1) -> Array:
    r"""max(0, margin + max over j != y of s_j - s_y)^2.

    $$L = \max(0, \Delta + \max_{j \ne y} (s_j - s_y))^2$$

    Arguments and errors are those of `weston_watkins_hinge`; ties as in `crammer_singer_hinge`.

    >>> squared_crammer_singer_hinge(jnp.array([1.0, 2.0, 3.0]), jnp.array(0)).item()
    9.0
    """
    return _largest_shortfall(scores, labels, margin) ** 2


def one_vs_rest_hinge(scores: Array, labels: Array, *, margin: ArrayLike = 1) -> Array:
    r"""Sum over all classes k of max(0, margin - t_k s_k), t_k = 1 for the label, else -1.

    $$L = \max(0, \Delta - s_y) + \sum_{j \ne y} \max(0, \Delta + s_j)$$

    K binary support vector machines side by side: each class against the rest. Arguments and
    errors are those of `weston_watkins_hinge`.

    Source: "One vs. All" in the course's demo; Rifkin and Klautau (2004), JMLR 5, 101-141.

    >>> one_vs_rest_hinge(jnp.array([0.5, -2.0, 0.25]), jnp.array(0)).item()
    1.75
    """
    return jnp.sum(_shortfalls_of_all(scores, labels, margin), axis=-1)


def squared_one_vs_rest_hinge(scores: Array, labels: Array, *, margin: ArrayLike = 1) -> Array:
    r"""Sum over all classes k of max(0, margin - t_k s_k)^2, t_k = 1 for the label, else -1.

    $$L = \max(0, \Delta - s_y)^2 + \sum_{j \ne y} \max(0, \Delta + s_j)^2$$

    What scikit-learn's `LinearSVC` minimizes by default. Arguments and errors are those of
    `weston_watkins_hinge`.

    >>> squared_one_vs_rest_hinge(jnp.array([0.5, -2.0, 0.0]), jnp.array(0)).item()
    1.25
    """
    return jnp.sum(_shortfalls_of_all(scores, labels, margin) ** 2, axis=-1)


LOSSES: dict[str, Callable[..., Array]] = {
    "softmax": softmax_cross_entropy,
    "hinge": weston_watkins_hinge,
    "crammer-singer": crammer_singer_hinge,
    "one-vs-rest": one_vs_rest_hinge,
    "squared-hinge": squared_weston_watkins_hinge,
    "squared-crammer-singer": squared_crammer_singer_hinge,
    "squared-one-vs-rest": squared_one_vs_rest_hinge,
}
"""Every loss by its short name, the one of the command line. All but softmax take `margin`."""


def ignored_label(loss: Callable) -> int | None:
    """The `ignore_index` that `functools.partial` bound to a loss; `None` where there is none.

    >>> ignored_label(partial(softmax_cross_entropy, ignore_index=-100))
    -100
    """
    while isinstance(loss, partial):
        if "ignore_index" in loss.keywords:
            return loss.keywords["ignore_index"]
        loss = loss.func
    return None


def named(name: str, *, margin: ArrayLike = 1) -> Callable[[Array, Array], Array]:
    """The loss of a short name, with its margin set (softmax has none).

    >>> named("hinge", margin=10)(jnp.array([13.0, -7.0, 11.0]), jnp.array(0)).item()
    8.0
    """
    if name not in LOSSES:
        raise ValueError(f"`loss` must be one of {', '.join(LOSSES)}, got {name!r}.")
    return LOSSES[name] if name == "softmax" else partial(LOSSES[name], margin=margin)


def _checked(scores: Array, labels: Array) -> tuple[Array, Array]:
    """Both as arrays that fit together, the scores in the dtype that they are summed in."""
    scores, labels = jnp.asarray(scores), jnp.asarray(labels)
    check_scores_and_labels(scores, labels)
    return widened(scores), labels


def _cross_entropy(scores: Array, labels: Array, smoothing: ArrayLike) -> Array:
    own = _score_of(labels, scores)[..., 0]
    losses = jax.nn.logsumexp(scores, axis=-1) - own
    if isinstance(smoothing, int | float):
        if not 0 <= smoothing <= 1:
            raise ValueError(f"`label_smoothing` must be in [0, 1], got {smoothing}.")
        if smoothing == 0:
            return losses
    there = scores > EXCLUDED / 2
    mean = jnp.where(there, scores, 0).sum(-1) / jnp.maximum(there.sum(-1), 1)
    # mean of logsumexp(s) - s_k over the classes k, less that of the label
    return losses + jnp.asarray(smoothing, losses.dtype) * (own - mean)


def _score_of(labels: Array, scores: Array) -> Array:
    """The true class's score, (..., 1): the axis is kept, so that it broadcasts."""
    return jnp.take_along_axis(scores, labels[..., None], axis=-1)


def _is_label(labels: Array, scores: Array) -> Array:
    return jax.nn.one_hot(labels, scores.shape[-1], dtype=bool)


def _shortfalls_of_wrong(scores: Array, labels: Array, margin: ArrayLike) -> Array:
    """max(0, s_j - s_y + margin) for j != y and 0 for j = y, (..., K)."""
    scores, labels = _checked(scores, labels)
    shortfalls = jax.nn.relu(scores - _score_of(labels, scores) + margin)
    return jnp.where(_is_label(labels, scores), 0, shortfalls)


def _largest_shortfall(scores: Array, labels: Array, margin: ArrayLike) -> Array:
    """max(0, margin + max over j != y of s_j - s_y), (...); 0 where there is no other class."""
    scores, labels = _checked(scores, labels)
    rivals = jnp.where(_is_label(labels, scores), -jnp.inf, scores)
    rival = _score_of(jnp.argmax(rivals, axis=-1), rivals)[..., 0]
    return jax.nn.relu(rival - _score_of(labels, scores)[..., 0] + margin)


def _shortfalls_of_all(scores: Array, labels: Array, margin: ArrayLike) -> Array:
    """max(0, margin - t_k s_k), (..., K), with t_k = 1 for the label and -1 for the others."""
    scores, labels = _checked(scores, labels)
    return jax.nn.relu(margin + jnp.where(_is_label(labels, scores), -scores, scores))
