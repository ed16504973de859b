"""Few-shot draws of one size, all solved at once: a bank of small problems in one compiled call.

Draws of as many examples have problems of one shape, so one program solves all of them: vmapped
on an accelerator, mapped draw after draw on a CPU, which gains nothing from wider products. They
walk down the strengths together, each draw starting where the two strengths before point. Every
head is then proved in float64; one that is not within the tolerance goes on alone, from where the
bank left it.

A bank runs on one device, whatever the mesh: `solve` spreads rows, and a draw has few of them.
"""

__all__ = ["banks_of", "shapes_of", "solve_draws"]

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import Array
from numpy.typing import DTypeLike

from jaxlin import solvers
from jaxlin.core import Batch, LinearParams, Solution
from jaxlin.cpu_threads import quiet_blas
from jaxlin.passes import arithmetic
from jaxlin.precision import jit
from jaxlin.preprocess import Preprocessing
from jaxlin.solvers.dual_losses import form_of
from jaxlin.solvers.status import silent
from jaxlin.sweep.heads import FittedHead, Head
from jaxlin.sweep.path_rows import PathRows
from jaxlin.transfer import device_of

FEWEST = 30
"""Heads below which they are done one after another before two programs are compiled."""
SHARED = 2e7
"""Multiplications of a product up to which banks of several sizes are padded to one shape: that
costs less than compiling for each."""
BYTES = 2 << 30
"""That a bank may take; more draws than fit go one part after another."""
STEPS = 100


def banks_of(heads: Sequence[Head], regularizer: str) -> list[list[int]]:
    """The positions of heads that differ in seed and strength only, where a bank is worth it."""
    groups = defaultdict(list)
    for position, head in enumerate(heads):
        if head.shots is not None and head.strength > 0 and form_of(head.loss).smooth:
            groups[head.loss, head.subset.name, head.shots].append(position)
    banks = [group for group in groups.values() if len({heads[h].seed for h in group}) > 1]
    enough = sum(map(len, banks)) >= FEWEST and regularizer == "l2"
    return sorted(banks, key=lambda bank: heads[bank[0]].shots or 0) if enough else []


def shapes_of(banks: Sequence[Sequence[Head]], data: Batch, classes: int) -> list:
    """(rows, columns) of each bank's problems; small ones get the shape of the largest of them."""
    occurring, shapes = len(np.unique(data.labels)), []
    features = data.inputs.shape[1]
    for bank in banks:
        rows = (bank[0].shots or 0) * occurring
        shapes.append((rows, min(rows, int(bank[0].subset.mask(features).sum()))))
    small = [shape for shape in shapes if shape[0] * shape[1] * classes <= SHARED]
    common = tuple(np.max(small, axis=0).tolist()) if small else (0, 0)
    return [common if shape in small else shape for shape in shapes]


def solve_draws(
    bank: Sequence[Head],
    data: Batch,
    statistics: Preprocessing,
    shape: tuple[int, int],
    done: dict[Head, FittedHead],
    *,
    classes: int,
    tolerance: float,
    margin: float,
    max_iterations: int,
    dtype: DTypeLike,
    on_pass: Callable[[], None] = silent,
) -> Iterator[list[tuple[Head, Solution, PathRows]]]:
    """Solve a bank of `banks_of`, strength by strength, the strongest regularization first.

    Args:
      bank: heads of one loss, subset and number of shots.
      data, statistics, classes, tolerance, margin, max_iterations, dtype: as for `solve`.
      shape: rows and columns to pad the problems to.
      done: what is fitted so far. The caller adds what is yielded, which later strengths start
        from.
      on_pass: called before each compiled call, and each pass of a head that goes on alone.

    Yields:
      For a strength at which any head is missing, all heads, their solutions and the rows they
      belong to; all, because what is measured of many together depends on how many in its last
      bits.
    """
    if all(head in done for head in bank):
        return
    settings: dict[str, Any] = {"loss": bank[0].loss, "tolerance": tolerance, "margin": margin}
    at = {(head.seed, head.strength): head for head in bank}
    strengths = sorted({head.strength for head in bank}, reverse=True)
    seeds = sorted({head.seed for head in bank})
    with quiet_blas():
        first = {seed: next(head for head in bank if head.seed == seed) for seed in seeds}
        rows = {seed: PathRows(first[seed], data, statistics, rotate=True) for seed in seeds}
        stacked = [_padded(rows[seed], shape) for seed in seeds]
    size = _lanes(len(seeds), shape, classes)
    for t, strength in enumerate(strengths):
        if all(head in done for head in bank if head.strength == strength):
            continue
        found = []
        for begin in range(0, len(seeds), size):
            part = [min(i, len(seeds) - 1) for i in range(begin, begin + size)]
            starts = [_start(rows[seeds[i]], seeds[i], strengths[:t + 1], at, done, shape, classes)
                      for i in part]  # fmt: skip
            on_pass()
            with quiet_blas():
                solved = _solved(
                    [stacked[i] for i in part], starts, strength, min(max_iterations, STEPS),
                    classes=classes, dtype=np.dtype(dtype), **settings,
                )  # fmt: skip
            found += solved[: len(seeds) - begin]
        yield [
            (
                at[seed, strength],
                _finished(rows[seed], _unpadded(solution, rows[seed]), strength, classes=classes,
                          max_iterations=max_iterations, dtype=dtype, on_pass=on_pass, **settings),
                rows[seed],
            )
            for seed, solution in zip(seeds, found, strict=True)
            if (seed, strength) in at
        ]  # fmt: skip


