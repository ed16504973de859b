"""How long does a full-batch fit take to come within 1e-2, 1e-4, 1e-6 of the optimum?

The same objective, mean softmax loss + strength * |W|^2 with a free bias, for all contenders in
one run: jaxlin on the raw bytes; scikit-learn's lbfgs, newton-cg and saga, PyTorch's and optax's
L-BFGS on float32 pixels that are preprocessed before their clock starts. scikit-learn tells no
times of its iterations, so it is run again for each of a ladder of iteration limits. For jaxlin
the lower bound is timed too: it alone says how close it is without knowing the optimum.

    python experiments/benchmarks/full_batch.py --data fashion-mnist --out results/full_batch
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
from scipy.special import logsumexp

from jaxlin import preprocess
from jaxlin.plots import solvers as pictures
from jaxlin.solvers import describe, minimize

ACCURACIES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
STRENGTHS = {"fashion-mnist": 5e-5, "cifar10": 5e-4, "digits": 1e-4, "features": 1e-4}


def load(name, data_dir):
    """Raw inputs, labels and the map that all contenders see them through."""
    if name == "features":
        return features(200_000, 768, 100)
    from jaxlin.data import load_splits

    data, _ = load_splits(name, data_dir=data_dir)
    inputs, labels = data.inputs.reshape(len(data.labels), -1), np.asarray(data.labels)
    if name == "cifar10":
        return inputs, labels, preprocess.fit(inputs, "standardize")
    top = float(np.max(inputs))
    size = inputs.shape[1]
    return inputs, labels, preprocess.Preprocessing("scale", np.zeros(size), np.ones(size) / top)


def features(size, width, classes):
    """Like the last layer of a network: a falling spectrum, classes that overlap."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, classes, size)
    spectrum = (np.arange(1, width + 1) ** -0.5).astype(np.float32)
    centers = generator.normal(size=(classes, width)).astype(np.float32)
    inputs = generator.normal(size=(size, width)).astype(np.float32) + 0.5 * centers[labels]
    identity = preprocess.Preprocessing("none", np.zeros(width), np.ones(width))
    return inputs * spectrum, labels, identity


def jaxlin_curve(inputs, labels, seen, strength, tolerance):
    """(seconds, objective, lower bound) as the fit goes on; the seconds of compilation apart."""

    def fit():
        start, curve = time.perf_counter(), []
        solution = minimize(
            inputs,
            labels,
            strength=strength,
            tolerance=tolerance,
            preprocessing=seen,
            callback=lambda _, value, bound: curve.append(
                (time.perf_counter() - start, value, bound)
            ),
        )
        curve.append((time.perf_counter() - start, solution.objective, solution.lower_bound))
        return curve, solution

    first, _ = fit()
    again, solution = fit()
    return again, solution, max(first[-1][0] - again[-1][0], 0.0)


def objective_of(rows, labels, weights, bias, strength):
    """In float64, in blocks."""
    total = 0.0
    for start in range(0, len(rows), 10_000):
        part = slice(start, start + 10_000)
        scores = rows[part].astype(np.float64) @ weights.T + bias
        own = scores[np.arange(len(scores)), labels[part]]
        total += (logsumexp(scores, axis=1) - own).sum()
    return total / len(rows) + strength * float((np.asarray(weights, np.float64) ** 2).sum())


def sklearn_curve(solver, rows, labels, strength, seconds):
    from sklearn.linear_model import LogisticRegression

    curve, limit = [], 5
    while True:
        model = LogisticRegression(
            C=1 / (2 * len(rows) * strength), solver=solver, max_iter=limit, tol=1e-9
        )
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(rows, labels)
        spent = time.perf_counter() - start
        value = objective_of(rows, labels, model.coef_, model.intercept_, strength)
        curve.append((spent, value))
        if 2.2 * spent + sum(t for t, _ in curve) > seconds or model.n_iter_.max() < limit:
            return curve
        limit *= 2


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


