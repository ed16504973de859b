"""What do more devices cost? Weak scaling on 1, 2, 4 and 8 CPU devices, and what a step exchanges.

Every device gets the same work: rows and batch grow with the number of devices. All devices are
made of the same cores, so the wall time of 8 is 8 times the work of 1 and nothing here can get
faster; what is shown is the time per row against one device (the price of splitting, gathering and
waiting), and, read off the compiled program, the numbers that one step exchanges.

    python experiments/benchmarks/scaling.py --out results/scaling
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

COUNTS = (1, 2, 4, 8)


def measure(count, rows, features, classes, batch, repeats):
    """One epoch on `count` devices, each with `rows` rows and `batch` of every step's examples."""
    import jax
    import numpy as np
    import optax

    from jaxlin import losses, scores, train
    from jaxlin.core import Batch, LinearParams
    from jaxlin.distributed import sharding
    from jaxlin.objectives import compose

    rng = np.random.default_rng(0)
    total = rows * count
    inputs = rng.normal(size=(total, features)).astype(np.float32)
    labels = rng.integers(0, classes, total).astype(np.int32)
    over = sharding.mesh(count)
    data = sharding.place(Batch(inputs, labels), over)
    descent = train.trainer(
        compose(scores.linear, losses.softmax_cross_entropy), optax.sgd(0.01, momentum=0.9)
    )
    zeros = LinearParams(np.zeros((classes, features), np.float32), np.zeros(classes, np.float32))
    params = sharding.place_params(zeros, over)
    state = sharding.spread(descent.init(params), params)
    size, steps = batch * count, rows // batch
    settings = {"batch_size": size}
    compiled = train.compile_steps(descent, state, data, **settings)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        for new, _ in train.chunks(
            descent, state, data, key=jax.random.key(0), steps=steps, **settings
        ):
            jax.block_until_ready(new)
        seconds.append(time.perf_counter() - start)
    exchanged = sharding.collectives(train.program(descent, state, data, **settings))
    return {
        "devices": count,
        "rows": total,
        "batch": size,
        "rows computed per device and step": sharding.width(size, total, count),
        "seconds": min(seconds),
        "microseconds per row": 1e6 * min(seconds) / total,
        "compile seconds": compiled,
        "exchanged": [[found.kind, found.elements] for found in exchanged],
    }


def table(found, classes, features):
    """The measurements in Markdown."""
    lines = [
        "| devices | rows | batch | rows a device computes a step | s an epoch | us a row | "
        "times one device | numbers exchanged a step |",
        "|" + "---|" * 8,
    ]
    for case in found:
        kinds = {kind for kind, _ in case["exchanged"]}
        numbers = sum(count for _, count in case["exchanged"])
        what = f"{numbers:,} ({', '.join(sorted(kinds))})" if case["exchanged"] else "0"
        ratio = case["microseconds per row"] / found[0]["microseconds per row"]
        lines.append(
            f"| {case['devices']} | {case['rows']:,} | {case['batch']:,} "
            f"| {case['rows computed per device and step']:,} | {case['seconds']:.3f} "
            f"| {case['microseconds per row']:.2f} | {ratio:.2f} | {what} |"
        )
    gradient = classes * (features + 1)
    note = f"K (D + 1) = {gradient:,}; the two more are the loss and the sum of weights."
    return "\n".join(lines) + f"\n\n{note}\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=16_384, help="per device")
    parser.add_argument("--features", type=int, default=768)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--batch", type=int, default=512, help="per device")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    sizes = [options.rows, options.features, options.classes, options.batch, options.repeats]
    if options.one:
        print(json.dumps(measure(options.one, *sizes)))
        return
    found = []
    for count in COUNTS:
        flags = f"--xla_force_host_platform_device_count={count}"
        done = subprocess.run(
            [sys.executable, __file__, *sys.argv[1:], "--one", str(count)],
            env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.exit(done.stderr)
        found.append(json.loads(done.stdout))
    text = f"{os.cpu_count()} cores for all devices together.\n\n"
    text += table(found, options.classes, options.features)
    print(json.dumps(found) if options.json else text)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "scaling.json").write_text(
            json.dumps(found, indent=2) + "\n", encoding="utf-8"
        )
        (options.out / "scaling.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
