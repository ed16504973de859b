"""The compiled programs of the package at the size of ImageNet: what to check compilers with.

Nothing of that size is made: a program is a function and the shapes of its arguments, and can be
traced, lowered for a device that is not there (`jax.export`), or compiled ahead of time. Blocks are
those of an accelerator. Slices and finite differences, which are studied on small pictures, have
the size of CIFAR-10.
"""

__all__ = ["SMALL", "Program", "programs"]

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh
from numpy.typing import DTypeLike

from jaxlin import losses, models, objectives, optimizers, preprocess, steps
from jaxlin.batches import EpochPlan
from jaxlin.blocks import ACCELERATOR, Blocks
from jaxlin.core import Batch, LinearParams
from jaxlin.gradients import structured
from jaxlin.landscape import _kernels
from jaxlin.landscape._scores import SliceData
from jaxlin.landscape.hinge_profile import _products, _sizes
from jaxlin.passes import chunks, sharded
from jaxlin.passes.affine import chunk_size
from jaxlin.solvers import (
    balance,
    certificate,
    compiled,
    covariance,
    curvature,
    implicit,
    mean_loss,
    newton,
    preconditioner,
    refresh,
)
from jaxlin.solvers.dual_losses import FORMS
from jaxlin.solvers.rowwise import _columnwise, rowwise
from jaxlin.sweep import bank, few_shot, grid

N, D, K = 1_281_167, 768, 1000
BATCH = 4096
EIGHT = 8
HALF = np.float16
SINGLE = np.float32
DOUBLE = np.float64

SMALL = {
    "estimators.stream._step": "a step of `partial_fit`",
    "gradients.evaluate.Function._trace": "the function of a user",
    "gradients.evaluate.Function.gradient": "the function of a user",
    "gradients.evaluate._shared_gradient": "the function of a user",
    "gradients.evaluate._shared_values": "the function of a user",
    "gradients.jacobian_claim.acting": "the function of a user",
    "gradients.jacobian_claim._differences": "the function of a user",
    "gradients.outputs.Outputs.__init__": "the function of a user",
    "gradients.linear._near_zero": "element-wise work",
    "landscape.directions.hessian_eigenvectors": "the function of a user",
    "landscape.slices._evaluate": "the function of a user",
    "lecture": "what its chapters show, on small pictures",
    "passes.chunks.placed": "a copy",
    "preprocess._chunk_moments": "sums",
    "runs.folder._loss_compiled": "element-wise work",
    "runs.gradient_check._burned_in": "steps on what a gradient check is asked about",
    "runs.gradient_check._figure": "one gradient",
    "runs.slices._directions": "one gradient",
    "distributed.sharding._copied": "a copy",
    "solvers.history._compiled": "vectors, as large as the parameters",
    "solvers.history._put_compiled": "a copy",
    "solvers.rowwise._lifted": "element-wise work",
    "solvers.rowwise._moved": "element-wise work",
    "solvers.newton._taken_compiled": "a copy",
    "solvers.rowwise._compiled": "element-wise work, on shards",
    "sweep.progress._keep": "a copy",
}
"""What is compiled and not among the programs, or a whole room of it, and why not."""


class Program(NamedTuple):
    """A compiled function, and the shapes it meets."""

    name: str
    """Of the function, below `jaxlin`; with what tells its uses apart after a space."""
    function: Callable
    arguments: tuple
    wide: bool = False
    """It computes in float64."""
    narrow: str | None = None
    """The dtype of the operands of its products, where they are rounded on purpose."""
    steps: int = 0
    """Iterations that are its task, such as the steps of an epoch, and not blocks."""
    devices: int = 1
    """It runs on so many at once."""


def _of(shape: tuple[int, ...], dtype: DTypeLike = SINGLE) -> Any:
    return jax.ShapeDtypeStruct(shape, dtype)


def programs(
    over: Mesh | AbstractMesh | None = None, blocks: Blocks = ACCELERATOR
) -> Iterator[Program]:
    """All of them.

    Args:
      blocks: of the device.
      over: the mesh of eight devices, along an axis `data`, for the program that runs on several;
        a compiler wants real ones. Without it an abstract mesh is enough to trace and lower it.
    """
    if over is None:
        over = AbstractMesh((EIGHT,), ("data",), axis_types=(AxisType.Auto,))
    yield from _passes(over, blocks)
    yield from _proofs(blocks)
    yield from _metrics(blocks)
    yield from _minibatches()
    yield from _compiled_fits()
    yield from _slices(blocks)
    yield from _differences(blocks)


def _chunk(dtype: DTypeLike, blocks: Blocks) -> int:
    rows = chunk_size(N, D, K, np.dtype(SINGLE), blocks)
    return rows * 4 // np.dtype(dtype).itemsize


