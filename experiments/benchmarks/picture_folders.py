"""How long does it take to open a folder of many small pictures, against torchvision?

Writes random pictures of 32 x 32 into class folders, half of them PNG and half JPEG, and reads
them all: `jaxlin.data.load`, which returns one array of uint8, against torchvision's `ImageFolder`
with a DataLoader of two workers (the batches are only counted, not kept). Each repetition is a
process of its own, the two in turn, so that a busy machine is as busy for both; the ratio is the
median of those of the pairs. The memory is the most that the process held, above what it held
before it read; `cpu` are the seconds of all cores, which a busy machine changes less.

    python experiments/benchmarks/picture_folders.py --pictures 100000 --repeats 3 --out results
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from report import save_table

CLASSES, SIDE, WORKERS = 10, 32, 2


def write(root, count):
    """`count` pictures in class folders, unless they are there."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for label in range(CLASSES):
        (root / f"class{label}").mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = (
            root / f"class{number % CLASSES}" / f"{number:06d}.{('png', 'jpg')[number // 10 % 2]}"
        )
        if not path.exists():
            small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
            small.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(path)


def peak():
    """The most memory that this process has held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def cpu():
    """The seconds that this process and its workers have computed."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def measured(read):
    """What it takes to call `read`, which returns the number of rows and the bytes of an array."""
    memory, work, start = peak(), cpu(), time.perf_counter()
    rows, array = read()
    return {
        "rows": rows,
        "seconds": time.perf_counter() - start,
        "cpu": cpu() - work,
        "array": array,
        "memory": peak() - memory,
    }


def jaxlin_reads(root):
    from jaxlin.data import load

    def read():
        data = load(root)
        return len(data.labels), data.inputs.nbytes

    return measured(read)


def torchvision_reads(root):
    import torch

    kept = torch.library.register_fake  # a torch without CUDA lacks the operators of some wheels
    torch.library.register_fake = lambda *args, **kwargs: lambda function: function
    from torchvision import datasets, transforms

    torch.library.register_fake = kept

    def read():
        data = datasets.ImageFolder(str(root), transforms.PILToTensor())
        loader = torch.utils.data.DataLoader(data, batch_size=256, num_workers=WORKERS)
        return sum(len(labels) for _, labels in loader), 0

    return measured(read)


CONTENDERS = {"jaxlin": jaxlin_reads, "torchvision": torchvision_reads}


def in_own_process(name, root):
    """What a contender measures in a process of its own."""
    words = [sys.executable, __file__, "--only", name, "--data-dir", str(root)]
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout)


def save(folder, result):
    runs = result["runs"]
    save_table(
        folder,
        "picture_folders",
        title=f"Opening a folder of {result['pictures']:,} small pictures: seconds",
        columns=["contender", *(f"run {i}" for i in range(1, len(runs) + 1))],
        rows=[[name, *(f"{run[name]['seconds']:.1f}" for run in runs)] for name in CONTENDERS],
        notes=[
            f"jaxlin takes {result['ratio']:.2f} times torchvision's time (median of the pairs), "
            f"and {result['memory_above_array'] / 2**20:.0f} MiB of memory above the array."
        ],
        changes="larger pictures, where decoding weighs more; more cores.",
        measured=result,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--data-dir", type=Path, help="where the pictures are, or are written")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(CONTENDERS[options.only](options.data_dir)))
        return
    with tempfile.TemporaryDirectory() as folder:
        root = options.data_dir or Path(folder) / "pictures"
        write(root, options.pictures)
        runs = [
            {name: in_own_process(name, root) for name in CONTENDERS}
            for _ in range(options.repeats)
        ]
    ratios = [run["jaxlin"]["seconds"] / run["torchvision"]["seconds"] for run in runs]
    own = [run["jaxlin"] for run in runs]
    result = {
        "pictures": options.pictures,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "memory_above_array": max(run["memory"] - run["array"] for run in own),
        "runs": runs,
    }
    if options.out:
        save(options.out, result)
    if options.json:
        print(json.dumps(result))
        return
    for name in CONTENDERS:
        times = ", ".join(f"{run[name]['seconds']:.1f}" for run in runs)
        work = ", ".join(f"{run[name]['cpu']:.1f}" for run in runs)
        print(f"{name:<12} {times} s (cpu {work}) for {runs[0][name]['rows']:,} pictures")
    print(f"ratio        {result['ratio']:.2f} (jaxlin / torchvision, median of {len(runs)})")
    print(f"memory       {result['memory_above_array'] / 2**20:.0f} MiB above the array")


if __name__ == "__main__":
    main()
