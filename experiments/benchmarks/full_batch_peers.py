"""The contenders of `full_batch.py` beside jaxlin: each hands back (seconds, objective) as it goes.

All minimize the mean softmax loss + strength * |W|^2 with a free bias on rows in float32.
"""

import contextlib
import time
import warnings
from functools import partial

import numpy as np
from scipy.special import logsumexp


def objective_of(rows, labels, weights, bias, strength):
    """In float64, in blocks."""
    total = 0.0
    for start in range(0, len(rows), 10_000):
        part = slice(start, start + 10_000)
        scores = rows[part].astype(np.float64) @ weights.T + bias
        own = scores[np.arange(len(scores)), labels[part]]
        total += (logsumexp(scores, axis=1) - own).sum()
    return total / len(rows) + strength * float((np.asarray(weights, np.float64) ** 2).sum())


def overheard_curve(solver, rows, labels, strength, seconds):
    """scikit-learn's lbfgs or newton-cg: the time of every objective value it computes."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.linear_model._linear_loss import LinearModelLoss

    class Enough(Exception):
        pass

    curve, start = [], None

    def listen(method, value_of):
        def heard(self, *arguments, **settings):
            found = method(self, *arguments, **settings)
            if start is not None:
                spent = time.perf_counter() - start
                curve.append((spent, float(value_of(found))))
                if spent > seconds:
                    raise Enough
            return found

        return heard

    originals = LinearModelLoss.loss, LinearModelLoss.loss_gradient
    LinearModelLoss.loss = listen(originals[0], lambda found: found)
    LinearModelLoss.loss_gradient = listen(originals[1], lambda found: found[0])
    C = 1 / (2 * len(rows) * strength)
    model = LogisticRegression(C=C, solver=solver, max_iter=100_000, tol=1e-10)
    with warnings.catch_warnings(), contextlib.suppress(Enough):
        warnings.simplefilter("ignore")
        start = time.perf_counter()
        model.fit(rows, labels)
    LinearModelLoss.loss, LinearModelLoss.loss_gradient = originals
    return curve


def ladder_curve(build, rows, labels, strength, seconds, start_limit=5):
    """A contender that is run again with twice the limit each time, until its time is used up."""
    curve, limit = [], start_limit
    while True:
        model = build(limit, 1 / (2 * len(rows) * strength))
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(rows, labels)
        spent = time.perf_counter() - start
        weights, bias = np.asarray(model.coef_), np.asarray(model.intercept_).reshape(-1)
        curve.append((spent, objective_of(rows, labels, weights, bias, strength)))
        if 2.2 * spent > seconds or sum(t for t, _ in curve) > 1.5 * seconds:
            return curve
        limit *= 2


def saga(limit, C):
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=C, solver="saga", max_iter=limit, tol=1e-12)


def intelex(limit, C):
    """scikit-learn-intelex: oneDAL's lbfgs."""
    from sklearnex.linear_model import LogisticRegression

    return LogisticRegression(C=C, solver="lbfgs", max_iter=limit, tol=1e-12)


def snap(limit, C):
    """snapml, whose softmax has no free bias: it regularizes it, which its objective then shows."""
    import snapml

    return snapml.LogisticRegression(
        regularizer=1 / C, max_iter=limit, tol=1e-12, fit_intercept=True, n_jobs=2
    )


def torch_curve(rows, labels, strength, seconds):
    import torch

    inputs, classes = torch.from_numpy(rows), torch.from_numpy(labels.astype(np.int64))
    model = torch.nn.Linear(rows.shape[1], int(labels.max()) + 1)
    torch.nn.init.zeros_(model.weight)
    torch.nn.init.zeros_(model.bias)
    descent = torch.optim.LBFGS(
        model.parameters(), max_iter=20, history_size=30, line_search_fn="strong_wolfe"
    )

    def closure():
        descent.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(inputs), classes)
        loss = loss + strength * model.weight.square().sum()
        loss.backward()
        return loss

    curve, start = [], time.perf_counter()
    while time.perf_counter() - start < seconds:
        before = curve[-1][1] if curve else np.inf
        curve.append((time.perf_counter() - start, descent.step(closure).item()))
        if curve[-1][1] >= before:
            break
    return [(later, value) for (later, _), (_, value) in zip(curve[1:], curve[1:], strict=True)]


def compiled_problem(rows, labels, strength):
    """The objective in JAX, as optax and jaxopt are given it, and where they start."""
    import jax.numpy as jnp
    import optax

    inputs, classes = jnp.asarray(rows), jnp.asarray(labels)
    count = int(labels.max()) + 1

    def objective(params):
        scores = inputs @ params[0].T + params[1][None, :]
        losses = optax.softmax_cross_entropy_with_integer_labels(scores, classes)
        return losses.mean() + strength * (params[0] ** 2).sum()

    return objective, (jnp.zeros((count, rows.shape[1])), jnp.zeros(count))


def optax_curve(rows, labels, strength, seconds):
    import jax
    import optax

    objective, params = compiled_problem(rows, labels, strength)
    descent = optax.lbfgs(memory_size=30)
    look = optax.value_and_grad_from_state(objective)

    @jax.jit
    def step(params, state):
        value, gradient = look(params, state=state)
        updates, state = descent.update(
            gradient, state, params, value=value, grad=gradient, value_fn=objective
        )
        return optax.apply_updates(params, updates), state, value

    # twice: the state that `init` makes and the one that `step` returns compile apart
    warm = step(params, descent.init(params))
    jax.block_until_ready(step(*warm[:2]))
    curve, state, start = [], descent.init(params), time.perf_counter()
    while time.perf_counter() - start < seconds:
        spent = time.perf_counter() - start
        params, state, value = step(params, state)
        curve.append((spent, float(value)))
    return curve


def jaxopt_curve(rows, labels, strength, seconds):
    import jax
    import jaxopt

    objective, params = compiled_problem(rows, labels, strength)
    descent = jaxopt.LBFGS(objective, history_size=30, maxiter=10**6, tol=0.0)
    state = descent.init_state(params)
    step = jax.jit(descent.update)
    jax.block_until_ready(step(*step(params, state)))  # two states, two compilations
    curve, start = [], time.perf_counter()
    while time.perf_counter() - start < seconds:
        params, state = step(params, state)
        curve.append((time.perf_counter() - start, float(state.value)))
        if not state.stepsize > 0:
            break
    return curve


PEERS = {
    "lbfgs": ("scikit-learn lbfgs", partial(overheard_curve, "lbfgs")),
    "newton-cg": ("scikit-learn newton-cg", partial(overheard_curve, "newton-cg")),
    "saga": ("scikit-learn saga", partial(ladder_curve, saga)),
    "intelex": ("scikit-learn-intelex lbfgs", partial(ladder_curve, intelex)),
    "snapml": ("snapml", partial(ladder_curve, snap)),
    "torch": ("PyTorch LBFGS", torch_curve),
    "optax": ("optax lbfgs", optax_curve),
    "jaxopt": ("jaxopt LBFGS", jaxopt_curve),
}


def peers_named(parser, text, known):
    """The names with commas between, all of which are `known`; the parser ends it otherwise."""
    names = [name for name in text.split(",") if name]
    if unknown := sorted(set(names) - set(known)):
        parser.error(f"--peers: {', '.join(unknown)}: choose from {', '.join(known)}")
    return names
