"""How much of an array a device takes at a time: the one table of block sizes.

A processor wants blocks that stay in its cache between one operation and the next. An accelerator
wants few blocks: each costs it some ten launches of a few microseconds, whatever its size, and what
it computes meanwhile should take longer than that. A TPU has no launches.
"""

__all__ = ["ACCELERATOR", "CPU", "TPU", "Blocks", "blocks_for", "blocks_on"]

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import jax


class Blocks(NamedTuple):
    """Sizes of blocks; numbers of entries unless they say bytes or rows."""

    chunk_bytes: int
    """Features and scores of a chunk of rows; with four times as many a CPU takes half as long
    again."""
    scores: int
    """Scores of a block on which only element-wise work is done."""
    sampled: int
    """Features or scores of a block of sampled rows, kept between two products."""
    class_blocks: int
    """(class, sampled row, direction) triples of the blocks of classes that are made at once."""
    slice_bytes: int
    """Rows of a slice of the landscape, converted: kept between conversion and product."""
    slice_rows: int
    """Most rows of such a block."""
    slice_terms: int
    """(example, point) pairs of such a block."""
    slice_factors: int
    """(example, class, step) triples of such a block, where they are made at all."""
    piece_rows: int
    """Rows of a slice that are handed over at once, in whole blocks."""
    points: int
    """Scores of the points of a slice that are evaluated at once."""
    displaced_bytes: int
    """Rows of finite differences that are handed over at once, in float64."""
    displaced: int
    """(example, entry, step) triples of them that are summed at once."""
    steps: int
    """Steps of descent between two questions to the host whether to go on."""
    tile: int
    """Rows of a block are a multiple of it: others an accelerator's units for products fill up."""

    def columns(self, classes: int, size: int) -> int:
        """How many of `size` rows a block has that is only a block of their scores."""
        return min(self.tiled(max(self.scores // classes, 256)), size)

    def tiled(self, rows: int) -> int:
        """The next multiple of the tile."""
        return -(-rows // self.tile) * self.tile


CPU = Blocks(
    chunk_bytes=8 << 20,
    scores=400_000,
    sampled=1_000_000,
    class_blocks=1,
    slice_bytes=5 << 20,
    slice_rows=250,
    slice_terms=650_000,
    slice_factors=1 << 62,
    piece_rows=5000,
    points=200_000,
    displaced_bytes=1 << 25,
    displaced=1,
    steps=1,
    tile=1,
)
ACCELERATOR = Blocks(
    chunk_bytes=256 << 20,
    scores=1 << 26,
    sampled=1 << 26,
    class_blocks=1 << 26,
    slice_bytes=512 << 20,
    slice_rows=1 << 16,
    slice_terms=1 << 26,
    slice_factors=1 << 28,
    piece_rows=1 << 18,
    points=1 << 26,
    displaced_bytes=1 << 30,
    displaced=1 << 28,
    steps=32,
    tile=256,
)
TPU = ACCELERATOR._replace(chunk_bytes=16 << 20, scores=1 << 21)
"""It runs a program as a whole, without launches, has 128 MiB beside its units, and its compiler
takes two to five times as long over the blocks of a GPU."""
AMPLE_BYTES = 32 << 30
"""Memory in which a dozen arrays of float64 of the size of the blocks are no matter."""


def blocks_for(platform: str, memory: int | None = None) -> Blocks:
    """The sizes for a platform; an accelerator with less than `AMPLE_BYTES` has smaller ones.

    Args:
      platform: "cpu", "gpu" or "tpu".
      memory: bytes of the accelerator; `None` where it does not tell.

    >>> blocks_for("cpu").scores, blocks_for("gpu", 80 << 30).scores
    (400000, 67108864)
    >>> blocks_for("gpu", 8 << 30).scores
    16777216
    """
    if platform == "cpu":
        return CPU
    ample = TPU if platform == "tpu" else ACCELERATOR
    share = 1.0 if memory is None else min(1.0, memory / AMPLE_BYTES)
    return ample._replace(
        **{
            name: max(least, int(share * most))
            for name, least, most in zip(Blocks._fields, CPU, ample, strict=True)
            if most > least and name != "tile"
        }
    )


def blocks_on(device: "jax.Device") -> Blocks:
    """The sizes for a device: by its kind and all of its memory, however much of it is in use."""
    if device.platform == "cpu":
        return CPU
    return blocks_for(device.platform, (device.memory_stats() or {}).get("bytes_limit"))
