"""Does a run that is killed again and again end with the same bits as one that is not?

Starts `jaxlin train --save-every 7 --resume auto`, or the command after `--`, as a process of its
own, kills it with SIGKILL at a random moment (while it imports, reads, compiles, trains, saves or
evaluates), checks that the newest checkpoint is whole, and starts it again, until it has been
killed `--kills` times. Then the run may end, and `model.safetensors` and `metrics.jsonl` are
compared with those of a run that nobody disturbed. A run that ends between two kills is counted,
compared, and begun anew.

    python experiments/kill_and_resume.py --kills 30 --out results/kill_and_resume
    python experiments/kill_and_resume.py --data fashion-mnist --data-dir FOLDER -- \
        train --loss hinge --strength 5e-4 --tolerance 1e-3
"""

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from jaxlin import checkpoint

JAXLIN = (sys.executable, "-m", "jaxlin")


def command(options, out):
    words = options.words or ["train", "--steps", options.steps, "--batch-size", 64]
    words = [*words, "--data", options.data, "-q"]
    words += ["--save-every", options.save_every, "--resume", "auto", "--out", out]
    if options.data_dir is not None:
        words += ["--data-dir", options.data_dir]
    return [*JAXLIN, *map(str, words)]


def numbers(folder):
    """What must be the same: the model's bytes, and all records without their seconds."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    for record in records:
        record.pop("seconds", None)
    return (folder / "model.safetensors").read_bytes(), records


def finish(options, out):
    start = time.perf_counter()
    done = subprocess.run(command(options, out), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"the run ended with {done.returncode}: {done.stderr}")
    return time.perf_counter() - start


def kill_once(options, out, moments, longest):
    """Start the run and kill it after a random time; what became of it."""
    process = subprocess.Popen(command(options, out), stderr=subprocess.PIPE, text=True)
    moment = moments.uniform(0, longest)
    try:
        process.wait(moment)
    except subprocess.TimeoutExpired:
        process.kill()
    said = process.communicate()[1].strip()
    if process.returncode not in (0, -signal.SIGKILL):
        raise SystemExit(f"the run ended with {process.returncode}: {said}")
    sentences = []
    found = checkpoint.find(out, warn=sentences.append)
    return {
        "after_seconds": round(moment, 2),
        "killed": process.returncode != 0,
        "inside_a_save": bool(list((out / checkpoint.FOLDER).glob("*.part"))),
        "newest_whole": None if found is None else found.step,
        "broken": sentences + [line for line in said.splitlines() if "instead" in line],
    }


def run(options):
    moments = random.Random(options.seed)
    folder = options.out
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("unbroken", "killed"):
        shutil.rmtree(folder / name, ignore_errors=True)
    longest = finish(options, folder / "unbroken")
    expected = numbers(folder / "unbroken")
    kills, same, runs = [], 0, 0
    since = []
    while len(kills) < options.kills:
        event = kill_once(options, folder / "killed", moments, longest)
        if event["killed"]:
            kills.append(event)
            since.append(event)
            print(
                f"{len(kills):3d}  killed after {event['after_seconds']:5.2f} s  newest whole "
                f"checkpoint {event['newest_whole']}"
                + ("  inside a save" if event["inside_a_save"] else ""),
                file=sys.stderr,
                flush=True,
            )
        if not event["killed"] or len(kills) == options.kills or len(since) == options.per_run:
            if event["killed"]:
                finish(options, folder / "killed")
            runs += 1
            if numbers(folder / "killed") == expected:
                same += len(since)
            else:
                print("     the result differs", file=sys.stderr)
            shutil.rmtree(folder / "killed")
            since = []
    shutil.rmtree(folder / "unbroken")
    return {
        "seed": options.seed,
        "kills": len(kills),
        "resumed_bit_for_bit": same,
        "runs_compared": runs,
        "inside_a_save": sum(event["inside_a_save"] for event in kills),
        "before_the_first_checkpoint": sum(event["newest_whole"] is None for event in kills),
        "broken_checkpoints": sum(len(event["broken"]) for event in kills),
        "events": kills,
    }


def save(options, results):
    from benchmarks.report import save_table

    certified = "--tolerance" in options.words
    save_table(
        options.out,
        "kill_and_resume" + "_certified" * certified,
        title=f"{'Certified fits' if certified else 'Minibatch runs'} killed at random moments "
        f"({options.data}), and resumed",
        columns=["kills", "the same bits", "inside a save", "broken checkpoints"],
        rows=[
            [
                results[name]
                for name in ("kills", "resumed_bit_for_bit", "inside_a_save", "broken_checkpoints")
            ]
        ],
        notes=[],
        changes="nothing should.",
        measured=results,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="a command of jaxlin and its options, after --")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--per-run", type=int, default=6, help="kills until a run may end")
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--save-every", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/kill_and_resume"))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results = run(options)
    save(options, results)
    if options.json:
        print(json.dumps(results))
    else:
        for name, value in results.items():
            if name != "events":
                print(f"{name:<28} {value}")
    return 0 if results["resumed_bit_for_bit"] == results["kills"] else 1


if __name__ == "__main__":
    sys.exit(main())
