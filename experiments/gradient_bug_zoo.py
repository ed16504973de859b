"""Which gradient checks notice which wrong gradients, and which cry wolf at right ones?

Every case is a function, a point and a claimed gradient, on a few rows of a data set. The same
case goes to jaxlin (quick mode), `jax.test_util.check_grads`, torch's `gradcheck` (if torch is
installed) and `scipy.optimize.check_grad`, each with its defaults, in float64. SciPy returns a
norm and no verdict: it is read as "fail" above 1e-6 of the gradient's norm, or above 1e-6.

    python experiments/gradient_bug_zoo.py --data digits --out runs/zoo
"""

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
import tyro
from jax.test_util import check_grads

from jaxlin import losses
from jaxlin.data import load
from jaxlin.gradients import check_gradient


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Compare gradient checkers on wrong and on right gradients."""

    data: str = "digits"
    """digits, mnist, fashion-mnist, cifar10; or an .npz, a .npy, a folder of pictures."""
    data_dir: Path | None = None
    """The folder that holds the files of a named data set."""
    limit: int = 40
    """Examples."""
    peers: bool = True
    """Ask the other checkers, too."""
    out: Path | None = None
    """Folder for zoo.json and zoo.md."""
    json: bool = False
    """Print one JSON object on stdout."""


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


def ask_jaxlin(case: Case):
    report = check_gradient(case.f, case.x, case.claim)
    named = [e.index for e in report.entries]
    right = case.wrong is None or (bool(named) and all(case.wrong[index] for index in named))
    return report.verdict, report.evaluations, right, named


def ask_jax(case: Case):
    calls = 0

    @jax.custom_vjp
    def f(x):
        return case.f(x)

    def forward(x):
        return case.f(x), None

    f.defvjp(forward, lambda _, t: (t * jnp.asarray(case.claim, jnp.float64),))

    def counted(x):
        nonlocal calls
        calls += 1
        return f(x)

    with jax.enable_x64(True):
        try:
            check_grads(counted, (jnp.asarray(case.x),), order=1, modes=["rev"])
            return "pass", calls
        except Exception:
            return "fail", calls


def ask_torch(case: Case):
    try:
        import torch
    except ImportError:
        return "-", 0
    calls = 0
    value = _value(case)
    claim = torch.tensor(np.asarray(case.claim, np.float64))

    class F(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            nonlocal calls
            calls += 1
            return torch.tensor(value(x.detach().numpy()), dtype=torch.float64)

        @staticmethod
        def backward(context, t):
            return t * claim

    x = torch.tensor(np.asarray(case.x, np.float64), requires_grad=True)
    passed = torch.autograd.gradcheck(F.apply, (x,), raise_exception=False)
    return "pass" if passed else "fail", calls


def ask_scipy(case: Case):
    calls = 0
    value = _value(case)

    def f(flat):
        nonlocal calls
        calls += 1
        return value(flat.reshape(case.x.shape))

    claim = np.asarray(case.claim, np.float64).ravel()
    error = scipy.optimize.check_grad(f, lambda _: claim, np.asarray(case.x, float).ravel())
    fine = error <= 1e-6 * max(1.0, float(np.linalg.norm(claim)))
    return "pass" if fine else "fail", calls


def _value(case):
    compiled = jax.jit(case.f)

    def value(x):
        with jax.enable_x64(True):
            return float(compiled(np.asarray(x, np.float64)))

    return value


PEERS = {
    "jax.test_util.check_grads": ask_jax,
    "torch gradcheck": ask_torch,
    "scipy check_grad": ask_scipy,
}


def run(options: Options) -> dict:
    """All cases, all checkers."""
    data = load(options.data, data_dir=options.data_dir)
    rows = np.random.default_rng(0).permutation(len(data.labels))[: options.limit]
    inputs, labels = np.asarray(data.inputs[rows], float), data.labels[rows]
    classes = len(data.class_names)
    table = []
    for case in bugs(inputs, labels, classes) + nasty(inputs, labels, classes):
        verdict, evaluations, named_right, named = ask_jaxlin(case)
        good = named_right and (verdict == "fail") == (case.wrong is not None)
        row = {
            "case": case.name,
            "truth": "right" if case.wrong is None else "wrong",
            "jaxlin": verdict,
            "ok": bool(good and verdict != "inconclusive"),
            "evaluations": {"jaxlin": evaluations},
            "named": [list(index) for index in named[:3]] if case.wrong is not None else [],
        }
        if options.peers:
            for name, ask in PEERS.items():
                row[name], row["evaluations"][name] = ask(case)
        table.append(row)
        print(_line(row, options.peers), file=sys.stderr, flush=True)
    columns = ["jaxlin", *(PEERS if options.peers else [])]
    wrong = [row for row in table if row["truth"] == "wrong"]
    right = [row for row in table if row["truth"] == "right"]
    summary = {
        name: {
            "bugs found": sum(row[name] == "fail" for row in wrong),
            "false alarms": sum(row[name] in ("fail", "inconclusive") for row in right),
        }
        for name in columns
        if any(row[name] != "-" for row in table)  # "-": it is not installed
    }
    return {
        "data": data.name,
        "parameters": classes * (inputs.shape[1] + 1),
        "examples": len(labels),
        "wrong": len(wrong),
        "right": len(right),
        "all_ok": all(row["ok"] for row in table),
        "summary": summary,
        "cases": table,
    }


def _line(row, peers) -> str:
    answers = [row["jaxlin"] + ("" if row["ok"] else " (!)")]
    answers += [row[name] for name in PEERS] if peers else []
    counts = "/".join(str(c) for c in row["evaluations"].values())
    return f"{row['truth']:<6} {row['case']:<40} " + "  ".join(f"{a:<12}" for a in answers) + counts


def markdown(result: dict) -> str:
    """The table for people: one row a case, verdict and evaluations of every checker."""
    names = list(result["summary"])
    lines = ["| case | truth | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
    for row in result["cases"]:
        cells = [f"{row[name]} ({row['evaluations'][name]:,})" for name in names]
        lines.append(f"| {row['case']} | {row['truth']} | " + " | ".join(cells) + " |")
    for what, total in (("bugs found", result["wrong"]), ("false alarms", result["right"])):
        cells = [f"{result['summary'][name][what]} of {total}" for name in names]
        lines.append(f"| **{what}** | | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    options = tyro.cli(Options, config=(tyro.conf.FlagCreatePairsOff,))
    result = run(options)
    for name, counts in result["summary"].items():
        print(
            f"{name:<28} found {counts['bugs found']} of {result['wrong']} bugs, "
            f"{counts['false alarms']} false alarms on {result['right']} right gradients",
            file=sys.stderr,
        )
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "zoo.json").write_text(json.dumps(result, indent=2) + "\n")
        (options.out / "zoo.md").write_text(markdown(result))
    if options.json:
        print(json.dumps(result))
    return 0 if result["all_ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