def _passes(over: Mesh | AbstractMesh, blocks: Blocks) -> Iterator[Program]:
    form, labels = FORMS["softmax"], _of((N,), np.int32)
    for dtype in (SINGLE, DOUBLE):
        rows, chunk = _of((N, D), HALF), _chunk(dtype, blocks)
        weights, bias, shift = _of((K, D), dtype), _of((K,), dtype), _of((D,), dtype)
        named = partial(Program, wide=dtype == DOUBLE)
        yield named(
            f"passes.chunks.fused {np.dtype(dtype)}",
            partial(chunks.fused, rowwise=mean_loss._rowwise_of(form, 1), chunk=chunk),
            (weights, bias, shift, rows, labels, _of((N,), dtype), (1.0,)),
        )
        yield named(
            f"passes.chunks.scores {np.dtype(dtype)}",
            partial(chunks.scores, chunk=chunk),
            (weights, bias, shift, rows),
        )
        yield named(
            f"passes.chunks.transpose {np.dtype(dtype)}",
            partial(chunks.transpose, chunk=chunk),
            (_of((K, N), dtype), shift, rows),
        )
        yield named(
            f"passes.chunks.largest_square {np.dtype(dtype)}",
            partial(chunks.largest_square, chunk=chunk_size(N, D, 0, np.dtype(dtype), blocks)),
            (rows, shift, shift),
        )
    weights, bias, shift = _of((K, D)), _of((K,)), _of((D,))
    yield Program(
        "passes.chunks.fused tf32",
        partial(
            chunks.fused,
            rowwise=mean_loss._rowwise_of(form, 1),
            chunk=_chunk(SINGLE, blocks),
            precision="tf32",
        ),
        (weights, bias, shift, rows, labels, _of((N,)), (1.0,)),
    )
    yield Program(
        "passes.chunks.mapped",
        chunks.mapped,
        (rows, _of((20_000,), np.int32), _of((D,)), _of((D,))),
    )
    yield Program(
        "passes.sharded._on_shards",
        *_sharded(form, over, blocks),
        devices=EIGHT,
    )