def optax_curve(rows, labels, strength, seconds):
    import jax
    import jax.numpy as jnp
    import optax

    inputs, classes = jnp.asarray(rows), jnp.asarray(labels)
    count = int(labels.max()) + 1

    def objective(params):
        scores = inputs @ params[0].T + params[1][None, :]
        losses = optax.softmax_cross_entropy_with_integer_labels(scores, classes)
        return losses.mean() + strength * (params[0] ** 2).sum()

    descent = optax.lbfgs(memory_size=30)
    look = optax.value_and_grad_from_state(objective)

    @jax.jit
    def step(params, state):
        value, gradient = look(params, state=state)
        updates, state = descent.update(
            gradient, state, params, value=value, grad=gradient, value_fn=objective
        )
        return optax.apply_updates(params, updates), state, value

    params = (jnp.zeros((count, rows.shape[1])), jnp.zeros(count))
    jax.block_until_ready(step(params, descent.init(params)))
    curve, state, start = [], descent.init(params), time.perf_counter()
    while time.perf_counter() - start < seconds:
        spent = time.perf_counter() - start
        params, state, value = step(params, state)
        curve.append((spent, float(value)))
    return curve


def time_to(curve, best, accuracy):
    return next((t for t, value, *_ in curve if value <= best * (1 + accuracy)), None)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits", choices=sorted(STRENGTHS))
    parser.add_argument("--data-dir", default=None)
    parser.add_argument("--strength", type=float, default=None)
    parser.add_argument("--tolerance", type=float, default=1e-6)
    parser.add_argument("--peers", default="lbfgs,newton-cg,saga,torch,optax")
    parser.add_argument("--seconds", type=float, default=120, help="of each peer")
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)

    inputs, labels, seen = load(options.data, options.data_dir)
    strength = STRENGTHS[options.data] if options.strength is None else options.strength
    curve, solution, compiled = jaxlin_curve(inputs, labels, seen, strength, options.tolerance)
    rows = ((inputs.astype(np.float32) - np.float32(seen.shift)) * np.float32(seen.scale)).astype(
        np.float32
    )
    curves = {"jaxlin": curve}
    for peer in filter(None, options.peers.split(",")):
        run = {"torch": torch_curve, "optax": optax_curve}.get(peer)
        if run is None:
            found = sklearn_curve(peer, rows, labels, strength, options.seconds)
            curves[f"scikit-learn {peer}"] = found
        else:
            curves[f"{peer} lbfgs"] = run(rows, labels, strength, options.seconds)
    best = min(value for found in curves.values() for _, value, *_ in found)
    best = max(best, solution.lower_bound)
    table = {
        name: {f"{a:.0e}": time_to(found, best, a) for a in ACCURACIES}
        for name, found in curves.items()
    }
    table["jaxlin, certified"] = {
        f"{a:.0e}": next((t for t, value, bound in curve if value - bound <= a * value), None)
        for a in ACCURACIES
    }
    record = dict(
        data=options.data,
        strength=strength,
        best=best,
        lower_bound=solution.lower_bound,
        evaluations=solution.evaluations,
        status=describe(solution.status),
        compile_seconds=compiled,
        seconds_to=table,
        curves=curves,
    )
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / f"{options.data}.json").write_text(json.dumps(record, indent=1))
        pictures.save_time_to_accuracy(curves, best, options.out / f"{options.data}.png")
    if options.json:
        print(json.dumps({key: value for key, value in record.items() if key != "curves"}))
        return
    bracket = f"[{solution.lower_bound:.8g}, {best:.8g}]"
    print(f"{options.data}, strength {strength:g}: optimum in {bracket}")
    print(f"compilation {compiled:.1f} s, apart; seconds to a relative distance of")
    print(f"{'':24}" + "".join(f"{a:>9.0e}" for a in ACCURACIES))
    for name, times in table.items():
        cells = "".join(f"{'-' if t is None else format(t, '.2f'):>9}" for t in times.values())
        print(f"{name:24}{cells}")


if __name__ == "__main__":
    main()
