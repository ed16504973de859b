"""Who solves a linear probe on real features, how well, and does it change the chosen strength?

CLIP's protocol (96 strengths, chosen on a tenth of the training set, refitted on all of it, tested)
on features that `experiments/probe_pipeline.py` wrote: all of it by jaxlin, every fit certified to
a relative gap of 1e-3, from a cold start. The peers solve every `--every`-th of the strengths, and
their 96 are extrapolated from the mean of those: scikit-learn's `LogisticRegression` at its default
`tol` of 1e-4 with the protocol's 1,000 iterations, by lbfgs and by newton-cg, and a loop in PyTorch
like that of DINOv2's linear evaluation (all heads in one training, 10 epochs, batches of 1,024, a
cosine, several step sizes, the best on validation counts), with AdamW and the penalty in the loss,
so that its optimum is the same. All are measured against a certified lower bound of the optimum,
which goes on from jaxlin's fit to 1e-5. The strengths near the chosen one are measured first.

    python experiments/probe_pipeline.py --extractor efficientnet-lite0 --data cifar10 \
        --data-dir ~/cifar --out results/lite0
    python experiments/benchmarks/probe.py --features results/lite0/efficientnet-lite0 \
        --columns 0:1280 --out experiments

writes `tables/probe.json`, `tables/probe.md` and `pictures/probe.png` (or of another --name) under
--out.
"""

import argparse
import datetime
import json
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from full_batch_peers import peers_named
from probe_peers import TITLES, Clock, accuracy, measured, say, scikit_peer, torch_peer

from jaxlin import metrics, models, preprocess, solvers, sweep
from jaxlin.core import Batch
from jaxlin.data import open_features
from jaxlin.plots.style import COLORS, INK, new_figure, save, tidy
from jaxlin.sweep import selection
from jaxlin.sweep.presets import PRESETS, strength_for, strengths_for

PROTOCOL = PRESETS["clip"]
TOLERANCE, BOUND, MOST_ITERATIONS = 1e-3, 1e-5, 200
PEERS = ("lbfgs", "newton-cg", "torch")


def load(folder: Path, columns: slice, limit: int | None, seed: int):
    """Training, validation and test batches, float32; validation is a tenth of the training set."""
    parts = []
    for part in ("train", "test"):
        found = open_features(folder, part=part)
        rows = slice(0, limit)
        inputs = np.ascontiguousarray(np.asarray(found.inputs[rows])[:, columns], np.float32)
        parts.append(Batch(inputs, found.labels[rows].astype(np.int32)))
    learned, test = parts
    order = np.random.default_rng(seed).permutation(len(learned.labels))
    cut = len(order) // 10
    held, kept = np.sort(order[:cut]), np.sort(order[cut:])
    return *(Batch(learned.inputs[rows], learned.labels[rows]) for rows in (kept, held)), test


def everything(train: Batch, validation: Batch) -> Batch:
    """What the chosen head is refitted on."""
    return Batch(*(np.concatenate(pair) for pair in zip(train[:2], validation[:2], strict=True)))


def plain(width: int) -> preprocess.Preprocessing:
    """Raw features, as the protocol has them."""
    return preprocess.Preprocessing("none", np.zeros(width), np.ones(width))


def jaxlin_protocol(train, validation, test, classes: int) -> tuple[dict, list]:
    """The whole protocol, with every second it takes, compilation included."""
    clock, statistics = Clock(), plain(train.inputs.shape[1])
    heads = sweep.grid(strengths_for(PROTOCOL, len(train.labels)))
    options = {"classes": classes, "statistics": statistics, "tolerance": TOLERANCE}
    fitted = sweep.solve(heads, train, validation, **options)
    solving = clock.read()
    chosen = fitted[selection.best(fitted)]
    both = everything(train, validation)
    strength = chosen.head.strength * len(train.labels) / len(both.labels)
    head = chosen.head._replace(strength=strength)
    (final,) = sweep.solve([head], both, near=[chosen], **options)
    names = tuple(map(str, range(classes)))
    model = models.Model(final.params, statistics, names, None, "softmax")
    share = metrics.accuracy(models.scores(model, test.inputs), test.labels)
    return {
        "heads": len(fitted),
        "solving": solving,
        "whole": clock.read(),
        "passes": sum(found.epochs for found in fitted),
        "fits_without_a_pass": sum(found.epochs == 0 for found in fitted),
        "certified": sum(found.relative_gap <= TOLERANCE for found in fitted),
        "largest_relative_gap": max(found.relative_gap for found in fitted),
        "chosen": chosen.head.strength,
        "validation_accuracy": chosen.validation_accuracy,
        "test_accuracy": share,
        "test_interval": metrics.wilson_interval(share, len(test.labels)),
    }, fitted


