"""Wrong gradients of a linear classifier, as people write them, and right ones that look wrong.

The cases of `gradient_bug_zoo.py`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlin import losses


class Case(NamedTuple):
    """A claimed gradient and what is true about it."""

    name: str
    f: Callable
    x: np.ndarray
    claim: np.ndarray
    wrong: np.ndarray | None
    """Which entries are wrong; `None` if the claim is right (a subgradient counts)."""


STRENGTH = 0.1


def problem(inputs, labels, classes, loss, at="random", margin=1.0):
    """An objective of one matrix (K, D + 1), its point, and the pieces of its gradient."""
    rng = np.random.default_rng(0)
    inputs = np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)
    weights = 0.1 * rng.normal(size=(classes, inputs.shape[1]))
    if at == "zero":
        weights = np.zeros_like(weights)
    mask = np.ones_like(weights)
    mask[:, -1] = 0
    function = losses.LOSSES[loss]
    options = {} if loss == "softmax" else {"margin": margin}

    def f(w):
        value = jnp.mean(function(jnp.asarray(inputs) @ w.T, jnp.asarray(labels), **options))
        return value + STRENGTH * jnp.sum(jnp.asarray(mask) * w**2)

    return f, weights, inputs, mask


def bugs(raw, labels, classes) -> list[Case]:
    """Wrong gradients, each with the entries that differ from the right one."""
    centred = (raw - raw.mean(axis=0)) / (raw.std() + 1e-9)
    n = len(labels)
    rows = np.arange(n)
    onehot = np.eye(classes)[labels]
    f, w, x, mask = problem(centred, labels, classes, "softmax")
    scores = x @ w.T
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)
    penalty = 2 * STRENGTH * mask * w
    right = (p - onehot).T @ x / n + penalty
    data = right - penalty
    k, d = 3 % classes, np.abs(right[3 % classes, :-1]).argsort()[right.shape[1] // 2]
    cases = {}

    def edited(change):
        g = right.copy()
        change(g)
        return g

    def assign(index, value):
        return edited(lambda g: g.__setitem__(index, value))

    cases["one entry: sign flipped"] = assign((k, d), -right[k, d])
    cases["one entry: zero"] = assign((k, d), 0.0)
    cases["one entry: doubled"] = assign((k, d), 2 * right[k, d])
    cases["one entry: the neighbour's value"] = assign((k, d), right[k, d + 1])
    cases["one entry: not a number"] = assign((k, d), np.nan)
    cases["one entry: off by 0.1 %"] = assign((k, d), 1.001 * right[k, d])
    swapped = right.copy()
    swapped[k, d], swapped[0, d] = right[0, d], right[k, d]
    cases["two entries exchanged"] = swapped
    cases["columns shifted by one"] = np.roll(right, 1, axis=1)
    cases["rows 0 and 1 swapped"] = right[[1, 0, *range(2, classes)]]
    cases["one row scaled by 1.01"] = assign(k, 1.01 * right[k])
    cases["bias forgotten"] = edited(lambda g: g.__setitem__((slice(None), -1), 0.0))
    cases["regularizer missing"] = data
    cases["regularizer without its 2"] = data + penalty / 2
    cases["regularizer on the bias, too"] = data + 2 * STRENGTH * w
    cases["sum instead of mean"] = data * n + penalty
    cases["1 / N twice"] = data / n + penalty
    cases["1 / (N - 1)"] = data * n / (n - 1) + penalty
    cases["last example left out"] = (p - onehot)[:-1].T @ x[:-1] / n + penalty
    cases["labels off by one"] = (p - np.eye(classes)[labels - 1]).T @ x / n + penalty
    cases["one-hot not subtracted"] = p.T @ x / n + penalty
    wrong_axis = e / e.sum(axis=0, keepdims=True)
    cases["softmax over the examples"] = (wrong_axis - onehot).T @ x / n + penalty
    stale = np.exp(scores - scores.max(axis=1, keepdims=True))
    stale = stale / np.exp(scores - np.roll(scores.max(axis=1), 1)[:, None]).sum(1, keepdims=True)
    cases["stale softmax shift"] = (stale - onehot).T @ x / n + penalty
    half = np.zeros(right.shape, np.float16)
    for i in range(n):
        half += np.outer(p[i] - onehot[i], x[i]).astype(np.float16)
    cases["float16 accumulation"] = half.astype(float) / n + penalty
    uncentred = np.concatenate([raw / (raw.std() + 1e-9), np.ones((n, 1))], axis=1)
    cases["inputs not centred"] = (p - onehot).T @ uncentred / n + penalty
    result = [Case(name, f, w, g, ~np.isclose(g, right, 1e-12, 0)) for name, g in cases.items()]

    f, w, x, mask = problem(centred, labels, classes, "hinge")
    margins = x @ w.T
    margins = margins - margins[rows, labels][:, None] + 1
    margins[rows, labels] = 0

    def hinge(indicator, y_row=True):
        factors = indicator.astype(float)
        if y_row:
            factors[rows, labels] -= (indicator * (1 - onehot)).sum(axis=1)
        return factors.T @ x / n + 2 * STRENGTH * mask * w

    right_hinge = hinge((margins > 0) * (1 - onehot))
    cases = {
        "hinge: no margin indicator": hinge(1 - onehot),
        "hinge: class y counted": hinge(np.where(onehot > 0, 1, margins > 0)),
        "hinge: row y missing": hinge((margins > 0) * (1 - onehot), y_row=False),
        "hinge: indicator of s_j > s_y": hinge((margins > 1) * (1 - onehot)),
        "hinge: only the largest margin": hinge(
            (margins == margins.max(axis=1, keepdims=True)) * (margins > 0) * (1 - onehot)
        ),
    }
    result += [
        Case(name, f, w, g, ~np.isclose(g, right_hinge, 1e-12, 0)) for name, g in cases.items()
    ]
    f, w, x, mask = problem(centred, labels, classes, "squared-hinge")
    both = np.maximum(margins, 0) * (1 - onehot)
    both[rows, labels] = -both.sum(axis=1)
    result.append(
        Case(
            "squared hinge: factor 2 missing",
            f,
            w,
            both.T @ x / n + 2 * STRENGTH * mask * w,
            np.abs(both.T @ x / n) > 1e-12,
        )
    )
    return result


def nasty(raw, labels, classes) -> list[Case]:
    """Right gradients that checks like to fail: kinks, ties, scales, narrow dtypes."""
    centred = (raw - raw.mean(axis=0)) / (raw.std() + 1e-9)
    pixels = np.round(raw / (raw.max() or 1) * 255)
    result = []

    def add(name, f, x, claim=None):
        x = np.asarray(x)
        with jax.enable_x64(True):
            claim = np.asarray(jax.grad(f)(jnp.asarray(x))) if claim is None else claim
        result.append(Case(name, f, x, claim, None))

    for loss in ("softmax", "hinge"):
        add(f"{loss}, raw pixels", *problem(pixels, labels, classes, loss)[:2])
    add(
        "hinge, W = 0, margin 0: all ties",
        *problem(centred, labels, classes, "hinge", "zero", 0.0)[:2],
    )
    add(
        "Crammer-Singer, W = 0: all rivals tie",
        *problem(centred, labels, classes, "crammer-singer", "zero")[:2],
    )
    add(
        "one-vs-rest, W = 0, margin 0",
        *problem(centred, labels, classes, "one-vs-rest", "zero", 0.0)[:2],
    )
    f, w, *_ = problem(pixels, labels, classes, "softmax")
    with jax.enable_x64(True):
        narrow = np.asarray(jax.grad(f)(jnp.asarray(w, jnp.float32)).astype(jnp.float32))
    add("float32 gradient, raw pixels", f, w, narrow)
    add("sum |x| at 0, claimed 0", lambda x: jnp.sum(jnp.abs(x)), np.zeros(5), np.zeros(5))
    add("-sum |x| at 0, claimed 1/2", lambda x: -jnp.sum(jnp.abs(x)), np.zeros(5), np.full(5, 0.5))
    add("max(0, x) at 0, claimed 1/2", lambda x: jnp.sum(jnp.maximum(x, 0)), np.zeros(4))
    add("max of equal entries", jnp.max, np.ones(4))
    add("scale 1e-8: sum sin(1e8 x)", lambda x: jnp.sum(jnp.sin(1e8 * x)), 1e-8 * np.arange(1.0, 6))
    add("scale 1e8: sum sin(1e-8 x)", lambda x: jnp.sum(jnp.sin(1e-8 * x)), 1e8 * np.arange(1.0, 6))
    add("sum log x, x from 1e-8 to 1e8", lambda x: jnp.sum(jnp.log(x)), 10.0 ** np.arange(-8, 9, 2))
    add("large value, small slope", lambda x: 1e6 + jnp.sum(jnp.tanh(x)), np.linspace(0, 1, 5))
    add(
        "loss cast to float32",
        lambda x: jnp.sum(jnp.sin(x.astype(jnp.float32))),
        np.linspace(0, 1, 5),
    )
    add("steep curvature", lambda x: jnp.sum(jnp.exp(30 * x)), np.linspace(0, 0.5, 5))
    add("quadratic at its minimum", lambda x: jnp.sum((x - 1) ** 2), np.ones(5))
    return result
