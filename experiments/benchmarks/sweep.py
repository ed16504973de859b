"""What do 32 heads cost beside one, and the 96 certified fits of CLIP's protocol beside 96 others?

`--part heads`: one epoch of softmax by gradient descent on 50,000 x 3,072 uint8 pixels, batches of
256, for one head and for 32 that differ in step size, against PyTorch: 32 trainings one after
another, a loop over 32 `nn.Linear` heads inside one training, and the heads stacked by hand into
one product. Limits: the two matrix products alone.

`--part clip`: 96 strengths, each certified to a relative gap of 1e-3, on 50,000 x 768 features
with a falling spectrum and 100 classes, against scikit-learn's L-BFGS with the protocol's 1,000
iterations, measured for each of `--peer-tol` on `--fits` strengths, as far apart as all 96 are, and
extrapolated. Beside each: how far above our objective scikit-learn stopped.

    python experiments/benchmarks/sweep.py --part heads --data cifar10 --out results/sweep
"""

import argparse
import json
import os
import sys
import time
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from full_batch import features
from full_batch_peers import objective_of
from minibatch import least, load
from report import save_table

from jaxlin import preprocess, sweep, train
from jaxlin.core import Batch
from jaxlin.sweep.bank import bank_trainer, start
from jaxlin.sweep.presets import PRESETS, strengths_for

BATCH, CLASSES, HEADS = 256, 10, 32
STEP_SIZES = np.logspace(-5, -2, HEADS)