def certified_bounds(train, found: list, classes: int) -> list[dict]:
    """The optimum of each strength, to 1e-5 where that is reached: what all are measured against.

    Each goes on from what the protocol found; of both lower bounds the higher one counts.
    """
    bounds = []
    for fitted in found:
        clock = Clock()
        solution = solvers.minimize(
            *(train.inputs, train.labels), loss="softmax", strength=fitted.head.strength,
            tolerance=BOUND, preprocessing=plain(train.inputs.shape[1]), classes=classes,
            init=fitted.params, max_iterations=MOST_ITERATIONS,
        )  # fmt: skip
        known = fitted.objective * (1 - fitted.relative_gap)
        lower = max(float(solution.lower_bound), known)
        bounds.append({
            "strength": fitted.head.strength,
            "lower_bound": lower,
            "relative_gap": 1 - lower / min(float(solution.objective), fitted.objective),
            "params": solution.params,
            **clock.read(),
        })  # fmt: skip
        say(f"bound at {bounds[-1]['strength']:.1e}: {bounds[-1]['seconds']:.1f} s, "
            f"gap {bounds[-1]['relative_gap']:.1e}")  # fmt: skip
    return bounds


def few_shot(train, validation, test, classes: int) -> dict:
    """The preset `few-shot`: for each number of shots the strength best over its draws."""
    preset, clock, statistics = PRESETS["few-shot"], Clock(), plain(train.inputs.shape[1])
    heads = []
    for shots in preset.shots:
        strengths = strengths_for(preset, shots * classes)
        heads += sweep.grid(strengths, seeds=preset.seeds, shots=(shots,))
    fitted = sweep.solve(heads, train, validation, classes=classes, statistics=statistics,
                         tolerance=TOLERANCE)  # fmt: skip
    spent, rows = clock.read(), []
    for shots in preset.shots:
        own = [found for found in fitted if found.head.shots == shots]
        by_strength = {}
        for found in own:
            by_strength.setdefault(found.head.strength, []).append(found)
        best = max(by_strength.values(), key=lambda f: np.mean([h.validation_accuracy for h in f]))
        shares = [accuracy(*found.params, test) for found in best]
        rows.append({
            "shots": shots,
            "draws": len(best),
            "strength": best[0].head.strength,
            "test_accuracy": float(np.mean(shares)),
            "spread": float(np.std(shares, ddof=1)),
            "least": min(shares),
            "most": max(shares),
        })  # fmt: skip
    certified = sum(found.relative_gap <= TOLERANCE for found in fitted)
    return {"heads": len(heads), "certified": certified, **spent, "shots": rows}


def ratios(jaxlin: dict, rows: list[dict]) -> dict:
    """Seconds of all 96 strengths, extrapolated from the mean of those measured."""
    found = {"measured": len(rows)}
    for kind in ("seconds", "processor_seconds"):
        found[kind] = jaxlin["heads"] * float(np.mean([row[kind] for row in rows]))
        found[f"times_jaxlin_{kind}"] = found[kind] / jaxlin["solving"][kind]
    best = max(rows, key=lambda row: (row["validation_accuracy"], row["strength"]))
    found["chosen"], found["validation_accuracy"] = best["strength"], best["validation_accuracy"]
    found["excess"] = [min(r["excess"] for r in rows), max(r["excess"] for r in rows)]
    return found


