"""Memory: how much there is, how much a function takes, and in how many parts a batch fits.

The peak of a function is read off its jaxpr before anything is compiled, so that a run that cannot
fit is refused before it starts, and one that fits in parts is cut into parts.
"""

__all__ = ["available_bytes", "kept_bytes", "parts_within", "peak_bytes", "tree_bytes"]

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

HEADROOM = 0.8
"""Share of the free memory that is planned with: allocators and compilers need some."""


def available_bytes(device: jax.Device | None = None) -> int:
    """Bytes that are free for new arrays on a device (default: the first).

    An accelerator says so itself. On a CPU it is what the system calls available, or what the
    control group of this process has left, if that is less.

    >>> available_bytes() > 0
    True
    """
    device = device or jax.local_devices()[0]
    statistics = device.memory_stats() if device.platform != "cpu" else None
    if statistics and "bytes_limit" in statistics:
        return statistics["bytes_limit"] - statistics.get("bytes_in_use", 0)
    return min(_system(), _control_group())


def kept_bytes(device: jax.Device, on_cpu: int) -> int:
    """Bytes that may be kept on a device for as long as a fit takes: `on_cpu` of a CPU.

    Half of what is free on an accelerator, whose memory is there for this; the other half is for
    what is computed.

    >>> kept_bytes(jax.local_devices(backend="cpu")[0], 1000)
    1000
    """
    return on_cpu if device.platform == "cpu" else available_bytes(device) // 2


def tree_bytes(tree: Any) -> int:
    """Bytes of all arrays of a tree.

    >>> tree_bytes({"a": np.zeros((2, 3), np.float32), "b": np.zeros(2)})
    40
    """
    return sum(_bytes(leaf) for leaf in jax.tree.leaves(tree))


def parts_within(function: Callable, size: int, budget: int) -> int:
    """Into how many equal parts a batch must be cut for `function` to stay within `budget`.

    Args:
      function: `rows -> ` the jaxpr's arguments for a batch of that many rows, as a pair
        `(f, arguments)` for `jax.make_jaxpr(f)(*arguments)`.
      size: B, the rows of a whole batch.
      budget: bytes.

    Returns:
      A divisor count p: parts of ceil(B / p) rows fit. 1 if all of it fits at once, 0 if not even
      single rows do.
    """
    parts = 1
    while True:
        rows = -(-size // parts)
        f, arguments = function(rows)
        if peak_bytes(jax.make_jaxpr(f)(*arguments).jaxpr) <= budget:
            return parts
        if rows == 1:
            return 0
        parts = min(2 * parts, size)


def peak_bytes(jaxpr: Any) -> int:
    """The largest sum of intermediate arrays alive at once, if every equation made an array.

    Compilers fuse element-wise equations, so that the truth lies at or below this.
    """
    last_use = {}
    for i, equation in enumerate(jaxpr.eqns):
        for variable in equation.invars:
            if not hasattr(variable, "val"):
                last_use[variable] = i
    kept = {variable for variable in jaxpr.outvars if not hasattr(variable, "val")}
    alive = peak = 0
    made = {}
    for i, equation in enumerate(jaxpr.eqns):
        inside = max((peak_bytes(inner) for inner in _inner(equation.params)), default=0)
        for variable in equation.outvars:
            made[variable] = _bytes(variable.aval)
            alive += made[variable]
        peak = max(peak, alive + inside)
        for variable in _ending(equation, i, last_use, kept):
            alive -= made.pop(variable, 0)
    return peak


def _ending(equation: Any, i: int, last_use: dict, kept: set) -> set:
    """The variables of an equation that nothing after it needs."""
    used = {v for v in equation.invars if not hasattr(v, "val") and last_use[v] == i}
    unused = {v for v in equation.outvars if v not in last_use}
    return (used | unused) - kept


def _inner(params: dict) -> Iterator[Any]:
    """The jaxprs inside an equation (of jit, scan, cond, ...)."""
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else [value]:
            if hasattr(item, "jaxpr"):
                yield item.jaxpr
            elif hasattr(item, "eqns"):
                yield item


def _bytes(aval: Any) -> int:
    return int(np.prod(aval.shape)) * aval.dtype.itemsize if hasattr(aval, "shape") else 0


def _system() -> int:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 8 << 30  # a system that does not tell: a small machine's


def _control_group() -> int:
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            root = Path("/sys/fs/cgroup")
            return int((root / limit).read_text(encoding="utf-8")) - int(
                (root / used).read_text(encoding="utf-8")
            )
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return 1 << 62
