"""What is left of an affine slice after the products: sums over examples at every point.

A kernel takes one block of rows: its scores (3, C, K), of the point and of both directions, its
`labels` (C,), `real` (C,), which is False for padding, and the steps a (T1,) and b (T2,). It
returns the sum over the block, (T1, T2). A ray is a plane with the second direction 0 and b = 0.
"""

__all__ = ["Kernel", "block_sizes", "choose", "chunk_losses", "chunk_sums"]

from collections.abc import Callable, Iterator, Sequence
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxlin import losses
from jaxlin.blocks import Blocks
from jaxlin.landscape._scores import SliceData, products
from jaxlin.precision import jit

_UNROLLED_CLASSES = 32  # an expression of more terms takes long to compile
_SAFE_RANGE = {4: 60.0, 8: 600.0}  # of exponents, by itemsize; exp underflows at -87 and -708
_PIECES = 8  # of the second axis, where one is not safe
_FACTORS = 50  # numbers in [1, 2) multiplied before a logarithm: below 2**50, never overflows


class Kernel(NamedTuple):
    """A kernel with its settings: equal for equal ones, so that they share a compiled program."""

    function: Callable
    settings: tuple = ()

    def __call__(self, *block: Any) -> Array:
        return self.function(*block, *self.settings)


def choose(loss: Callable, quantity: str, classes: int, points: int) -> Kernel:
    """The fastest kernel that gives `quantity`; an unknown loss is evaluated point by point.

    `points`: how many scores of points are evaluated at once (`jaxlin.blocks`).
    """
    if quantity == "accuracy":
        return Kernel(_correct)
    base, margin = _base_and_margin(loss)
    sums = {
        losses.weston_watkins_hinge: ("wrong", 1),
        losses.squared_weston_watkins_hinge: ("wrong", 2),
        losses.one_vs_rest_hinge: ("all", 1),
        losses.squared_one_vs_rest_hinge: ("all", 2),
    }
    largest = {losses.crammer_singer_hinge: 1, losses.squared_crammer_singer_hinge: 2}
    if base is losses.softmax_cross_entropy:
        return Kernel(_softmax)
    if base in sums:
        return Kernel(_sum_of_hinges, (*sums[base], margin))
    if base in largest:
        return Kernel(_largest_hinge, (largest[base], margin))
    return Kernel(_pointwise, (loss, points))


def _counts(kernel: Kernel) -> bool:
    """Whether it counts right answers, which are always finite."""
    return kernel.function is _correct


def _base_and_margin(loss: Callable) -> tuple[Callable, float]:
    """The loss inside `partial(loss, margin=number)`; any other partial is a loss of its own."""
    if isinstance(loss, partial) and not loss.args and loss.keywords.keys() == {"margin"}:
        try:
            return loss.func, float(loss.keywords["margin"])
        except TypeError:  # one margin for each example
            return loss, 1.0
    return loss, 1.0


