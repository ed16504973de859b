"""Does a ripple or a staircase that hides near the rounding of the values get a false verdict?

Functions of 1 to 7 variables carry a sine, a saw, a sine on a parabola ("chirp") or stairs whose
periods are 1/3000 to 1/3 of x and whose heights are 1 to 1,000 units of rounding, in float64,
float32 and float16. As many more are rough at any height, in bfloat16, too: |sin|, a sawtooth that
jumps, squared hinges and roots that begin near x, a sum of ever faster cosines (Weierstrass), a
product of saws. Their gradients are known on paper. The right one and a wrong one go to
`check_gradient`, in quick and in full mode. False are: FAIL or KINK of the right one; KINK of the
wrong one, or PASS where it is off by more than the report says could have been seen.

    python experiments/verdict_stress.py --seeds 600 --out runs/stress

Printed is a table: family, dtype, verdicts of right and of wrong gradients, the false ones. A false
one counts as hidden where no value can tell: the ripple of an entry is at most one unit of rounding
high, or shorter than 16 units of rounding of x in the dtype of the values.
"""

import dataclasses
import itertools
import json
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import tyro

from jaxlin.gradients import check_gradient

FAMILIES = ("sin", "stairs", "saw", "chirp")
ROUGH = ("|sin|", "jumps", "squared hinge", "root", "Weierstrass", "product")
DTYPES = (np.float64, np.float32, np.float16, jnp.bfloat16)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Count false verdicts on functions whose slope hides near the rounding of their values."""

    seeds: int = 600
    """Functions of each of both kinds, each checked four times."""
    first: int = 0
    """The first seed."""
    out: Path | None = None
    """Folder for verdict_stress.json and stress.md."""
    json: bool = False
    """Print one JSON object on stdout."""


class Ripple(NamedTuple):
    """A function, and what is known of it."""

    family: str
    dtype: str
    f: object
    x: np.ndarray
    right: np.ndarray
    wrong: np.ndarray
    hidden: np.ndarray
    """(n,): whether the ripple of an entry does nothing that rounding would not do, too."""


def ripple(seed: int) -> Ripple:
    """The function of a seed."""
    rng = np.random.default_rng(10**6 + seed)
    n, s = int(rng.integers(1, 8)), 10.0 ** rng.integers(-3, 4)
    x = s * rng.normal(size=n)
    dtype = np.dtype(str(rng.choice(["f8", "f4", "f2"])))
    eps = float(np.finfo(dtype).eps)
    offset = 10.0 ** rng.integers(0, 4)
    size = offset * eps * 10 ** rng.uniform(0, 3)
    a = size * rng.normal(size=n)
    period = s * 10 ** rng.uniform(-3.5, -0.5)
    family = str(rng.choice(FAMILIES))
    smooth, height = 0 * a, np.abs(a)
    if family == "stairs":
        wave, slope = (lambda t: np.floor(t + 0.3)), 0 * a
    elif family == "saw":
        wave = lambda t: np.abs((t + 0.3) % 2 - 1)  # noqa: E731
        slope = np.where((x / period + 0.3) % 2 > 1, a, -a) / period
    else:
        wave, slope, height = np.sin, a * np.cos(x / period) / period, 2 * height
        smooth = 3 * a / s**2 if family == "chirp" else smooth
    right = slope + 2 * smooth * x

    def f(x):
        return dtype.type(offset + np.sum(a * wave(x / period)) + np.sum(smooth * x**2))

    wrongs = (0 * x, right + np.abs(a).max() / period * rng.choice([-1, 1], n), 6 * a * x / s**2)
    hidden = (height <= np.spacing(np.abs(f(x)))) | (period <= 16 * eps * s)
    return Ripple(family, dtype.name, f, x, right, wrongs[rng.integers(0, 3)], hidden)


def rough(seed: int) -> Ripple:
    """The function of a seed, of the families whose ripples may be of any height."""
    rng = np.random.default_rng(7 * 10**6 + seed)
    n, s = int(rng.integers(1, 7)), 10.0 ** rng.integers(-3, 4)
    x = s * rng.normal(size=n)
    dtype = np.dtype(DTYPES[rng.choice(len(DTYPES), p=[0.5, 0.25, 0.125, 0.125])])
    eps = float(jnp.finfo(dtype).eps)
    offset = float(rng.choice([0, 1, 10, 100]))
    size = max(offset, 1e-3) * eps * 10 ** rng.uniform(0, rng.choice([3, -np.log10(eps)]))
    a = size * rng.normal(size=n)
    linear = size / s * rng.normal(size=n) * rng.integers(0, 2)
    period, phase = s * 10 ** rng.uniform(-4, -0.3), rng.random(n)
    to_kink = s * 10 ** rng.uniform(-8, -0.5, n) * rng.choice([-1, 1], n)
    kink = x - to_kink
    family = str(rng.choice(ROUGH))
    height, width, near = np.abs(a), period + 0 * a, np.abs(to_kink) / s
    if family == "|sin|":
        wave = lambda x: np.abs(np.sin(x / period + phase))  # noqa: E731
        slope = np.sign(np.sin(x / period + phase)) * np.cos(x / period + phase) / period
    elif family == "jumps":
        wave, slope = (lambda x: (x / period + phase) % 1), 1 / period
    elif family == "squared hinge":
        wave = lambda x: np.maximum(0, (x - kink) / s) ** 2  # noqa: E731
        slope = 2 * np.maximum(0, to_kink / s) / s
        height, width = height * near**2, np.abs(to_kink)
    elif family == "root":
        wave = lambda x: np.sqrt(np.abs(x - kink) / s)  # noqa: E731
        slope = np.sign(to_kink) / (2 * np.sqrt(near) * s)
        height, width = height * np.sqrt(near), np.abs(to_kink)
    elif family == "Weierstrass":
        k = np.arange(rng.integers(2, 14))[:, None]
        wave = lambda x: np.sum(0.5**k * np.cos(3.0**k * x / s + phase), axis=0)  # noqa: E731
        slope = -np.sum(1.5**k * np.sin(3.0**k * x / s + phase), axis=0) / s
        height, width = height * 0.5 ** len(k), s * 3.0 ** -len(k) + 0 * a
    else:
        wave = lambda x: np.abs((x / period + phase) % 2 - 1)  # noqa: E731
        slope = np.where((x / period + phase) % 2 > 1, 1, -1) / period
    right = a * slope + linear
    if family == "product":
        base = max(offset, 1.0)
        a = np.sign(a) * np.minimum(np.abs(a) / base, 0.5)
        factors = 1 + a * wave(x)
        right = base * np.prod(factors) / factors * a * slope
        height = np.abs(a) * base / 2  # every factor is rounded, and the product

    def f(x):
        if family == "product":
            return dtype.type(base * np.prod(1 + a * wave(x)))
        return dtype.type(offset + np.sum(a * wave(x)) + np.sum(linear * x))

    one = right.copy()
    one[rng.integers(0, n)] *= rng.choice([-1, 1 + 10 ** rng.uniform(-6, 0)])
    steep = np.abs(a * slope).max() * 10 ** rng.uniform(-3, 0)
    wrongs = (0 * x, linear * (family != "product"), one, right + steep * rng.choice([-1, 1], n))
    unit = _unit(float(f(x)), eps)
    hidden = (height <= unit) | (width <= 16 * eps * s)
    return Ripple(family, dtype.name, f, x, right, wrongs[rng.integers(0, 4)], hidden)


def _unit(value: float, eps: float) -> float:
    """The spacing of the numbers of a dtype at a value."""
    return eps * 2.0 ** np.floor(np.log2(max(abs(value), 1e-300)))


def check_ripple(case: Ripple, mode: str, seed: int) -> dict:
    """The verdicts on both gradients; which of them are false, and whether no value could tell."""
    right = check_gradient(case.f, case.x, case.right, mode=mode, key=seed)
    wrong = check_gradient(case.f, case.x, case.wrong, mode=mode, key=seed)
    off = np.abs(case.wrong - case.right)
    seen = max(wrong.smallest_error.values())
    named = [e.index[0] for e in right.entries if e.index]
    alarm = right.verdict in ("fail", "kink")
    missed = wrong.verdict in ("pass", "kink") and off.max() > seen
    told = (alarm and not case.hidden[named].all()) or (
        missed and not case.hidden[off > seen].all()
    )
    return {
        "right": right.verdict,
        "wrong": wrong.verdict,
        "false": bool(alarm or missed),
        "hidden": bool((alarm or missed) and not told),
    }


def run(options: Options) -> dict:
    """All functions, both modes."""
    rows: dict[tuple, Counter] = {}
    cases = []
    for seed in range(options.first, options.first + options.seeds):
        both = [case for case in (ripple(seed), rough(seed)) if np.isfinite(case.f(case.x))]
        for case, mode in itertools.product(both, ("quick", "full")):
            found = check_ripple(case, mode, seed)
            count = rows.setdefault((case.family, case.dtype), Counter())
            count.update([f"right {found['right']}", f"wrong {found['wrong']}"])
            count.update(name for name in ("false", "hidden") if found[name])
            if found["false"]:
                head = {"seed": seed, "family": case.family, "dtype": case.dtype, "mode": mode}
                cases.append(head | found)
    table = [{"family": family, "dtype": dtype, **count} for (family, dtype), count in rows.items()]
    return {
        "checks": 2 * sum(row[f"right {v}"] for row in rows.values() for v in VERDICTS),
        "false": len(cases),
        "hidden": sum(case["hidden"] for case in cases),
        "table": sorted(table, key=lambda row: (row["family"], row["dtype"])),
        "cases": cases,
    }


VERDICTS = ("pass", "inconclusive", "kink", "fail")


def markdown(result: dict) -> str:
    """The table for people."""
    columns = [f"{claim} {v}" for claim in ("right", "wrong") for v in VERDICTS]
    columns += ["false", "hidden"]
    lines = ["| family | dtype | " + " | ".join(columns) + " |"]
    lines.append("|---" * (len(columns) + 2) + "|")
    for row in result["table"]:
        cells = [row["family"], row["dtype"], *(str(row.get(name, 0)) for name in columns)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def save(folder: Path, result: dict) -> None:
    from benchmarks.report import save_table

    save_table(
        folder,
        "verdict_stress",
        title="False verdicts on functions drawn to hide near the rounding of their values",
        columns=["functions", "judged", "misjudged", "of these hidden from any value"],
        rows=[
            [
                "ripples, saws, stairs, roughness near rounding",
                *(f"{result[name]:,}" for name in ("checks", "false", "hidden")),
            ]
        ],
        notes=[
            "A ripple of about one unit of rounding, or a few units of the rounding of `x` long, "
            "cannot be told from rounding by any value of the function."
        ],
        changes="other families of functions: these were drawn to hide.",
        measured=result,
    )


def main() -> int:
    options = tyro.cli(Options, config=(tyro.conf.FlagCreatePairsOff,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # float16 overflows far from the point
        result = run(options)
    print(markdown(result), file=sys.stderr)
    print(
        f"{result['false']} false verdicts of {result['checks']}, "
        f"{result['hidden']} of them hidden in rounding",
        file=sys.stderr,
    )
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        save(options.out, result)
        (options.out / "stress.md").write_text(markdown(result), encoding="utf-8")
    if options.json:
        print(json.dumps(result))
    return 0 if result["false"] == result["hidden"] else 1


if __name__ == "__main__":
    sys.exit(main())
