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
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
import tyro
from gradient_bugs import Case, bugs, nasty
from jax.test_util import check_grads

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
    """Folder for gradient_bug_zoo.json and zoo.md."""
    json: bool = False
    """Print one JSON object on stdout."""


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


def save(folder: Path, result: dict) -> None:
    from benchmarks.report import save_table

    save_table(
        folder,
        "gradient_bug_zoo",
        title=f"{result['wrong']} wrong and {result['right']} right gradients, "
        f"{result['parameters']} parameters ({result['data']})",
        columns=["checker", "bugs found", "false alarms"],
        rows=[
            [f"**{name}**" if name == "jaxlin" else name, *counts.values()]
            for name, counts in result["summary"].items()
        ],
        notes=[
            "Each checker with its defaults, in float64. SciPy returns a bare norm, read here as a "
            "failure above 1e-6 of the gradient's."
        ],
        changes="tolerances chosen by hand for each function, which the peers allow and need.",
        measured=result,
    )


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
        save(options.out, result)
        (options.out / "zoo.md").write_text(markdown(result), encoding="utf-8")
    if options.json:
        print(json.dumps(result))
    return 0 if result["all_ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