def block_sizes(data: SliceData, shape: Sequence[int], blocks: Blocks) -> tuple[int, int]:
    """Rows of a block, and of a chunk, a whole number of blocks."""
    points = shape[0] * shape[1]
    (_, classes, features), itemsize = data.weights.shape, data.weights.dtype.itemsize
    block = min(
        blocks.slice_terms // points,
        blocks.slice_bytes // (features * itemsize),
        blocks.slice_factors // (classes * (shape[0] + shape[1])),
        blocks.slice_rows,
    )
    block = min(max(block, 16 if points < 1_000_000 else 1), len(data.labels))
    if block > _FACTORS:
        block -= block % _FACTORS
    count = min(-(-len(data.labels) // block), max(1, blocks.piece_rows // block))
    return block, block * count


@partial(jit, static_argnums=(0, 1))
def chunk_sums(
    kernel: Kernel,
    block: int,
    maps: Any,
    inputs: Array,
    labels: Array,
    count: Array,
    a: Array,
    b: Array,
) -> Array:
    """Sums over the first `count` rows of a chunk, (T1, T2)."""

    def step(total: Array, rows: tuple[Array, Array, Array]) -> tuple[Array, None]:
        x, y, real = rows
        scores = _scores(maps, x)
        # compiled maxima may drop a NaN, so that what is not finite is looked for here
        sound = _sound(jnp.where(real[None, :, None], scores, 0), a, b) | _counts(kernel)
        sums = kernel(_tamed(scores), y, real, a, b)
        return total + jnp.where(sound, sums, jnp.nan), None

    real = jnp.arange(len(labels)) < count
    zero = jnp.zeros((len(a), len(b)), a.dtype)
    return lax.scan(step, zero, _blocks(block, inputs, labels, real))[0]


@partial(jit, static_argnums=(0, 1, 2))
def chunk_losses(
    loss: Callable,
    block: int,
    points: int,
    maps: Any,
    inputs: Array,
    labels: Array,
    count: Array,
    a: Array,
    b: Array,
) -> Array:
    """One loss per example and point, (rows, T1, T2)."""

    def step(rows: tuple[Array, Array, Array]) -> Array:
        x, y, _ = rows
        scores = _scores(maps, x)
        values = _at_points(_tamed(scores), a, b, lambda s: loss(s, y), points)
        sound = jax.vmap(_sound, (1, None, None))(scores, a, b)
        return jnp.where(sound, values.T.reshape(sound.shape), jnp.nan)

    values = lax.map(step, _blocks(block, inputs, labels, labels))
    return values.reshape(len(labels), len(a), len(b))


def _blocks(block: int, *arrays: Array) -> Any:
    return tuple(array.reshape(-1, block, *array.shape[1:]) for array in arrays)


def _scores(maps: Any, inputs: Array) -> Array:
    """(3, C, K); zeros for a second direction that is not there."""
    count, classes = maps[1].shape
    scores = jnp.moveaxis(products(maps, inputs).reshape(len(inputs), count, classes), 1, 0)
    return jnp.concatenate([scores, jnp.zeros((3 - count, *scores.shape[1:]), scores.dtype)])


def _sound(scores: Array, a: Array, b: Array) -> Array:
    """(T1, T2): the steps at which all of `scores` (3, ...) are numbers that can be added.

    Those of a direction may be infinite at step 0, which does not move the point.
    """
    axes = tuple(range(1, scores.ndim))
    finite = jnp.all(jnp.isfinite(scores), axis=axes)
    known = finite[0] & ~jnp.any(jnp.isnan(scores))
    return known & (finite[1] | (a == 0))[:, None] & (finite[2] | (b == 0))[None, :]


def _tamed(scores: Array) -> Array:
    """Large scores of directions for infinite ones, so that a step of 0 makes them 0."""
    bound = jnp.finfo(scores.dtype).max / 4  # differences of two are finite
    return scores.at[1:].set(jnp.clip(scores[1:], -bound, bound))


def _from_label(scores: Array, labels: Array) -> tuple[Array, Array]:
    """Scores less the label's, (3, C, K), and where the label is, (C, K)."""
    is_label = jax.nn.one_hot(labels, scores.shape[-1], dtype=bool)
    own = jnp.take_along_axis(scores, labels[None, :, None], axis=-1)
    return scores - own, is_label


def _sum_of_hinges(
    scores: Array,
    labels: Array,
    real: Array,
    a: Array,
    b: Array,
    classes: str,
    power: int,
    margin: float,
) -> Array:
    """sum of max(0, c + b d)**power over examples and classes, with c affine in a."""
    if classes == "wrong":
        lines, is_label = _from_label(scores, labels)
        used = real[:, None] & ~is_label
    else:
        is_label = jax.nn.one_hot(labels, scores.shape[-1], dtype=bool)
        lines, used = jnp.where(is_label, -scores, scores), real[:, None]
    used = jnp.broadcast_to(used, lines.shape[1:])
    z0, z1, z2 = jnp.where(used, lines, 0).reshape(3, -1)
    z0 = z0 + jnp.where(used.ravel(), jnp.asarray(margin, z0.dtype), 0)
    c = z0[None, :] + a[:, None] * z1[None, :]
    shortfalls = jax.nn.relu(c[:, None, :] + b[None, :, None] * z2[None, None, :])
    return jnp.sum(shortfalls**power, axis=-1)


def _largest_hinge(
    scores: Array, labels: Array, real: Array, a: Array, b: Array, power: int, margin: float
) -> Array:
    """sum over examples of max(0, largest of the wrong classes' margins)**power."""
    lines, is_label = _from_label(scores, labels)
    used = real[:, None] & ~is_label
    lines = jnp.where(used, lines, 0)  # the label's line is the 0 of max(0, .)
    lines = lines.at[0].add(jnp.where(used, jnp.asarray(margin, lines.dtype), 0))
    if lines.shape[-1] <= _UNROLLED_CLASSES:
        worst = reduce(jnp.maximum, _each_class(lines, a, b))
    else:
        worst = jnp.max(_all_classes(lines, a, b), axis=1)
    return jnp.sum(worst**power, axis=0)


def _correct(scores: Array, labels: Array, real: Array, a: Array, b: Array) -> Array:
    """How many examples have the label's score as the first largest one."""
    lines, is_label = _from_label(scores, labels)
    classes = jnp.arange(scores.shape[-1])
    first = classes[None, :] < labels[:, None]  # wins a tie against the label
    right = jnp.broadcast_to(real[:, None, None], (len(labels), len(a), len(b)))
    lines = jnp.where(is_label[None] & ~jnp.isnan(lines), 0, lines)  # a NaN is never right
    if lines.shape[-1] <= _UNROLLED_CLASSES:
        for k, line in enumerate(_each_class(lines, a, b)):
            right &= jnp.where(first[:, k, None, None], line < 0, line <= 0)
    else:
        ahead, after = (jnp.where(chosen, lines, 0) for chosen in (first, ~first))
        ahead = ahead.at[0].add(jnp.where(first, 0, -1))
        right &= jnp.max(_all_classes(ahead, a, b), axis=1) < 0
        right &= jnp.max(_all_classes(after, a, b), axis=1) <= 0
        right &= ~jnp.isnan(lines).any(axis=(0, 2))[:, None, None]  # maxima may drop it
    return jnp.sum(right, axis=0).astype(a.dtype)


def _all_classes(lines: Array, a: Array, b: Array) -> Array:
    """The lines' values (C, K, T1, T2), for a maximum over the classes: never all made."""
    z0, z1, z2 = lines[..., None, None]
    return (z0 + z1 * a[None, None, :, None]) + z2 * b[None, None, None, :]


def _each_class(lines: Array, a: Array, b: Array) -> Iterator[Array]:
    """The lines' values (C, T1, T2), class by class."""
    for k in range(lines.shape[-1]):
        z0, z1, z2 = (z[:, k, None, None] for z in lines)
        yield (z0 + z1 * a[None, :, None]) + z2 * b[None, None, :]


def _softmax(scores: Array, labels: Array, real: Array, a: Array, b: Array) -> Array:
    """sum over examples of logsumexp(s) - s_label, by separation in as few pieces as is safe."""
    lines, _ = _from_label(scores, labels)
    lines = jnp.where(real[:, None], lines, 0)
    spread = jnp.max(jnp.max(lines[2], axis=-1) - jnp.min(lines[2], axis=-1))
    pieces = sorted({1, min(_PIECES, len(b)), len(b)})  # one piece a step is safe for any scores
    unsafe = [
        ~(spread * _radius(_in_pieces(b, count)) <= _SAFE_RANGE[b.dtype.itemsize])
        for count in pieces[:-1]
    ]
    # a spread that is not a number is never safe, and ends in the last branch
    return lax.switch(
        sum(flag.astype(jnp.int32) for flag in unsafe) if unsafe else 0,
        [partial(_softmax_in_pieces, count) for count in pieces],
        *(lines, real, a, b),
    )


def _in_pieces(b: Array, count: int) -> Array:
    """The steps b in `count` pieces (count, L); the last is filled up with its last step."""
    length = -(-len(b) // count)
    return jnp.pad(b, (0, count * length - len(b)), mode="edge").reshape(count, length)


def _middle(pieces: Array) -> Array:
    return (jnp.max(pieces, axis=1) + jnp.min(pieces, axis=1)) / 2


def _radius(pieces: Array) -> Array:
    return jnp.max(jnp.abs(pieces - _middle(pieces)[:, None]))


def _softmax_in_pieces(count: int, lines: Array, real: Array, a: Array, b: Array) -> Array:
    """The steps b are taken in pieces, each separated about its middle."""
    pieces = _in_pieces(b, count)

    def piece(steps: Array) -> Array:
        around, middle = steps
        moved = lines.at[0].add(middle * lines[2])
        return _separated_softmax(moved, real, a, around - middle)

    sums = lax.map(piece, (pieces, _middle(pieces)))
    return jnp.moveaxis(sums, 0, 1).reshape(len(a), -1)[:, : len(b)]


def _separated_softmax(lines: Array, real: Array, a: Array, b: Array) -> Array:
    """exp(z0 + a z1 + b z2) = exp(z0 + a z1) exp(b z2), each factor shifted by its largest.

    The largest term of each factor is then 1, and the sum of products at least exp(-r) for a
    spread r of b z2 over the classes. Within `_SAFE_RANGE` what the underflow of one factor
    takes from the sum is below rounding.
    """
    u = lines[0][:, :, None] + lines[1][:, :, None] * a[None, None, :]
    v = lines[2][:, :, None] * b[None, None, :]
    top_u, top_v = u.max(axis=1), v.max(axis=1)
    e, f = jnp.exp(u - top_u[:, None, :]), jnp.exp(v - top_v[:, None, :])
    if lines.shape[-1] <= _UNROLLED_CLASSES:
        terms = (e[:, k, :, None] * f[:, k, None, :] for k in range(lines.shape[-1]))
        partition = reduce(jnp.add, terms)
    else:
        partition = jnp.einsum("nka,nkb->nab", e, f, precision=lax.Precision.HIGHEST)
    logarithms = _sum_of_logarithms(jnp.where(real[:, None, None], partition, 1))
    tops = [jnp.sum(jnp.where(real[:, None], top, 0), axis=0) for top in (top_u, top_v)]
    return logarithms + tops[0][:, None] + tops[1][None, :]


def _sum_of_logarithms(x: Array) -> Array:
    """sum over the leading axis of log x, for positive normal numbers, with few logarithms.

    A number is 2**exponent times a mantissa in [1, 2). Exponents are added as integers, and the
    logarithm of many mantissas is taken of their product. A TPU, whose float64 is a pair of
    float32, has no bits of it to be read.
    """
    by_bits = partial(_logarithms_by_bits, wide=x.dtype.itemsize == 8)
    return lax.platform_dependent(x, tpu=_plain_logarithms, default=by_bits)


def _plain_logarithms(x: Array) -> Array:
    return jnp.sum(jnp.log(x), axis=0)


def _logarithms_by_bits(x: Array, *, wide: bool) -> Array:
    integer, digits, bias = (jnp.int64, 52, 1023) if wide else (jnp.int32, 23, 127)
    bits = lax.bitcast_convert_type(x, integer)
    exponents = jnp.sum((bits >> digits) - bias, axis=0, dtype=integer)
    one = integer(bias << digits)
    mantissas = lax.bitcast_convert_type((bits & integer((1 << digits) - 1)) | one, x.dtype)
    groups = mantissas.reshape(-1, min(len(x), _FACTORS), *x.shape[1:])
    logarithms = jnp.sum(jnp.log(jnp.prod(groups, axis=1)), axis=0)
    return logarithms + exponents.astype(x.dtype) * jnp.log(jnp.asarray(2, x.dtype))


def _pointwise(
    scores: Array, labels: Array, real: Array, a: Array, b: Array, loss: Callable, points: int
) -> Array:
    """The sum of any loss, evaluated at every point."""

    def total(s: Array) -> Array:
        return jnp.sum(jnp.where(real, loss(s, labels), 0), dtype=s.dtype)

    sums = _at_points(scores, a, b, total, points)
    return sums.reshape(len(a), len(b))


def _at_points(scores: Array, a: Array, b: Array, function: Callable, points: int) -> Array:
    """`function` of the scores (C, K) at every point, `points` scores at a time, (T1 * T2, ...)."""
    s0, s1, s2 = scores

    def value(i: Array) -> Array:
        return function(s0 + a[i // len(b)] * s1 + b[i % len(b)] * s2)

    batch = max(1, min(len(a) * len(b), points // s0.size))
    return lax.map(value, jnp.arange(len(a) * len(b)), batch_size=batch)
