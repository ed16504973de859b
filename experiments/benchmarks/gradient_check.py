"""How long a check of every entry takes, and what the quick mode costs, against other checkers.

The lecture's loop and torch's gradcheck are timed on a sample of their evaluations and
extrapolated (both are loops of equal steps); the extrapolation is marked in the output.

    python experiments/benchmarks/gradient_check.py --data cifar10 --data-dir ~/data --out runs/b
"""

import dataclasses
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from report import save_table

from jaxlin import Batch
from jaxlin.data import load
from jaxlin.gradients import check_gradient, linear_objective
from jaxlin.losses import LOSSES


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Time gradient checks."""

    data: str = "cifar10"
    """digits, mnist, fashion-mnist, cifar10; or an .npz, a .npy, a folder of pictures."""
    data_dir: Path | None = None
    """The folder that holds the files of a named data set."""
    limit: int = 500
    """Examples of the comparison."""
    all_rows: bool = True
    """Check the whole set, too."""
    trials: int = 20
    """Random wrong entries that the quick mode has to name."""
    loop: tuple[int, int] | None = None
    """(Used by the script itself: threads and evaluations of a loop in a fresh process.)"""
    out: Path | None = None
    """Folder for gradient_check.json."""
    json: bool = False
    """Print one JSON object on stdout."""


def rows_of(options, count):
    """The first rows, centred, with the feature that is always one."""
    data = load(options.data, data_dir=options.data_dir)
    inputs = np.asarray(data.inputs[:count], np.float32)
    inputs -= np.asarray(data.inputs, np.float32).mean(axis=0)
    ones = np.ones((len(inputs), 1), np.float32)
    return np.concatenate([inputs, ones], axis=1), data.labels[:count], len(data.class_names)


def lecture_loop(inputs, labels, weights, evaluations: int) -> float:
    """Seconds for some evaluations of the lecture's loop: float64, entry by entry, in place."""
    x, w = inputs.astype(float), weights.copy()
    rows = np.arange(len(labels))

    def loss(w):
        scores = x @ w.T
        scores -= scores.max(axis=1, keepdims=True)
        return (np.log(np.exp(scores).sum(axis=1)) - scores[rows, labels]).mean()

    base, flat = loss(w), w.ravel()
    start = time.perf_counter()
    for i in range(evaluations):
        old = flat[i]
        flat[i] = old + 1e-5
        (loss(w) - base) / 1e-5
        flat[i] = old
    return time.perf_counter() - start