def _padded(rows: PathRows, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs as the head sees them, labels and counts, filled up with rows of weight 0."""
    mapped = np.asarray(rows.inputs, np.float64) - rows.statistics.shift
    inputs = np.zeros(shape)
    inputs[: len(mapped), : mapped.shape[1]] = mapped * rows.statistics.scale
    labels, counts = np.zeros(shape[0], np.int32), np.zeros(shape[0])
    labels[: len(mapped)] = rows.labels
    counts[: len(mapped)] = 1.0 if rows.weights is None else rows.weights
    return inputs, labels, counts


def _unpadded(solution: Solution, rows: PathRows) -> Solution:
    weights = solution.params.weights[:, : rows.inputs.shape[1]]
    return solution._replace(params=LinearParams(weights, solution.params.bias))


def _lanes(draws: int, shape: tuple[int, int], classes: int) -> int:
    """How many draws go into one call."""
    size, features = shape
    floats = 12 * size * features + 50 * size * classes + 8 * features * (features + classes)
    parts = -(-draws * 4 * floats // BYTES)
    return -(-draws // parts)


def _start(
    rows: PathRows,
    seed: int,
    strengths: Sequence[float],
    at: dict[tuple[int, float], Head],
    done: dict[Head, FittedHead],
    shape: tuple[int, int],
    classes: int,
) -> LinearParams:
    """Where the solution should be: on along the path, linearly in the logarithm of strength."""
    heads = [at.get((seed, strength)) for strength in strengths[-3:-1]]
    known = [done[head] for head in heads if head in done]
    inward = [rows.inward(found.params) for found in known]
    weights, bias = np.zeros((classes, shape[1])), np.zeros(classes)
    if inward:
        ends = [(np.asarray(w, np.float64), np.asarray(b, np.float64)) for w, b in inward]
        before, last = ends[0], ends[-1]
        share = 0.0
        if len(ends) == 2:
            share = np.log(strengths[-1] / strengths[-2]) / np.log(strengths[-2] / strengths[-3])
        ahead = [new + share * (new - old) for old, new in zip(before, last, strict=True)]
        weights[:, : ahead[0].shape[1]], bias = ahead[0], ahead[1]
    return LinearParams(weights, bias)


def _solved(
    draws: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
    starts: Sequence[LinearParams],
    strength: float,
    limit: int,
    *,
    classes: int,
    dtype: np.dtype,
    loss: str,
    tolerance: float,
    margin: float,
) -> list:
    """The proved solutions of one call."""
    inputs, labels, counts = (np.stack(part) for part in zip(*draws, strict=True))
    init = LinearParams(*(np.stack(part).astype(dtype) for part in zip(*starts, strict=True)))
    with arithmetic(dtype):
        solution = _fit(
            inputs.astype(dtype), labels, counts.astype(dtype), init, dtype.type(strength),
            dtype.type(tolerance), dtype.type(margin), limit, loss=loss, classes=classes,
            one_by_one=device_of().platform == "cpu",
        )  # fmt: skip
    # what float32 makes of the numbers is not what is proved
    proved = solvers.prove(
        solution, inputs, labels, strength=strength, loss=loss, tolerance=tolerance,
        sample_weight=counts, margin=margin,
    )  # fmt: skip
    proved = proved._replace(evaluations=proved.evaluations + 1)
    return [jax.tree.map(lambda leaf, i=i: leaf[i], proved) for i in range(len(draws))]


@partial(jit, static_argnames=("loss", "classes", "one_by_one"))
def _fit(
    inputs: Array,
    labels: Array,
    counts: Array,
    init: LinearParams,
    strength: Array,
    tolerance: Array,
    margin: Array,
    limit: Array | int,
    *,
    loss: str,
    classes: int,
    one_by_one: bool,
) -> Solution:
    """A bank of fits; `one_by_one` on a CPU, as fast there, sooner compiled, and none waits."""

    def one(inputs: Array, labels: Array, counts: Array, init: LinearParams) -> Solution:
        return solvers.minimize_compiled(
            inputs, labels, strength=strength, classes=classes, loss=loss, tolerance=tolerance,
            sample_weight=counts, init=init, max_iterations=limit, margin=margin,
        )  # fmt: skip

    bank = inputs, labels, counts, init
    if one_by_one:
        return jax.lax.map(lambda draw: one(*draw), bank)
    return jax.vmap(one)(*bank)


def _finished(rows: PathRows, solution: Solution, strength: float, **settings: Any) -> Solution:
    """The solution, or where it is not within the tolerance, what the host makes of it."""
    if solution.status == solvers.Status.CONVERGED:
        return solution
    sound = all(np.isfinite(part).all() for part in solution.params)
    alone = solvers.minimize(
        rows.inputs, rows.labels, strength=strength, sample_weight=rows.weights,
        preprocessing=rows.statistics, init=solution.params if sound else None, **settings,
    )  # fmt: skip
    return alone._replace(evaluations=alone.evaluations + float(solution.evaluations))
