"""What does `jaxlin train` reach with its defaults, and what do kept programs save?

Every command is a process of its own, as a user starts it. The first table holds test accuracies:
both losses by descent (the default), and softmax to a proved 1e-4, with the seconds that the
training itself took. The second starts the same short certified fit again and again, in turn with
the programs that an earlier run compiled and with none kept, and compares whole commands.

    python experiments/benchmarks/commands.py --data digits,fashion-mnist,cifar10 --out results
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from report import save_table

KINDS = {
    "softmax": [],
    "hinge": ["--loss", "hinge"],
    "softmax, proved": ["--tolerance", "1e-4"],
}
PUBLISHED = (
    "Published linear figures on raw pixels: Fashion-MNIST 0.842 and 0.836 (zalandoresearch's "
    "benchmark), CIFAR-10 0.39 to 0.407 and 0.36 to 0.39."
)


def trained(out: Path, *words: str, **variables: str) -> dict:
    """The results of `jaxlin train`, and the seconds of the whole command."""
    command = [sys.executable, "-m", "jaxlin", "train", "--quiet", "--out", str(out), *words]
    start = time.perf_counter()
    subprocess.run(command, check=True, env=os.environ | variables)
    seconds = time.perf_counter() - start
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    return results | {"command_seconds": seconds}


def accuracies(names: list[str], folder: Path) -> dict:
    found = {}
    for name in names:
        runs = {
            kind: trained(folder / f"{name} {number}", "--data", name, *words)
            for number, (kind, words) in enumerate(KINDS.items())
        }
        first = runs["softmax"]
        found[name] = {
            "rows": first["n_train"],
            "validation": first["n_validation"],
            "test": first["test"]["n"],
            "accuracy": {kind: run["test"]["accuracy"] for kind, run in runs.items()},
            "seconds": {kind: run["seconds"]["train"] for kind, run in runs.items()},
        }
    return found


def kept_programs(folder: Path, pairs: int, rows: int, width: int) -> dict:
    """Seconds of the same command with kept programs and without, in turn."""
    generator = np.random.default_rng(0)
    centers = generator.normal(size=(10, width)).astype(np.float32)
    labels = generator.integers(0, 10, rows)
    noise = generator.normal(size=(rows, width)).astype(np.float32)
    np.save(folder / "features.npy", 0.2 * centers[labels] + noise)
    np.save(folder / "labels.npy", labels)
    words = [
        *("--data", str(folder / "features.npy"), "--labels", str(folder / "labels.npy")),
        *("--tolerance", "1e-4"),
    ]
    ways = {
        "kept": {"JAX_COMPILATION_CACHE_DIR": str(folder / "programs")},
        "not kept": {"JAXLIN_CACHE": "off"},
    }
    trained(folder / "first", *words, **ways["kept"])
    runs = [
        {
            way: trained(folder / f"{way} {number}", *words, **variables)["command_seconds"]
            for way, variables in ways.items()
        }
        for number in range(pairs)
    ]
    ratios = [run["kept"] / run["not kept"] for run in runs]
    return {"rows": rows, "width": width, "runs": runs, "ratio": statistics.median(ratios)}


def save(folder: Path, found: dict, kept: dict) -> None:
    save_table(
        folder,
        "accuracy",
        title="Test accuracy with the defaults of `jaxlin train`",
        columns=[
            *("data", "training + validation / test", *KINDS),
            *("seconds, softmax", "seconds, proved"),
        ],
        rows=[
            [
                name,
                f"{one['rows']:,} + {one['validation']:,} / {one['test']:,}",
                *(f"{one['accuracy'][kind]:.3f}" for kind in KINDS),
                *(f"{one['seconds'][kind]:.2g}" for kind in ("softmax", "softmax, proved")),
            ]
            for name, one in found.items()
        ],
        notes=[
            'By descent; "proved" is the optimum, to a proved 1e-4 (`--tolerance 1e-4`). Seconds '
            "of the training alone, its compilation included where it fits to a proof.",
            PUBLISHED,
            "The CIFAR-10 pictures here were re-encoded as JPEG once, so that pixels differ a "
            "little from the canonical archive's.",
        ],
        changes="another preprocessing, strength or number of epochs; the canonical archive of "
        "CIFAR-10.",
        measured=found,
    )
    save_table(
        folder,
        "program_cache",
        title=f"A second `jaxlin train --tolerance 1e-4` on {kept['rows']:,} x {kept['width']} "
        "features: seconds of the whole command",
        columns=["programs", *(f"pair {i}" for i in range(1, len(kept["runs"]) + 1))],
        rows=[[way, *(f"{run[way]:.1f}" for run in kept["runs"])] for way in ("kept", "not kept")],
        notes=[f"In turn; kept programs take {kept['ratio']:.2f} times as long (median)."],
        changes="the share of compilation in the run.",
        measured=kept,
    )


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits", help="named sets, with commas between")
    parser.add_argument("--pairs", type=int, default=3, help="of commands, with and without")
    parser.add_argument("--rows", type=int, default=18_000)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = accuracies(options.data.split(","), folder)
        kept = kept_programs(folder, options.pairs, options.rows, options.width)
    if options.out:
        save(options.out, found, kept)
    if options.json:
        print(json.dumps({"accuracy": found, "programs": kept}))
        return
    for name, one in found.items():
        cells = ", ".join(f"{kind} {one['accuracy'][kind]:.4f}" for kind in KINDS)
        print(f"{name:16}{cells}")
    print(f"kept programs: {kept['ratio']:.2f} times as long as without")


if __name__ == "__main__":
    main()
