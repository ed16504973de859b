"""Probabilities: the softmax function and the information-theoretic view of its loss.

Distributions lie on the last axis, (..., K); logarithms are natural, so values are in nats. The
identities H(p, q) = H(p) + KL(p || q) and, for one-hot p, H(p) = 0 make the cross-entropy loss a
divergence between the true distribution and the estimated one.

A term with p = 0 is 0, and its derivatives count as 0 too where calculus has none (p = q = 0) or
an infinite one (-log 0): the term is not there. Through a softmax that has underflowed the chain
rule then gives the limit, 0, and not NaN. Half precision is read as float32, and so is the result.
"""

__all__ = [
    "cross_entropy",
    "entropy",
    "kl_divergence",
    "log_softmax",
    "negative_log_likelihood",
    "softmax",
    "softmax_unstable",
]

import jax
import jax.numpy as jnp
from jax import Array

from jaxlin._checks import check_scores_and_labels
from jaxlin._dtypes import widened


def softmax(scores: Array) -> Array:
    """exp(s_j) / sum_k exp(s_k): positive, sums to one, unchanged by a common shift.

    The largest score is subtracted first (the lecture's log C = -max_j f_j), so that no finite
    score overflows.

    Source: the CS231n notes, "Softmax classifier" and "Practical issues: Numeric stability".

    >>> softmax(jnp.array([1.0, -2.0, 0.0])).round(2).tolist()
    [0.71, 0.04, 0.26]
    """
    return jax.nn.softmax(widened(scores), axis=-1)


def log_softmax(scores: Array) -> Array:
    """log softmax(scores), from the scores and not from the probabilities, which may be 0.

    >>> log_softmax(jnp.array([0.0, 1e4])).tolist()
    [-10000.0, 0.0]
    """
    return jax.nn.log_softmax(widened(scores), axis=-1)


def softmax_unstable(scores: Array) -> Array:
    """The formula as printed, exp(s) / sum(exp(s)): here only to show why it fails.

    exp overflows above about 88 in float32 and 709 in float64, and inf / inf is NaN.

    Source: the CS231n notes, "Numeric stability", the line marked "Bad".

    >>> import numpy as np
    >>> bool(jnp.isnan(softmax_unstable(np.array([123, 456, 789], np.float32))).any())
    True
    """
    exponentials = jnp.exp(widened(scores))
    return exponentials / jnp.sum(exponentials, axis=-1, keepdims=True)


def entropy(p: Array) -> Array:
    """H(p) = -sum p log p, with 0 log 0 = 0.

    Args:
      p: (..., K), nonnegative, summing to one.

    Returns:
      (...), in nats, between 0 (one-hot) and log K (uniform).

    >>> entropy(jnp.array([0.0, 1.0])).item()
    0.0
    """
    p = widened(p)
    return jnp.sum(jax.scipy.special.entr(jnp.where(p == 0, 1, p)), axis=-1)  # 1 log 1 = 0


def cross_entropy(p: Array, q: Array) -> Array:
    """H(p, q) = -sum p log q, with 0 log 0 = 0; infinite where p > 0 and q = 0.

    Source: the CS231n notes, "Information theory view".

    >>> cross_entropy(jnp.array([0.0, 1.0]), jnp.array([0.5, 0.5])).round(4).item()
    0.6931...
    """
    p, q = widened(p), widened(q)
    absent = (p == 0) & (q == 0)
    return -jnp.sum(jax.scipy.special.xlogy(p, jnp.where(absent, 1, q)), axis=-1)


def kl_divergence(p: Array, q: Array) -> Array:
    """KL(p || q) = sum p log(p / q) = H(p, q) - H(p), nonnegative, 0 only for p = q.

    >>> kl_divergence(jnp.array([0.5, 0.5]), jnp.array([0.5, 0.5])).item()
    0.0
    """
    p, q = widened(p), widened(q)
    absent = (p == 0) & (q >= 0)
    terms = jax.scipy.special.rel_entr(jnp.where(absent, 1, p), jnp.where(absent, 1, q))
    return jnp.sum(terms, axis=-1)


def negative_log_likelihood(probabilities: Array, labels: Array) -> Array:
    """-log of the probability given to the true class.

    With `softmax(scores)` this is the cross-entropy loss, and its mean over a training set is
    what maximum likelihood estimation minimizes.

    Args:
      probabilities: (..., K).
      labels: (...), integer, in [0, K).

    Returns:
      (...), in nats.

    Raises:
      TypeError, ValueError: as the losses do, on dtypes and shapes.

    Source: the CS231n notes, "Probabilistic interpretation".

    >>> negative_log_likelihood(jnp.array([0.25, 0.75]), jnp.array(0)).round(4).item()
    1.3863...
    """
    probabilities, labels = jnp.asarray(probabilities), jnp.asarray(labels)
    check_scores_and_labels(probabilities, labels)
    probabilities = widened(probabilities)
    return -jnp.log(jnp.take_along_axis(probabilities, labels[..., None], axis=-1)[..., 0])
