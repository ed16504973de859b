"""How near does jaxlin come to what a device can do: GEMM, an epoch, a sweep, a plane, a check?

Runs on whatever device JAX finds. Every measurement stands beside its roofline: the time that the
device's peak arithmetic or its memory would need for the work at least, whichever is longer. On
an accelerator the peaks are the published ones; on a CPU, which publishes none that holds,
they are measured here (a large matrix product, a large copy). The last table says what the same
work would take on an NVIDIA H100 by the same roofline: an estimate, not a measurement.

    python experiments/accelerator.py --out experiments/tables
"""

import argparse
import json
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxlin import losses, scores, train
from jaxlin.core import Batch, LinearParams
from jaxlin.gradients import check_gradient, linear_objective
from jaxlin.landscape import affine_plane, random
from jaxlin.objectives import compose
from jaxlin.precision import PRECISIONS, product

# Dense peaks, operations and bytes a second. H100 SXM: NVIDIA H100 Tensor Core GPU datasheet
# (2023); A100 SXM 80 GB: NVIDIA A100 datasheet (2021); TPU v5e: Google Cloud, "TPU v5e" (2024),
# where float32 products are passes in bfloat16, six for full precision. float64 is that of
# element-wise work, which is all that is in float64 here: tensor cores, of twice the peak, are for
# products. A TPU has none: some twenty float32 operations on pairs, at 6.1 T a second.
PEAKS = {
    name: dict(zip(("float64", *PRECISIONS, "bytes"), rates, strict=True))
    for name, rates in {
        "H100": (33.5e12, 66.9e12, 494.7e12, 989.4e12, 3.35e12),
        "A100": (9.7e12, 19.5e12, 156e12, 312e12, 2.04e12),
        "TPU v5 lite": (0.3e12, 33e12, 66e12, 197e12, 0.82e12),
    }.items()
}
STRENGTHS = 96


def least(function, repeats=5):
    """Seconds of the fastest of `repeats` calls, after one that compiles."""
    jax.block_until_ready(function())
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function())
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def row(what, seconds, operations, moved, peaks, precision="highest"):
    """One measurement beside its roofline."""
    floor = max(operations / peaks[precision], moved / peaks["bytes"])
    return {
        "what": what,
        "precision": precision,
        "seconds": seconds,
        "operations": operations,
        "bytes": moved,
        "roofline": floor,
        "bound": "arithmetic" if operations / peaks[precision] >= floor else "memory",
        "share": floor / seconds,
    }


def gemm(size, precision):
    """Seconds of a square product: "float64", or one of `PRECISIONS` in float32."""
    wide = precision == "float64"
    with jax.enable_x64(wide):
        dtype = jnp.float64 if wide else jnp.float32
        left = jax.random.normal(jax.random.key(0), (size, size), dtype)
        multiply = jax.jit(partial(product, precision="highest" if wide else precision))
        return least(lambda: multiply(left, left))


def copy(size):
    """Bytes a second of a large element-wise pass: one read, one write."""
    add = jax.jit(lambda x: x + 1, donate_argnums=0)  # in place: fresh pages would be timed else
    values = [jnp.zeros(size, jnp.float32)]

    def once():
        values[0] = add(values[0])
        return values[0]

    return 8 * size / least(once)


def peaks_of(device, small):
    """The published peaks of a device, or measured ones."""
    for name, peaks in PEAKS.items():
        if name in device.device_kind:
            return peaks, f"published for {name}"
    sizes = (512,) if small else (512, 1024, 2048)
    found = {p: max(2 * n**3 / gemm(n, p) for n in sizes) for p in ("float64", *PRECISIONS)}
    return found | {"bytes": copy(1 << (22 if small else 26))}, "measured here"


