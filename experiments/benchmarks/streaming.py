"""How fast is training on features larger than memory, and how much memory does it take?

Writes synthetic float16 features in shards, then streams one epoch of minibatch softmax and one
full-batch gradient over them. Beside each stand its two limits: reading alone, in the same order
and the same pieces, and computing alone, on rows that stay in memory. The share is that of the
slower of the two. Every measurement is a process of its own, so that its peak memory can be told;
"cold" means that the files were dropped from the page cache before.

    python experiments/benchmarks/streaming.py --folder /scratch/streaming --gigabytes 10
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
from report import save_table

SHARD_BYTES = 1 << 30
PEER_SECONDS = 15
TASKS = {
    "minibatch, reading alone": "read_epoch",
    "minibatch, computing alone": "compute_epoch",
    "minibatch epoch": "epoch",
    "full pass, reading alone": "read_pass",
    "full pass, computing alone": "compute_pass",
    "full pass": "full_pass",
}
PEERS = {
    "PyTorch DataLoader over a memory map, shuffled": "torch_shuffled",
    "PyTorch DataLoader over a memory map, in file order": "torch_in_order",
    "scikit-learn SGDClassifier.partial_fit over a memory map": "scikit_learn",
}


def write(folder: Path, gigabytes: float, width: int, classes: int) -> None:
    """Shards of random rows with labels beside them, unless they are there already."""
    rows = int(gigabytes * 1e9) // (2 * width)
    per_shard = SHARD_BYTES // (2 * width)
    count = -(-rows // per_shard)
    facts = {"rows": rows, "width": width, "classes": classes}
    done = folder / "written.json"
    if done.exists() and json.loads(done.read_text(encoding="utf-8")) == facts:
        return
    free = shutil.disk_usage(folder.parent if not folder.exists() else folder).free
    if rows * width * 2 > 0.8 * free:
        raise SystemExit(f"{folder}: {gigabytes} GB do not fit: {free / 1e9:.0f} GB are free.")
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    block = rng.normal(size=(1 << 15, width)).astype(np.float16)
    for number in range(count):
        own = min(per_shard, rows - number * per_shard)
        stem = folder / f"train-{number:05d}-of-{count:05d}"
        labels = rng.integers(0, classes, own).astype(np.int32)
        with Path(f"{stem}.npy").open("wb") as file:
            header = {"descr": "<f2", "fortran_order": False, "shape": (own, width)}
            np.lib.format.write_array_header_1_0(file, header)
            for start in range(0, own, len(block)):
                np.roll(block, int(rng.integers(width)), axis=1)[: own - start].tofile(file)
            file.flush()
            os.fsync(file.fileno())
        np.save(f"{stem}.labels.npy", labels)
    done.write_text(json.dumps(facts), encoding="utf-8")


def drop_from_cache(folder: Path) -> str:
    """Make the next reads come from the disk, and say how."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3\n", encoding="utf-8")
        return "the whole page cache was dropped"
    except OSError:
        for path in folder.glob("*.npy"):
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return "posix_fadvise DONTNEED on every file"


def high_water_mark() -> int:
    """Peak resident bytes of this process."""
    rows = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(row for row in rows if row.startswith("VmHWM")).split()[1]) * 1024