def jaxlin_bank(inputs, labels, step_sizes, optimizer="sgd"):
    """A function that trains one epoch of a bank, and the seconds its compilation took."""
    statistics = preprocess.fit(inputs, "standardize")
    heads = sweep.grid([1e-4], step_sizes=list(step_sizes))
    descent = sweep.Descent(optimizer, "constant", steps=10**6)
    trainer = bank_trainer(heads, descent, statistics)
    state = trainer.init(start(heads, CLASSES, inputs.shape[1]))
    data = Batch(jnp.asarray(inputs), jnp.asarray(labels))
    compiled = train.compile_steps(trainer, state, data, batch_size=BATCH)

    def epoch():
        steps = -(-len(labels) // BATCH)
        for new, _ in train.chunks(
            trainer, state, data, key=jax.random.key(0), steps=steps, batch_size=BATCH
        ):
            jax.block_until_ready(new)

    return epoch, compiled


def two_products(inputs, heads):
    """The two matrix products of an epoch alone, on one batch that stays in the cache."""
    generator = np.random.default_rng(0)
    count = -(-len(inputs) // BATCH)
    batch, weights, residuals = (
        jnp.asarray(generator.normal(size=shape), jnp.float32)
        for shape in (
            (BATCH, inputs.shape[1]),
            (heads * CLASSES, inputs.shape[1]),
            (heads * CLASSES, BATCH),
        )
    )

    @jax.jit
    def products(weights, residuals, batch):
        def body(_, seen):  # an entry changes, so that no product can be hoisted out of the loop
            scores = weights @ batch.at[0, 0].add(seen).T
            gradient = residuals.at[0, 0].add(scores[0, 0]) @ batch
            return 1e-9 * gradient[0, 0]

        return jax.lax.fori_loop(0, count, body, jnp.float32(0))

    return lambda: jax.block_until_ready(products(weights, residuals, batch))


def torch_epochs(inputs, labels):
    """PyTorch's epochs by name; pixels standardized in float32 before the clock starts."""
    import torch

    pixels = (torch.from_numpy(inputs).float() - 120) / 64
    classes = torch.from_numpy(labels).long()
    cross_entropy = torch.nn.functional.cross_entropy

    def batches():
        order = torch.randperm(len(classes))
        for first in range(0, len(classes), BATCH):
            rows = order[first : first + BATCH]
            yield pixels[rows], classes[rows]

    def single():
        model = torch.nn.Linear(inputs.shape[1], CLASSES)
        optimizer = torch.optim.SGD(model.parameters(), 1e-3)
        for batch, own in batches():
            optimizer.zero_grad()
            cross_entropy(model(batch), own).backward()
            optimizer.step()

    def loop():
        models = [torch.nn.Linear(inputs.shape[1], CLASSES) for _ in range(HEADS)]
        optimizer = torch.optim.SGD(
            [
                {"params": model.parameters(), "lr": float(size)}
                for model, size in zip(models, STEP_SIZES, strict=True)
            ]
        )
        for batch, own in batches():
            optimizer.zero_grad()
            sum(cross_entropy(model(batch), own) for model in models).backward()
            optimizer.step()

    def stacked():
        model = torch.nn.Linear(inputs.shape[1], HEADS * CLASSES)
        sizes = torch.from_numpy(np.repeat(STEP_SIZES, CLASSES)).float()
        for batch, own in batches():
            model.zero_grad()
            scores = model(batch).view(len(own) * HEADS, CLASSES)
            (cross_entropy(scores, own.repeat_interleave(HEADS)) * HEADS).backward()
            with torch.no_grad():
                model.weight -= sizes[:, None] * model.weight.grad
                model.bias -= sizes * model.bias.grad

    return {
        "PyTorch, one head": single,
        "PyTorch, a loop over 32 heads in one training": loop,
        "PyTorch, 32 heads stacked by hand": stacked,
    }


def heads_part(args):
    """Seconds of one epoch for every contender."""
    inputs, labels = load(args.data, args.data_dir, args.limit)
    one, compiled_one = jaxlin_bank(inputs, labels, STEP_SIZES[:1])
    bank, compiled = jaxlin_bank(inputs, labels, STEP_SIZES)
    adam, _ = jaxlin_bank(inputs, labels, STEP_SIZES, "adam")
    contenders = {
        "jaxlin, one head": one,
        "jaxlin, 32 heads": bank,
        "jaxlin, 32 heads, Adam": adam,
        "two matrix products alone, one head": two_products(inputs, 1),
        "two matrix products alone, 32 heads": two_products(inputs, HEADS),
    }
    try:
        contenders |= torch_epochs(inputs, labels)
    except ImportError:
        print("PyTorch is not installed: its rows are left out.", file=sys.stderr)
    seconds = {name: least(epoch, args.repeats) for name, epoch in contenders.items()}
    if "PyTorch, one head" in seconds:
        seconds["PyTorch, 32 trainings one after another (32 x one)"] = (
            HEADS * seconds["PyTorch, one head"]
        )
    return {
        "data": args.data,
        "shape": list(inputs.shape),
        "compile_seconds": {"one head": compiled_one, "32 heads": compiled},
        "seconds": seconds,
        "times_32_heads": {n: s / seconds["jaxlin, 32 heads"] for n, s in seconds.items()},
        "32_heads_cost_times_one": seconds["jaxlin, 32 heads"] / seconds["jaxlin, one head"],
        "products_share": seconds["two matrix products alone, 32 heads"]
        / seconds["jaxlin, 32 heads"],
        "products_cost_times_one": seconds["two matrix products alone, 32 heads"]
        / seconds["jaxlin, one head"],
    }


def clip_part(args):
    """The 96 certified fits, and scikit-learn on `args.fits` of them."""
    inputs, labels, seen = features(args.limit or 50_000, 768, 100)
    labels = labels.astype(np.int32)
    strengths = strengths_for(PRESETS["clip"], len(labels))
    heads = sweep.grid(strengths)
    options = dict(classes=100, statistics=seen, tolerance=1e-3)
    start_time = time.perf_counter()
    sweep.solve(heads[40:42], Batch(inputs, labels), **options)  # compiles
    first = time.perf_counter() - start_time
    start_time = time.perf_counter()
    fitted = sweep.solve(heads, Batch(inputs, labels), **options)
    ours = time.perf_counter() - start_time
    positions = np.linspace(0, 95, args.fits + 2).round().astype(int)[1:-1].tolist()
    peers = {
        tol: scikit_fits(inputs, labels, [fitted[p] for p in positions], tol)
        for tol in args.peer_tol
    }
    theirs = {
        tol: 96 * float(np.mean([fit["seconds"] for fit in fits])) for tol, fits in peers.items()
    }
    return {
        "shape": list(inputs.shape),
        "first_call_of_two_seconds": first,
        "jaxlin_seconds": ours,
        "jaxlin_passes": sum(found.epochs for found in fitted),
        "jaxlin_fits_without_a_pass": sum(found.epochs == 0 for found in fitted),
        "jaxlin_worst_gap": max(found.relative_gap for found in fitted),
        "all_certified": all(found.status == "done" for found in fitted),
        "scikit_learn_fits": peers,
        "scikit_learn_seconds_extrapolated": theirs,
        "ratios": {tol: seconds / ours for tol, seconds in theirs.items()},
    }


def scikit_fits(inputs, labels, ours, tol):
    """scikit-learn's fits at the strengths of some of ours."""
    from sklearn.linear_model import LogisticRegression

    found = []
    for one in ours:
        strength = one.head.strength
        model = LogisticRegression(C=1 / (2 * len(labels) * strength), max_iter=1000, tol=tol)
        start_time = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(inputs, labels)
        spent = time.perf_counter() - start_time
        value = objective_of(inputs, labels, model.coef_, model.intercept_, strength)
        found.append(
            {
                "strength": strength,
                "seconds": spent,
                "iterations": int(model.n_iter_.max()),
                "objective_above_ours": float(value / one.objective - 1),
            }
        )
        print(f"  scikit-learn, strength {strength:.1e}: {spent:.1f} s", file=sys.stderr)
    return found


def save_heads(folder, result):
    rows, width = result["shape"]
    save_table(
        folder,
        "sweep_heads",
        title=f"One epoch of {HEADS} heads: {rows:,} x {width:,} uint8 ({result['data']}), batch "
        f"{BATCH}",
        columns=["contender", "seconds", f"times jaxlin's {HEADS} heads"],
        rows=[
            [name, f"{value:.3g}", f"{result['times_32_heads'][name]:.2g}"]
            for name, value in sorted(result["seconds"].items(), key=lambda item: item[1])
        ],
        notes=[f"{HEADS} heads cost {result['32_heads_cost_times_one']:.1f} times one head."],
        changes="the number of heads and of classes; more cores.",
        measured=result,
    )


def save_clip(folder, result):
    rows, width = result["shape"]
    rows_of_peers, above = [], []
    for tol, fits in result["scikit_learn_fits"].items():
        seconds, ratio = result["scikit_learn_seconds_extrapolated"][tol], result["ratios"][tol]
        peer = f"scikit-learn lbfgs, tol {tol:g} (extrapolated from {len(fits)} strengths)"
        rows_of_peers.append([peer, f"{seconds:.3g}", f"{ratio:.2g}"])
        most = max(fit["objective_above_ours"] for fit in fits)
        above.append(f"{most:.1e} at tol {tol:g}")
    save_table(
        folder,
        "sweep_clip",
        title=f"CLIP's protocol: 96 strengths on {rows:,} x {width} features, 100 classes",
        columns=["contender", "seconds", "times jaxlin"],
        rows=[
            ["**jaxlin, each of the 96 fits certified**", f"{result['jaxlin_seconds']:.3g}", "1"],
            *rows_of_peers,
        ],
        notes=[
            f"The largest proved gap is {result['jaxlin_worst_gap']:.1e}; "
            f"{result['jaxlin_fits_without_a_pass']} of the 96 were interpolated and proved "
            f"without reading a row. scikit-learn stopped above our objective by at most "
            f"{', '.join(above)}."
        ],
        changes="real features; their spectrum; a looser or tighter tolerance of either.",
        measured=result,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=("heads", "clip"), default="heads")
    parser.add_argument("--data", default="random", help="random, cifar10, ... (heads)")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--fits", type=int, default=5, help="scikit-learn fits that are measured")
    parser.add_argument("--peer-tol", type=float, nargs="+", default=[1e-4, 1e-7],
                        help="of scikit-learn's `tol`")  # fmt: skip
    parser.add_argument("--out", type=Path)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    result = {"cores": os.cpu_count()} | (heads_part if args.part == "heads" else clip_part)(args)
    if args.out:
        (save_heads if args.part == "heads" else save_clip)(args.out, result)
    if args.json:
        print(json.dumps(result))
    elif args.part == "heads":
        print(f"one epoch, {result['shape']} uint8, batch {BATCH}, {os.cpu_count()} cores")
        for name, value in sorted(result["seconds"].items(), key=lambda item: item[1]):
            ratio = result["times_32_heads"][name]
            print(f"{name:<52} {value:8.3f} s {ratio:8.2f} x 32 heads of jaxlin")
        print(f"32 heads cost {result['32_heads_cost_times_one']:.1f} times one; the two products "
              f"of 32 heads alone {result['products_cost_times_one']:.1f} times, "
              f"{result['products_share']:.0%} of the bank")  # fmt: skip
    else:
        print(f"96 fits certified to {result['jaxlin_worst_gap']:.1e}: "
              f"{result['jaxlin_seconds']:.1f} s, {result['jaxlin_passes']:g} passes, "
              f"{result['jaxlin_fits_without_a_pass']} fits without any")  # fmt: skip
        for tol, fits in result["scikit_learn_fits"].items():
            for fit in fits:
                print(f"scikit-learn, tol {tol:g}, strength {fit['strength']:.1e}: "
                      f"{fit['seconds']:.1f} s, {fit['iterations']} iterations, "
                      f"{fit['objective_above_ours']:+.1e} of our objective")  # fmt: skip
            total, ratio = result["scikit_learn_seconds_extrapolated"][tol], result["ratios"][tol]
            print(f"96 x their mean: {total:.0f} s, {ratio:.0f} times jaxlin")


if __name__ == "__main__":
    main()
