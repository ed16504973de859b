"""How long does a full-batch fit take to come within 1e-2, 1e-4, 1e-6 of the optimum?

The same objective, mean softmax loss + strength * |W|^2 with a free bias, for all contenders in
one run: jaxlin on the raw bytes; the others on float32 pixels that are preprocessed before their
clock starts. scikit-learn's lbfgs and newton-cg are overheard: every value that their loss returns
is noted with its time, in one run. Contenders that tell nothing on the way (saga, snapml) are run
again for each of a ladder of limits. jaxlin is overheard, too, and then run again with somebody
watching, for whom it proves bounds on the way: these say how close it is without knowing the
optimum. The time of one evaluation, value and gradient, and of the two matrix products alone, says
how near a pass is to the machine's limit.

    python experiments/benchmarks/full_batch.py --data fashion-mnist --out results/full_batch
"""

import argparse
import contextlib
import json
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
from scipy.special import logsumexp

from jaxlin import preprocess
from jaxlin.plots import solvers as pictures
from jaxlin.solvers import describe, minimize

ACCURACIES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
REPEATS = 3
STRENGTHS = {
    "fashion-mnist": 5e-5,
    "cifar10": 5e-4,
    "digits": 1e-4,
    "features": 1e-4,
    "features-uneven": 1e-5,
}


def load(name, data_dir):
    """Raw inputs, labels and the map that all contenders see them through."""
    if name in ("features", "features-uneven"):
        return features(200_000, 768, 100, uneven=name == "features-uneven")
    from jaxlin.data import load_splits

    data, _ = load_splits(name, data_dir=data_dir)
    inputs, labels = data.inputs.reshape(len(data.labels), -1), np.asarray(data.labels)
    if name == "cifar10":
        return inputs, labels, preprocess.fit(inputs, "standardize")
    top = float(np.max(inputs))
    size = inputs.shape[1]
    return inputs, labels, preprocess.Preprocessing("scale", np.zeros(size), np.ones(size) / top)