class Work:
    """The measurements. Each returns seconds; compilation and start-up are not counted."""

    def __init__(self, folder: Path, batch: int):
        from jaxlin.data import open_features

        found = open_features(folder, resident_bytes=1 << 30)
        self.inputs, self.labels, self.batch = found.inputs, found.labels, batch
        self.classes, self.folder = len(found.class_names), folder

    def descent(self):
        import jax.numpy as jnp
        import optax

        from jaxlin import losses, train
        from jaxlin.core import Batch, LinearParams
        from jaxlin.objectives import compose
        from jaxlin.scores import linear

        def score(params, inputs):
            return linear(params, inputs.astype(jnp.float32))

        descent = train.trainer(compose(score, losses.softmax_cross_entropy), optax.sgd(0.01))
        zeros = LinearParams(
            jnp.zeros((self.classes, self.inputs.shape[1])), jnp.zeros(self.classes)
        )
        state, data = descent.init(zeros), Batch(self.inputs, self.labels)
        train.compile_steps(descent, state, data, batch_size=self.batch)
        return train, descent, state, data

    def epoch(self):
        import jax

        train, descent, state, data = self.descent()
        steps = -(-len(self.labels) // self.batch)
        start = time.perf_counter()
        for new, _ in train.chunks(
            descent, state, data, key=jax.random.key(0), steps=steps, batch_size=self.batch
        ):
            jax.block_until_ready(new)
        return time.perf_counter() - start

    def windows(self, stop):
        import jax

        from jaxlin import stream
        from jaxlin.core import Batch

        data = Batch(self.inputs, self.labels)
        return stream.windows(
            data, key=jax.random.key(0), start=0, stop=stop, batch_size=self.batch
        )

    def read_epoch(self):
        start = time.perf_counter()
        for window in self.windows(-(-len(self.labels) // self.batch)):
            window.data.inputs.block_until_ready()
        return time.perf_counter() - start

    def compute_epoch(self):
        import jax

        from jaxlin.steps import run_chunk

        _, descent, state, _ = self.descent()
        window = next(self.windows(1))
        length = window.plan.rows.shape[0]
        left = -(-len(self.labels) // self.batch)
        start = time.perf_counter()
        while left > 0:
            count = min(left, length)
            state, _ = run_chunk(descent, length, None, state, window.data, window.plan, 0, count)
            jax.block_until_ready(state)
            left -= count
        return time.perf_counter() - start

    def rows(self, inputs):
        from jaxlin.passes import open_rows

        return open_rows(inputs, self.classes, dtype=np.float32, host=False)

    def gradient(self, rows, labels):
        import jax.numpy as jnp

        weights = np.zeros((self.classes, self.inputs.shape[1]))
        counts = np.full(len(labels), 1 / len(labels))
        labels = jnp.asarray(labels)
        return partial(rows.fused, softmax, weights, np.zeros(self.classes), labels, counts)

    def full_pass(self):
        rows = self.rows(self.inputs)
        part = self.inputs[rows._parts[0]]
        self.gradient(self.rows(part), self.labels[: len(part)])()  # compiles
        del part
        gradient = self.gradient(rows, self.labels)
        start = time.perf_counter()
        gradient()
        return time.perf_counter() - start

    def read_pass(self):
        rows = self.rows(self.inputs)
        start = time.perf_counter()
        for _, part in rows._each():
            part.block_until_ready()
        return time.perf_counter() - start

    def compute_pass(self):
        parts = self.rows(self.inputs)._parts
        part = self.inputs[parts[0]]
        gradient = self.gradient(self.rows(part), self.labels[: len(part)])
        gradient()
        start = time.perf_counter()
        for _ in parts:
            gradient()
        return (time.perf_counter() - start) * len(self.labels) / (len(parts) * len(part))

    def memory_map(self):
        """The first shard, mapped, and its labels."""
        path = self.inputs.shards[0].path
        return np.load(path, mmap_mode="r"), np.load(path.with_suffix(".labels.npy"))

    def torch(self, *, shuffle):
        """Seconds of an epoch, extrapolated from what `PEER_SECONDS` allow of the first shard."""
        import torch
        from torch.utils.data import DataLoader, Dataset

        mapped, labels = self.memory_map()

        class Rows(Dataset):
            def __len__(self):
                return len(mapped)

            def __getitem__(self, row):
                return torch.from_numpy(np.array(mapped[row])), int(labels[row])

        model = torch.nn.Linear(mapped.shape[1], self.classes)
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        loader = DataLoader(Rows(), batch_size=self.batch, shuffle=shuffle, num_workers=2)
        start, seen = time.perf_counter(), 0
        for batch, classes in loader:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(batch.float()), classes).backward()
            optimizer.step()
            seen += len(classes)
            if time.perf_counter() - start > PEER_SECONDS:
                break
        return (time.perf_counter() - start) * len(self.labels) / seen

    def torch_shuffled(self):
        return self.torch(shuffle=True)

    def torch_in_order(self):
        return self.torch(shuffle=False)

    def scikit_learn(self):
        from sklearn.linear_model import SGDClassifier

        mapped, labels = self.memory_map()
        model = SGDClassifier(loss="log_loss", alpha=0, learning_rate="constant", eta0=0.01)
        start, seen = time.perf_counter(), 0
        while time.perf_counter() - start < PEER_SECONDS and seen < len(mapped):
            rows = slice(seen, seen + 1000)
            model.partial_fit(
                mapped[rows].astype(np.float32), labels[rows], classes=np.arange(self.classes)
            )
            seen += 1000
        return (time.perf_counter() - start) * len(self.labels) / seen


def softmax(xp, scores, labels, counts):
    """The loss of a chunk and its derivative in the scores (K, R)."""
    shifted = scores - scores.max(axis=0)[None, :]
    exponentials = xp.exp(shifted)
    total = exponentials.sum(axis=0)
    hits = labels[None, :] == xp.arange(scores.shape[0])[:, None]
    own = (shifted * hits).sum(axis=0)
    losses = counts * (xp.log(total) - own)
    return losses, (exponentials / total[None, :] - hits) * counts[None, :]


def measure(task: str, args) -> dict:
    """Run one task in a fresh process."""
    command = [sys.executable, __file__, "--folder", str(args.folder), "--batch", str(args.batch)]
    done = subprocess.run([*command, "--task", task], capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        print(f"{task} was left out: {lines[-1]}", file=sys.stderr)
        return {"seconds": None, "peak_bytes": None}
    return json.loads(done.stdout.splitlines()[-1])


def save(folder, result):
    facts, rows = result["features"], []
    for name, row in result["measured"].items():
        if row["seconds"] is not None:
            speed = f"{facts['bytes'] / row['seconds'] / 1e9:.2f}"
            peak = f"{row['peak_bytes'] / 1e9:.2f}"
            shown = f"{name} (extrapolated)" if name in PEERS else name
            rows.append([shown, f"{row['seconds']:.3g}", speed, peak])
    shares = ", ".join(f"{n} {s:.0%}" for n, s in result["share_of_the_slower_limit"].items())
    save_table(
        folder,
        "streaming",
        title=f"Training on features larger than memory: {facts['rows']:,} x {facts['width']} "
        f"float16, {facts['bytes'] / 1e9:.1f} GB",
        columns=["what", "seconds", "GB/s", "peak GB"],
        rows=rows,
        notes=[
            f"{facts['classes']} classes, batch {result['batch']}; {result['cache']}. Share of the "
            f"slower of reading and computing alone: {shares}. The peers' seconds are extrapolated "
            f"from {PEER_SECONDS} s on the first shard."
        ],
        changes="a faster disk; fewer classes; a page cache that holds the files.",
        measured=result,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("streaming"), help="for the features")
    parser.add_argument("--gigabytes", type=float, default=10.0)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--warm", action="store_true", help="leave the files in the page cache")
    parser.add_argument("--write-only", action="store_true")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.task:
        seconds = getattr(Work(args.folder, args.batch), args.task)()
        print(json.dumps({"seconds": seconds, "peak_bytes": high_water_mark()}))
        return
    write(args.folder, args.gigabytes, args.width, args.classes)
    if args.write_only:
        return
    facts = json.loads((args.folder / "written.json").read_text(encoding="utf-8"))
    size, found, how = facts["rows"] * facts["width"] * 2, {}, "the files stayed in the page cache"
    for name, task in {**TASKS, **({} if args.no_peers else PEERS)}.items():
        if not args.warm:
            how = drop_from_cache(args.folder)
        found[name] = measure(task, args)
    shares = {
        whole: max(found[f"{part}, reading alone"]["seconds"],
                   found[f"{part}, computing alone"]["seconds"]) / found[whole]["seconds"]
        for whole, part in (("minibatch epoch", "minibatch"), ("full pass", "full pass"))
    }  # fmt: skip
    result = {
        "features": facts | {"bytes": size},
        "batch": args.batch,
        "cores": os.cpu_count(),
        "cache": how,
        "measured": found,
        "share_of_the_slower_limit": shares,
    }
    if args.out:
        save(args.out, result)
    if args.json:
        print(json.dumps(result))
        return
    print(
        f"{facts['rows']:,} x {facts['width']} float16, {size / 1e9:.1f} GB, {facts['classes']} "
        f"classes, batch {args.batch}, {os.cpu_count()} cores; {how}"
    )
    epoch = found["minibatch epoch"]["seconds"]
    for name, row in found.items():
        if row["seconds"] is not None:
            ratio = f"{row['seconds'] / epoch:7.1f} x the epoch" if name in PEERS else " " * 19
            print(
                f"{name:<57} {row['seconds']:8.1f} s {size / row['seconds'] / 1e9:6.2f} GB/s "
                f"{ratio} peak {row['peak_bytes'] / 1e6:6.0f} MB"
            )
    for name, share in shares.items():
        print(f"{name}: {share:.0%} of the slower of reading and computing")
    if not args.no_peers:
        print(
            f"The peers' seconds are extrapolated from what they did in {PEER_SECONDS} s on the "
            "first shard; the DataLoader's memory is that of its parent alone."
        )


if __name__ == "__main__":
    main()
