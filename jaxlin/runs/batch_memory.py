"""Whether a run of minibatch training fits in memory, and in how many parts of a batch."""

__all__ = ["batch_parts"]

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from jaxlin.core import Batch, LinearParams
from jaxlin.distributed.processes import all_reduce
from jaxlin.distributed.sharding import width
from jaxlin.memory import HEADROOM, available_bytes, parts_within, tree_bytes
from jaxlin.stream import is_streamed


def batch_parts(
    objective: Callable[..., Any],
    optimizer: optax.GradientTransformation,
    params: LinearParams,
    data: Batch,
    *,
    batch_size: int,
    mesh: Mesh | None,
) -> int:
    """Into how many parts a batch is cut so that a step fits; decided before anything is moved.

    Args:
      objective: `(params, batch) -> scalar`.
      optimizer: whose state is kept beside the parameters.
      params: where training starts; their shapes count.
      data: the training examples, still on the host.
      batch_size: B.
      mesh: of the devices, or `None`.

    Raises:
      ValueError: one row at a time would not fit either; the message has both numbers.
    """
    device = jax.local_devices()[0]
    shards, split = (1, 1) if mesh is None else (mesh.shape["data"], mesh.shape["class"])
    free = int(HEADROOM * available_bytes(device))
    here = 1 if mesh is None else jax.local_device_count() if device.platform == "cpu" else 1
    rows = -(-len(data.labels) // shards)
    moved = rows * (data.inputs.shape[1] * np.dtype(data.inputs.dtype).itemsize + 8) * here
    if is_streamed(data.inputs) or (mesh is None and device.platform == "cpu"):
        moved = 0  # a CPU trains on the host's own arrays, and a stream comes in windows
    state = tree_bytes((params, jax.eval_shape(optimizer.init, params)))
    kept = moved + (2 * state + tree_bytes(params)) // split * here  # old, new and a gradient

    def step(size: int) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        of: Callable[..., Any] = jax.ShapeDtypeStruct  # shapes stand for arrays here
        shares = (-(-leaf.shape[0] // split) for leaf in params)
        part = LinearParams(
            *(of((s, *a.shape[1:]), a.dtype) for s, a in zip(shares, params, strict=True))
        )
        batch = Batch(
            of((size, data.inputs.shape[1]), data.inputs.dtype),
            of((size,), np.int32),
            of((size,), np.float32),
        )
        return jax.value_and_grad(objective), (part, batch)

    size = width(min(batch_size, len(data.labels)), len(data.labels), shards)
    parts = parts_within(step, size, max(free - kept, 0) // here)
    if parts == 0:
        raise ValueError(
            f"this run needs more than {kept / 2**30:.2f} GiB for rows, parameters and optimizer, "
            f"and {free / 2**30:.2f} GiB of memory can be used. Use more --devices, split the "
            "classes with --class-devices, or take fewer examples with --limit."
        )
    return int(all_reduce(parts, "max"))