def features(size, width, classes, *, uneven=False):
    """Like the last layer of a network: a falling spectrum, classes that overlap.

    With `uneven` also a mean, and one feature in a hundred that is ten times as large, as vision
    transformers have them (Sun, Chen, Kolter and Liu, 2024, arXiv:2402.17762).
    """
    generator = np.random.default_rng(0)
    labels = generator.integers(0, classes, size)
    spectrum = (np.arange(1, width + 1) ** -0.5).astype(np.float32)
    centers = generator.normal(size=(classes, width)).astype(np.float32)
    inputs = generator.normal(size=(size, width)).astype(np.float32) + 0.5 * centers[labels]
    identity = preprocess.Preprocessing("none", np.zeros(width), np.ones(width))
    if uneven:
        inputs += np.abs(generator.normal(size=width)).astype(np.float32)
        spectrum[generator.permutation(width)[: width // 100]] *= 10
    return inputs * spectrum, labels, identity


def jaxlin_curves(inputs, labels, seen, strength, tolerance):
    """(seconds, objective) of every evaluation, overheard like scikit-learn's, in a fit that only
    proves its end; (seconds, objective, lower bound) of a fit that is watched, and so proves bounds
    on the way; the solution; the seconds of compilation apart. Of several warm fits the fastest."""
    from jaxlin.solvers import smooth

    heard, start, evaluate = [], None, smooth._mean_losses

    def fit(callback=None):
        nonlocal start
        start = time.perf_counter()
        solution = minimize(
            inputs,
            labels,
            strength=strength,
            tolerance=tolerance,
            preprocessing=seen,
            callback=callback,
        )
        return solution, time.perf_counter() - start

    def overhear(asked):
        answers = evaluate(asked)
        (point,), ((value, *_),) = asked, answers
        value += strength * float((np.asarray(point.weights, np.float64) ** 2).sum())
        heard.append((time.perf_counter() - start, value))
        return answers

    def overheard():
        heard.clear()
        solution, spent = fit()
        return [*heard, (spent, solution.objective)], solution

    def watched():
        curve = []
        solution, spent = fit(lambda _, *now: curve.append((time.perf_counter() - start, *now)))
        return [*curve, (spent, solution.objective, solution.lower_bound)], solution

    _, first = fit()
    smooth._mean_losses = overhear
    try:
        silent, solution = min((overheard() for _ in range(REPEATS)), key=lambda f: f[0][-1][0])
    finally:
        smooth._mean_losses = evaluate
    proved, _ = min((watched() for _ in range(REPEATS)), key=lambda f: f[0][-1][0])
    return silent, proved, solution, max(first - silent[-1][0], 0.0)


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


def one_evaluation(inputs, labels, seen, rows, strength):
    """Least seconds of value and gradient from the raw data, and of its two products in float32."""
    import jax
    import jax.numpy as jnp

    from jaxlin.solvers.problem import open_problem
    from jaxlin.solvers.smooth import mean_loss

    problem = open_problem(
        inputs,
        labels,
        loss="softmax",
        strength=strength,
        l1_strength=0.0,
        tolerance=1e-4,
        max_iterations=1,
        margin=1.0,
        sample_weight=None,
        fit_intercept=True,
        classes=None,
        dtype=None,
        preprocessing=seen,
    )[0]
    weights = np.zeros((problem.classes, problem.features))
    bias = np.zeros(problem.classes)
    x, w = jnp.asarray(rows), jnp.zeros((problem.classes, rows.shape[1]), jnp.float32)
    products = jax.jit(lambda x, w: (w @ x.T) @ x)

    def least(call):
        times = []
        for _ in range(7):
            start = time.perf_counter()
            jax.block_until_ready(call())
            times.append(time.perf_counter() - start)
        return min(times[1:])

    return (
        least(lambda: mean_loss(problem, weights, bias, problem.dtype)[0]),
        least(lambda: products(x, w)),
    )


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


def time_to(curve, best, accuracy):
    return next((t for t, value, *_ in curve if value <= best * (1 + accuracy)), None)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits", choices=sorted(STRENGTHS))
    parser.add_argument("--data-dir", default=None)
    parser.add_argument("--strength", type=float, default=None)
    parser.add_argument("--tolerance", type=float, default=1e-6)
    parser.add_argument(
        "--peers", default="lbfgs,newton-cg,saga,torch,optax", help=", ".join(PEERS)
    )
    parser.add_argument("--seconds", type=float, default=120, help="of each peer")
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)

    inputs, labels, seen = load(options.data, options.data_dir)
    strength = STRENGTHS[options.data] if options.strength is None else options.strength
    heard, watched, solution, compiled = jaxlin_curves(
        inputs, labels, seen, strength, options.tolerance
    )
    rows = ((inputs.astype(np.float32) - np.float32(seen.shift)) * np.float32(seen.scale)).astype(
        np.float32
    )
    curves = {"jaxlin": heard, "jaxlin, certified": watched}
    evaluation, products = one_evaluation(inputs, labels, seen, rows, strength)
    for peer in filter(None, options.peers.split(",")):
        title, run = PEERS[peer]
        curves[title] = run(rows, labels, strength, options.seconds)
    best = min(value for found in curves.values() for _, value, *_ in found)
    best = max(best, solution.lower_bound)
    table = {
        name: {f"{a:.0e}": time_to(found, best, a) for a in ACCURACIES}
        for name, found in curves.items()
    }
    table["jaxlin, certified"] = {
        f"{a:.0e}": next((t for t, value, bound in watched if value - bound <= a * value), None)
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
        evaluation_seconds=evaluation,
        products_seconds=products,
        seconds_to=table,
        curves=curves,
    )
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / f"{options.data}.json").write_text(json.dumps(record, indent=1))
        shown = {"jaxlin": watched, **dict(list(curves.items())[2:])}
        pictures.save_time_to_accuracy(shown, best, options.out / f"{options.data}.png")
    if options.json:
        print(json.dumps({key: value for key, value in record.items() if key != "curves"}))
        return
    bracket = f"[{solution.lower_bound:.8g}, {best:.8g}]"
    print(f"{options.data}, strength {strength:g}: optimum in {bracket}")
    print(
        f"one evaluation {1e3 * evaluation:.0f} ms, "
        f"its two products alone in float32 {1e3 * products:.0f} ms"
    )
    print(f"compilation {compiled:.1f} s, apart; seconds to a relative distance of")
    print(f"{'':24}" + "".join(f"{a:>9.0e}" for a in ACCURACIES))
    for name, times in table.items():
        cells = "".join(f"{'-' if t is None else format(t, '.2f'):>9}" for t in times.values())
        print(f"{name:24}{cells}")


if __name__ == "__main__":
    main()
