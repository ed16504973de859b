"""Passes over the rows of a data set in cache-sized chunks: the one place that streams and masks.

A full-batch gradient needs scores = X W^T and then R^T X, with R the derivative of the loss in
the scores. Doing both while a chunk of rows is hot reads X once instead of twice, and keeps raw
pixels as uint8 in memory: `(raw - shift) * scale` is folded into the products. Scores are class
first, (K, R) for a chunk of R rows: K is small and the rows are what a processor vectorizes over.

Three readers have the same methods:

    HostRows      NumPy and SciPy: sparse matrices, and problems so small that a compilation would
                  cost more than the fit
    DeviceRows    XLA programs on the array's device, or on slices of what does not fit
    ShardedRows   the same programs on every shard of a mesh, then one sum

`open_rows` chooses between the first two, `open_sharded` opens the third.
"""

__all__ = [
    "SMALL_PROBLEM",
    "DeviceRows",
    "HostRows",
    "ShardedRows",
    "arithmetic",
    "is_small",
    "open_rows",
    "open_sharded",
]

from jaxlin.passes.affine import arithmetic
from jaxlin.passes.device import DeviceRows
from jaxlin.passes.host import HostRows
from jaxlin.passes.opening import SMALL_PROBLEM, is_small, open_rows
from jaxlin.passes.sharded import ShardedRows, open_sharded