def loop_in_a_process(options, threads: int, evaluations: int) -> float:
    """The loop with its own number of BLAS threads, which a process fixes when it starts."""
    import os

    environment = os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, __file__, "--data", options.data, "--limit", str(options.limit)]
    command += ["--loop", str(threads), str(evaluations)]
    if options.data_dir is not None:
        command += ["--data-dir", str(options.data_dir)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return float(done.stdout)


def torch_gradcheck(inputs, labels, weights, entries: int) -> float | None:
    """Seconds of torch's gradcheck on some entries of the weights, double precision."""
    try:
        import torch
    except ImportError:
        return None
    x, y = torch.tensor(inputs.astype(float)), torch.tensor(labels.astype(int))
    w = torch.tensor(weights)
    part = w.ravel()[:entries].clone().requires_grad_(True)

    def loss(part):
        whole = torch.cat([part, w.ravel()[entries:]]).reshape(w.shape)
        return torch.nn.functional.cross_entropy(x @ whole.T, y)

    loss(part)
    start = time.perf_counter()
    assert torch.autograd.gradcheck(loss, (part,))
    return time.perf_counter() - start


def best(f, repeat=3):
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        result = f()
        times.append(time.perf_counter() - start)
    return min(times), result


def _value(objective, w):
    return objective(w)


def quick_mode(inputs, labels, classes, weights, trials, say) -> dict:
    """Evaluations of a pass, and those until a wrong entry is named, on the generic path."""
    objective = linear_objective(LOSSES["softmax"], Batch(inputs, labels))
    with jax.enable_x64(True):
        right = np.asarray(jax.jit(jax.grad(lambda w: objective(w)))(jnp.asarray(weights)))
    closure = jax.tree_util.Partial(_value, objective)  # the same function, structure hidden
    seconds, passed = best(lambda: check_gradient(closure, weights, right), 1)
    rng = np.random.default_rng(0)
    typical = np.flatnonzero(np.abs(right) > np.quantile(np.abs(right), 0.05))
    counts, named, kinds = [], 0, ("flipped", "zero", "doubled", "neighbour")
    for trial in range(trials):
        index = np.unravel_index(rng.choice(typical), right.shape)
        wrong = right.copy()
        kind = kinds[trial % len(kinds)]
        neighbour = right[index[0], index[1] - 1]
        value = {"flipped": -right[index], "zero": 0, "doubled": 2 * right[index]}
        wrong[index] = value.get(kind, neighbour)
        report = check_gradient(closure, weights, wrong, key=trial)
        hit = report.verdict == "fail" and [e.index for e in report.entries] == [
            tuple(map(int, index))
        ]
        named += hit
        counts.append(report.evaluations)
        say(f"  {kind} {index}: {report.verdict}, {report.evaluations} evaluations, named {hit}")
    return {
        "verdict": passed.verdict,
        "evaluations": passed.evaluations,
        "seconds": seconds,
        "miss_probability": passed.miss_probability,
        "smallest_error": max(passed.smallest_error.values()),
        "wrong_entries": trials,
        "named": named,
        "median_evaluations_to_name": float(np.median(counts)) if counts else None,
        "most_evaluations_to_name": max(counts, default=None),
    }


def run(options: Options) -> dict:
    def say(text):
        print(text, file=sys.stderr, flush=True)

    inputs, labels, classes = rows_of(options, options.limit)
    weights = np.random.default_rng(0).random((classes, inputs.shape[1])) * 1e-3
    n = weights.size
    result = {"data": options.data, "examples": len(labels), "parameters": n}
    objective = linear_objective(LOSSES["softmax"], Batch(inputs, labels))
    check_gradient(objective, weights, mode="full")  # compile
    ours, report = best(lambda: check_gradient(objective, weights, mode="full"))
    result["full"] = {
        "seconds": ours,
        "verdict": report.verdict,
        "evaluations": report.evaluations,
        "max_relative_error": report.max_relative_error,
    }
    say(f"every entry: {report.verdict} in {ours:.3f} s ({report.evaluations:,} evaluations)")
    sample = 1000
    loops = {t: loop_in_a_process(options, t, sample) * (n + 1) / sample for t in (1, 2)}
    result["lecture_loop_seconds_extrapolated"] = loops
    result["times_faster_than_the_loop"] = min(loops.values()) / ours
    say(
        f"lecture's loop, extrapolated from {sample} evaluations: "
        + ", ".join(f"{t} threads {s:.0f} s" for t, s in loops.items())
        + f"; ratio {min(loops.values()) / ours:.0f}"
    )
    few = 1000
    spent = torch_gradcheck(inputs, labels, weights, few)
    if spent is not None:
        result["torch_gradcheck_seconds_extrapolated"] = spent * n / few
        result["times_faster_than_torch"] = spent * n / few / ours
        say(
            f"torch gradcheck, extrapolated: {spent * n / few:.0f} s; "
            f"ratio {spent * n / few / ours:.0f}"
        )
    result["quick"] = quick_mode(inputs, labels, classes, weights, options.trials, say)
    say(f"quick mode: {result['quick']}")
    if options.all_rows:
        inputs, labels, _ = rows_of(options, None)
        objective = linear_objective(LOSSES["softmax"], Batch(inputs, labels))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        seconds, report = best(lambda: check_gradient(objective, weights, mode="full"), 1)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        result["all_rows"] = {
            "examples": len(labels),
            "seconds": seconds,
            "verdict": report.verdict,
            "added_peak_memory_mib": (after - before) / 1024,
        }
        say(f"all {len(labels):,} rows: {result['all_rows']}")
    return result


def save(folder: Path, result: dict) -> None:
    full, quick, rows = result["full"], result["quick"], []
    loop = min(result["lecture_loop_seconds_extrapolated"].values())
    rows.append(["every entry, both sides, two steps", f"{full['seconds']:.2g} s", "1"])
    times = f"{result['times_faster_than_the_loop']:.0f}"
    rows.append(["the lecture's NumPy loop (extrapolated)", f"{loop:.0f} s", times])
    if "torch_gradcheck_seconds_extrapolated" in result:
        spent = result["torch_gradcheck_seconds_extrapolated"]
        times = f"{result['times_faster_than_torch']:.0f}"
        rows.append(["`torch.autograd.gradcheck` (extrapolated)", f"{spent:.0f} s", times])
    if "all_rows" in result:
        whole = result["all_rows"]
        memory = f"{whole['added_peak_memory_mib']:.0f} MiB above the start"
        name = f"every entry, all {whole['examples']:,} pictures"
        rows.append([name, f"{whole['seconds']:.2g} s, {memory}", ""])
    missed = f"one wrong entry missed with probability {quick['miss_probability']:.0e}"
    rows.append(["quick mode, a pass", f"{quick['evaluations']} evaluations, {missed}", ""])
    found = f"{quick['named']} of {quick['wrong_entries']} named"
    most = f"in at most {quick['most_evaluations_to_name']} evaluations"
    rows.append(["quick mode, one wrong entry", f"{found}, {most}", ""])
    save_table(
        folder,
        "gradient_check",
        title=f"Checking a gradient of {result['parameters']:,} entries: softmax, "
        f"{result['data']}, {result['examples']} pictures",
        columns=["what", "measured", "times jaxlin"],
        rows=rows,
        notes=[
            f"jaxlin's check of every entry takes {full['evaluations']:,} evaluations. The loop is "
            "the best of 1 and 2 threads; it and torch are extrapolated from 1,000 evaluations."
        ],
        changes="functions that are not linear in their scores: there every evaluation costs a "
        "whole call, and only the quick mode stays cheap.",
        measured=result,
    )


def main() -> int:
    options = tyro.cli(Options, config=(tyro.conf.FlagCreatePairsOff,))
    if options.loop is not None:
        inputs, labels, classes = rows_of(options, options.limit)
        weights = np.random.default_rng(0).random((classes, inputs.shape[1])) * 1e-3
        lecture_loop(inputs, labels, weights, 20)
        print(lecture_loop(inputs, labels, weights, options.loop[1]))
        return 0
    result = run(options)
    if options.out is not None:
        save(options.out, result)
    if options.json:
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