def _sharded(form: Any, over: Mesh | AbstractMesh, blocks: Blocks) -> tuple[Callable, tuple]:
    share = -(-N // EIGHT)
    run = sharded._on_shards.__wrapped__(
        chunks.fused, over, min(_chunk(SINGLE, blocks), share), mean_loss._rowwise_of(form, 1), (1,)
    )
    rows, labels = _of((EIGHT * share, D), HALF), _of((EIGHT * share,), np.int32)
    return run, (_of((K, D)), _of((K,)), _of((D,)), rows, labels, _of((EIGHT * share,)), (1.0,))


def _proofs(blocks: Blocks) -> Iterator[Program]:
    form, labels, shift = FORMS["softmax"], _of((N,), np.int32), _of((K,), DOUBLE)
    by_row, numbers = (_of((K, N)), labels, _of((N,), DOUBLE), 0.0), (1.0, 1.0)
    yield Program(
        "passes.chunks.evaluated",
        partial(
            chunks.evaluated,
            rowwise=rowwise(certificate._loss_at, form),
            chunk=_chunk(DOUBLE, blocks),
            kept=np.dtype(SINGLE),
        ),
        (
            *(_of((K, D), DOUBLE), shift, _of((D,), DOUBLE), _of((N, D), HALF)),
            *(by_row[1:], (*numbers, shift)),
        ),
        wide=True,
    )
    chunk = blocks.columns(K, N)
    for function, more in (
        (certificate._loss_at, ()),
        (balance._bias_newton, ()),
        (balance._bias_curve, (shift,)),
        (balance._masses_of, ()),
    ):
        yield Program(
            f"passes.chunks.total {function.__name__}",
            partial(chunks.total, rowwise=rowwise(function, form), chunk=chunk),
            (by_row, (*numbers, shift, *more)),
            wide=True,
        )
    function = rowwise(certificate._dual_point, form)
    yield Program(
        "passes.chunks.transpose_total",
        partial(chunks.transpose_total, rowwise=function, chunk=_chunk(DOUBLE, blocks)),
        (by_row, (*numbers, shift, _of((3, K), DOUBLE)), _of((D,), DOUBLE), _of((N, D), HALF)),
        wide=True,
    )
    yield Program(
        "solvers.rowwise._columnwise",
        partial(_columnwise, f=rowwise(refresh._bent_at, form), chunk=chunk),
        ((_of((K, N)), labels, 0.0, 0.0), numbers),
    )


def _metrics(blocks: Blocks) -> Iterator[Program]:
    """What a solver builds its metric from, of 6,000 sampled rows."""
    rows, form = 20_480, FORMS["softmax"]
    bend = newton._SampledBend(_of((K, rows)), _of((rows,)), _of((rows,), np.int32))
    yield Program(
        "solvers.newton._curved_compiled",
        partial(newton._curved_compiled, form, blocks.sampled),
        (_of((rows, D)), bend, _of((K, D)), _of((K,))),
    )
    yield Program("solvers.covariance._second_moment", covariance._second_moment, (_of((rows, D)),))
    square = _of((D, D))
    yield Program(
        "solvers.covariance.generalized_eigh", covariance.generalized_eigh, (square, square)
    )
    yield Program(
        "solvers.curvature._dense_blocks_compiled",
        curvature._dense_blocks_compiled,
        (_of((6000, 100)), curvature.Bends(_of((10, 6000)), _of((10, 6000)), None)),
    )
    yield Program(
        "solvers.preconditioner._blocks_compiled",
        partial(preconditioner._blocks_compiled, together=blocks.class_blocks // (6000 * 100)),
        (_of((6000, 100)), _of((K, 6000))),
    )
    yield Program(
        "solvers.preconditioner._inverses_compiled",
        preconditioner._inverses_compiled,
        (_of((K, 171, 171)), _of((171,))),
    )


def _minibatches() -> Iterator[Program]:
    heads, per_epoch = grid(np.logspace(-6, 2, 96).tolist()), -(-N // BATCH)
    data = Batch(_of((N, D), HALF), _of((N,), np.int32), None)
    plan = EpochPlan(_of((per_epoch, BATCH), np.int32), _of((per_epoch, BATCH)))
    count = _of((), np.int32)
    statistics = preprocess.Preprocessing("standardize", np.zeros(D), np.ones(D))
    for precision in ("highest", "bf16"):
        narrow = "bfloat16" if precision == "bf16" else None
        descent = bank.Descent(steps=5000, precision=precision)
        trainer = bank.bank_trainer(heads, descent, statistics)
        start = LinearParams(_of((len(heads), K, D)), _of((len(heads), K)))
        state = jax.eval_shape(trainer.init, start)
        yield Program(
            f"steps.run_chunk bank {precision}",
            partial(steps.run_chunk, trainer, per_epoch, None, run=ACCELERATOR.steps),
            (state, data, plan, count, count),
            narrow=narrow,
            steps=per_epoch,
        )
        yield Program(
            f"sweep.bank._measure_block {precision}",
            partial(bank._measure_block, (("softmax", None),), descent, bank._Frozen(statistics)),
            (start, Batch(_of((BATCH, D), HALF), _of((BATCH,), np.int32), _of((BATCH,)))),
            narrow=narrow,
        )
        score = models.score_function(statistics, precision=precision)
        trainer = steps.trainer(
            objectives.compose(score, losses.softmax_cross_entropy),
            optimizers.optimizer("adam", 1e-3),
        )
        start = LinearParams(_of((K, D)), _of((K,)))
        yield Program(
            f"steps.run_chunk {precision}",
            partial(steps.run_chunk, trainer, per_epoch, None, run=ACCELERATOR.steps),
            (jax.eval_shape(trainer.init, start), data, plan, count, count),
            narrow=narrow,
            steps=per_epoch,
        )
    yield Program(
        "models._jitted_scores",
        partial(models._jitted_scores, "standardize"),
        (start, (_of((D,)), _of((D,))), _of((BATCH, D), HALF)),
    )


def _compiled_fits() -> Iterator[Program]:
    """A bank of few-shot draws."""
    draws_, rows, classes = 32, 160, 10
    data = _of((draws_, rows, D)), _of((draws_, rows), np.int32), _of((draws_, rows))
    params = LinearParams(_of((draws_, classes, D)), _of((draws_, classes)))
    number = _of(())
    fit = partial(few_shot._fit, loss="softmax", classes=classes, one_by_one=False)
    yield Program(
        "sweep.few_shot._fit", fit, (*data, params, number, number, number, _of((), np.int32))
    )
    single = LinearParams(_of((classes, D)), _of((classes,)))
    for loss in ("softmax", "squared-hinge"):
        yield Program(
            f"solvers.compiled._solve {loss}",
            partial(compiled._solve, (loss, True)),
            (
                *(_of((rows, D)), _of((rows,), np.int32), _of((rows,)), single),
                *(_of((), np.int32), number, number, number, _of((rows, classes))),
            ),
        )
        setting = implicit.Setting(
            *(_of((rows, D)), _of((rows,)), number, number, _of((rows, classes)))
        )
        yield Program(
            f"solvers.implicit._influence {loss}",
            partial(implicit._influence, (loss, True)),
            (single, _of((rows,), np.int32), setting, single),
        )
        wide = jax.tree.map(lambda a: _of(a.shape, DOUBLE), single)
        exact = _of((), DOUBLE)
        yield Program(
            f"solvers.compiled._proofs {loss}",
            partial(compiled._proofs, (loss, True, None)),
            (
                *(wide, _of((rows, D), DOUBLE), _of((rows,), np.int32)),
                *(_of((rows,), DOUBLE), exact, _of((rows, classes), DOUBLE), exact),
            ),
            wide=True,
        )


def _slices(blocks: Blocks) -> Iterator[Program]:
    every = (losses.softmax_cross_entropy, losses.weston_watkins_hinge, losses.crammer_singer_hinge)
    for dtype, kinds in ((SINGLE, every), (DOUBLE, every[:1])):
        block, arguments = _plane(blocks, 50_000, 3072, 10, np.uint8, dtype)
        for loss in kinds:
            kernel = _kernels.choose(loss, "loss", 10, blocks.points)
            yield Program(
                f"landscape._kernels.chunk_sums {loss.__name__} {np.dtype(dtype)}",
                partial(_kernels.chunk_sums, kernel, block),
                arguments,
                wide=dtype == DOUBLE,
            )
    yield Program(
        "landscape._kernels.chunk_losses",
        partial(_kernels.chunk_losses, losses.softmax_cross_entropy, block, blocks.points),
        arguments,
        wide=True,
    )
    block, arguments = _plane(blocks, N, D, K, HALF, SINGLE)
    for loss in every:
        yield Program(
            f"landscape._kernels.chunk_sums {loss.__name__} {K} classes",
            partial(_kernels.chunk_sums, _kernels.choose(loss, "loss", K, blocks.points), block),
            arguments,
            # a piece of the steps, of which scores out of range need many, has a block's work
            steps=51 * (arguments[1].shape[0] // block) if loss is every[0] else 0,
        )
    block, rows = _sizes(N, D, blocks)
    maps = _of((2 * K, D), DOUBLE), _of((2, K), DOUBLE), None
    yield Program(
        "landscape.hinge_profile._products",
        lambda maps, inputs: _products(maps, inputs, block),
        (maps, _of((rows, D), HALF)),
        wide=True,
    )


def _plane(
    blocks: Blocks, examples: int, features: int, classes: int, stored: DTypeLike, dtype: DTypeLike
) -> tuple[int, tuple]:
    """Rows of a block, and the arguments of the sums over a plane of 51 x 51 points."""
    points = (51, 51)
    weights, bias = _of((3, classes, features), dtype), _of((3, classes), dtype)
    data = SliceData(weights, bias, None, _of((examples, features)), _of((examples,), np.int32))
    block, rows = _kernels.block_sizes(data, points, blocks)
    maps = _of((3 * classes, features), dtype), bias, None
    inputs, labels = _of((rows, features), stored), _of((rows,), np.int32)
    steps = (_of((count,), dtype) for count in points)
    return block, (maps, inputs, labels, _of((), np.int32), *steps)


def _differences(blocks: Blocks) -> Iterator[Program]:
    examples, features, classes, nodes = 50_000, 3072, 10, 4
    params = LinearParams(_of((classes, features), DOUBLE), _of((classes,), DOUBLE))
    together, rows = structured.sizes(blocks, examples, (nodes, classes, features + 1))
    labels, weights = _of((rows,), np.int32), _of((rows,), DOUBLE)
    for loss in (losses.softmax_cross_entropy, losses.weston_watkins_hinge):
        yield Program(
            f"gradients.structured._add_block {loss.__name__}",
            partial(structured._add_block, loss=loss, margin=1.0, share=True, together=together),
            (
                *(_of((nodes, classes, features + 1), DOUBLE), params),
                *(_of((rows, features), np.uint8), labels, weights),
                _of((nodes, features + 1), DOUBLE),
            ),
            wide=True,
        )
    chosen = _of((256,), np.int32)
    yield Program(
        "gradients.structured._at",
        partial(structured._at, loss=losses.softmax_cross_entropy, margin=1.0),
        (
            *(_of((examples, classes), DOUBLE), _of((examples, features), np.uint8)),
            *(_of((examples,), np.int32), _of((examples,), DOUBLE)),
            *(chosen, chosen, _of((256,), bool), _of((256, 2), DOUBLE)),
        ),
        wide=True,
    )
    yield Program(
        "gradients.structured._scores",
        structured._scores,
        (params, _of((4096, features), np.uint8)),
        wide=True,
    )
