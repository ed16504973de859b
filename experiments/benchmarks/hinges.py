"""What does a certified hinge cost, and how does liblinear's Crammer-Singer compare?

Weston-Watkins and Crammer-Singer hinges beside softmax on the same pixels: seconds and passes
until a relative gap is proved, compilation apart, and how many times softmax that is. liblinear
(`LinearSVC`, Crammer-Singer) proves nothing and regularizes its bias, so both it and jaxlin get a
constant feature and no intercept there, hence one objective; it is run again for each of a ladder
of iteration limits, and its distance is taken from jaxlin's proved bound.

    python experiments/benchmarks/hinges.py --data fashion-mnist --strength 5e-4
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
from full_batch import in_float32, load
from report import save_table

from jaxlin.solvers import describe, minimize

ACCURACIES = (1e-2, 1e-3, 1e-4, 1e-5)
REPEATS, LONG = 3, 60.0
"""Of a fit, warm; the fastest counts. After so many seconds of one accuracy one must do."""


def certified(inputs, labels, loss, options, **settings):
    """Seconds and passes until each gap was asked for and proved; the last solution."""
    found = {}
    for accuracy in ACCURACIES:
        if accuracy < options.tolerance * 0.99:
            continue
        times = []
        for _ in range(1 + REPEATS):
            start = time.perf_counter()
            solution = minimize(
                inputs,
                labels,
                loss=loss,
                strength=options.strength,
                tolerance=accuracy,
                **settings,
            )
            times.append(time.perf_counter() - start)
            if len(times) > 1 and sum(times) > LONG:
                break
        found[f"{accuracy:.0e}"] = {
            "seconds": min(times[1:]),
            "with_compilation": times[0],
            "passes": solution.evaluations,
            "relative_gap": solution.gap / solution.objective,
            "status": describe(solution.status).split(":")[0],
        }
    return found, solution


def liblinear(inputs, labels, bound, options):
    """(seconds, relative distance above the bound) for each limit on the iterations."""
    from sklearn.svm import LinearSVC

    curve, limit = [], 1
    C = 1 / (2 * options.strength * len(inputs))
    while True:
        model = LinearSVC(
            multi_class="crammer_singer",
            C=C,
            fit_intercept=False,
            tol=1e-9,
            max_iter=limit,
            random_state=0,
        )
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(inputs, labels)
        spent = time.perf_counter() - start
        scores = inputs.astype(np.float64) @ model.coef_.T
        own = scores[np.arange(len(labels)), labels]
        scores[np.arange(len(labels)), labels] = -np.inf
        loss = np.maximum(0, 1 + scores.max(1) - own).mean()
        value = loss + options.strength * (model.coef_**2).sum()
        curve.append((spent, value / bound - 1))
        if 2.2 * spent > options.seconds or limit >= 1 << 20:
            return curve
        limit *= 2


def times_softmax(found, softmax):
    """A cell for each accuracy that both were asked for."""
    for accuracy in map("{:.0e}".format, ACCURACIES):
        both = accuracy in found and accuracy in softmax
        times = found[accuracy]["seconds"] / softmax[accuracy]["seconds"] if both else None
        yield f"{'-' if times is None else format(times, '.1f'):>18}"


def save(folder, record):
    def cell(found):
        return f"{found['seconds']:#.3g} ({found['passes']:.0f})" if found else ""

    def shown(found):
        return [cell(found.get(f"{a:.0e}")) for a in ACCURACIES]

    rows = [[name, *shown(found)] for name, found in record.items() if isinstance(found, dict)]
    for a in ["liblinear"] if "liblinear" in record else []:
        reached = [
            next((t for t, above in record[a] if above <= wanted), None) for wanted in ACCURACIES
        ]
        rows.append(["liblinear", *("" if t is None else f"{t:.3g}" for t in reached)])
    save_table(
        folder,
        f"hinges_{record['data']}_{record['strength']:g}",
        title=f"Certified hinges beside softmax: {record['data']}, {record['rows']:,} rows, "
        f"strength {record['strength']:g}, seconds (passes) to a proved gap",
        columns=["loss", *(f"1e-{round(-np.log10(a))}" for a in ACCURACIES)],
        rows=rows,
        notes=["liblinear's seconds are to a distance above jaxlin's proved bound."],
        changes="the strength: a weaker penalty costs more passes; fewer rows, where liblinear "
        "is faster.",
        measured=record,
    )


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits", choices=["digits", "fashion-mnist", "cifar10"])
    parser.add_argument("--data-dir", default=None)
    parser.add_argument("--limit", type=int, default=None, help="rows")
    parser.add_argument("--strength", type=float, default=5e-4)
    parser.add_argument("--tolerance", type=float, default=1e-5, help="least gap to ask for")
    parser.add_argument("--seconds", type=float, default=60, help="of liblinear's longest fit")
    parser.add_argument("--losses", default="softmax,hinge,crammer-singer")
    parser.add_argument("--peers", default="liblinear", choices=["liblinear", "none"])
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)

    inputs, labels, seen = load(options.data, options.data_dir)
    inputs, labels = inputs[: options.limit], labels[: options.limit]
    record = {"data": options.data, "rows": len(labels), "strength": options.strength}
    for loss in options.losses.split(","):
        record[loss], _ = certified(inputs, labels, loss, options, preprocessing=seen)
    if options.peers == "liblinear":
        ones = np.ones((len(inputs), 1), np.float32)
        wide = np.concatenate([in_float32(inputs, seen), ones], axis=1)
        ours, solution = certified(wide, labels, "crammer-singer", options, fit_intercept=False)
        record["crammer-singer, bias regularized"] = ours
        record["liblinear"] = liblinear(wide, labels, solution.lower_bound, options)
    if options.out:
        save(options.out, record)
    if options.json:
        print(json.dumps(record))
        return
    print(f"{options.data}, {len(labels):,} rows, strength {options.strength:g}: seconds (passes)")
    print(f"{'proved relative gap':34}" + "".join(f"{a:>18.0e}" for a in ACCURACIES))
    for name, found in record.items():
        if isinstance(found, dict):
            cells = (found.get(f"{a:.0e}") for a in ACCURACIES)
            shown = (f"{c['seconds']:.2f} ({c['passes']:.0f})" if c else "-" for c in cells)
            print(f"{name:34}" + "".join(f"{cell:>18}" for cell in shown))
            if name != "softmax" and "softmax" in record:
                print(f"{'  times softmax':34}" + "".join(times_softmax(found, record["softmax"])))
    if "liblinear" in record:
        reached = (
            next((t for t, above in record["liblinear"] if above <= a), None) for a in ACCURACIES
        )
        shown = ("-" if t is None else f"{t:.2f}" for t in reached)
        print(f"{'liblinear, above the bound':34}" + "".join(f"{cell:>18}" for cell in shown))


if __name__ == "__main__":
    main()