def run(args, keep) -> dict:
    """All of it; `keep` gets what there is after every peer."""
    start, stop = map(int, args.columns.split(":"))
    train, validation, test = load(args.features, slice(start, stop), args.limit, args.seed)
    classes = int(train.labels.max()) + 1
    result = {
        "features": f"{args.features.name}, columns {args.columns}",
        "shape": [len(train.labels) + len(validation.labels), train.inputs.shape[1]],
        "classes": classes,
        "fitted_on": len(train.labels),
        "machine": f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start",
        "date": datetime.date.today().isoformat(),
        "versions": {name: _version(name) for name in ("jaxlin", "jax", "scikit-learn", "torch")},
    }
    result["jaxlin"], fitted = jaxlin_protocol(train, validation, test, classes)
    say(f"jaxlin: {result['jaxlin']['solving']['seconds']:.1f} s for 96 strengths, test accuracy "
        f"{result['jaxlin']['test_accuracy']:.4f}")  # fmt: skip
    result["lambda_of_strength"] = 1 / strength_for(1.0, PROTOCOL.units, len(train.labels))
    result["curve"] = [[f.head.strength, f.validation_accuracy] for f in fitted]
    best = result["jaxlin"]["chosen"]
    asked = sorted(fitted, key=lambda f: f.head.strength)[args.every // 2 :: args.every]
    asked.sort(key=lambda f: abs(np.log(f.head.strength / best)))
    bounds = certified_bounds(train, asked, classes)
    result["bounds"] = [{k: v for k, v in b.items() if k != "params"} for b in bounds]
    pairs = list(zip(asked, bounds, strict=True))
    rows = result["fits"] = {
        "jaxlin": [measured(*f.params, train, validation, b) for f, b in pairs],
        "jaxlin to 1e-5": [measured(*b["params"], train, validation, b) for b in bounds],
    }
    result["peers"] = {}
    keep(result)
    for name in args.peers:
        if name == "torch":
            rows[name] = torch_peer(train, validation, bounds, classes, args.seed)
        else:
            rows[name] = scikit_peer(name, train, validation, bounds, args.seconds, args.tol)
        result["peers"][name] = ratios(result["jaxlin"], rows[name])
        keep(result)
    if args.few_shot:
        result["few_shot"] = few_shot(train, validation, test, classes)
    return result


def draw(result: dict, path: Path) -> None:
    """Excess over the certified bound, and validation accuracy, by strength."""
    figure, axes = new_figure(8.6, 3.8, columns=2)
    left, right = axes[0]
    right.plot(*zip(*sorted(result["curve"]), strict=True), "-", color=COLORS[0],
               label="jaxlin, all 96")  # fmt: skip
    for color, name in zip(COLORS, TITLES, strict=False):
        rows = sorted(result["fits"].get(name, []), key=lambda row: row["strength"])
        if not rows:
            continue
        strengths = [row["strength"] for row in rows]
        excess = [max(row["excess"], 1e-7) for row in rows]
        left.plot(strengths, excess, "o-", color=color, label=TITLES[name])
        if name != "jaxlin":
            shares = [row["validation_accuracy"] for row in rows]
            right.plot(strengths, shares, "o--", color=color, label=TITLES[name])
    left.axhline(TOLERANCE, color=INK, linewidth=0.8, linestyle=":")
    left.set(xscale="log", yscale="log")
    right.set_xscale("log")
    tidy(left, title="How far above the optimum each stopped", x="strength of the penalty",
         y="relative excess over a certified bound")  # fmt: skip
    best = max(share for _, share in result["curve"])
    right.set_ylim(best - 0.12, best + 0.02)  # where a choice is made
    tidy(right, title="What is chosen by", x="strength of the penalty", y="validation accuracy")
    left.legend(frameon=False, fontsize=8)
    right.legend(frameon=False, fontsize=8)
    save(figure, path)


def table(result: dict) -> str:
    """The numbers in Markdown."""
    ours, rows = result["jaxlin"], []
    low, high = ours["test_interval"]
    lines = [
        f"{result['shape'][0]:,} x {result['shape'][1]:,} features, {result['classes']} classes; "
        f"{result['fitted_on']:,} rows are fitted, the rest chooses. {result['machine']}, "
        f"{result['date']}, "
        + ", ".join(f"{name} {number}" for name, number in result["versions"].items())
        + ".",
        "",
        "| solver | fits measured | s for 96 | times jaxlin | processor times jaxlin | excess over "
        "the bound | chosen strength | validation accuracy |",
        "|---" * 8 + "|",
        f"| jaxlin | {ours['heads']} | {ours['solving']['seconds']:.0f} | 1 | 1 | certified to "
        f"{ours['largest_relative_gap']:.0e} | {ours['chosen']:.2g} | "
        f"{ours['validation_accuracy']:.4f} |",
    ]
    for name, found in result["peers"].items():
        least, most = found["excess"]
        asked, chosen = len(result["bounds"]), " | "
        if found["measured"] == asked:  # a choice among a part of them is none
            chosen = f"{found['chosen']:.2g} | {found['validation_accuracy']:.4f}"
        lines.append(
            f"| {TITLES[name]} | {found['measured']} of {asked} | {found['seconds']:,.0f} "
            f"(extrapolated) | {found['times_jaxlin_seconds']:.1f} | "
            f"{found['times_jaxlin_processor_seconds']:.1f} | {least:.0e} to {most:.0e} | "
            f"{chosen} |"
        )
    lines += [
        "",
        f"jaxlin, refitted on all {result['shape'][0]:,} rows: test accuracy "
        f"{ours['test_accuracy']:.4f} (95 % interval {low:.4f} to {high:.4f}); the whole protocol, "
        f"compilation included, {ours['whole']['seconds']:.0f} s.",
        "",
        "| strength | " + " | ".join(f"{n}: excess | accuracy" for n in result["fits"]) + " |",
        "|---" * (1 + 2 * len(result["fits"])) + "|",
    ]
    found = {n: {r["strength"]: r for r in rows} for n, rows in result["fits"].items()}
    for bound in sorted(result["bounds"], key=lambda b: b["strength"]):
        cells = [f"{bound['strength']:.2g}"]
        for rows in found.values():
            row = rows.get(bound["strength"])
            cells += ["", ""] if row is None else [
                f"{row['excess']:.1e}", f"{row['validation_accuracy']:.4f}"
            ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    if "few_shot" in result:
        shot = result["few_shot"]
        lines += [
            "",
            f"Few-shot, {shot['heads']} heads ({shot['certified']} certified) in "
            f"{shot['seconds']:.1f} s:",
            "",
            "| shots a class | test accuracy, mean of the draws | spread | least | most |",
            "|---" * 5 + "|",
        ]
        lines += [
            f"| {row['shots']} | {row['test_accuracy']:.4f} | {row['spread']:.4f} | "
            f"{row['least']:.4f} | {row['most']:.4f} |"
            for row in shot["shots"]
        ]
    return "\n".join(lines) + "\n"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=Path, required=True, help="a folder of features")
    parser.add_argument("--columns", default="0:1280", help="START:STOP, those of a layer")
    parser.add_argument("--every", type=int, default=12, help="of the 96 strengths, for the peers")
    parser.add_argument("--peers", default=",".join(PEERS))
    late = "no further fit of a scikit-learn solver is begun after so long"
    parser.add_argument("--seconds", type=float, default=300, help=late)
    parser.add_argument("--tol", type=float, default=1e-4, help="scikit-learn's `tol`")
    parser.add_argument("--few-shot", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--name", default="probe", help="of what it writes")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(arguments)
    args.peers = peers_named(parser, args.peers, PEERS)

    def keep(result: dict) -> None:
        if args.out is None:
            return
        for folder in ("tables", "pictures"):
            (args.out / folder).mkdir(parents=True, exist_ok=True)
        text = json.dumps(result, indent=1) + "\n"
        (args.out / "tables" / f"{args.name}.json").write_text(text, encoding="utf-8")
        (args.out / "tables" / f"{args.name}.md").write_text(table(result), encoding="utf-8")
        draw(result, args.out / "pictures" / f"{args.name}.png")

    result = run(args, keep)
    keep(result)
    print(json.dumps(result) if args.json else table(result))


if __name__ == "__main__":
    main()
