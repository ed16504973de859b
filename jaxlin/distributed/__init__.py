"""What only many devices, or many hosts, need; on one of them everything here is the plain thing.

    sharding    arrays over the devices of a mesh
    processes   what the processes of one run tell each other
    peers       rows that lie on the disk of another host
    cluster     who started this process, and joining the others
    launch      a supervisor around a process, so that the loss of another one ends in a sentence

`cluster` and `launch` work before JAX is imported, and so does `import jaxlin.distributed`.

>>> from jaxlin import distributed
>>> dict(distributed.sharding.mesh(1).shape)
{'data': 1, 'class': 1}
"""

from importlib import import_module
from typing import Any

__all__ = ["sharding"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return import_module(f"jaxlin.distributed.{name}")
    raise AttributeError(f"module 'jaxlin.distributed' has no attribute '{name}'")