def epoch(data, classes, batch, heads=None):
    """Seconds of one epoch of softmax descent; of a bank of heads over strengths with `heads`."""
    features = data.inputs.shape[1]
    objective = compose(scores.linear, losses.softmax_cross_entropy)
    leading = () if heads is None else (heads,)
    if heads is None:
        total = partial(objective, strength=1e-4)
    else:
        strengths = jnp.logspace(-6, 2, heads)

        def total(bank, batch):
            """The sum over heads: each head's gradient is its own."""
            one = jax.vmap(lambda p, s: objective(p, batch, strength=s))
            return one(bank, strengths).sum()

    descent = train.trainer(total, optax.sgd(1e-3))
    params = LinearParams(jnp.zeros((*leading, classes, features)), jnp.zeros((*leading, classes)))
    state = descent.init(params)
    steps = -(-len(data.labels) // batch)

    def run():
        for new, _ in train.chunks(
            descent, state, data, key=jax.random.key(0), steps=steps, batch_size=batch
        ):
            last = new
        return last

    # `chunks` sizes its records by the bias: one number a step for the sum over heads as well.
    return least(run, 3), steps


def measure(options):
    """All rows of the table, and where they were measured."""
    device = jax.devices()[0]
    small = device.platform == "cpu" or options.small
    peaks, origin = peaks_of(device, options.small)
    rows_count, features, classes = options.rows, options.features, options.classes
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(rows_count, features)).astype(np.float16)
    labels = rng.integers(0, classes, rows_count).astype(np.int32)
    data = Batch(jnp.asarray(inputs), jnp.asarray(labels))
    found = []
    size = 512 if options.small else 1024 if small else 8192
    for precision in PRECISIONS:
        seconds = gemm(size, precision)
        work = (2 * size**3, 12 * size**2)
        found.append(row(f"GEMM {size:,} x {size:,}", seconds, *work, peaks, precision))

    batch, heads = options.batch, options.heads
    shape = f"{rows_count:,} x {features} float16, {classes} classes"

    def work(count, steps):
        """Two products; rows, parameters and their update, scores and slopes, each in and out."""
        operations = 4 * rows_count * features * classes * count
        moved = inputs.nbytes + steps * count * classes * features * 16
        return operations, moved + 16 * rows_count * classes * count

    seconds, steps = epoch(data, classes, batch)
    found.append(row(f"one epoch, {shape}, batch {batch}", seconds, *work(1, steps), peaks))
    seconds, steps = epoch(data, classes, batch, heads)
    what = f"one epoch of {heads} heads side by side, {shape}, batch {batch}"
    found.append(row(what, seconds, *work(heads, steps), peaks))

    params = LinearParams(jnp.zeros((classes, features)), jnp.zeros(classes))
    directions = [random(jax.random.key(i), params) for i in (1, 2)]
    ticks, few = np.linspace(-1, 1, 51), slice(0, options.plane_rows)
    wide = inputs[few].astype(np.float32)
    softmax = losses.softmax_cross_entropy
    settings = (params, *directions, ticks, ticks, wide, labels[few])
    seconds = least(lambda: affine_plane(*settings, loss=softmax), 3)
    plane_operations = 6 * len(wide) * features * classes + 3 * 51 * 51 * len(wide) * classes
    what = f"a plane of 51 x 51 points, {len(wide):,} rows, {classes} classes"
    found.append(row(what, seconds, plane_operations, wide.nbytes, peaks))

    checked = slice(0, 500)
    objective = linear_objective(softmax, Batch(wide[checked], labels[checked]))
    weights = rng.normal(size=(classes, features)) / features
    check = partial(check_gradient, objective, weights, mode="full")
    start_up = check()
    seconds = least(lambda: np.zeros(check().evaluations), 1)
    # Every entry moves one class's scores at four points: 500 exponentials and sums each.
    entries = 4 * classes * features * 500
    what = f"a full gradient check, {classes * features:,} entries, 500 rows ({start_up.verdict})"
    found.append(row(what, seconds, 4 * entries, 4 * entries // 100, peaks, "float64"))
    return {
        "device": f"{device.device_kind} ({device.platform})",
        "peaks": peaks,
        "origin": origin,
        "rows": found,
        "heads": heads,
    }


def estimates(found):
    """What an H100 would take for the same rows, and for the sweep of ImageNet's size."""
    peaks = PEAKS["H100"]
    lines = []
    for case in found["rows"]:
        if case["what"].startswith("GEMM"):
            continue
        precision = case["precision"]
        floor = max(case["operations"] / peaks[precision], case["bytes"] / peaks["bytes"])
        lines.append((case["what"], precision, floor, floor / min(case["share"], 1)))
    count, features, classes = 1_281_167, 768, 1000
    bank = next(case for case in found["rows"] if "side by side" in case["what"])
    share = min(bank["share"], 1)
    products = 4 * count * features * classes * STRENGTHS
    # Scores and their slopes, float32, written and read once each, beside the rows themselves.
    moved = 16 * count * classes * STRENGTHS + 2 * count * features
    passes = {}
    for precision in PRECISIONS:
        times = products / peaks[precision], moved / peaks["bytes"]
        passes[precision] = {
            "at the roofline": max(times),
            "without overlap": sum(times),  # products and passes over scores take turns
            "without overlap, at the measured share": sum(times) / share,
        }
    return lines, {"passes": passes, "share": share, "operations": products, "bytes": moved}


def markdown(found):
    """The tables."""
    peaks = found["peaks"]
    text = (
        f"# {found['device']}\n\nPeaks {found['origin']}: {peaks['highest'] / 1e9:,.0f} GFLOP/s "
        f"in float32, {peaks['float64'] / 1e9:,.0f} in float64, {peaks['bytes'] / 1e9:,.1f} GB/s. "
        "Least of several, warm, compilation "
        "apart. Sums are float32 always; tf32 and bf16 say how operands are rounded.\n\n"
        "| what | precision | s | GFLOP/s | roofline s | bound by | share of the roofline |\n"
        "|---|---|---|---|---|---|---|\n"
    )
    for case in found["rows"]:
        text += (
            f"| {case['what']} | {case['precision']} | {case['seconds']:.4g} "
            f"| {case['operations'] / case['seconds'] / 1e9:,.0f} | {case['roofline']:.3g} "
            f"| {case['bound']} | {100 * case['share']:.0f} % |\n"
        )
    lines, sweep = estimates(found)
    text += (
        "\n# NVIDIA H100 SXM: estimates, nothing here was measured\n\n"
        "From the published peaks, each row at the precision that it ran in; the last column "
        "assumes the share of the roofline that was measured above. What XLA's compiler makes of "
        "the programs for that device is in [ahead_h100.md](ahead_h100.md).\n\n"
        "| what | precision | s at the roofline | s at the measured share |\n|---|---|---|---|\n"
    )
    for what, precision, floor, likely in lines:
        text += f"| {what} | {precision} | {floor:.2g} | {likely:.2g} |\n"
    text += (
        "\nThe sweep of ImageNet's size, 1,281,167 x 768 float16, 1,000 classes, 96 strengths "
        f"side by side: one pass (scores, softmax, gradient) is {sweep['operations'] / 1e12:,.0f} "
        f"TFLOP and {sweep['bytes'] / 1e12:.1f} TB of scores and slopes. "
        "Without overlap the products and the passes over scores take turns. An epoch of minibatch "
        "descent costs a pass, too.\n\n"
        "| precision | assumption | s a pass | passes in 10 minutes |\n|---|---|---|---|\n"
    )
    for precision, times in sweep["passes"].items():
        for name, each in times.items():
            text += f"| {precision} | {name} | {each:.2f} | {600 / each:,.0f} |\n"
    return text


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=16_384)
    parser.add_argument("--features", type=int, default=768)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--plane-rows", type=int, default=4096)
    parser.add_argument("--small", action="store_true", help="small products, for a quick look")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    jax.config.update("jax_default_matmul_precision", "highest")
    found = measure(options)
    text = markdown(found)
    print(json.dumps(found) if options.json else text)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        name = f"accelerator_{jax.devices()[0].platform}"
        (options.out / f"{name}.json").write_text(
            json.dumps(found, indent=2) + "\n", encoding="utf-8"
        )
        (options.out / f"{name}.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
